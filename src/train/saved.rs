//! Between a run and its folder: checkpoints and the resolved recipe.

use super::corpus::{Corpus, Known, KnownTokenizer};
use super::spikes::Detector;
use super::stages::PlannedStage;
use crate::checkpoint::{Checkpoint, Contents, Dtype, Part, TrainerState, folder, replace};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::Store;
use crate::hub;
use crate::model::adapter::{self, Adapter};
use crate::nn::Architecture;
use crate::ops::adamw::STATES;
use crate::optim::schedule::Schedule;
use crate::recipes::{Dataset, OnExhausted, Origin, Recipe};
use crate::tokenizer::{ChatTemplate, Role, Tokenizer};
use serde_json::{Value, json};
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

/// Saves the state after the run's step `step` of `stage`, which has a frozen model's log-probabilities with the key
/// `reference`, with the `detector` of its spikes; returns the checkpoint's folder and warnings.
pub fn save(
    store: &Store,
    recipe: &Recipe,
    stage: &PlannedStage,
    corpus: &Corpus,
    run: &Path,
    step: u64,
    reference: Option<u64>,
    detector: &Detector,
) -> Result<(PathBuf, Vec<String>)> {
    let (span, architecture) = (&stage.span, &stage.work.architecture);
    let mut state = TrainerState {
        step,
        tokens: span.tokens_at(step),
        sequences: recipe.sequences_until(span, step),
        extra: json!({
            "micro_batch": stage.shape.micro_batch,
            "recompute": stage.shape.recompute.name(),
            "schedule": stage.schedule,
            "sets": corpus.hashes(recipe),
            "spikes": detector,
        }),
        ..TrainerState::new(recipe.key_at(span.stage, step), &recipe.stages[span.stage].name)
    };
    if let Some(key) = reference {
        state.extra["reference"] = json!(format!("{key:016x}"));
    }
    let template = corpus.template.as_ref().filter(|_| recipe.makes_chat_model(span.stage));
    let with_ends =
        |json: String| template.map_or(json.clone(), |it| with_ends(&json, it, &corpus.tokenizer));
    let mut files = vec![
        ("config.json".to_string(), with_ends(architecture.to_hf_json("float32")).into_bytes()),
        ("generation_config.json".to_string(), with_ends(architecture.to_generation_json()).into_bytes()),
        (SAVED_RECIPE.to_string(), recipe.to_toml()?.into_bytes()),
    ];
    let role = template.map_or(Role::Base, Role::Chat);
    let tokenizer = corpus.tokenizer.files(architecture.positions(), role)?;
    files.extend(tokenizer.map(|(name, bytes)| (name.to_string(), bytes)));
    let trained = architecture.trained_shapes();
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
    if let Some(lora) = &architecture.lora {
        let read = |name: &str| read(Part::Weights, name);
        let adapter = adapter::encode(lora, &trained, base_of(recipe, stage).as_deref(), Dtype::F32, read)?;
        files.extend(adapter.map(|(name, bytes)| (format!("{}/{name}", adapter::FOLDER), bytes)));
    }
    let contents = Contents {
        files: &files,
        parameters: &architecture.shapes(),
        trained: &trained,
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

/// The Hub's name of the model that the adapters of a stage are for, if it is there.
fn base_of(recipe: &Recipe, stage: &PlannedStage) -> Option<String> {
    let source = recipe.source.as_ref().filter(|_| stage.span.origin == Origin::Noise)?;
    let name = source.from.strip_prefix(hub::PREFIX)?;
    Some(name.split('@').next().unwrap_or(name).to_string())
}

/// The JSON with the ids of a chat model: those of its template's tokens.
fn with_ends(json: &str, template: &ChatTemplate, tokenizer: &Tokenizer) -> String {
    let mut json: Value = serde_json::from_str(json).expect("our own JSON");
    for role in ["bos", "eos", "pad"] {
        let token = template.special_token(&format!("{role}_token"));
        if let Some(id) = token.and_then(|token| tokenizer.token_to_id(token)) {
            json[format!("{role}_token_id")] = id.into();
        }
    }
    format!("{json:#}\n")
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
    let span = recipe.span_of(stage);
    // A version that knew no keys of stages took the hash of the whole recipe.
    if ![recipe.key_at(stage, state.step), recipe.hash()].contains(&state.recipe_hash) {
        return Err(other(format!("stage {} or one before it has changed", state.stage)));
    }
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
    let template = ChatTemplate::find(&checkpoint.path)?;
    let mut known = Known { tokenizer: KnownTokenizer::Whole(Box::new(tokenizer)), template, sets };
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
    let names = |paths: &[PathBuf]| paths.iter().map(name).collect();
    let (paths, decontaminate) = (names(&dataset.paths), names(&dataset.decontaminate));
    let on_exhausted = OnExhausted::default();
    Dataset { max_epochs: None, tokens: None, on_exhausted, paths, decontaminate, ..dataset.clone() }
}

/// The key of the frozen model's log-probabilities that the stage of a checkpoint is trained with.
pub fn reference_of(checkpoint: &Checkpoint) -> Option<u64> {
    u64::from_str_radix(checkpoint.state.extra["reference"].as_str()?, 16).ok()
}

/// What the run knew of its losses at a checkpoint; none if an earlier version made that.
pub fn detector_of(checkpoint: &Checkpoint) -> Option<Detector> {
    serde_json::from_value(checkpoint.state.extra["spikes"].clone()).ok()
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

/// Loads weights, adapters and optimizer state of a checkpoint of a stage that trains the same parameters.
pub fn load(store: &Store, checkpoint: &Checkpoint, architecture: &Architecture) -> Result<()> {
    let weights = checkpoint.tensors(Part::Weights)?;
    for (name, shape) in architecture.shapes() {
        store.write(&name, &weights.read_f32(&name, &shape)?);
    }
    let trained = architecture.trained_shapes();
    if architecture.lora.is_some() {
        let adapter = Adapter::open(&checkpoint.path.join(adapter::FOLDER), architecture)?;
        for (name, shape) in &trained {
            store.write(name, &adapter.read_f32(name, shape)?);
        }
    }
    for state in STATES {
        let file = checkpoint.tensors(Part::State(state))?;
        for (name, shape) in &trained {
            store.write_state(state, name, &file.read_f32(name, shape)?);
        }
    }
    Ok(())
}

/// Loads the weights of a checkpoint for a stage that trains other parameters, with its adapters merged, and sets the
/// optimizer state to zero. Returns whether there were adapters.
pub fn begin(store: &Store, checkpoint: &Checkpoint, architecture: &Architecture) -> Result<bool> {
    let weights = checkpoint.tensors(Part::Weights)?;
    let own = checkpoint.path.join(adapter::FOLDER);
    let adapter = if own.is_dir() { Some(Adapter::open(&own, architecture)?) } else { None };
    for (name, shape) in architecture.shapes() {
        let mut values = weights.read_f32(&name, &shape)?;
        if let Some(adapter) = &adapter {
            adapter.merge(&name, &shape, &mut values)?;
        }
        store.write(&name, &values);
    }
    reset_optimizer(store, architecture);
    Ok(adapter.is_some())
}

/// Sets the optimizer state to zero.
pub fn reset_optimizer(store: &Store, architecture: &Architecture) {
    for (name, shape) in architecture.trained_shapes() {
        let zeros = vec![0.0; shape.iter().product()];
        STATES.iter().for_each(|state| store.write_state(state, &name, &zeros));
    }
}
