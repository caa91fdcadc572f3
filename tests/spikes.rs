//! T2: loss spikes and interventions: a block of garbage in the data is found, and with it left out the run is as if it had
//! never been there, however often it is killed meanwhile; a stage that has not begun can be changed, one that has cannot.

use crate::support::{Outcome, Place, copy, run, smolter, spawn_until};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smolter::recipes::{Recipe, Skip};
use smolter::train::history::{self, Event, What};
use smolter::train::metrics::Metrics;
use std::path::Path;

/// 110 steps on text that is soon learnt.
const TEXT: &str = r#"name = "text"

[model]
vocab_size = 320
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 32

[tokenizer]
train = { vocab_size = 320, sample_documents = 60 }

[schedule]
kind = "constant"
peak_lr = 1e-2
warmup_steps = 8

[batch]
sequences = 4

[[datasets]]
name = "text"
paths = "text.jsonl"

[[stages]]
name = "first"
steps = 80
sequence_length = 32
mixture = { text = 1.0 }

[[stages]]
name = "second"
steps = 30
sequence_length = 32
mixture = { text = 1.0 }

[held_out]
fraction = 0.1
sequences = 16
every = 110

[checkpoint]
every = 10
"#;

/// Steps of [`TEXT`].
const STEPS: u64 = 110;

/// A folder with [`TEXT`] and text for it, with `garbage` documents of random letters in the middle.
fn place(garbage: usize) -> Place {
    let place = Place::new();
    place.recipe(TEXT);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let sentence = |i: usize| format!("{i} make {}, as everyone in the village knows.", 2 * i);
    let mut noise = || (0..120).map(|_| rng.random_range('\u{a1}'..'\u{17f}')).collect::<String>();
    let mut lines: Vec<String> = (0..1200).map(sentence).collect();
    lines.splice(600..600, (0..garbage).map(|_| noise()));
    let json = |line: &String| serde_json::json!({ "text": line }).to_string() + "\n";
    std::fs::write(place.path("text.jsonl"), lines.iter().map(json).collect::<String>()).expect("text");
    place
}

fn metrics(place: &Place, name: &str) -> Vec<Metrics> {
    let text = std::fs::read_to_string(place.path(name).join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
}

fn recipe(place: &Place, name: &str) -> Recipe {
    Recipe::load(&place.path(name).join("recipe.toml").to_string_lossy(), &[]).expect("a recipe")
}

/// What happened, without times.
fn history(place: &Place, name: &str) -> Vec<Event> {
    let events = history::read(&place.path(name)).into_iter();
    events.map(|event| Event { timing: Default::default(), ..event }).collect()
}

fn rewinds(events: &[Event]) -> Vec<(u64, Vec<Skip>)> {
    let rewind = |event: &Event| match &event.what {
        What::Rewind { to, skipped } => Some((*to, skipped.clone())),
        _ => None,
    };
    events.iter().filter_map(rewind).collect()
}

const REWIND: &str = "spikes.action=rewind";

#[test]
fn garbage_is_reported_or_left_out() {
    let place = place(2);
    let told = run(&mut place.train("told", "reference", &[])).expect(0, &["the loss spikes", "by text"]);
    let spikes = history(&place, "told");
    assert_eq!(told.stderr.matches("the loss spikes").count(), spikes.len(), "{told:#?}");
    let Some(Event {
        step, what: What::Spike { loss: Some(loss), expected: Some(expected), datasets }, ..
    }) = spikes.first()
    else {
        panic!("{spikes:?}")
    };
    assert!(loss > &(expected + 0.5) && datasets == &["text"]);
    assert_eq!(metrics(&place, "told")[*step as usize - 1].loss, *loss);
    assert_eq!(metrics(&place, "told").len() as u64, STEPS);
    run(&mut place.train("off", "reference", &["spikes.action=off"])).expect(0, &[]).is_calm();
    assert!(place.state("told", STEPS) == place.state("off", STEPS), "a report changes the weights");

    run(&mut place.train("left out", "reference", &[REWIND])).expect(0, &["the loss spikes"]);
    let events = history(&place, "left out");
    let back = rewinds(&events);
    // Garbage in a file lies in several windows, each a spike of its own.
    let goes_back = |event: &Event| !matches!(event.what, What::Rewind { to, .. } if to >= event.step);
    assert!(!back.is_empty() && back.iter().all(|(to, _)| to % 10 == 0), "{events:?}");
    assert!(events.iter().all(goes_back), "{events:?}");
    // All of what was left out, and nothing else, stands in the recipe; no step has learnt from it.
    let stages = recipe(&place, "left out").stages;
    assert!(
        back.iter()
            .flat_map(|(_, skipped)| skipped)
            .all(|it| stages.iter().any(|stage| stage.leaves_out(it)))
    );
    let all = metrics(&place, "left out");
    assert_eq!(all.iter().map(|it| it.step).collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
    assert!(all[*step as usize - 1].loss + 0.3 < *loss, "the first spike is still there");
    // As good as without the garbage.
    let clean = self::place(0);
    run(&mut clean.train("clean", "reference", &[REWIND])).expect(0, &[]).is_calm();
    assert!(history(&clean, "clean").is_empty());
    let held_out = |place: &Place, name: &str| {
        metrics(place, name).last().and_then(|it| it.held_out_loss).expect("it was measured")
    };
    let (without, left_out) = (held_out(&clean, "clean"), held_out(&place, "left out"));
    assert!(left_out < without + 0.15, "{without} {left_out}");

    // The recipe holds all that decides the result.
    let text = std::fs::read_to_string(place.path("left out/recipe.toml")).expect("a recipe");
    place.recipe(&text);
    run(&mut place.train("again", "reference", &[])).expect(0, &[]).is_calm();
    assert!(place.state("left out", STEPS) == place.state("again", STEPS));
    let shown = run(smolter(&["runs", "show"]).arg(place.path("left out"))).expect(0, &[]).stdout;
    assert!(shown.contains("the loss spiked") && shown.contains("back to step"), "{shown}");
}

#[test]
fn killed_around_a_rewind_a_run_comes_to_the_same_end() {
    let place = place(2);
    run(&mut place.train("whole", "reference", &[REWIND])).expect(0, &[]);
    let events = history(&place, "whole");
    let first = events.iter().position(|event| matches!(event.what, What::Rewind { .. })).expect("a rewind");
    let What::Rewind { to, skipped } = &events[first].what else { unreachable!() };
    let same = |name: &str| {
        let outcome = run(&mut place.resume(name, "reference")).expect(0, &[]);
        assert!(place.state("whole", STEPS) == place.state(name, STEPS), "{name}: {outcome:#?}");
        assert_eq!(history(&place, name), events, "{name}");
        assert_eq!(recipe(&place, name), recipe(&place, "whole"), "{name}");
        outcome
    };
    // At its checkpoint, at any of the moments between the two.
    run(place.train("stopped", "reference", &[REWIND]).args(["--until", &to.to_string()])).expect(0, &[]);
    let stopped = |name: &str, events: &[Event], recipe: Option<&Recipe>| {
        copy(&place.path("stopped"), &place.path(name));
        let line = |event| serde_json::to_string(event).expect("an event") + "\n";
        let text: String = events.iter().map(line).collect();
        std::fs::write(place.path(name).join("history.jsonl"), text).expect("history");
        if let Some(recipe) = recipe {
            std::fs::write(place.path(name).join("recipe.toml"), recipe.to_toml().expect("TOML"))
                .expect("a recipe");
        }
    };
    let mut after = recipe(&place, "stopped");
    let stage = after.stages.iter_mut().find(|stage| stage.name == events[first].stage).expect("a stage");
    skipped.iter().for_each(|skip| stage.leave_out(*skip));
    stopped("spike told", &events[..first], None);
    stopped("rewind told", &events[..=first], None);
    stopped("all done", &events[..=first], Some(&after));
    for name in ["spike told", "rewind told", "all done"] {
        let outcome = same(name);
        assert!(!outcome.stderr.contains("changed since"), "{outcome:#?}");
    }
    // And at whatever moments.
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut child = spawn_until(&mut place.train("killed", "reference", &[REWIND]), &place.path("killed"), 5);
    for _ in 0..12 {
        std::thread::sleep(std::time::Duration::from_millis(rng.random_range(20..700)));
        child.kill().expect("a kill");
        child.wait().expect("its end");
        let mut resume = place.resume("killed", "reference");
        resume.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        child = resume.spawn().expect("it starts");
    }
    child.wait().expect("its end");
    same("killed");
}

#[test]
fn too_many_rewinds_end_a_run_that_then_goes_on_as_it_is_told() {
    let place = place(2);
    let outcome = run(&mut place.train("run", "reference", &[REWIND, "spikes.rewinds=0"]));
    let error = outcome.expect(1, &["the loss spikes, and stage first has gone back 0 times"]).stderr;
    let way = error.trim().rsplit_once("smolter ").expect("a remedy").1;
    let arguments: Vec<&str> = way.split(' ').filter(|word| *word != "train").collect();
    let mut resume = smolter(&["train", "--device", "reference"]);
    run(resume.args(arguments)).expect(0, &["the loss spikes"]);
    run(&mut place.train("told", "reference", &[])).expect(0, &[]);
    assert!(place.state("run", STEPS) == place.state("told", STEPS));
}

/// Of the tiny recipe of the tests: two stages of 6 steps.
#[test]
fn what_has_not_begun_can_be_changed() {
    let place = Place::new();
    let until = |name: &str, overrides: &[&str], step: &str| {
        run(place.train(name, "reference", overrides).args(["--until", step])).expect(0, &[]);
    };
    let change = |name: &str, sets: &[&str]| {
        let mut command = place.resume(name, "reference");
        sets.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        command
    };
    let mixture = "stages.long.mixture={facts=0.125,sums=0.875}";
    until("run", &[], "5");
    copy(&place.path("run"), &place.path("killed"));
    run(&mut change("run", &[mixture, "stages.long.steps=8"])).expect(0, &[]);
    run(&mut place.train("so", "reference", &[mixture, "stages.long.steps=8"])).expect(0, &[]);
    assert!(place.state("run", 14) == place.state("so", 14), "the changed stage was not trained as it says");
    let tokens = |name: &str| {
        let all = metrics(&place, name);
        let of = |name: &str| {
            all[6..].iter().filter_map(|it| it.datasets.get(name)).map(|it| it.tokens).sum::<u64>()
        };
        [of("facts"), of("sums")]
    };
    assert_eq!(tokens("run"), [128, 896]);
    let [event] = &history(&place, "run")[..] else { panic!("{:?}", history(&place, "run")) };
    assert_eq!((event.step, event.stage.as_str()), (5, "short"));
    let What::Intervention { set, before } = &event.what else { panic!("{event:?}") };
    assert_eq!(
        set,
        &["stages.long.mixture={ facts = 0.125, sums = 0.875 }", "stages.long.tokens=1408"],
        "as --set takes them"
    );
    assert_eq!(before, &["stages.long.mixture={ facts = 0.5, sums = 0.5 }", "stages.long.tokens=1152"]);
    let shown = run(smolter(&["runs", "show"]).arg(place.path("run"))).expect(0, &[]).stdout;
    assert!(shown.contains("stages.long.mixture"), "{shown}");
    // Back again with what the record says.
    run(change("killed", &[mixture]).args(["--until", "5"])).expect(0, &[]);
    run(&mut change("killed", &[&before[0]])).expect(0, &[]);
    run(&mut place.train("whole", "reference", &[])).expect(0, &[]);
    assert!(place.state("killed", 12) == place.state("whole", 12));
    assert_eq!(history(&place, "killed").len(), 2, "each change once");
}

#[test]
fn a_change_outlives_kills_and_is_recorded_once() {
    let place = Place::new();
    run(place.train("run", "reference", &[]).args(["--until", "5"])).expect(0, &[]);
    let mixture = "stages.long.mixture={facts=0.125,sums=0.875}";
    let mut command = place.resume("run", "reference");
    // As a kill before the next checkpoint leaves it, and one between recipe and record.
    run(command.args(["--set", mixture, "--until", "5"])).expect(0, &[]);
    copy(&place.path("run"), &place.path("unrecorded"));
    std::fs::remove_file(place.path("unrecorded/history.jsonl")).expect("it goes");
    run(&mut place.train("so", "reference", &[mixture])).expect(0, &[]);
    for name in ["run", "unrecorded"] {
        run(place.resume(name, "reference").args(["--until", "5"])).expect(0, &[]);
        run(&mut place.resume(name, "reference")).expect(0, &[]);
        assert!(place.state(name, 12) == place.state("so", 12), "{name}");
        let events = history(&place, name);
        assert!(events.len() == 1 && events[0].step == 5, "{name}: {events:?}");
    }
}

#[test]
fn what_is_done_stands_and_the_way_round_works() {
    let place = Place::new();
    run(place.train("run", "reference", &[]).args(["--until", "5"])).expect(0, &[]);
    let refused = |sets: &[&str], words: &[&str]| -> Outcome {
        let before = std::fs::read(place.path("run/recipe.toml")).expect("a recipe");
        let mut command = place.resume("run", "reference");
        sets.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        let outcome = run(&mut command).expect(2, words);
        assert_eq!(std::fs::read(place.path("run/recipe.toml")).expect("a recipe"), before, "{sets:?}");
        assert!(history(&place, "run").is_empty());
        outcome
    };
    let begun = "stage short has begun";
    let way = "branch off: add [[stages]] with from = \"short@5\" to";
    for set in [
        "stages.short.mixture={facts=1.0}",
        "stages.short.steps=9",
        "stages.0.rope_theta=5e3",
        "schedule.peak_lr=2e-3",
        "seed=9",
        "model.hidden_size=64",
    ] {
        refused(&[set], &[&format!("--set {set}: "), begun, "(long)", way]);
    }
    refused(&["stages.long.steps=3", "stages.short.steps=9"], &["--set stages.short.steps=9: "]);
    refused(&["stages.long.mixture={facts=1.5}"], &["--set stages.long.mixture={facts=1.5}"]);
    refused(&["stages.long.mixure={facts=1.0}"], &["mixure", "mixture"]);
    // What cannot be trained comes to nothing too.
    refused(&["datasets.sums.max_epochs=0.001", "stages.long.steps=3"], &["--set datasets.sums.max_epochs"]);
    let path = place.path("run/recipe.toml");
    let text = std::fs::read_to_string(&path).expect("a recipe");
    let (head, long) = text.split_once("[[stages]]\nname = \"long\"").expect("the second stage");
    let stage = long.split("[held_out]").next().expect("its end");
    let branch = format!("[[stages]]\nname = \"branch\"\nfrom = \"short@5\"{stage}");
    let branch = branch.replace("tokens = 1152", "tokens = 900");
    let (_, rest) = long.split_once("[held_out]").expect("the rest");
    std::fs::write(&path, format!("{head}[[stages]]\nname = \"long\"{stage}{branch}[held_out]{rest}"))
        .expect("a recipe");
    run(&mut place.resume("run", "reference")).expect(0, &["changed since"]);
    let step = |all: &[Metrics]| all.last().map(|it| it.step);
    assert!(step(&metrics(&place, "run")) > Some(12));
    // A run that is done has nothing left to change.
    run(place.resume("run", "reference").args(["--set", "stages.branch.steps=90"])).expect(2, &["is done"]);
}

/// A dataset that the run has never seen, though its tokenizer is its own.
#[test]
fn a_stage_that_has_not_begun_may_read_another_dataset() {
    let place = Place::new();
    let line = |i: usize| format!("{{\"text\": \"{i} and {}, as everyone knows.\"}}\n", 2 * i);
    std::fs::write(place.path("more.jsonl"), (0..90).map(line).collect::<String>()).expect("text");
    run(place.train("run", "reference", &[]).args(["--until", "5"])).expect(0, &[]);
    let tokenizer = || std::fs::read(place.path("run/data/tokenizer/tokenizer.json")).expect("a tokenizer");
    let before = tokenizer();
    let resume = |dataset: &str| {
        let mut command = place.resume("run", "reference");
        command.args(["--set", dataset, "--set", "stages.long.mixture={facts=0.5,more=0.5}"]);
        command
    };
    let gone = format!("datasets.more={{paths=['{}']}}", place.path("gone.jsonl").display());
    run(&mut resume(&gone)).expect(2, &["gone.jsonl"]);
    let more = format!("datasets.more={{paths=['{}']}}", place.path("more.jsonl").display());
    run(&mut resume(&more)).expect(0, &[]);
    let all = metrics(&place, "run");
    let of =
        |name: &str| all[6..].iter().filter_map(|it| it.datasets.get(name)).map(|it| it.tokens).sum::<u64>();
    assert_eq!([of("facts"), of("more"), of("sums")], [384, 384, 0]);
    assert!(before == tokenizer(), "the tokenizer is another");
    assert_eq!(history(&place, "run").len(), 1, "{:?}", history(&place, "run"));
    // A new run of its recipe is the same.
    place.recipe(&std::fs::read_to_string(place.path("run/recipe.toml")).expect("a recipe"));
    run(&mut place.train("again", "reference", &[])).expect(0, &[]);
    assert!(place.state("run", 12) == place.state("again", 12));
}

/// No false alarm where nothing is wrong.
#[test]
fn the_tiny_recipe_raises_no_alarm() {
    let place = Place::new();
    let longer = ["stages.0.steps=150", "stages.1.steps=100", "schedule.peak_lr=1e-2"];
    for name in ["a", "b"] {
        let seed = format!("seed={}", name.len() + 40);
        let overrides = [&longer[..], &[&seed]].concat();
        run(&mut place.train(name, "reference", &overrides)).expect(0, &[]);
        assert!(!Path::new(&place.path(name)).join("history.jsonl").exists(), "{:?}", history(&place, name));
    }
}
