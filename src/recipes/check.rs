//! What the types cannot say about a recipe: ranges, names that refer to each other, sums.

use std::collections::{BTreeMap, HashSet};

use super::problem::{Check, KeyPath, Problem, key_path, require, suggest};
use super::schema::{Batch, Dataset, LearningRate, Optimizer, Recipe, ScheduleKind, Stage, StageKind};
use super::timeline::{schedule_lengths, spans};
use crate::data::microcosm::Register;

/// Finds the first mistake.
pub(super) fn check(recipe: &Recipe) -> Check {
    require(is_name(&recipe.name), key_path!["name"], || name_rule(&recipe.name))?;
    for (key, seed) in [("seed", recipe.seed), ("data_seed", recipe.data_seed)] {
        require(i64::try_from(seed).is_ok(), key_path![key], || "must be below 2^63".into())?;
    }
    if let Some((field, why)) = recipe.model.problem() {
        return Err(Problem { path: key_path!["model", field].to_vec(), message: why });
    }
    check_tokenizer(recipe)?;
    check_batch(&recipe.batch, key_path!["batch"])?;
    let datasets = check_datasets(recipe)?;
    check_stages(recipe, &datasets)?;
    check_optimizers(recipe)?;
    check_schedules(recipe)?;
    check_reports(recipe)
}

fn positive(value: f64, path: &[String]) -> Check {
    require(value.is_finite() && value > 0.0, path, || format!("is {value}, but must be positive"))
}

fn not_negative(value: f64, path: &[String]) -> Check {
    require(value.is_finite() && value >= 0.0, path, || format!("is {value}, but must not be negative"))
}

fn at_least_one(value: u64, path: &[String]) -> Check {
    require(value >= 1, path, || "is 0, but must be at least 1".into())
}

/// The path of a key in the table at `place`.
fn below(place: &[String], key: &str) -> KeyPath {
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

fn check_tokenizer(recipe: &Recipe) -> Check {
    let tokenizer = &recipe.tokenizer;
    require(tokenizer.path.is_some() != tokenizer.train.is_some(), key_path!["tokenizer"], || {
        "needs one of path (a tokenizer.json) and train".into()
    })?;
    let Some(train) = &tokenizer.train else { return Ok(()) };
    let (size, model) = (train.vocab_size, recipe.model.vocab_size);
    require(size == model, key_path!["tokenizer", "train", "vocab_size"], || {
        format!("is {size}, but model.vocab_size is {model}")
    })?;
    at_least_one(train.sample_documents as u64, key_path!["tokenizer", "train", "sample_documents"])
}

fn check_batch(batch: &Batch, place: &[String]) -> Check {
    let &Batch { sequences, micro_batch } = batch;
    at_least_one(sequences as u64, &below(place, "sequences"))?;
    require(micro_batch == 0 || sequences.is_multiple_of(micro_batch), &below(place, "micro_batch"), || {
        format!(
            "is {micro_batch}, but must divide the {sequences} sequences of a batch, \
             or be 0 for the largest that fits"
        )
    })
}

fn check_optimizers(recipe: &Recipe) -> Check {
    check_optimizer(&recipe.optimizer, key_path!["optimizer"])?;
    let used: HashSet<&String> = recipe.stages.iter().filter_map(|stage| stage.optimizer.as_ref()).collect();
    for (name, optimizer) in &recipe.optimizers {
        let place = key_path!["optimizers", name];
        check_named(name, used.contains(name), place)?;
        check_optimizer(optimizer, place)?;
    }
    Ok(())
}

/// A table that stages name.
fn check_named(name: &str, used: bool, place: &[String]) -> Check {
    require(is_part(name), place, || name_rule(name))?;
    require(used, place, || "is used by no stage: name it in one, or delete it".into())
}

fn check_optimizer(optimizer: &Optimizer, place: &[String]) -> Check {
    for (i, beta) in optimizer.betas.iter().enumerate() {
        require((0.0..1.0).contains(beta), &below(&below(place, "betas"), &i.to_string()), || {
            format!("is {beta}, but must be from 0 to below 1")
        })?;
    }
    positive(optimizer.eps, &below(place, "eps"))?;
    not_negative(optimizer.weight_decay, &below(place, "weight_decay"))?;
    positive(optimizer.clip_norm, &below(place, "clip_norm"))
}

/// Returns the names of the datasets.
fn check_datasets(recipe: &Recipe) -> Check<HashSet<&str>> {
    require(!recipe.datasets.is_empty(), key_path!["datasets"], || "is empty: give at least one".into())?;
    let mut names = HashSet::new();
    for (i, dataset) in recipe.datasets.iter().enumerate() {
        check_dataset(i, dataset)?;
        require(names.insert(dataset.name.as_str()), key_path!["datasets", i, "name"], || {
            format!("is '{}', but an earlier dataset has that name", dataset.name)
        })?;
    }
    Ok(names)
}

fn check_dataset(i: usize, dataset: &Dataset) -> Check {
    let name = &dataset.name;
    require(is_part(name), key_path!["datasets", i, "name"], || name_rule(name))?;
    require(dataset.microcosm.is_some() == dataset.paths.is_empty(), key_path!["datasets", i], || {
        format!("('{name}') needs one of microcosm (text to generate) and paths (files to read)")
    })?;
    if let Some(register) = &dataset.microcosm {
        let known = Register::ALL.map(Register::name);
        require(known.contains(&register.as_str()), key_path!["datasets", i, "microcosm"], || {
            format!("is '{register}'; {}", suggest(register, &known))
        })?;
    }
    require(
        dataset.microcosm.is_some() == dataset.documents.is_some(),
        key_path!["datasets", i, "documents"],
        || "goes with microcosm: it is the number of documents to generate".into(),
    )?;
    if let Some(documents) = dataset.documents {
        at_least_one(documents as u64, key_path!["datasets", i, "documents"])?;
    }
    require(!dataset.fields.is_empty(), key_path!["datasets", i, "fields"], || {
        "is empty, but must name the column that holds the text".into()
    })?;
    at_least_one(dataset.max_record_bytes as u64, key_path!["datasets", i, "max_record_bytes"])?;
    dataset.max_epochs.map_or(Ok(()), |epochs| positive(epochs, key_path!["datasets", i, "max_epochs"]))
}

fn check_stages(recipe: &Recipe, datasets: &HashSet<&str>) -> Check {
    require(!recipe.stages.is_empty(), key_path!["stages"], || "is empty: give at least one".into())?;
    let mut names = HashSet::new();
    for (i, stage) in recipe.stages.iter().enumerate() {
        check_stage(recipe, i, stage, datasets)?;
        require(names.insert(&stage.name), key_path!["stages", i, "name"], || {
            format!("is '{}', but an earlier stage has that name", stage.name)
        })?;
    }
    Ok(())
}

fn check_stage(recipe: &Recipe, i: usize, stage: &Stage, datasets: &HashSet<&str>) -> Check {
    let name = &stage.name;
    require(is_part(name), key_path!["stages", i, "name"], || name_rule(name))?;
    require(stage.kind == StageKind::Pretrain, key_path!["stages", i, "kind"], || {
        "is a kind that this version of smolter cannot train yet; only 'pretrain' can".into()
    })?;
    require(i64::try_from(stage.tokens).is_ok(), key_path!["stages", i, "tokens"], || {
        "must be below 2^63".into()
    })?;
    let (length, longest) = (stage.sequence_length, recipe.model.max_position_embeddings);
    require((1..=longest).contains(&length), key_path!["stages", i, "sequence_length"], || {
        format!("is {length}, but must be from 1 to model.max_position_embeddings {longest}")
    })?;
    if let Some(theta) = stage.rope_theta {
        positive(theta, key_path!["stages", i, "rope_theta"])?;
    }
    if let Some(batch) = &stage.batch {
        check_batch(batch, key_path!["stages", i, "batch"])?;
    }
    check_choices(recipe, i, stage)?;
    check_mixture(recipe, i, stage, datasets)
}

/// The schedule and the optimizer that a stage names.
fn check_choices(recipe: &Recipe, i: usize, stage: &Stage) -> Check {
    if let Some(name) = &stage.optimizer {
        check_choice("optimizer", name, &recipe.optimizers, i)?;
    }
    if let Some(name) = &stage.schedule {
        return check_choice("schedule", name, &recipe.schedules, i);
    }
    require(recipe.schedule.is_some(), key_path!["stages", i, "schedule"], || {
        match names(&recipe.schedules)[..] {
            [] => "is missing: write a [schedule] for all stages".into(),
            ref known => {
                let known = known.join(", ");
                format!("is missing: write it, or a [schedule] for all stages that have none; known: {known}")
            }
        }
    })
}

fn check_choice<T>(key: &str, name: &str, tables: &BTreeMap<String, T>, i: usize) -> Check {
    require(tables.contains_key(name), key_path!["stages", i, key], || match names(tables)[..] {
        [] => format!("is '{name}', but there is no [{key}s.{name}]: write it, or leave the key out"),
        ref known => format!("is '{name}'; {}", suggest(name, known)),
    })
}

fn names<T>(tables: &BTreeMap<String, T>) -> Vec<&str> {
    tables.keys().map(String::as_str).collect()
}

fn check_mixture(recipe: &Recipe, i: usize, stage: &Stage, datasets: &HashSet<&str>) -> Check {
    require(!stage.mixture.is_empty(), key_path!["stages", i, "mixture"], || {
        "is empty, but must share out the tokens among datasets".into()
    })?;
    for (name, &weight) in &stage.mixture {
        require(datasets.contains(name.as_str()), key_path!["stages", i, "mixture", name], || {
            let known: Vec<&str> = recipe.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
            format!("names no dataset; {}", suggest(name, &known))
        })?;
        positive(weight, key_path!["stages", i, "mixture", name])?;
    }
    let sum: f64 = stage.mixture.values().sum();
    // Wide enough for thirds written with seven digits.
    require((sum - 1.0).abs() < 1e-6, key_path!["stages", i, "mixture"], || {
        format!("has weights that sum to {}, but must sum to 1", (sum * 1e9).round() / 1e9)
    })
}

fn check_schedules(recipe: &Recipe) -> Check {
    let spans = spans(recipe)?;
    let lengths = schedule_lengths(recipe, &spans);
    let all = spans.last().map_or(0, |span| span.end_step);
    if let Some(schedule) = &recipe.schedule {
        check_schedule(schedule, lengths.get(&None).copied(), all, key_path!["schedule"])?;
    }
    for (name, schedule) in &recipe.schedules {
        let (place, length) = (key_path!["schedules", name], lengths.get(&Some(name.as_str())).copied());
        check_named(name, length.is_some(), place)?;
        check_schedule(schedule, length, all, place)?;
    }
    Ok(())
}

/// A schedule over `length` steps of a run of `all`; it has no length if no stage uses it.
fn check_schedule(schedule: &LearningRate, length: Option<u64>, all: u64, place: &[String]) -> Check {
    positive(schedule.peak_lr, &below(place, "peak_lr"))?;
    not_negative(schedule.min_lr, &below(place, "min_lr"))?;
    require(schedule.min_lr <= schedule.peak_lr, &below(place, "min_lr"), || {
        format!("is {}, but must not be above peak_lr {}", schedule.min_lr, schedule.peak_lr)
    })?;
    let length = length.unwrap_or(u64::MAX);
    let only = || {
        let whose = if length == all { "the run has" } else { "the stages that use it have" };
        format!("but {whose} only {length} steps")
    };
    require(schedule.warmup_steps <= length, &below(place, "warmup_steps"), || {
        format!("is {}, {}", schedule.warmup_steps, only())
    })?;
    let given = schedule.decay_steps.is_some() as usize + schedule.decay_fraction.is_some() as usize;
    let key = if schedule.decay_steps.is_some() { "decay_steps" } else { "decay_fraction" };
    if schedule.kind != ScheduleKind::Wsd {
        return require(given == 0, &below(place, key), || "is only for kind = \"wsd\"".into());
    }
    require(given == 1, place, || "needs one of decay_steps and decay_fraction".into())?;
    if let Some(fraction) = schedule.decay_fraction {
        require((0.0..=1.0).contains(&fraction), &below(place, "decay_fraction"), || {
            format!("is {fraction}, but must be from 0 to 1")
        })?;
    }
    let (warmup, decay) = (schedule.warmup_steps, schedule.decay_steps(length));
    require(decay <= length - warmup, &below(place, key), || {
        format!("makes {decay} steps of decay after {warmup} of warmup, {}", only())
    })
}

fn check_reports(recipe: &Recipe) -> Check {
    let held_out = &recipe.held_out;
    require((0.0..1.0).contains(&held_out.fraction), key_path!["held_out", "fraction"], || {
        format!("is {}, but must be from 0 to below 1", held_out.fraction)
    })?;
    at_least_one(held_out.sequences as u64, key_path!["held_out", "sequences"])?;
    at_least_one(held_out.every, key_path!["held_out", "every"])?;
    at_least_one(recipe.checkpoint.every, key_path!["checkpoint", "every"])?;
    not_negative(recipe.checkpoint.minutes, key_path!["checkpoint", "minutes"])?;
    at_least_one(recipe.checkpoint.keep as u64, key_path!["checkpoint", "keep"])?;
    let sample = &recipe.sample;
    at_least_one(sample.tokens as u64, key_path!["sample", "tokens"])?;
    not_negative(sample.temperature, key_path!["sample", "temperature"])?;
    require(i64::try_from(sample.seed).is_ok(), key_path!["sample", "seed"], || "must be below 2^63".into())
}
