//! What the types cannot say about a recipe: ranges, names that refer to each other, sums.

use super::document::{KeyPath, suggest};
use super::schema::{Dataset, Recipe, ScheduleKind, Stage, StageKind};
use crate::data::microcosm::Register;

/// A mistake in a recipe, and the key where it stands. The message begins after that key.
#[derive(Debug)]
pub(super) struct Problem {
    pub path: KeyPath,
    pub message: String,
}

type Check = std::result::Result<(), Problem>;

macro_rules! path {
    ($($part:expr),+) => { &[$($part.to_string()),+] };
}

/// Finds the first mistake.
pub(super) fn check(recipe: &Recipe) -> Check {
    require(is_name(&recipe.name), path!["name"], || name_rule(&recipe.name))?;
    for (key, seed) in [("seed", recipe.seed), ("data_seed", recipe.data_seed)] {
        require(i64::try_from(seed).is_ok(), path![key], || "must be below 2^63".into())?;
    }
    if let Some((field, why)) = recipe.model.problem() {
        return Err(Problem { path: path!["model", field].to_vec(), message: why });
    }
    check_tokenizer(recipe)?;
    check_optimizer(recipe)?;
    let (sequences, micro) = (recipe.batch.sequences, recipe.batch.micro_batch);
    at_least_one(sequences as u64, path!["batch", "sequences"])?;
    require(micro == 0 || sequences.is_multiple_of(micro), path!["batch", "micro_batch"], || {
        format!(
            "is {micro}, but must divide the {sequences} sequences of a batch, or be 0 for the largest that fits"
        )
    })?;
    require(!recipe.datasets.is_empty(), path!["datasets"], || "is empty: give at least one".into())?;
    for (i, dataset) in recipe.datasets.iter().enumerate() {
        check_dataset(i, dataset, &recipe.datasets[..i])?;
    }
    require(!recipe.stages.is_empty(), path!["stages"], || "is empty: give at least one".into())?;
    for (i, stage) in recipe.stages.iter().enumerate() {
        check_stage(recipe, i, stage)?;
    }
    check_schedule(recipe)?;
    check_reports(recipe)
}

fn require(holds: bool, path: &[String], message: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Problem { path: path.to_vec(), message: message() }) }
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

/// Names stand in file names, in keys of `--set`, and beside indices there.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn name_rule(name: &str) -> String {
    format!("is '{name}', but must be a letter, then letters, digits, '-' or '_'")
}

fn check_tokenizer(recipe: &Recipe) -> Check {
    let tokenizer = &recipe.tokenizer;
    require(tokenizer.path.is_some() != tokenizer.train.is_some(), path!["tokenizer"], || {
        "needs one of path (a tokenizer.json) and train".into()
    })?;
    let Some(train) = &tokenizer.train else { return Ok(()) };
    let (size, model) = (train.vocab_size, recipe.model.vocab_size);
    require(size == model, path!["tokenizer", "train", "vocab_size"], || {
        format!("is {size}, but model.vocab_size is {model}")
    })?;
    at_least_one(train.sample_documents as u64, path!["tokenizer", "train", "sample_documents"])
}

fn check_optimizer(recipe: &Recipe) -> Check {
    let optimizer = &recipe.optimizer;
    for (i, beta) in optimizer.betas.iter().enumerate() {
        require((0.0..1.0).contains(beta), path!["optimizer", "betas", i], || {
            format!("is {beta}, but must be from 0 to below 1")
        })?;
    }
    positive(optimizer.eps, path!["optimizer", "eps"])?;
    not_negative(optimizer.weight_decay, path!["optimizer", "weight_decay"])?;
    positive(optimizer.clip_norm, path!["optimizer", "clip_norm"])
}

fn check_dataset(i: usize, dataset: &Dataset, before: &[Dataset]) -> Check {
    let name = &dataset.name;
    require(is_name(name) && !name.contains('.'), path!["datasets", i, "name"], || name_rule(name))?;
    require(before.iter().all(|other| other.name != *name), path!["datasets", i, "name"], || {
        format!("is '{name}', but an earlier dataset has that name")
    })?;
    require(dataset.microcosm.is_some() == dataset.paths.is_empty(), path!["datasets", i], || {
        format!("('{name}') needs one of microcosm (text to generate) and paths (files to read)")
    })?;
    if let Some(register) = &dataset.microcosm {
        let known = Register::ALL.map(Register::name);
        require(known.contains(&register.as_str()), path!["datasets", i, "microcosm"], || {
            format!("is '{register}'; {}", suggest(register, &known))
        })?;
    }
    require(
        dataset.microcosm.is_some() == dataset.documents.is_some(),
        path!["datasets", i, "documents"],
        || "goes with microcosm: it is the number of documents to generate".into(),
    )?;
    if let Some(documents) = dataset.documents {
        at_least_one(documents as u64, path!["datasets", i, "documents"])?;
    }
    require(!dataset.fields.is_empty(), path!["datasets", i, "fields"], || {
        "is empty, but must name the column that holds the text".into()
    })?;
    dataset.max_epochs.map_or(Ok(()), |epochs| positive(epochs, path!["datasets", i, "max_epochs"]))
}

fn check_stage(recipe: &Recipe, i: usize, stage: &Stage) -> Check {
    let (name, before) = (&stage.name, &recipe.stages[..i]);
    require(is_name(name) && !name.contains('.'), path!["stages", i, "name"], || name_rule(name))?;
    require(before.iter().all(|other| other.name != *name), path!["stages", i, "name"], || {
        format!("is '{name}', but an earlier stage has that name")
    })?;
    require(stage.kind == StageKind::Pretrain, path!["stages", i, "kind"], || {
        "is a kind that this version of smolter cannot train yet; only 'pretrain' can".into()
    })?;
    let previous = before.last().map_or(0, |stage| stage.tokens);
    require(stage.tokens > previous, path!["stages", i, "tokens"], || {
        format!("is {}, but must be above {previous}: it counts from the start of the run", stage.tokens)
    })?;
    require(i64::try_from(stage.tokens).is_ok(), path!["stages", i, "tokens"], || {
        "must be below 2^63".into()
    })?;
    let (length, longest) = (stage.sequence_length, recipe.model.max_position_embeddings);
    require((1..=longest).contains(&length), path!["stages", i, "sequence_length"], || {
        format!("is {length}, but must be from 1 to model.max_position_embeddings {longest}")
    })?;
    if let Some(theta) = stage.rope_theta {
        positive(theta, path!["stages", i, "rope_theta"])?;
    }
    check_mixture(recipe, i, stage)
}

fn check_mixture(recipe: &Recipe, i: usize, stage: &Stage) -> Check {
    let known: Vec<&str> = recipe.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
    require(!stage.mixture.is_empty(), path!["stages", i, "mixture"], || {
        "is empty, but must share out the tokens among datasets".into()
    })?;
    for (name, &weight) in &stage.mixture {
        require(known.contains(&name.as_str()), path!["stages", i, "mixture", name], || {
            format!("names no dataset; {}", suggest(name, &known))
        })?;
        positive(weight, path!["stages", i, "mixture", name])?;
    }
    let sum: f64 = stage.mixture.values().sum();
    // Wide enough for thirds written with seven digits.
    require((sum - 1.0).abs() < 1e-6, path!["stages", i, "mixture"], || {
        format!("has weights that sum to {}, but must sum to 1", (sum * 1e9).round() / 1e9)
    })
}

fn check_schedule(recipe: &Recipe) -> Check {
    let schedule = &recipe.schedule;
    positive(schedule.peak_lr, path!["schedule", "peak_lr"])?;
    not_negative(schedule.min_lr, path!["schedule", "min_lr"])?;
    require(schedule.min_lr <= schedule.peak_lr, path!["schedule", "min_lr"], || {
        format!("is {}, but must not be above peak_lr {}", schedule.min_lr, schedule.peak_lr)
    })?;
    let total = recipe.total_steps();
    require(schedule.warmup_steps <= total, path!["schedule", "warmup_steps"], || {
        format!("is {}, but the run has only {total} steps", schedule.warmup_steps)
    })?;
    let given = schedule.decay_steps.is_some() as usize + schedule.decay_fraction.is_some() as usize;
    if schedule.kind != ScheduleKind::Wsd {
        let key = if schedule.decay_steps.is_some() { "decay_steps" } else { "decay_fraction" };
        return require(given == 0, path!["schedule", key], || "is only for kind = \"wsd\"".into());
    }
    require(given == 1, path!["schedule"], || "needs one of decay_steps and decay_fraction".into())?;
    if let Some(fraction) = schedule.decay_fraction {
        require((0.0..=1.0).contains(&fraction), path!["schedule", "decay_fraction"], || {
            format!("is {fraction}, but must be from 0 to 1")
        })?;
    }
    let key = if schedule.decay_steps.is_some() { "decay_steps" } else { "decay_fraction" };
    let (warmup, decay) = (schedule.warmup_steps, recipe.decay_steps());
    require(decay <= total - warmup, path!["schedule", key], || {
        format!("makes {decay} steps of decay after {warmup} of warmup, but the run has only {total} steps")
    })
}

fn check_reports(recipe: &Recipe) -> Check {
    let held_out = &recipe.held_out;
    require((0.0..1.0).contains(&held_out.fraction), path!["held_out", "fraction"], || {
        format!("is {}, but must be from 0 to below 1", held_out.fraction)
    })?;
    at_least_one(held_out.sequences as u64, path!["held_out", "sequences"])?;
    at_least_one(held_out.every, path!["held_out", "every"])?;
    at_least_one(recipe.checkpoint.every, path!["checkpoint", "every"])?;
    at_least_one(recipe.checkpoint.keep as u64, path!["checkpoint", "keep"])?;
    let sample = &recipe.sample;
    at_least_one(sample.tokens as u64, path!["sample", "tokens"])?;
    not_negative(sample.temperature, path!["sample", "temperature"])?;
    require(i64::try_from(sample.seed).is_ok(), path!["sample", "seed"], || "must be below 2^63".into())
}
