//! What the types cannot say about a recipe: ranges, names that refer to each other, sums. What is wrong with schedules
//! is for [`schedules`](super::schedules) to say.

mod datasets;
pub(super) mod timeline;

use std::collections::{BTreeMap, HashSet};

use super::problem::{KeyPath, Problems, key_path, suggest};
use super::schema::{Batch, Optimizer, Preference, Recipe, Skip, Stage, StageKind};
use super::{chat, evaluation};
use crate::data::mixture::LEAST_WEIGHT;
use crate::hub;

/// Adds all mistakes but those of schedules to `problems`.
pub(super) fn check(problems: &mut Problems, recipe: &Recipe) {
    problems.require(is_name(&recipe.name), key_path!["name"], || name_rule(&recipe.name));
    for (key, seed) in
        [("seed", recipe.seed), ("data_seed", recipe.data_seed), ("world_seed", recipe.world_seed())]
    {
        problems.require(i64::try_from(seed).is_ok(), key_path![key], || "must be below 2^63".into());
    }
    for (field, why) in recipe.model.problems() {
        problems.require(false, key_path!["model", field], || why);
    }
    check_tokenizer(problems, recipe);
    check_batch(problems, &recipe.batch, key_path!["batch"]);
    datasets::check(problems, recipe);
    check_stages(problems, recipe);
    chat::check_datasets(problems, recipe);
    check_optimizers(problems, recipe);
    check_reports(problems, recipe);
    evaluation::check(problems, recipe);
}

pub(super) fn positive(problems: &mut Problems, value: f64, path: &[String]) {
    problems.require(value.is_finite() && value > 0.0, path, || format!("is {value}, but must be positive"))
}

pub(super) fn not_negative(problems: &mut Problems, value: f64, path: &[String]) {
    problems
        .require(value.is_finite() && value >= 0.0, path, || format!("is {value}, but must not be negative"))
}

fn at_least_one(problems: &mut Problems, value: u64, path: &[String]) {
    problems.require(value >= 1, path, || "is 0, but must be at least 1".into())
}

/// The path of a key in the table at `place`.
pub(super) fn below(place: &[String], key: &str) -> KeyPath {
    [place, &[key.to_string()]].concat()
}

/// Names stand in file names, in keys of `--set`, and beside indices there.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Names of a recipe's parts also stand in keys of `--set`, between dots.
fn is_part(name: &str) -> bool {
    is_name(name) && !name.contains('.')
}

fn name_rule(name: &str) -> String {
    format!("is '{name}', but must be a letter, then letters, digits, '-' or '_'")
}

fn check_tokenizer(problems: &mut Problems, recipe: &Recipe) {
    let tokenizer = &recipe.tokenizer;
    let given = usize::from(tokenizer.path.is_some()) + usize::from(tokenizer.train.is_some());
    // Without one, it is that of the model that the run begins with.
    problems.require(given == 1 || given == 0 && recipe.source.is_some(), key_path!["tokenizer"], || {
        "needs one of path (a tokenizer.json) and train".into()
    });
    if let Some(path) = &tokenizer.path {
        problems.require(!path.as_os_str().is_empty(), key_path!["tokenizer", "path"], || {
            "is empty, but must name a tokenizer.json".into()
        });
    }
    let Some(train) = &tokenizer.train else { return };
    let place = key_path!["tokenizer", "train", "datasets"];
    let known: Vec<&str> = recipe.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
    for (i, name) in train.datasets.iter().flatten().enumerate() {
        problems.require(known.contains(&name.as_str()), &below(place, &i.to_string()), || {
            format!("is '{name}', but no dataset has that name; {}", suggest(name, &known))
        });
    }
    problems.require(train.datasets.as_ref().is_none_or(|names| !names.is_empty()), place, || {
        "is empty: name a dataset, or leave the key out".into()
    });
    let mut learnt = recipe.datasets.iter().filter(|dataset| train.learns_from(&dataset.name));
    let remote = learnt.find(|dataset| dataset.paths.iter().any(|path| hub::is_remote(path)));
    if let Some(dataset) = remote {
        problems.require(false, key_path!["tokenizer", "train"], || {
            format!(
                "reads all datasets, but those of the Hub, such as '{}', are fetched for training only: give a \
                 tokenizer.path",
                dataset.name
            )
        });
    }
    let (size, model) = (train.vocab_size, recipe.model.vocab_size);
    if problems.are_none_at(key_path!["model", "vocab_size"]) {
        problems.require(size == model, key_path!["tokenizer", "train", "vocab_size"], || {
            format!("is {size}, but model.vocab_size is {model}")
        });
    }
    if let Some(from) = train.prune_from {
        problems.require(from >= size, key_path!["tokenizer", "train", "prune_from"], || {
            format!("is {from}, but must be at least vocab_size, {size}")
        });
    }
    let documents = train.sample_documents as u64;
    at_least_one(problems, documents, key_path!["tokenizer", "train", "sample_documents"]);
}

/// Most sequences of a step: more tokens than anybody has trained on in one.
const MOST_SEQUENCES: usize = 1 << 24;

fn check_batch(problems: &mut Problems, batch: &Batch, place: &[String]) {
    let &Batch { sequences, micro_batch } = batch;
    problems.require((1..=MOST_SEQUENCES).contains(&sequences), &below(place, "sequences"), || {
        format!(
            "is {sequences}, but must be {}",
            if sequences == 0 { "at least 1" } else { "at most 16777216" }
        )
    });
    if problems.are_none_at(&below(place, "sequences")) {
        let divides = micro_batch == 0 || sequences.is_multiple_of(micro_batch);
        problems.require(divides, &below(place, "micro_batch"), || {
            format!(
                "is {micro_batch}, but must divide the {sequences} sequences of a batch, \
                 or be 0 for the largest that fits"
            )
        });
    }
}

fn check_optimizers(problems: &mut Problems, recipe: &Recipe) {
    check_optimizer(problems, &recipe.optimizer, key_path!["optimizer"]);
    let used: HashSet<&String> = recipe.stages.iter().filter_map(|stage| stage.optimizer.as_ref()).collect();
    for (name, optimizer) in &recipe.optimizers {
        let place = key_path!["optimizers", name];
        check_named(problems, name, used.contains(name), place);
        check_optimizer(problems, optimizer, place);
    }
}

/// A table that stages name.
pub(super) fn check_named(problems: &mut Problems, name: &str, used: bool, place: &[String]) {
    problems.require(is_part(name), place, || name_rule(name));
    problems.require(used, place, || "is used by no stage: name it in one, or delete it".into())
}

fn check_optimizer(problems: &mut Problems, optimizer: &Optimizer, place: &[String]) {
    for (i, beta) in optimizer.betas.iter().enumerate() {
        problems.require((0.0..1.0).contains(beta), &below(&below(place, "betas"), &i.to_string()), || {
            format!("is {beta}, but must be from 0 to below 1")
        });
    }
    positive(problems, optimizer.eps, &below(place, "eps"));
    not_negative(problems, optimizer.weight_decay, &below(place, "weight_decay"));
    positive(problems, optimizer.clip_norm, &below(place, "clip_norm"))
}

fn check_stages(problems: &mut Problems, recipe: &Recipe) {
    let given = !recipe.stages.is_empty();
    problems.require(given, key_path!["stages"], || "is empty: give at least one".into());
    let datasets: HashSet<&str> = recipe.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
    let are_read = (0..recipe.datasets.len()).all(|i| problems.is_read(key_path!["datasets", i, "name"]));
    let known = (are_read && problems.is_read(key_path!["datasets"])).then_some(&datasets);
    let mut names = HashSet::new();
    for (i, stage) in recipe.stages.iter().enumerate() {
        check_stage(problems, recipe, i, stage, known);
        problems.require(names.insert(&stage.name), key_path!["stages", i, "name"], || {
            format!("is '{}', but an earlier stage has that name", stage.name)
        });
    }
}

/// `datasets` has the names of all, if these could be read.
fn check_stage(
    problems: &mut Problems,
    recipe: &Recipe,
    i: usize,
    stage: &Stage,
    datasets: Option<&HashSet<&str>>,
) {
    let name = &stage.name;
    problems.require(is_part(name), key_path!["stages", i, "name"], || name_rule(name));
    chat::check_stage(problems, i, stage);
    check_length(problems, i, stage);
    check_skip(problems, i, stage);
    let (length, longest) = (stage.sequence_length, recipe.model.max_position_embeddings);
    if problems.are_none_at(key_path!["model", "max_position_embeddings"]) {
        problems.require((1..=longest).contains(&length), key_path!["stages", i, "sequence_length"], || {
            format!("is {length}, but must be from 1 to model.max_position_embeddings {longest}")
        });
    }
    if let Some(theta) = stage.rope_theta {
        positive(problems, theta, key_path!["stages", i, "rope_theta"]);
    }
    if let Some(batch) = &stage.batch {
        check_batch(problems, batch, key_path!["stages", i, "batch"]);
    }
    if let Some(lora) = &stage.lora
        && problems.are_none_at(key_path!["model"])
    {
        for (key, why) in lora.problems(&recipe.model.parameters()) {
            problems.require(false, key_path!["stages", i, "lora", key], || why);
        }
    }
    check_choices(problems, recipe, i, stage);
    check_preference(problems, i, stage);
    check_mixture(problems, recipe, i, stage, datasets)
}

/// What is said of preference pairs.
fn check_preference(problems: &mut Problems, i: usize, stage: &Stage) {
    let place = key_path!["stages", i, "dpo"];
    let given = stage.dpo.as_ref();
    if stage.kind != StageKind::Dpo {
        return problems.require(given.is_none(), place, || "goes with kind = \"dpo\"".into());
    }
    let Preference { beta, label_smoothing, gamma, lambda, max_prompt_length, .. } =
        given.cloned().unwrap_or_default();
    positive(problems, beta, &below(place, "beta"));
    problems.require((0.0..0.5).contains(&label_smoothing), &below(place, "label_smoothing"), || {
        format!("is {label_smoothing}, but must be from 0 to below 0.5")
    });
    not_negative(problems, gamma, &below(place, "gamma"));
    not_negative(problems, lambda, &below(place, "lambda"));
    let length = stage.sequence_length;
    problems.require(length >= 2, key_path!["stages", i, "sequence_length"], || {
        format!("is {length}, but a prompt and an answer take at least 2")
    });
    if let Some(prompt) = max_prompt_length {
        problems.require((1..length.max(2)).contains(&prompt), &below(place, "max_prompt_length"), || {
            format!("is {prompt}, but must be from 1 to below sequence_length {length}")
        });
    }
}

/// How long a stage is: in tokens, steps or epochs.
fn check_length(problems: &mut Problems, i: usize, stage: &Stage) {
    let given = [stage.tokens.is_some(), stage.steps.is_some(), stage.epochs.is_some()];
    problems.require(given.into_iter().filter(|&it| it).count() == 1, key_path!["stages", i], || {
        format!("('{}') needs one of tokens, steps and epochs", stage.name)
    });
    for (key, count) in [("tokens", stage.tokens), ("steps", stage.steps)] {
        let Some(count) = count else { continue };
        let place = key_path!["stages", i, key];
        problems.require(i64::try_from(count).is_ok(), place, || "must be below 2^63".into());
        at_least_one(problems, count, place);
    }
    if let Some(epochs) = stage.epochs {
        positive(problems, epochs, key_path!["stages", i, "epochs"]);
    }
}

/// What is left out of a stage's data, in order.
fn check_skip(problems: &mut Problems, i: usize, stage: &Stage) {
    let mut end = 0;
    for (j, &Skip { step, steps }) in stage.skip.iter().enumerate() {
        let place = key_path!["stages", i, "skip", j];
        at_least_one(problems, steps, &below(place, "steps"));
        problems.require(step >= end, &below(place, "step"), || {
            format!("is {step}, but must be at least {end}, behind what is left out before it")
        });
        let fits = step.checked_add(steps).filter(|&end| i64::try_from(end).is_ok());
        problems.require(fits.is_some(), place, || "ends beyond 2^63 steps: leave out fewer".into());
        end = fits.unwrap_or(end);
    }
}

/// The schedule and the optimizer that a stage names.
fn check_choices(problems: &mut Problems, recipe: &Recipe, i: usize, stage: &Stage) {
    if let Some(name) = &stage.optimizer {
        check_choice(problems, "optimizer", name, &recipe.optimizers, i);
    }
    if let Some(name) = &stage.schedule {
        return check_choice(problems, "schedule", name, &recipe.schedules, i);
    }
    problems.require(recipe.schedule.is_some(), key_path!["stages", i, "schedule"], || {
        match names(&recipe.schedules)[..] {
            [] => "is missing: write a [schedule] for all stages".into(),
            ref known => {
                let known = known.join(", ");
                format!("is missing: write it, or a [schedule] for all stages that have none; known: {known}")
            }
        }
    })
}

fn check_choice<T>(problems: &mut Problems, key: &str, name: &str, tables: &BTreeMap<String, T>, i: usize) {
    problems.require(tables.contains_key(name), key_path!["stages", i, key], || match names(tables)[..] {
        [] => format!("is '{name}', but there is no [{key}s.{name}]: write it, or leave the key out"),
        ref known => format!("is '{name}'; {}", suggest(name, known)),
    })
}

fn names<T>(tables: &BTreeMap<String, T>) -> Vec<&str> {
    tables.keys().map(String::as_str).collect()
}

fn check_mixture(
    problems: &mut Problems,
    recipe: &Recipe,
    i: usize,
    stage: &Stage,
    datasets: Option<&HashSet<&str>>,
) {
    let mixture = key_path!["stages", i, "mixture"];
    problems.require(!stage.mixture.is_empty(), mixture, || {
        "is empty, but must share out the tokens among datasets".into()
    });
    let mut are_weights = problems.are_none_at(mixture);
    for (name, &weight) in &stage.mixture {
        let place = key_path!["stages", i, "mixture", name];
        let is_weight = weight >= LEAST_WEIGHT;
        are_weights &= is_weight;
        problems.require(datasets.is_none_or(|it| it.contains(name.as_str())), place, || {
            let known: Vec<&str> = recipe.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
            format!("names no dataset; {}", suggest(name, &known))
        });
        problems.require(is_weight, place, || {
            format!("is {weight}, but must be at least {LEAST_WEIGHT}: give more, or leave the dataset out")
        });
    }
    let sum: f64 = stage.mixture.values().sum();
    // Wide enough for thirds written with seven digits.
    problems.require(!are_weights || (sum - 1.0).abs() < 1e-6, mixture, || {
        format!("has weights that sum to {}, but must sum to 1", (sum * 1e9).round() / 1e9)
    })
}

fn check_reports(problems: &mut Problems, recipe: &Recipe) {
    let held_out = &recipe.held_out;
    problems.require((0.0..1.0).contains(&held_out.fraction), key_path!["held_out", "fraction"], || {
        format!("is {}, but must be from 0 to below 1", held_out.fraction)
    });
    at_least_one(problems, held_out.sequences as u64, key_path!["held_out", "sequences"]);
    at_least_one(problems, held_out.pairs.unwrap_or(1) as u64, key_path!["held_out", "pairs"]);
    at_least_one(problems, held_out.every, key_path!["held_out", "every"]);
    at_least_one(problems, recipe.checkpoint.every, key_path!["checkpoint", "every"]);
    not_negative(problems, recipe.checkpoint.minutes, key_path!["checkpoint", "minutes"]);
    at_least_one(problems, recipe.checkpoint.keep as u64, key_path!["checkpoint", "keep"]);
    let sample = &recipe.sample;
    at_least_one(problems, sample.tokens as u64, key_path!["sample", "tokens"]);
    not_negative(problems, sample.temperature, key_path!["sample", "temperature"]);
    problems.require(i64::try_from(sample.seed).is_ok(), key_path!["sample", "seed"], || {
        "must be below 2^63".into()
    });
    positive(problems, recipe.spikes.threshold, key_path!["spikes", "threshold"]);
    problems.require(recipe.spikes.before < 1 << 32, key_path!["spikes", "before"], || {
        "must be below 2^32".into()
    });
}
