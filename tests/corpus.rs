//! T2: tokenised data of runs beside each other, and of runs that an earlier version made.

use crate::support::{Place, run};
use std::path::{Path, PathBuf};

const DATASETS: [&str; 2] = ["facts", "sums"];

/// The shared folder's groups of files.
fn groups(place: &Place) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.path(".tokens")).expect("a shared folder");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    found.sort();
    found
}

#[test]
fn a_second_run_takes_the_tokens_of_the_first() {
    let place = Place::new();
    let first = run(&mut place.train("first", "reference", &[])).expect(0, &[]);
    let second = run(&mut place.train("second", "reference", &[])).expect(0, &[]);
    for name in DATASETS {
        let line = |stdout: &str| {
            let line = stdout.lines().find(|line| line.starts_with(&format!("{name}: ")));
            line.expect("a line about the dataset").to_string()
        };
        assert_eq!(line(&second.stdout), line(&first.stdout) + ", shared");
    }
    assert!(place.state("first", 12) == place.state("second", 12), "shared tokens train another model");
    assert_eq!(groups(&place).len(), 2);
    // The run is complete without the shared folder and the other run.
    std::fs::remove_dir_all(place.path(".tokens")).expect("it goes");
    std::fs::remove_dir_all(place.path("first")).expect("it goes");
    let again = run(&mut place.resume("second", "reference")).expect(0, &[]);
    assert!(!again.stdout.contains(" documents, "), "{again:#?}");
    // Other held-out text is other tokens.
    let other = run(&mut place.train("other", "reference", &["held_out.fraction=0.2"])).expect(0, &[]);
    assert!(!other.stdout.contains("shared"), "{other:#?}");
}

#[test]
fn a_damaged_shared_set_is_made_again() {
    let place = Place::new();
    run(&mut place.train("first", "reference", &[])).expect(0, &[]);
    let group = groups(&place).remove(0);
    let shard = group.join("facts-00000.tokens");
    let mut bytes = std::fs::read(&shard).expect("a shard");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    // Another file of this name: the first run's own stays whole.
    std::fs::remove_file(&shard).expect("it goes");
    std::fs::write(&shard, &bytes).expect("a shard");
    let words = ["warning: ", &shard.to_string_lossy(), "facts is tokenised again"];
    let second = run(&mut place.train("second", "reference", &[])).expect(0, &words);
    assert_eq!(second.stdout.matches("shared").count(), 1, "{second:#?}");
    assert!(place.state("first", 12) == place.state("second", 12), "the tokens differ");
    let third = run(&mut place.train("third", "reference", &[])).expect(0, &[]);
    assert_eq!(third.stdout.matches("shared").count(), 2, "{third:#?}");
}

#[test]
fn a_damaged_set_of_a_run_can_be_deleted_as_its_error_says() {
    let place = Place::new();
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    // A hard link: the shared file is the same.
    let shard = place.path("run/data/facts-00000.tokens");
    let mut bytes = std::fs::read(&shard).expect("a shard");
    let last = bytes.len() - 1;
    bytes[last] ^= 4;
    std::fs::write(&shard, &bytes).expect("a shard");
    run(&mut place.resume("run", "reference"))
        .expect(2, &[&shard.to_string_lossy(), "remove it, and it is made again"]);
    std::fs::remove_file(&shard).expect("it goes");
    run(&mut place.resume("run", "reference")).expect(0, &["facts is tokenised again"]);
    run(&mut place.resume("run", "reference")).expect(0, &[]);
}

#[test]
fn a_run_with_the_earlier_names_of_held_out_sets_is_resumed() {
    let place = Place::new();
    run(place.train("run", "reference", &[]).args(["--until", "5"])).expect(0, &[]);
    run(&mut place.train("whole", "reference", &[])).expect(0, &[]);
    std::fs::remove_dir_all(place.path(".tokens")).expect("it goes");
    for path in files(&place.path("run/data")) {
        let name = path.file_name().expect("a name").to_string_lossy().replace(".held-out", "-held-out");
        std::fs::rename(&path, path.with_file_name(name)).expect("another name");
    }
    let outcome = run(&mut place.resume("run", "reference")).expect(0, &[]);
    assert!(!outcome.stdout.contains(" documents, "), "tokenised again: {outcome:#?}");
    assert!(place.state("run", 12) == place.state("whole", 12), "resumed weights differ");

    // A dataset of that name is not taken for the held-out text of another.
    let recipe = ["datasets.1.name=facts-held-out", "datasets.1.microcosm=lessons"];
    let mixtures = ["stages.0.mixture={facts=0.5,facts-held-out=0.5}", "stages.1.mixture={facts=1.0}"];
    let overrides = [recipe, mixtures].concat();
    let outcome = run(&mut place.train("named", "reference", &overrides)).expect(0, &[]);
    assert!(outcome.stdout.contains("facts-held-out: 40 documents"), "{outcome:#?}");
    let sets = files(&place.path("named/data")).len();
    assert_eq!(sets, 8, "a manifest and a shard each of two sets of two datasets");
}
