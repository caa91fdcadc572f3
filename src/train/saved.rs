//! Between a run and its folder: checkpoints, the resolved recipe, and a copy of the state in memory.

use super::engine::{Engine, Shape};
use super::trainer::policy;
use crate::checkpoint::{Checkpoint, Contents, Part, TrainerState, folder};
use crate::error::{Error, Result};
use crate::recipes::Recipe;
use crate::tokenizer::{Role, Tokenizer};
use serde_json::json;
use std::path::{Path, PathBuf};

/// How far a run is.
pub struct Position {
    /// Optimizer updates done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Stage of the last step.
    pub stage: usize,
}

/// File of the resolved recipe in a run folder.
pub const RECIPE_FILE: &str = "recipe.toml";

/// Writes the resolved recipe into the run folder.
pub fn write_recipe(recipe: &Recipe, run: &Path) -> Result<()> {
    let path = run.join(RECIPE_FILE);
    std::fs::write(&path, recipe.to_toml()?).map_err(Error::io(&path))
}

/// Saves a checkpoint; returns its folder and warnings.
pub fn save(
    engine: &mut Engine,
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    run: &Path,
    position: Position,
) -> Result<(PathBuf, Vec<String>)> {
    let config = recipe.model_at(position.stage);
    let shape = engine.stage().shape;
    let state = TrainerState {
        step: position.step,
        tokens: position.tokens,
        sequences: position.step * recipe.batch.sequences as u64,
        extra: json!({ "micro_batch": shape.micro_batch, "recompute": shape.recompute.name() }),
        ..TrainerState::new(recipe.hash(), &recipe.stages[position.stage].name)
    };
    let mut files = vec![
        ("config.json".to_string(), config.to_hf_json("float32").into_bytes()),
        ("generation_config.json".to_string(), config.to_generation_json().into_bytes()),
    ];
    let staging = run.join("data").join("tokenizer-files");
    tokenizer.save(&staging, config.max_position_embeddings, Role::Base)?;
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        let path = staging.join(name);
        files.push((name.into(), std::fs::read(&path).map_err(Error::io(&path))?));
    }
    let mut read = |part: Part, name: &str| {
        let values = match part {
            Part::Weights => engine.read_weight(name),
            Part::State(state) => engine.read_moment(name, moment(state)),
        }?;
        // A finite loss says nothing of the update that followed it; nothing spoiled goes to disk.
        if values.iter().all(|x| x.is_finite()) {
            Ok(values)
        } else {
            Err(Error::failure(format!("step {}: {name} is not finite and was not saved", position.step)))
        }
    };
    let parameters = config.parameters();
    let contents = Contents {
        files: &files,
        parameters: &parameters,
        trained: &parameters,
        states: &MOMENTS,
        read: &mut read,
        state: &state,
    };
    // Nothing comes after the end of the last stage, so it stays anyway.
    let mut ends: Vec<u64> = recipe.stage_steps().iter().map(|stage| stage.end_step).collect();
    ends.pop();
    folder::save(run, contents, recipe.checkpoint.keep, &ends)
}

/// AdamW's states, in the order of the engine's moments.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

fn moment(state: &str) -> usize {
    MOMENTS.iter().position(|&name| name == state).expect("one of AdamW's states")
}

/// The shape that a checkpoint was trained with: sums of gradients depend on it in the last bit.
pub fn shape(checkpoint: &Checkpoint, recipe: &Recipe, stage: usize) -> Result<Shape> {
    let wrong = |what: &str| {
        Error::damaged(
            checkpoint.path.join("trainer/state.json"),
            format!("{what}; resume from another checkpoint"),
        )
    };
    if checkpoint.state.recipe_hash != recipe.hash() {
        return Err(Error::input(format!(
            "{}: was made by another recipe; resume with the {RECIPE_FILE} of its run, unchanged",
            checkpoint.path.display()
        )));
    }
    let extra = &checkpoint.state.extra;
    let micro_batch = extra["micro_batch"].as_u64().ok_or_else(|| wrong("no micro_batch"))? as usize;
    if micro_batch == 0 || !recipe.batch.sequences.is_multiple_of(micro_batch) {
        return Err(wrong("its micro_batch does not divide batch.sequences"));
    }
    let recompute =
        extra["recompute"].as_str().and_then(policy).ok_or_else(|| wrong("no recompute policy"))?;
    let passes = recipe.batch.sequences / micro_batch;
    Ok(Shape { micro_batch, passes, length: recipe.stages[stage].sequence_length, recompute })
}

/// Loads weights and moments of a checkpoint.
pub fn load(engine: &mut Engine, checkpoint: &Checkpoint, recipe: &Recipe) -> Result<()> {
    let parameters = recipe.model.parameters();
    for part in std::iter::once(Part::Weights).chain(MOMENTS.map(Part::State)) {
        let file = checkpoint.tensors(part)?;
        for (name, shape) in &parameters {
            let values = file.read_f32(name, shape)?;
            match part {
                Part::Weights => engine.write_weight(name, &values),
                Part::State(state) => engine.write_moment(name, moment(state), &values),
            }
        }
    }
    Ok(())
}

/// Weights and moments in host memory, on the way from one stage's graph to the next.
pub struct Snapshot {
    tensors: Vec<(String, [Vec<f32>; 3])>,
}

impl Snapshot {
    /// Copies everything from an engine.
    pub fn take(engine: &mut Engine) -> Result<Self> {
        let names: Vec<String> =
            engine.stage().llama.config.parameters().into_iter().map(|(name, _)| name).collect();
        let copy = |name: String| {
            let state =
                [engine.read_weight(&name)?, engine.read_moment(&name, 0)?, engine.read_moment(&name, 1)?];
            Ok((name, state))
        };
        Ok(Snapshot { tensors: names.into_iter().map(copy).collect::<Result<_>>()? })
    }

    /// Copies everything to an engine.
    pub fn put(&self, engine: &mut Engine) {
        for (name, [weights, exp_avg, exp_avg_sq]) in &self.tensors {
            engine.write_weight(name, weights);
            engine.write_moment(name, 0, exp_avg);
            engine.write_moment(name, 1, exp_avg_sq);
        }
    }
}
