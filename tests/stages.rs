//! T2: stages of different shapes in one run: its memory, its borders, its branches, and what may change meanwhile.

use crate::support::{Place, devices, run};
use smolter::checkpoint::folder;
use smolter::graph::Backend;
use smolter::graph::recompute::Policy;
use smolter::recipes::Recipe;
use smolter::train::fit::Work;
use smolter::train::metrics::Metrics;
use std::process::Command;

/// Two stages, 256 then 1,024 tokens with another theta; six steps.
const LONGER: &str = r#"name = "longer"

[model]
vocab_size = 320
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
max_position_embeddings = 1024
rope_theta = 10_000
rms_norm_eps = 1e-5
tie_word_embeddings = true
initializer_std = 0.1

[tokenizer]
train = { vocab_size = 320, sample_documents = 60 }

[schedules.pretrain]
kind = "constant"
peak_lr = 1e-3
warmup_steps = 2

[batch]
sequences = 2

[[datasets]]
name = "facts"
microcosm = "lessons"
documents = 60

[[stages]]
name = "short"
kind = "pretrain"
schedule = "pretrain"
tokens = 1_536
sequence_length = 256
mixture = { facts = 1.0 }

[[stages]]
name = "long"
kind = "pretrain"
schedule = "pretrain"
tokens = 7_680
sequence_length = 1024
rope_theta = 100_000
mixture = { facts = 1.0 }

[held_out]
fraction = 0.2
sequences = 2
every = 100

[checkpoint]
every = 100
"#;

/// Steps of [`LONGER`], and those of its first stage.
const STEPS: u64 = 6;
const BORDER: u64 = 3;

fn recipe(place: &Place) -> Recipe {
    place.recipe(LONGER);
    Recipe::load(&place.path("tiny.toml").to_string_lossy(), &[]).expect("the recipe is sound")
}

/// Bytes that the second stage exceeds with more than one sequence at a time, whatever it computes again.
fn tight(recipe: &Recipe, backend: &Backend) -> u64 {
    let two = Work::of(recipe, 1).candidate(&backend.caps(), 2, Policy::Block).expect("a plan");
    two.total() - 1
}

#[test]
fn a_longer_stage_takes_a_smaller_micro_batch_and_resumes_around_its_border() {
    for device in devices() {
        let place = Place::new();
        let recipe = recipe(&place);
        let backend = Backend::open(device).expect("it opens");
        let memory = tight(&recipe, &backend).to_string();
        let limited = |mut command: Command| {
            command.args(["--memory", &memory]);
            command
        };
        run(&mut limited(place.train("whole", device, &[]))).expect(0, &[]);
        let resolved = place.path("whole/recipe.toml");
        let resolved = Recipe::load(&resolved.to_string_lossy(), &[]).expect("the resolved recipe");
        let sizes = [0, 1].map(|stage| resolved.batch_of(stage).micro_batch);
        assert_eq!(sizes, [2, 1], "micro-batches on {device}");
        for until in [BORDER - 1, BORDER, BORDER + 1] {
            let name = format!("stopped-{until}");
            run(limited(place.train(&name, device, &[])).args(["--until", &until.to_string()]))
                .expect(0, &[]);
            run(&mut limited(place.resume(&name, device))).expect(0, &[]);
            assert!(
                place.state("whole", STEPS) == place.state(&name, STEPS),
                "{device}: a run resumed after step {until} differs"
            );
        }
    }
}

#[test]
fn what_a_later_stage_lacks_is_said_before_the_first_step() {
    let place = Place::new();
    let recipe = recipe(&place);
    let memory = Work::of(&recipe, 1).candidate(&Backend::Reference.caps(), 1, Policy::Block);
    let memory = (memory.expect("a plan").total() - 1).to_string();
    let train = |overrides: &[&str]| place.train("run", "reference", overrides);
    run(train(&[]).args(["--memory", &memory])).expect(2, &["stage long does not fit", "--memory"]);
    run(&mut train(&["datasets.facts.max_epochs=1", "stages.long.tokens=900_000"])).expect(2, &["facts"]);
    assert!(!place.path("run/metrics.jsonl").exists(), "a step was taken");
}

#[test]
fn a_branch_goes_on_as_if_the_stage_that_it_leaves_out_were_not_there() {
    for device in devices() {
        let place = Place::new();
        let third = r#"
[[stages]]
name = "side"
kind = "pretrain"
schedule = "side"
reset_optimizer = true
from = "short"
tokens = 3_584
sequence_length = 512
mixture = { facts = 1.0 }

[schedules.side]
kind = "cosine"
peak_lr = 2e-3
warmup_steps = 1
"#;
        place.recipe(&format!("{LONGER}{third}"));
        // Three steps, three of the stage that is left out, two of the branch.
        run(&mut place.train("branched", device, &["checkpoint.keep=1"])).expect(0, &[]);
        let kept: Vec<u64> = folder::list(&place.path("branched")).unwrap().iter().map(|it| it.0).collect();
        assert_eq!(kept, [BORDER, STEPS, STEPS + 2], "ends of stages stay");
        run(place.train("stopped", device, &[]).args(["--until", "7"])).expect(0, &[]);
        run(&mut place.resume("stopped", device)).expect(0, &[]);
        assert!(
            place.state("branched", 8) == place.state("stopped", 8),
            "{device}: a resumed branch differs"
        );

        let (before, after) = LONGER.split_once("[[stages]]\nname = \"long\"").expect("the second stage");
        let (_, after) = after.split_once("[held_out]").expect("what follows");
        let straight = format!("{before}[held_out]{after}{}", third.replace("from = \"short\"\n", ""));
        place.recipe(&straight);
        run(&mut place.train("straight", device, &[])).expect(0, &[]);
        assert!(place.state("branched", 8) == place.state("straight", 5), "{device}: the branch differs");
    }
}

#[test]
fn later_stages_may_change_and_earlier_ones_may_not() {
    let place = Place::new();
    recipe(&place);
    let change = |run: &str, from: &str, to: &str| {
        let path = place.path(run).join("recipe.toml");
        let text = std::fs::read_to_string(&path).expect("the resolved recipe");
        assert!(text.contains(from), "no {from} in {text}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("a recipe");
    };
    let stopped = |name: &str, overrides: &[&str]| {
        run(place.train(name, "reference", overrides).args(["--until", "2"])).expect(0, &[]);
    };
    stopped("later", &[]);
    change("later", "tokens = 7680", "tokens = 5632");
    change("later", "rope_theta = 100000.0", "rope_theta = 50000.0");
    run(&mut place.resume("later", "reference")).expect(0, &[]);
    run(&mut place.train("so", "reference", &["stages.long.tokens=5632", "stages.long.rope_theta=5e4"]))
        .expect(0, &[]);
    assert!(place.state("later", 5) == place.state("so", 5), "the changed stage was not trained as it says");

    stopped("earlier", &[]);
    change("earlier", "tokens = 1536", "tokens = 1024");
    run(&mut place.resume("earlier", "reference"))
        .expect(2, &["another recipe", "stage short", "recipe.toml"]);

    // Most steps are decay: with fewer of them the second one would have been slower.
    let decay =
        ["kind=wsd", "decay_fraction=0.7", "warmup_steps=0"].map(|it| format!("schedules.pretrain.{it}"));
    stopped("decay", &decay.each_ref().map(String::as_str));
    change("decay", "tokens = 7680", "tokens = 3584");
    run(&mut place.resume("decay", "reference")).expect(2, &["learning rate", "recipe.toml"]);
}

#[test]
fn what_a_run_allocates_is_what_was_planned() {
    let Some(device) = devices().into_iter().find(|&device| device != "reference") else { return };
    let place = Place::new();
    run(&mut place.train("run", device, &[])).expect(0, &[]);
    let resolved = place.path("run/recipe.toml");
    let resolved = Recipe::load(&resolved.to_string_lossy(), &[]).expect("the resolved recipe");
    let caps = Backend::open(device).expect("it opens").caps();
    let text = std::fs::read_to_string(place.path("run/metrics.jsonl")).expect("the metrics");
    let memory = |line: &str| serde_json::from_str::<Metrics>(line).expect("a line").timing.memory;
    // Both stages end with an evaluation: weights, training and scorer are there, and no weights but those.
    for (stage, step) in [(0, 6), (1, 12)] {
        let micro_batch = resolved.batch_of(stage).micro_batch;
        let planned = Work::of(&resolved, stage).choose(&caps, micro_batch, u64::MAX).expect("a plan");
        let allocated = memory(text.lines().nth(step - 1).expect("the step's line"));
        assert_eq!(allocated, planned.total(), "stage {stage}");
    }
}

/// Feed-forward layers of 1,024 x 36,000 floats exceed the 128 MiB of a binding.
#[test]
fn what_exceeds_a_binding_is_bound_in_parts() {
    let place = Place::new();
    place.recipe(LONGER);
    let wide = ["model.hidden_size=16", "model.head_dim=8", "model.num_hidden_layers=1"];
    let wide = [&wide[..], &["model.intermediate_size=36000", "batch.micro_batch=1"]].concat();
    let mut found: Vec<(String, Metrics)> = Vec::new();
    for device in devices() {
        let mut train = place.train(device, device, &wide);
        run(train.args(["--until", &(BORDER + 1).to_string()])).expect(0, &[]);
        let metrics = std::fs::read_to_string(place.path(device).join("metrics.jsonl")).expect("metrics");
        let last = metrics.lines().last().expect("a line");
        found.push((device.into(), serde_json::from_str(last).expect("metrics")));
    }
    let (_, expected) = &found[0];
    assert_eq!(expected.step, BORDER + 1);
    for (device, metrics) in &found {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-4 * b.abs();
        assert!(close(metrics.loss, expected.loss), "{device}: {metrics:?} {expected:?}");
        assert!(close(metrics.grad_norm, expected.grad_norm), "{device}: {metrics:?} {expected:?}");
    }
}
