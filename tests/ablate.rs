//! T2: `smolter ablate`: candidates under the same conditions, runs that go on, and effects with known answers.

use crate::support::{Place, RECIPE, run, signal, smolter, spawn_until};
use serde_json::Value;
use smolter::recipes::Recipe;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tiny recipe with text that helps nobody.
fn place() -> Place {
    let place = Place::new();
    let mut seed = 7u64;
    let mut letter = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        char::from(b'a' + (seed >> 33) as u8 % 26)
    };
    // One document, so that none of it is held out.
    std::fs::write(place.path("noise.txt"), (0..6000).map(|_| letter()).collect::<String>()).expect("a file");
    let more = "[[datasets]]\nname = \"noise\"\npaths = [\"noise.txt\"]\n\n[[stages]]";
    place.recipe(&RECIPE.replacen("[[stages]]", more, 1));
    place
}

/// `smolter ablate` of the tiny recipe, with runs in `folder`.
fn ablate(place: &Place, protocol: &str, folder: &str, flags: &[&str]) -> Command {
    let mut command = smolter(&["ablate", "--device", "reference", "--protocol", protocol]);
    command.arg("--recipe").arg(place.path("tiny.toml")).arg("--runs").arg(place.path(folder));
    command.arg("--json").arg(place.path(&format!("{folder}.json"))).args(flags);
    command
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("the file")).expect("JSON")
}

fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Tokens that a run took of a dataset.
fn tokens(run: &Path, dataset: &str) -> u64 {
    let of_step = |step: &Value| step["datasets"][dataset]["tokens"].as_u64().unwrap_or(0);
    metrics(run).iter().map(of_step).sum()
}

#[test]
fn candidates_have_the_same_conditions() {
    let place = place();
    run(&mut place.train("base", "reference", &[])).expect(0, &[]);
    let base = place.path("base/checkpoints/step-000012").to_string_lossy().into_owned();
    let flags = [
        "--from",
        &base,
        "--candidates",
        "facts,noise,none",
        "--steps",
        "20",
        "--seeds",
        "1,2",
        "--tasks",
        "loss",
    ];
    let told = run(&mut ablate(&place, "math", "runs", &flags)).expect(0, &[]).stdout;
    assert!(told.contains("protocol math: 2560 tokens in 20 steps for each candidate, seeds 1, 2"), "{told}");
    assert!(told.lines().all(|line| !line.contains("+-") || line.chars().count() <= 80), "{told}");
    let [facts, noise, none] =
        ["facts", "noise", "none"].map(|name| place.path(&format!("runs/{name}-seed-1")));
    // The stage in which the checkpoint was made had half facts and half sums; candidates have 60 % of the tokens.
    let shares = |run: &PathBuf| ["facts", "noise", "sums"].map(|it| tokens(run, it) as f64 / 2560.0);
    for (run, expected) in [(&facts, [0.8, 0.0, 0.2]), (&noise, [0.2, 0.6, 0.2]), (&none, [0.5, 0.0, 0.5])] {
        let shares = shares(run);
        assert!(shares.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.03), "{run:?}: {shares:?}");
    }
    // All else is equal: text, rates, lengths.
    let rates = |run: &PathBuf| -> Vec<f64> {
        metrics(run).iter().map(|step| step["lr"].as_f64().expect("a rate")).collect()
    };
    let falling = rates(&facts);
    assert_eq!((&falling, &falling), (&rates(&noise), &rates(&none)));
    assert!(falling[0] == 1e-3 && falling[19] == 0.0 && falling.is_sorted_by(|a, b| a > b), "{falling:?}");
    let recipe =
        |run: &Path| Recipe::load(&run.join("recipe.toml").to_string_lossy(), &[]).expect("the run's recipe");
    let mut other = recipe(&noise);
    assert_eq!(other.stages[0].sequence_length, 32);
    assert_eq!(other.model_at(0).rope_theta, 20_000.0, "the stage's own");
    (other.name, other.stages[0].mixture) = (recipe(&facts).name, recipe(&facts).stages[0].mixture.clone());
    let changes = other.changes_since(&recipe(&facts)).expect("both can be written");
    assert!(changes.is_empty(), "{changes:?}");
    // Another seed is another order of the same text.
    let second = recipe(&place.path("runs/facts-seed-2"));
    assert_eq!((second.seed, second.data_seed, second.world_seed), (2, 2, Some(8)));
    let set = |seed: u64| {
        std::fs::read(place.path(&format!("runs/facts-seed-{seed}/data/sums-00000.tokens"))).expect("tokens")
    };
    assert_eq!(set(1), set(2));
    assert_ne!(metrics(&facts)[0]["loss"], metrics(&place.path("runs/facts-seed-2"))[0]["loss"]);
    let told = json(&place.path("runs.json"));
    assert_eq!((told["stage"].as_str(), told["steps"].as_u64()), (Some("long"), Some(20)));
    assert_eq!(told["candidates"].as_array().map(Vec::len), Some(3));
    // The same folder is not for other conditions, which would be compared in vain.
    let flags =
        ["--from", &base, "--candidates", "facts", "--steps", "21", "--seeds", "1", "--tasks", "loss"];
    let refused = run(&mut ablate(&place, "math", "runs", &flags));
    refused.expect(2, &["under other conditions", "2688", "--runs"]).is_one_line();
}

#[test]
fn a_better_candidate_wins() {
    let place = place();
    let flags = ["--candidates", "noise,facts+sums", "--steps", "40", "--seeds", "1,2", "--tasks", "loss"];
    let told = run(&mut ablate(&place, "web", "runs", &flags)).expect(0, &[]).stdout;
    let row = told.lines().rev().find(|line| line.trim_start().starts_with("loss/facts ")).expect("its row");
    assert!(row.trim_end().ends_with('*'), "{told}");
    let told = json(&place.path("runs.json"));
    assert_eq!(told["best"]["loss/facts"].as_str(), Some("facts+sums"), "{told:#}");
}

#[test]
fn interrupted_ablations_go_on() {
    let place = place();
    // Many steps: the second run must not end before the signal comes.
    let set = ["model.max_position_embeddings=128", "evaluation.items=6"];
    let flags =
        ["--candidates", "facts,sums", "--steps", "150", "--seeds", "1,2", "--tasks", "facts-cloze,loss"];
    let flags = [&flags[..], &["--set", set[0], "--set", set[1]]].concat();
    let command = || ablate(&place, "web", "runs", &flags);
    let mut child = spawn_until(&mut command(), &place.path("runs/facts-seed-2"), 3);
    signal(&child, "-INT");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let first = place.path("runs/facts-seed-1/metrics.jsonl");
    let before = first.metadata().and_then(|it| it.modified()).expect("a time");
    assert!(
        metrics(&place.path("runs/facts-seed-2")).len() < 150 && !place.path("runs/sums-seed-1").exists()
    );
    let told = run(&mut command()).expect(0, &[]).stdout;
    assert!(told.contains("run 1 of 4: facts, seed 1: finished"), "{told}");
    assert_eq!(
        first.metadata().and_then(|it| it.modified()).expect("a time"),
        before,
        "it was trained again"
    );
    run(&mut ablate(&place, "web", "undisturbed", &flags)).expect(0, &[]);
    let scores = |name: &str| {
        let told = json(&place.path(name));
        told["candidates"].as_array().expect("some").iter().map(|it| it["scores"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(scores("runs.json"), scores("undisturbed.json"));
    let scores = scores("runs.json")[0].clone();
    let tasks: Vec<&str> =
        scores.as_array().expect("some").iter().filter_map(|it| it["task"].as_str()).collect();
    assert_eq!(tasks, ["facts-cloze", "loss/facts", "loss/sums"]);
}

#[test]
fn mistakes_are_told_before_anything_is_trained() {
    let place = place();
    run(&mut place.train("base", "reference", &[])).expect(0, &[]);
    let base = place.path("base").to_string_lossy().into_owned();
    std::fs::create_dir_all(place.path("young/checkpoints")).expect("a folder");
    let young = place.path("young").to_string_lossy().into_owned();
    std::fs::write(place.path("empty.txt"), "").expect("a file");
    let nothing = format!("datasets.noise.paths={}", place.path("empty.txt").display());
    for (protocol, flags, words) in [
        ("web", &["--candidates", "fact"][..], &["candidate fact", "did you mean 'facts'?"][..]),
        (
            "web",
            &["--candidates", "facts,noise", "--set", &nothing],
            &["candidate noise", "no text", "empty.txt"],
        ),
        ("web", &["--candidates", "none"], &["candidate none", "all tokens"]),
        ("web", &["--candidates", "facts,facts"], &["candidate facts", "twice"]),
        ("web", &[], &["--candidates"]),
        ("web", &["--candidates", "facts", "--from", &base], &["begins with noise", "--from"]),
        ("web", &["--candidates", "facts", "--stage", "lon"], &["--stage lon", "did you mean 'long'?"]),
        ("web", &["--candidates", "facts", "--tasks", "sums"], &["--tasks sums", "known: facts"]),
        ("web", &["--candidates", "facts", &base], &["cannot be used with", "--recipe"]),
        ("web", &["--candidates", "facts", "--seeds", "1,1"], &["--seeds", "twice"]),
        ("math", &["--candidates", "facts"], &["begins with a model", "--from"]),
        ("math", &["--candidates", "facts", "--from", &young], &["no checkpoint yet"]),
        ("code", &["--candidates", "facts:2+sums", "--from", &base], &["the same of each"]),
        ("sft", &["--candidates", "facts", "--from", &base], &["no stage of kind 'sft'", "--recipe"]),
        ("life", &["--candidates", "facts"], &["--candidates", "whole recipes"]),
        ("life", &[], &["stage long does not ask arithmetic", "--set"]),
        ("meth", &[], &["possible values", "math"]),
    ] {
        let outcome = run(&mut ablate(&place, protocol, "runs", flags));
        outcome.expect(2, words);
        assert!(!place.path("runs").exists(), "{flags:?}");
    }
    run(&mut smolter(&["ablate", "--protocol", "life", &young])).expect(2, &["no run folder"]).is_one_line();
    run(&mut smolter(&["ablate", "--protocol", "web", &young]))
        .expect(2, &["takes no run folders"])
        .is_one_line();
}

/// The stages of a life: 11 steps, 9 that decay, and a few of each other kind.
const STAGES: &str = r#"
[[datasets]]
name = "talk"
microcosm = "everyday"
documents = 20

[[datasets]]
name = "pairs"
microcosm = "pairs"
documents = 20

[[stages]]
name = "stable"
steps = 11
sequence_length = 16
mixture = { facts = 1.0 }

[[stages]]
name = "decay"
steps = 9
sequence_length = 16
mixture = { sums = 1.0 }

[[stages]]
name = "extend"
kind = "extend_context"
steps = 1
sequence_length = 32
mixture = { facts = 1.0 }

[[stages]]
name = "chat"
kind = "sft"
steps = 2
sequence_length = 32
mixture = { talk = 1.0 }

[[stages]]
name = "prefer"
kind = "dpo"
steps = 1
sequence_length = 32
mixture = { pairs = 1.0 }

"#;

/// A run folder of such a life with these scores: stage, step, task, chat, score, standard error.
fn life(place: &Place, name: &str, scores: &[(&str, u64, &str, bool, f64, f64)]) -> String {
    let folder = place.path(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let [head, tail] = ["[[stages]]", "[held_out]"].map(|it| RECIPE.find(it).expect("it is there"));
    let recipe = [&RECIPE[..head], STAGES, &RECIPE[tail..]].concat();
    std::fs::write(folder.join("recipe.toml"), recipe).expect("the recipe");
    let line = |&(stage, step, task, chat, score, error): &(&str, u64, &str, bool, f64, f64)| {
        let line = serde_json::json!({
            "step": step, "stage": stage, "tokens": 64 * step, "task": task, "chat": chat, "items": 100,
            "score": score, "standard_error": error, "guessing": 0.1,
        });
        format!("{line}\n")
    };
    std::fs::write(folder.join("scores.jsonl"), scores.iter().map(line).collect::<String>()).expect("scores");
    // Held-out pairs before their stage has ended, and then.
    let pairs = |now: f64| {
        let change =
            serde_json::json!({"before": 0.5, "now": now, "difference": now - 0.5, "standard_error": 0.04});
        serde_json::json!({"pairs": 100, "log_prob": change, "per_token": change})
    };
    let line = |(step, pairs): (u64, serde_json::Value)| {
        let line = serde_json::json!({
            "step": step, "tokens": 64 * step, "loss": 0.5, "lr": 1e-3, "grad_norm": 1.0, "datasets": {},
            "held_out_pairs": {"all": pairs, "datasets": {}},
            "timing": {"seconds": 1.0, "tokens_per_second": 64.0, "gflops": 1.0, "memory": 1},
        });
        format!("{line}\n")
    };
    let steps = [(23, pairs(0.2)), (24, pairs(0.8))].map(line).concat();
    std::fs::write(folder.join("metrics.jsonl"), steps).expect("metrics");
    folder.to_string_lossy().into_owned()
}

/// Scores with a rise of `up` in each effect, and of `programs` in program output; `short` is what short contexts lose.
fn scores(up: f64, programs: f64, short: f64) -> Vec<(&'static str, u64, &'static str, bool, f64, f64)> {
    let mut all = Vec::new();
    for (stage, step, rise) in [("stable", 11, 0.2), ("decay", 20, 0.0), ("extend", 21, 0.0)] {
        let at = |before: f64, rises: f64| if stage == "stable" { before } else { before + rises };
        let short = if stage == "extend" { short } else { 0.0 };
        all.push((stage, step, "arithmetic", false, at(0.2, up) - short, 0.01));
        all.push((stage, step, "programs", false, at(0.2, programs) - short, 0.01));
        for task in ["facts", "facts-cloze", "needle-short"] {
            all.push((stage, step, task, false, 0.5 - short + rise, 0.01));
        }
        all.push((stage, step, "needle-long", false, if stage == "extend" { 0.1 + up } else { 0.1 }, 0.01));
    }
    all.push(("extend", 21, "constraints", false, 0.1, 0.01));
    // In the middle of the stage, and as plain text: neither counts.
    all.push(("chat", 22, "constraints", true, 0.9, 0.01));
    all.push(("chat", 23, "constraints", false, 0.0, 0.01));
    all.push(("chat", 23, "constraints", true, 0.1 + up, 0.01));
    all.push(("chat", 23, "preference", true, 0.5, 0.01));
    all.push(("prefer", 24, "preference", true, 0.5 + up, 0.01));
    all
}

#[test]
fn effects_are_computed_from_scores() {
    let place = Place::new();
    let lives = [0.4, 0.5, 0.6].map(|up| life(&place, &format!("run-{up}"), &scores(up, 0.17, 0.0)));
    let told_in = place.path("told.json").to_string_lossy().into_owned();
    let command = |lives: &[String], more: &[&str]| {
        let mut command = smolter(&["ablate", "--protocol", "life", "--json", &told_in]);
        command.args(lives).args(more);
        run(&mut command)
    };
    let text = command(&lives, &[]).expect(0, &[]).stdout;
    let told = json(&place.path("told.json"))["effects"].clone();
    let number = |effect: usize, what: &str, key: &str| told[effect][what][key].as_f64().expect("a number");
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}: {told:#}");
    // Decay has 9 steps, stable before it 11: at its pace from 0 to 0.2 they would give 0.2 * 9 / 11.
    let longer = 9.0 / 11.0;
    close(number(0, "before", "mean"), 0.2 + 0.2 * longer);
    close(number(0, "after", "mean"), 0.7);
    close(number(0, "difference", "mean"), 0.5 - 0.2 * longer);
    close(number(0, "difference", "over_seeds"), 0.1 / 3f64.sqrt());
    close(number(0, "difference", "over_items"), 0.01f64.hypot(0.01 * (1.0 + longer)) / 3f64.sqrt());
    // Programs rise by 0.17, which is the old pace within the error: 0.0064 with an error of 0.012.
    close(number(1, "difference", "mean"), 0.17 - 0.2 * longer);
    assert_eq!(told[1]["appears"], false);
    close(number(2, "difference", "mean"), 0.5);
    close(number(3, "difference", "mean"), 0.0);
    close(number(4, "before", "mean"), 0.1);
    close(number(4, "after", "mean"), 0.6);
    close(number(5, "difference", "mean"), 0.3);
    close(number(5, "difference", "over_items"), 0.04 / 3f64.sqrt());
    close(number(5, "after", "over_items"), 0.04 / 3f64.sqrt());
    close(number(6, "difference", "mean"), 0.5);
    let appears: Vec<bool> = (0..7).map(|i| told[i]["appears"] == true).collect();
    assert_eq!(appears, [true, false, true, true, true, true, true]);
    assert!(
        text.contains(
            "3 runs; 6 of 7 effects appear by 2 standard errors; not: programs: faster rise in decay"
        ),
        "{text}"
    );
    assert!(text.lines().take(8).all(|line| line.chars().count() <= 80), "{text}");

    // Short contexts that fall, and a needle that was found before the context was long.
    let mut fallen = scores(0.5, 0.5, 0.05);
    fallen.iter_mut().filter(|it| it.0 == "decay" && it.2 == "needle-long").for_each(|it| it.4 = 0.3);
    let text = command(&[life(&place, "fallen", &fallen)], &[]).expect(0, &[]).stdout;
    for missing in
        ["far needle: begins in extend (above guessing before)", "short context: no fall in extend (-"]
    {
        assert!(text.contains(missing), "no {missing}: {text}");
    }
    // One that rises, but only to what guessing gives.
    let mut guessed = scores(0.5, 0.5, 0.0);
    for it in guessed.iter_mut().filter(|it| it.2 == "needle-long") {
        it.4 = if it.0 == "extend" { 0.11 } else { 0.04 };
    }
    let text = command(&[life(&place, "guessed", &guessed)], &[]).expect(0, &[]).stdout;
    assert!(text.contains("not: far needle: begins in extend (not above guessing after)"), "{text}");
    // What is not there is named.
    std::fs::remove_file(place.path("guessed/metrics.jsonl")).expect("metrics");
    let outcome = command(&[place.path("guessed").to_string_lossy().into_owned()], &[])
        .expect(2, &["held_out.fraction"]);
    outcome.is_one_line();
    let half: Vec<_> = scores(0.5, 0.5, 0.0).into_iter().filter(|it| it.2 != "preference").collect();
    let half = life(&place, "half", &half);
    let outcome = command(&[half], &[]).expect(2, &["no score of preference in stage prefer", "evaluate"]);
    outcome.is_one_line();
}
