//! Recipes from the command line: other people's models to begin with.

use crate::support::{Place, RECIPE, devices, run};
use smolter::graph::Backend;
use smolter::infer;
use smolter::infer::scorer::{Bucket, Output, Row, Scorer, ScorerGraph};
use smolter::model::ModelFolder;
use smolter::recipes::Recipe;
use smolter::train::corpus::Corpus;
use smolter::train::kinds::batches_of;
use smolter::train::objective::Shape;
use std::path::Path;
use std::sync::Arc;

/// [`RECIPE`] with another `[model]` and no `[tokenizer]`.
fn beginning_with(model: &str) -> String {
    let (before, after) = RECIPE.split_once("[model]").expect("a model");
    let (_, after) = after.split_once("[schedule]").expect("a schedule");
    format!("{before}[model]\n{model}\n[schedule]{after}")
}

/// The mean loss of a run's first step by the scorer, given the model that it begins with.
fn scored(run: &Path, model: &ModelFolder, device: &str) -> f64 {
    let resolved = run.join("recipe.toml");
    let recipe = Recipe::load(&resolved.to_string_lossy(), &[]).expect("the resolved recipe");
    let corpus = Arc::new(Corpus::prepare(&recipe, &run.join("data"), None).expect("the tokens"));
    let length = recipe.stages[0].sequence_length;
    let sequences = recipe.batch_of(0).sequences;
    let recompute = smolter::graph::recompute::Policy::None;
    let shape = Shape { micro_batch: sequences, passes: 1, length, recompute };
    let consumed = vec![0; recipe.datasets.len()];
    let data = batches_of(&recipe, 0, &consumed, &corpus).expect("its batches");
    let batch = data.step(0, shape).expect("the first step").remove(0);
    let row = |(ids, labels): (&[u32], &[u32])| Row::whole([ids, &labels[length - 1..]].concat());
    let rows: Vec<Row> = batch.ids.chunks(length).zip(batch.labels.chunks(length)).map(row).collect();
    let backend = Backend::open(device).expect("it opens");
    let graph = ScorerGraph::new(&model.architecture, &[Bucket { length, rows: sequences }], Output::Nll);
    let store = infer::load(&backend, model, &[&graph.graph]).expect("the weights");
    let scores =
        Scorer::new(&backend, graph, &store).expect("a scorer").score(&rows).expect("scores").concat();
    scores.iter().map(|&x| f64::from(x)).sum::<f64>() / scores.len() as f64
}

fn first_loss(run: &Path) -> f64 {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).expect("the metrics");
    let line: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    line["loss"].as_f64().expect("a loss")
}

#[test]
fn a_run_begins_with_the_model_that_the_recipe_names() {
    for device in devices() {
        let place = Place::new();
        run(place.train("first", device, &["schedule.peak_lr=0.05"]).args(["--until", "8"])).expect(0, &[]);
        // A run folder, one checkpoint, and a path relative to the recipe.
        let checkpoint = place.path("first/checkpoints/step-000008");
        for from in ["first".to_string(), checkpoint.display().to_string()] {
            place.recipe(&beginning_with(&format!("from = '{from}'")));
            let _ = std::fs::remove_dir_all(place.path("second"));
            run(place.train("second", device, &[]).args(["--until", "1"])).expect(0, &[]);
            let model = ModelFolder::open(&checkpoint).expect("a model");
            let (trained, scored) =
                (first_loss(&place.path("second")), scored(&place.path("second"), &model, device));
            assert!((trained - scored).abs() < 1e-5, "{device}: {trained} in training, {scored} scored");
            let noise = first_loss(&place.path("first"));
            assert!((trained - noise).abs() > 0.01, "{device}: {trained} is the loss of noise, {noise}");
        }
    }
}

#[test]
fn a_run_needs_its_source_only_to_begin() {
    let place = Place::new();
    let train = |name: &str, until: &str| {
        run(place.train(name, "reference", &[]).args(["--until", until])).expect(0, &[])
    };
    train("first", "4");
    place.recipe(&beginning_with("from = 'first'\nrope_theta = 30_000"));
    let straight = ["straight", "stopped", "unborn"];
    run(&mut place.train(straight[0], "reference", &[])).expect(0, &[]);
    train(straight[1], "5");
    let resolved = std::fs::read_to_string(place.path("stopped/recipe.toml")).expect("the resolved recipe");
    for words in ["from = ", "from_hash = ", "rope_theta = 30000", "hidden_size = 32"] {
        assert!(resolved.contains(words), "no {words} in {resolved}");
    }
    // Killed before its first checkpoint.
    train(straight[2], "1");
    std::fs::remove_dir_all(place.path("unborn/checkpoints")).unwrap();
    run(&mut place.resume("unborn", "reference")).expect(0, &[]);
    assert!(place.state("straight", 12) == place.state("unborn", 12), "begun anew, it differs");

    std::fs::rename(place.path("first"), place.path("elsewhere")).unwrap();
    run(&mut place.resume("stopped", "reference")).expect(0, &[]);
    assert!(place.state("straight", 12) == place.state("stopped", 12), "the resumed run differs");

    // Another model at the same place is not what the run began with.
    std::fs::remove_dir_all(place.path("unborn/checkpoints")).unwrap();
    run(&mut place.resume("unborn", "reference")).expect(2, &["first", "no such folder"]);
    place.recipe(RECIPE);
    run(place.train("first", "reference", &["seed=9"]).args(["--until", "4"])).expect(0, &[]);
    run(&mut place.resume("unborn", "reference")).expect(2, &["first has changed"]);
}

#[test]
fn mistakes_about_the_model_to_begin_with_are_placed() {
    let place = Place::new();
    run(place.train("first", "reference", &[]).args(["--until", "1"])).expect(0, &[]);
    for (model, words) in [
        ("from = 'nowhere'", &["tiny.toml:4:8: model.from: ", "no such folder"][..]),
        ("from = 'tiny.toml'", &["tiny.toml:4:8: model.from: ", "is a file"]),
        ("from = 3", &["tiny.toml:4:8: model.from is of type integer, but must be a string"]),
        ("from = 'hf://a'", &["tiny.toml:4:8: model.from: ", "hf://owner/name"]),
        ("from = 'first'\nhidden_size = 64", &["tiny.toml:5:1: model.hidden_size is 64", "has 32"]),
        ("from = 'first'\nrms_norm_eps = 1e-6", &["tiny.toml:5:1: model.rms_norm_eps"]),
        ("from = 'first'\npreset = 'smollm2-135m'", &["tiny.toml:5:10: model.preset stands beside"]),
        ("from = 'first'\nmax_position_embeddings = 16", &["sequence_length is 32", "from 1 to"]),
        ("from = 'first'\n[tokenizer]\nx = 1", &["tiny.toml:6:1: unknown key 'x' in [tokenizer]"]),
    ] {
        place.recipe(&beginning_with(model));
        run(&mut place.train("run", "reference", &[])).expect(2, words).is_one_line();
        assert!(!place.path("run").exists(), "a refused recipe leaves no folder");
    }
    // The first stage cannot go on from another one.
    place.recipe(&RECIPE.replacen("kind = \"pretrain\"", "kind = \"pretrain\"\nfrom = \"x\"", 1));
    run(&mut place.train("run", "reference", &[])).expect(2, &["stages.0.from", "in [model]"]).is_one_line();
}
