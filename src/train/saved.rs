//! Between a run and its folder: checkpoints and the resolved recipe.

use super::corpus::{Corpus, Known, KnownTokenizer};
use super::stages::PlannedStage;
use crate::checkpoint::{Checkpoint, Contents, Part, TrainerState, folder, replace};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::Store;
use crate::nn::Architecture;
use crate::ops::adamw::STATES;
use crate::optim::schedule::Schedule;
use crate::recipes::{Dataset, Recipe};
use crate::tokenizer::{Role, Tokenizer};
use serde_json::json;
use std::path::{Path, PathBuf};

/// File of the resolved recipe in a run folder.
pub const RECIPE_FILE: &str = "recipe.toml";

/// The same in a checkpoint, as it was when that was made.
const SAVED_RECIPE: &str = "trainer/recipe.toml";

/// Writes the resolved recipe into the run folder, unless it is there already.
pub fn write_recipe(recipe: &Recipe, run: &Path) -> Result<()> {
    let (path, text) = (run.join(RECIPE_FILE), recipe.to_toml()?);
    let unchanged = files::read(&path, files::SETTINGS).is_ok_and(|bytes| bytes == text.as_bytes());
    if unchanged { Ok(()) } else { replace(&path, text.as_bytes()) }
}

/// The recipe that a checkpoint holds; none if it is of a version that saved none.
///
/// # Errors
/// As [`Recipe::load`].
pub fn recipe_of(checkpoint: &Checkpoint) -> Result<Option<Recipe>> {
    let path = checkpoint.path.join(SAVED_RECIPE);
    path.exists().then(|| Recipe::load(&path.to_string_lossy(), &[])).transpose()
}

/// Saves the state after the run's step `step` of `stage`; returns the checkpoint's folder and warnings.
pub fn save(
    store: &Store,
    recipe: &Recipe,
    stage: &PlannedStage,
    corpus: &Corpus,
    run: &Path,
    step: u64,
) -> Result<(PathBuf, Vec<String>)> {
    let (span, architecture) = (&stage.span, &stage.work.architecture);
    let state = TrainerState {
        step,
        tokens: span.tokens_at(step),
        sequences: (step - span.start_step) * span.sequences_per_step as u64,
        extra: json!({
            "micro_batch": stage.shape.micro_batch,
            "recompute": stage.shape.recompute.name(),
            "schedule": stage.schedule,
            "sets": corpus.hashes(recipe),
        }),
        ..TrainerState::new(recipe.key(span.stage), &recipe.stages[span.stage].name)
    };
    let mut files = vec![
        ("config.json".to_string(), architecture.to_hf_json("float32").into_bytes()),
        ("generation_config.json".to_string(), architecture.to_generation_json().into_bytes()),
        (SAVED_RECIPE.to_string(), recipe.to_toml()?.into_bytes()),
    ];
    let tokenizer = corpus.tokenizer.files(architecture.positions(), Role::Base)?;
    files.extend(tokenizer.map(|(name, bytes)| (name.to_string(), bytes)));
    let mut read = |part: Part, name: &str| {
        let values = match part {
            Part::Weights => store.read(name),
            Part::State(state) => store.read_state(state, name),
        }?;
        // A finite loss says nothing of the update that followed it; nothing spoiled goes to disk.
        if values.iter().all(|x| x.is_finite()) {
            Ok(values)
        } else {
            Err(Error::failure(format!("step {step}: {name} is not finite and was not saved")))
        }
    };
    let contents = Contents {
        files: &files,
        parameters: &architecture.shapes(),
        trained: &trained(architecture),
        states: &STATES,
        read: &mut read,
        state: &state,
    };
    folder::save(run, contents, recipe.checkpoint.keep, &kept(recipe))
}

/// Removes older checkpoints of a run that is at `step`, as [`save`] does: it may have been cut off before. Returns
/// warnings.
///
/// # Errors
/// As [`folder::list`].
pub fn prune(recipe: &Recipe, run: &Path, step: u64) -> Result<Vec<String>> {
    folder::prune(run, step, recipe.checkpoint.keep, &kept(recipe))
}

/// Steps whose checkpoints stay.
fn kept(recipe: &Recipe) -> Vec<u64> {
    let mut kept = recipe.kept_steps();
    // Nothing comes after the end of the last stage, so it stays anyway, as one of the newest.
    kept.pop();
    kept
}

/// Name and shape of the parameters that have optimizer state.
fn trained(architecture: &Architecture) -> Vec<(String, Vec<usize>)> {
    let trained = architecture.parameters().into_iter().filter(|spec| spec.trained);
    trained.map(|spec| (spec.name, spec.shape)).collect()
}

/// Checks that a run of `recipe` may go on from a checkpoint; returns the stage that it lies in and its micro-batch:
/// sums of gradients depend on that in the last bit.
///
/// Only what has made the checkpoint must be as it was: later stages may have changed.
///
/// # Errors
/// [`Error::Input`] if another recipe made it, [`Error::Damaged`] if its state contradicts itself.
pub fn check(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<(usize, usize)> {
    let state = &checkpoint.state;
    let damaged = |what: &str| {
        Error::damaged(
            checkpoint.path.join("trainer/state.json"),
            format!("{what}; remove this checkpoint to go on from the one before"),
        )
    };
    let other = |why: String| {
        let path = checkpoint.path.display();
        let saved = checkpoint.path.join(SAVED_RECIPE);
        let copy = if saved.exists() { format!(": copy {} there", saved.display()) } else { String::new() };
        Error::input(format!(
            "{path}: was made by another recipe ({why}); resume with its run's {RECIPE_FILE} as it was{copy}"
        ))
    };
    let Some(stage) = recipe.stages.iter().position(|stage| stage.name == state.stage) else {
        return Err(other(format!("it has no stage {}", state.stage)));
    };
    // A version that knew no keys of stages took the hash of the whole recipe.
    if ![recipe.key(stage), recipe.hash()].contains(&state.recipe_hash) {
        return Err(other(format!("stage {} or one before it has changed", state.stage)));
    }
    let span = recipe.span_of(stage);
    if state.step <= span.start_step || state.step > span.end_step {
        return Err(damaged(&format!("step {} is not in stage {}", state.step, state.stage)));
    }
    if let Ok(schedule) = serde_json::from_value::<Schedule>(state.extra["schedule"].clone()) {
        let done = span.schedule_start + state.step - span.start_step;
        if let Some(at) = schedule.differs_before(&recipe.stage_schedules()[stage], done) {
            return Err(other(format!("the learning rate of step {at} of its schedule would be another")));
        }
    }
    let micro_batch = state.extra["micro_batch"].as_u64().ok_or_else(|| damaged("no micro_batch"))? as usize;
    if micro_batch == 0 || !recipe.batch_of(stage).sequences.is_multiple_of(micro_batch) {
        return Err(damaged("its micro_batch does not divide batch.sequences"));
    }
    Ok((stage, micro_batch))
}

/// What a checkpoint knows of the data of its run; `recipe` has passed [`check`].
///
/// # Errors
/// As [`Tokenizer::load`].
pub fn known(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Known> {
    let tokenizer = Tokenizer::load(&checkpoint.path)?;
    let sets = serde_json::from_value(checkpoint.state.extra["sets"].clone()).unwrap_or_default();
    let mut known = Known { tokenizer: KnownTokenizer::Whole(Box::new(tokenizer)), sets };
    // Datasets of later stages may be others by now.
    let before = recipe_of(checkpoint).ok().flatten().map_or(Vec::new(), |before| before.datasets);
    for dataset in &recipe.datasets {
        if !before.iter().any(|it| origin(it) == origin(dataset)) {
            known.forget(dataset);
        }
    }
    Ok(known)
}

/// What the tokens of a dataset are made from, wherever its files lie.
fn origin(dataset: &Dataset) -> Dataset {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().into();
    Dataset { max_epochs: None, paths: dataset.paths.iter().map(name).collect(), ..dataset.clone() }
}

/// The checkpoint of a step that a stage branches off.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn of_step(run: &Path, step: u64) -> Result<Checkpoint> {
    let found = folder::list(run)?.into_iter().find(|&(it, _)| it == step);
    let (_, path) = found.ok_or_else(|| {
        Error::input(format!(
            "{}: the checkpoint of step {step}, from which a stage goes on, is gone",
            run.display()
        ))
    })?;
    Checkpoint::open(&path)
}

/// Loads weights and optimizer state of a checkpoint.
pub fn load(store: &Store, checkpoint: &Checkpoint, architecture: &Architecture) -> Result<()> {
    let weights = checkpoint.tensors(Part::Weights)?;
    for (name, shape) in architecture.shapes() {
        store.write(&name, &weights.read_f32(&name, &shape)?);
    }
    for state in STATES {
        let file = checkpoint.tensors(Part::State(state))?;
        for (name, shape) in trained(architecture) {
            store.write_state(state, &name, &file.read_f32(&name, &shape)?);
        }
    }
    Ok(())
}

/// Sets the optimizer state to zero.
pub fn reset_optimizer(store: &Store, architecture: &Architecture) {
    for (name, shape) in trained(architecture) {
        let zeros = vec![0.0; shape.iter().product()];
        STATES.iter().for_each(|state| store.write_state(state, &name, &zeros));
    }
}
