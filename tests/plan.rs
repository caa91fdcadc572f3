//! `smolter plan`, which touches no device.

use crate::support::{run, smolter};
use std::time::{Duration, Instant};

#[test]
fn the_largest_plans_take_seconds_and_say_what_matters() {
    for (recipe, words) in [
        (
            "smollm2-135m",
            "because: 8192 tokens per pass; more than 8192 no longer pay; nothing is computed again",
        ),
        (
            "smollm2-1.7b",
            "because: 8192 tokens per pass; more than 8192 no longer pay; nothing is computed again",
        ),
    ] {
        let begun = Instant::now();
        let outcome = run(&mut smolter(&["plan", "--recipe", recipe, "--memory", "80GiB"])).expect(0, &[]);
        // Minutes would mean that something grows with the number of steps.
        assert!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
        for words in [words, "weights", "gradients", "moments", "activations a", "MiB"] {
            assert!(outcome.stdout.contains(words), "{recipe}: no '{words}' in {}", outcome.stdout);
        }
        let column = |row: &str, i: usize| row.split_whitespace().nth(i).unwrap_or("").to_string();
        let listed: Vec<String> =
            outcome.stdout.lines().filter(|row| column(row, 0) == "none").map(|row| column(row, 1)).collect();
        assert!(listed.starts_with(&["1", "2", "4", "8"].map(String::from)), "{listed:?}");
        assert_eq!(outcome.stdout.matches(" chosen").count(), outcome.stdout.matches("because: ").count());
    }
}

#[test]
fn what_train_would_refuse_is_warned_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("a.txt"), "too short").expect("a text");
    let recipe = folder.path().join("r.toml");
    let text = include_str!("fixtures/recipes/one-stage.toml");
    std::fs::write(&recipe, text).expect("a recipe");
    let plan = |datasets: &str| {
        let recipe = recipe.to_str().expect("a path of Unicode");
        let datasets = format!("datasets={datasets}");
        let mixture = "stages.0.mixture={d=1.0}";
        run(&mut smolter(&["plan", "--recipe", recipe, "--set", &datasets, "--set", mixture]))
            .expect(0, &["warning: "])
            .stderr
    };
    let missing = plan("[{name='d',paths=['/no/such/text.txt']}]");
    assert!(missing.contains("datasets.0.paths.0 is /no/such/text.txt, which does not exist"), "{missing}");
    let path = folder.path().join("a.txt");
    let short = plan(&format!("[{{name='d',max_epochs=2,paths=['{}']}}]", path.display()));
    assert!(missing.contains("warning: --set datasets="), "no place: {missing}");
    assert!(short.contains("stage pretrain") && short.contains("more than the 18 bytes"), "{short}");
}

#[test]
fn less_memory_gives_a_plan_that_fits_it() {
    let total = |memory: &str| {
        let outcome =
            run(&mut smolter(&["plan", "--recipe", "smollm2-135m", "--memory", memory])).expect(0, &[]);
        let line = outcome.stdout.lines().find(|line| line.trim_start().starts_with("all ")).expect("a sum");
        line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("a number")
    };
    let (small, large) = (total("4GiB"), total("8GiB"));
    assert!(small < large && small <= 4096.0 && large <= 8192.0, "{small} MiB and {large} MiB");
    // A stage that does not fit is told of, and so are the others.
    let outcome = run(&mut smolter(&["plan", "--recipe", "smollm2-135m", "--memory", "3GiB"]));
    let outcome = outcome.expect(2, &["stage extend: nothing fits 3.00 GiB"]);
    assert!(
        outcome.stdout.contains("stage pretrain") && outcome.stdout.contains("x 8192 tokens; nothing fits")
    );
}

#[test]
fn what_cannot_fit_is_an_error_that_says_how_much_it_takes() {
    run(&mut smolter(&["plan", "--memory", "1MiB"])).expect(2, &["nothing fits 1.0 MiB", "takes"]);
    run(&mut smolter(&["plan", "--memory", "1KiB"])).expect(2, &["nothing fits 1.0 KiB", " MiB"]);
    run(&mut smolter(&["plan", "--memory", "much"]))
        .code
        .filter(|&code| code == 2)
        .expect("a wrong size is refused");
}
