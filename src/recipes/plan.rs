//! What follows from a recipe: steps, schedule, the model at each stage, its hash and its one-line description.

use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64;

use super::schema::{Batch, Checkpoint, HeldOut, Recipe, Sample, ScheduleKind};
use crate::error::{Error, Result};
use crate::nn::config::LlamaConfig;
use crate::optim::schedule::Schedule;

/// The steps of one stage. Steps and sequences count from the start of the run; both ends are before the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSteps {
    /// Index into [`Recipe::stages`].
    pub stage: usize,
    /// Optimizer updates done before the stage.
    pub start_step: u64,
    /// Optimizer updates done after the stage.
    pub end_step: u64,
    /// Sequences taken from the data order before the stage.
    pub start_sequence: u64,
    /// Tokens trained on before the stage.
    pub start_tokens: u64,
    /// Tokens of one step.
    pub tokens_per_step: u64,
}

impl Recipe {
    /// The stages in steps: each takes whole steps until it has reached its number of tokens.
    pub fn stage_steps(&self) -> Vec<StageSteps> {
        let sequences = self.batch.sequences as u64;
        let (mut step, mut tokens) = (0u64, 0u64);
        let mut all = Vec::new();
        for (stage, it) in self.stages.iter().enumerate() {
            let tokens_per_step = sequences.saturating_mul(it.sequence_length as u64);
            let steps = it.tokens.saturating_sub(tokens).div_ceil(tokens_per_step.max(1));
            all.push(StageSteps {
                stage,
                start_step: step,
                end_step: step + steps,
                start_sequence: step.saturating_mul(sequences),
                start_tokens: tokens,
                tokens_per_step,
            });
            step += steps;
            tokens = tokens.saturating_add(steps.saturating_mul(tokens_per_step));
        }
        all
    }

    /// Optimizer updates of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.stage_steps().last().map_or(0, |stage| stage.end_step)
    }

    /// Tokens of the whole run: what the last stage asks for, rounded up to whole steps.
    pub fn total_tokens(&self) -> u64 {
        self.stage_steps().last().map_or(0, |stage| {
            (stage.end_step - stage.start_step)
                .saturating_mul(stage.tokens_per_step)
                .saturating_add(stage.start_tokens)
        })
    }

    /// Steps of the decay of a `wsd` schedule; 0 for others.
    pub fn decay_steps(&self) -> u64 {
        let fraction = self.schedule.decay_fraction.unwrap_or(0.0);
        self.schedule.decay_steps.unwrap_or((fraction * self.total_steps() as f64).round() as u64)
    }

    /// The learning-rate schedule of the run.
    pub fn schedule(&self) -> Schedule {
        let (peak, min, warmup_steps) =
            (self.schedule.peak_lr, self.schedule.min_lr, self.schedule.warmup_steps);
        let (total_steps, decay_steps) = (self.total_steps(), self.decay_steps());
        match self.schedule.kind {
            ScheduleKind::Wsd => {
                let decay_start = total_steps.saturating_sub(decay_steps);
                Schedule::Wsd { peak, min, warmup_steps, decay_start, decay_steps }
            }
            ScheduleKind::Cosine => Schedule::Cosine { peak, min, warmup_steps, total_steps },
            ScheduleKind::Constant => Schedule::Constant { peak, warmup_steps },
        }
    }

    /// The model's configuration during a stage: with that stage's RoPE base.
    ///
    /// # Panics
    /// If there is no such stage.
    pub fn model_at(&self, stage: usize) -> LlamaConfig {
        let mut model = self.model.clone();
        model.rope_theta = self.stages[stage].rope_theta.unwrap_or(model.rope_theta);
        model
    }

    /// The weights of a stage's mixture in the order of [`Recipe::datasets`]; 0 for those it leaves out.
    ///
    /// # Panics
    /// If there is no such stage.
    pub fn weights_at(&self, stage: usize) -> Vec<f64> {
        let mixture = &self.stages[stage].mixture;
        self.datasets.iter().map(|dataset| mixture.get(&dataset.name).copied().unwrap_or(0.0)).collect()
    }

    /// Checks that the files that the recipe names are there.
    ///
    /// # Errors
    /// [`Error::Input`] naming the first that is not, and the keys to change.
    pub fn check_files(&self) -> Result<()> {
        let missing = |key: &str, path: &PathBuf| {
            let (name, path) = (&self.name, path.display());
            let why = format!("{path} does not exist; put it there or give --set {key}=...");
            Error::input(format!("recipe {name}: {key}: {why}"))
        };
        if let Some(path) = self.tokenizer.path.as_ref().filter(|path| !path.exists()) {
            return Err(missing("tokenizer.path", path));
        }
        for dataset in &self.datasets {
            if let Some(path) = dataset.paths.iter().find(|path| !path.exists()) {
                return Err(missing(&format!("datasets.{}.paths", dataset.name), path));
            }
        }
        Ok(())
    }

    /// The recipe as a TOML file that [`Recipe::load`] reads back as the same recipe.
    ///
    /// # Errors
    /// [`Error::Input`] if a path is not Unicode.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::input(format!("recipe {}: {e}", self.name)))
    }

    /// Hash of what affects the weights, 16 hexadecimal digits.
    ///
    /// Not in it: the name, how often to save, evaluate and sample, the micro-batch, and the folders (but the
    /// names) of files, so that a run may move to another machine.
    pub fn hash(&self) -> String {
        let mut same = self.clone();
        same.name.clear();
        same.batch = Batch { micro_batch: 0, ..same.batch };
        same.held_out = HeldOut { fraction: same.held_out.fraction, ..HeldOut::default() };
        same.checkpoint = Checkpoint::default();
        same.sample = Sample::default();
        let paths = same.datasets.iter_mut().flat_map(|dataset| &mut dataset.paths);
        for path in paths.chain(&mut same.tokenizer.path) {
            *path = path.file_name().unwrap_or_default().to_string_lossy().into_owned().into();
        }
        let json =
            serde_json::to_string(&same).unwrap_or_else(|e| unreachable!("a recipe is plain data: {e}"));
        format!("{:016x}", xxh3_64(json.as_bytes()))
    }

    /// One line for a list of recipes: name, parameters, tokens, steps and stages.
    pub fn describe(&self) -> String {
        let stages: Vec<&str> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
        format!(
            "{}: {} parameters, {} tokens in {} steps, {} stage{} ({})",
            self.name,
            short(self.model.num_parameters()),
            short(self.total_tokens()),
            self.total_steps(),
            stages.len(),
            if stages.len() == 1 { "" } else { "s" },
            stages.join(", ")
        )
    }
}

/// Three or four digits and a unit: 134.5M, 11.0T.
fn short(count: u64) -> String {
    let x = count as f64;
    match x {
        _ if x >= 1e12 => format!("{:.2}T", x / 1e12),
        _ if x >= 1e9 => format!("{:.2}B", x / 1e9),
        _ if x >= 1e6 => format!("{:.1}M", x / 1e6),
        _ if x >= 1e3 => format!("{:.1}K", x / 1e3),
        _ => format!("{count}"),
    }
}
