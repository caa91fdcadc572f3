//! T2: what goes wrong outside the program costs at most the steps since the last checkpoint, and is named.

use crate::support::{Place, RECIPE, copy, cut_short, device, flip_a_bit, run, signal, smolter, spawn_until};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smolter::checkpoint::{TensorFile, folder};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama_grouped");

/// A run of [`RECIPE`] with checkpoints after steps 8 and 12, and after 6, where its first stage ends.
fn finished() -> Place {
    let place = Place::new();
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    place
}

/// Steps of a run with [`LONGER`].
const STEPS: u64 = 28;
const LONGER: [&str; 2] = ["stages.0.tokens=1280", "stages.1.tokens=2304"];

#[test]
fn a_kill_at_any_moment_costs_nothing() {
    let overrides = [LONGER[0], LONGER[1], "checkpoint.every=1"];
    let place = Place::new();
    run(&mut place.train("whole", "reference", &overrides)).expect(0, &[]);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut killed = 0;
    for (i, steps) in [0, 0, 1, 4, 9, 15, 19, 23].into_iter().enumerate() {
        let name = format!("killed-{i}");
        let mut training = place.train(&name, "reference", &overrides);
        let mut child = spawn_until(&mut training, &place.path(&name), steps);
        std::thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
        child.kill().expect("a kill");
        killed += usize::from(!child.wait().expect("its end").success());

        // Killed before the run began, there is nothing to resume, and the same command starts it.
        let begun = place.path(&name).join("recipe.toml").exists();
        let mut again = if begun { place.resume(&name, "reference") } else { training };
        let outcome = run(again.stderr(Stdio::piped())).expect(0, &[]);
        assert!(
            !outcome.stderr.contains("skipped a checkpoint"),
            "a kill left half a checkpoint: {outcome:#?}"
        );
        assert!(place.state("whole", STEPS) == place.state(&name, STEPS), "killed after {steps} steps");
    }
    assert!(killed >= 5, "only {killed} kills came before the end");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_and_says_how_to_go_on() {
    let place = Place::new();
    run(&mut place.train("whole", "reference", &LONGER)).expect(0, &[]);
    let child = spawn_until(&mut place.train("run", "reference", &LONGER), &place.path("run"), 5);
    signal(&child, "-INT");
    let output = child.wait_with_output().expect("its end");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{stdout}");
    let path = place.path("run");
    assert!(
        stdout.contains(&format!("continue with: smolter train --resume {}", path.display())),
        "{stdout}"
    );
    let (last, _) = folder::newest_whole(&path).expect("a folder").expect("a checkpoint");
    assert!((5..STEPS).contains(&last.state.step), "stopped after step {}", last.state.step);
    run(&mut place.resume("run", "reference")).expect(0, &[]);
    assert!(place.state("whole", STEPS) == place.state("run", STEPS), "resumed weights differ");
}

#[test]
fn a_step_already_reached_is_not_trained_again() {
    let place = Place::new();
    run(place.train("run", "reference", &[]).args(["--until", "5"])).expect(0, &[]);
    run(place.resume("run", "reference").args(["--until", "5"])).expect(0, &[]);
    let (last, _) = folder::newest_whole(&place.path("run")).expect("a folder").expect("a checkpoint");
    assert_eq!(last.state.step, 5);
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_older_one_taken() {
    let place = finished();
    for (name, damage) in [("flipped", flip_a_bit as fn(&Path)), ("short", cut_short)] {
        copy(&place.path("run"), &place.path(name));
        let newest = place.path(name).join("checkpoints/step-000012/model.safetensors");
        damage(&newest);
        let words = ["warning: skipped a checkpoint", &newest.to_string_lossy(), "damaged"];
        let outcome = run(&mut place.resume(name, "reference")).expect(0, &words);
        assert!(outcome.stdout.contains("step-000008"), "{outcome:#?}");
        assert!(place.state(name, 12) == place.state("run", 12), "{name}: resumed weights differ");
    }
    for step in ["000006", "000008", "000012"] {
        flip_a_bit(&place.path("run").join(format!("checkpoints/step-{step}/model.safetensors")));
    }
    let words = [
        "none of its 3 checkpoints is whole",
        "step-000006/model.safetensors",
        "step-000008/model.safetensors",
        "step-000012/model.safetensors",
    ];
    run(&mut place.resume("run", "reference")).expect(2, &words);
}

#[test]
fn a_damaged_shard_is_named_and_refused() {
    let place = finished();
    for (name, damage) in [("flipped", flip_a_bit as fn(&Path)), ("short", cut_short)] {
        copy(&place.path("run"), &place.path(name));
        let shard = place.path(name).join("data/facts-00000.tokens");
        damage(&shard);
        run(&mut place.resume(name, "reference")).expect(2, &[&shard.to_string_lossy(), "damaged"]);
    }
}

/// A file system of a given size in memory, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where the tests may not mount.
    fn mount(path: PathBuf, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(&path).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(SmallDisk(path))
    }

    fn grow(&self, size: &str) {
        let mut remount = Command::new("mount");
        remount.args(["-o", &format!("remount,size={size}")]).arg(&self.0);
        assert!(remount.status().expect("mount runs").success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Left behind at worst, and then the temporary folder cannot be removed either.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_last_checkpoint_stays_whole() {
    let place = finished();
    let Some(disk) = SmallDisk::mount(place.path("disk"), "1m") else {
        eprintln!("skipped: a full disk needs the right to mount");
        return;
    };
    let overrides = ["checkpoint.every=1", "checkpoint.keep=9"];
    let path = place.path("disk/full").to_string_lossy().into_owned();
    run(&mut place.train("disk/full", "reference", &overrides)).expect(1, &[&path, "No space left"]);
    let (newest, warnings) =
        folder::newest_whole(&place.path("disk/full")).expect("a folder").expect("a checkpoint");
    assert!(newest.state.step >= 1 && warnings.is_empty(), "step {}, {warnings:?}", newest.state.step);
    disk.grow("16m");
    run(&mut place.resume("disk/full", "reference")).expect(0, &[]);
    assert!(place.state("disk/full", 12) == place.state("run", 12), "resumed weights differ");
}

#[test]
fn a_typo_in_a_recipe_is_placed_and_corrected() {
    let place = Place::new();
    let path = place.path("tiny.toml");
    for (right, wrong, line, words) in [
        ("peak_lr", "peek_lr", "peek_lr", "did you mean 'peak_lr'?"),
        ("[batch]\nsequences = 4", "[batch]\nsequences = \"four\"", "sequences", "batch.sequences"),
        ("{ facts = 0.7", "{ fatcs = 0.7", "mixture = { fatcs", "did you mean 'facts'?"),
        ("[schedule]", "[schedule", "[schedule", "unclosed table"),
    ] {
        let text = RECIPE.replacen(right, wrong, 1);
        let number = 1 + text.lines().position(|it| it.starts_with(line)).expect("the line of the mistake");
        std::fs::write(&path, text).expect("a recipe");
        let at = format!("error: {}:{number}:", path.display());
        run(&mut place.train("run", "reference", &[])).expect(2, &[&at, words]);
    }
    assert!(!place.path("run").exists(), "a recipe with a mistake leaves a run folder");
}

#[test]
fn a_broken_line_of_json_is_refused_or_counted() {
    let place = Place::new();
    let data = place.path("lines.jsonl");
    let line = |i: usize| match i {
        7 => "{\"text\": \"half a".into(),
        n => format!("{{\"text\": \"{n} and {n} make {}, as everyone knows who has {n} fingers.\"}}", 2 * n),
    };
    std::fs::write(&data, (1..=80).map(|i| line(i) + "\n").collect::<String>()).expect("data");
    let dataset = |on_broken: &str| {
        format!("datasets.1={{name = \"sums\", paths = ['{}'], on_broken = \"{on_broken}\"}}", data.display())
    };
    let at = format!("{}: line 7: bad JSON", data.display());
    run(&mut place.train("refuse", "reference", &[&dataset("refuse")])).expect(2, &[&at]);
    let outcome = run(&mut place.train("skip", "reference", &[&dataset("skip")]));
    let outcome = outcome.expect(0, &["sums: 1 broken records skipped", &at]);
    assert!(outcome.stdout.contains("sums: 79 documents"), "{outcome:#?}");
}

#[test]
fn a_diverging_run_stops_and_names_the_step_and_a_good_checkpoint() {
    let place = Place::new();
    run(&mut place.train("early", "reference", &["schedule.peak_lr=1e30"]))
        .expect(1, &["step 2", "no checkpoint"]);
    // The very first update makes weights that f32 cannot hold; its loss is still sound.
    let overrides = ["checkpoint.every=1", "optimizer.weight_decay=1e39"];
    let outcome = run(&mut place.train("late", "reference", &overrides)).expect(1, &["step ", "not finite"]);
    if let Some((_, rest)) = outcome.stderr.split_once("the last good checkpoint is ") {
        let path = Path::new(rest.split(';').next().expect("a path"));
        let file = TensorFile::open(path).expect("the checkpoint is there");
        let name = "model.norm.weight";
        let weights = file.read_f32(name, file.shape(name).expect("a shape")).expect("weights");
        assert!(weights.iter().all(|x| x.is_finite()), "a checkpoint of {weights:?} is called good");
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let place = Place::new();
    run(&mut place.train("run", "no-such-adapter", &[])).expect(2, &["no-such-adapter", "reference"]);
    if device().is_some() {
        let mut train = place.train("run", "auto", &[]);
        run(train.env("SMOLTER_DISABLE", "subgroup")).expect(2, &["unknown feature 'subgroup'", "subgroups"]);
    }
    run(&mut place.resume("nowhere", "reference")).expect(2, &["nowhere", "no run to resume"]);
    run(&mut smolter(&["train", "--recipe", "microcosmos"]))
        .expect(2, &["microcosmos", "did you mean 'microcosm'?"]);
    run(&mut place.train("run", "reference", &["batch.sequence=3"]))
        .expect(2, &["batch.sequence=3", "sequences"]);
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    run(&mut place.train("run", "reference", &[])).expect(2, &["holds a run already", "--resume"]);
}

#[test]
fn wrong_input_of_debug_is_refused() {
    let place = Place::new();
    let input = format!("{FIXTURE}/input.safetensors");
    std::fs::write(place.path("text"), "no tensors").expect("a file");
    std::fs::write(place.path("empty"), "").expect("a file");
    copy(Path::new(FIXTURE), &place.path("cut"));
    cut_short(&place.path("cut/model.safetensors"));
    copy(Path::new(FIXTURE), &place.path("config"));
    std::fs::write(place.path("config/config.json"), "{}").expect("a file");
    let golden = format!("{FIXTURE}/golden.safetensors");
    let path = |name: &str| place.path(name).to_string_lossy().into_owned();
    for (model, input, word) in [
        (path("nowhere"), input.clone(), "nowhere"),
        (FIXTURE.into(), path("nowhere"), "nowhere"),
        (FIXTURE.into(), path("text"), "text"),
        (FIXTURE.into(), path("empty"), "empty"),
        (FIXTURE.into(), golden, "input_ids"),
        (path("cut"), input.clone(), "cut/model.safetensors"),
        (path("config"), input.clone(), "config/config.json"),
    ] {
        for job in ["forward", "backward", "step"] {
            let mut debug =
                smolter(&["debug", job, "--device", "reference", "--model", &model, "--input", &input]);
            run(debug.arg("--out").arg(place.path("out"))).expect(2, &[word]);
        }
    }
    let mut debug =
        smolter(&["debug", "forward", "--device", "reference", "--model", FIXTURE, "--input", &input]);
    run(debug.arg("--out").arg(place.path("no/such/folder"))).expect(2, &["no/such/folder"]);
}
