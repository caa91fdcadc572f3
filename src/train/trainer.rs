//! The training loop: stages, steps, metrics, evaluation, checkpoints.
//!
//! Nothing waits for a result in the hot loop: losses and norms are fetched while later work runs, and checked then.

use super::corpus::Corpus;
use super::engine::{Engine, MicroBatch, Shape, Ticket};
use super::fit;
use super::metrics::{DatasetMetrics, Metrics, MetricsFile, Timing};
use super::saved;
use crate::checkpoint::{Checkpoint, folder};
use crate::data::mixture::Mixture;
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::graph::recompute::Policy;
use crate::ops::adamw::Hyper;
use crate::optim::schedule::Schedule;
use crate::recipes::{Recipe, StageSteps};
use crate::report::progress::Progress;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How to run a recipe.
pub struct Options<'a> {
    /// The run folder.
    pub run: PathBuf,
    /// Where to compute.
    pub backend: Backend,
    /// Bytes of device memory to stay within.
    pub memory: u64,
    /// Stop, with a checkpoint, after this step.
    pub until: Option<u64>,
    /// Set when the user asks to stop.
    pub interrupted: &'a AtomicBool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Finished,
    /// Stopped early, with a checkpoint.
    Stopped {
        /// Steps done.
        step: u64,
    },
}

/// A result that was asked for and not yet looked at.
enum Pending {
    /// Nll of a micro-batch, with the dataset of each of its sequences.
    Losses { ticket: Ticket, datasets: Vec<usize> },
    /// Gradient norm, the last result of its step.
    Norm { ticket: Ticket, step: u64, lr: f64 },
}

/// A run in progress.
pub struct Trainer<'a> {
    recipe: Recipe,
    schedule: Schedule,
    options: Options<'a>,
    /// The tokenised datasets.
    pub corpus: Corpus,
    /// The model, on its device.
    pub engine: Engine,
    metrics: MetricsFile,
    progress: Progress,
    /// Steps submitted.
    step: u64,
    tokens: u64,
    pending: VecDeque<Pending>,
    /// Per dataset: sequences and summed nll of the step whose results are coming in.
    sums: Vec<(u64, f64)>,
    held_out_loss: Option<f64>,
    begun: Instant,
    last_step: Instant,
    last_saved: Option<PathBuf>,
}

impl<'a> Trainer<'a> {
    /// Prepares data and model, from `checkpoint` if there is one, and writes the resolved recipe.
    pub fn new(mut recipe: Recipe, options: Options<'a>, checkpoint: Option<Checkpoint>) -> Result<Self> {
        std::fs::create_dir_all(&options.run).map_err(Error::io(&options.run))?;
        folder::clean(&options.run)?;
        let corpus = Corpus::prepare(&recipe, &options.run.join("data"))?;
        let stage = first_stage(&recipe, checkpoint.as_ref().map_or(0, |c| c.state.step));
        let shape = match &checkpoint {
            Some(checkpoint) => saved::shape(checkpoint, &recipe, stage)?,
            None => choose_shape(&recipe, &options, stage, 0)?,
        };
        recipe.batch.micro_batch = shape.micro_batch;
        saved::write_recipe(&recipe, &options.run)?;
        let mut engine = Engine::new(&options.backend, &recipe.model_at(stage), shape)?;
        let (mut step, mut tokens) = (0, 0);
        match &checkpoint {
            None => engine.initialize(recipe.seed),
            Some(checkpoint) => {
                saved::load(&mut engine, checkpoint, &recipe)?;
                (step, tokens) = (checkpoint.state.step, checkpoint.state.tokens);
            }
        }
        let metrics = MetricsFile::open(&options.run.join("metrics.jsonl"), step)?;
        let progress = Progress::new("training", recipe.total_steps(), step);
        let sums = vec![(0, 0.0); recipe.datasets.len()];
        let now = Instant::now();
        Ok(Trainer {
            schedule: recipe.schedule(),
            recipe,
            options,
            corpus,
            engine,
            metrics,
            progress,
            step,
            tokens,
            pending: VecDeque::new(),
            sums,
            held_out_loss: None,
            begun: now,
            last_step: now,
            last_saved: checkpoint.map(|checkpoint| checkpoint.path),
        })
    }

    /// Trains to the end of the recipe, to `until`, or until interrupted. A checkpoint is on disk when it returns.
    pub fn run(&mut self) -> Result<Ending> {
        self.corpus.verified()?;
        let mut consumed = vec![0; self.recipe.datasets.len()];
        for stage in self.recipe.stage_steps() {
            let mixture = self.corpus.mixture(&self.recipe, stage.stage, &consumed)?;
            let sequences = (stage.end_step - stage.start_step) * self.recipe.batch.sequences as u64;
            self.report_mixture(&mixture, sequences)?;
            consumed = mixture.consumed(sequences)?;
            if self.step >= stage.end_step {
                continue;
            }
            self.enter(stage.stage)?;
            while self.step < stage.end_step {
                if self.options.until.is_some_and(|until| self.step >= until) && self.last_saved.is_some() {
                    return Ok(Ending::Stopped { step: self.step });
                }
                self.train_step(&stage, &mixture)?;
                let stop = self.options.interrupted.load(Ordering::Relaxed)
                    || self.options.until.is_some_and(|until| self.step >= until);
                let last = self.step == self.recipe.total_steps();
                if last || self.step.is_multiple_of(self.recipe.held_out.every) {
                    self.evaluate()?;
                }
                if last || stop || self.step.is_multiple_of(self.recipe.checkpoint.every) {
                    self.save()?;
                }
                if stop && !last {
                    return Ok(Ending::Stopped { step: self.step });
                }
            }
        }
        Ok(Ending::Finished)
    }

    fn report_mixture(&self, mixture: &Mixture, sequences: u64) -> Result<()> {
        for (dataset, share) in mixture.datasets().iter().zip(mixture.shares(sequences)?) {
            if let Some(at) = share.exhausted_at {
                self.progress.line(&format!(
                    "{}: its cap of {} epochs is reached at sequence {at}; its share goes to the other datasets",
                    dataset.name,
                    dataset.max_epochs.unwrap_or(0.0)
                ));
            }
        }
        Ok(())
    }

    /// Makes the engine fit a stage; weights and moments go along where shapes change.
    fn enter(&mut self, stage: usize) -> Result<()> {
        let config = self.recipe.model_at(stage);
        let now = self.engine.stage();
        if now.llama.config == config && now.shape.length == self.recipe.stages[stage].sequence_length {
            return Ok(());
        }
        self.drain()?;
        let shape = choose_shape(&self.recipe, &self.options, stage, self.recipe.batch.micro_batch)?;
        let state = saved::Snapshot::take(&mut self.engine)?;
        self.engine = Engine::new(&self.options.backend, &config, shape)?;
        state.put(&mut self.engine);
        Ok(())
    }

    fn train_step(&mut self, stage: &StageSteps, mixture: &Mixture) -> Result<()> {
        let Shape { micro_batch, passes, length, .. } = self.engine.stage().shape;
        let first = (self.step - stage.start_step) * self.recipe.batch.sequences as u64;
        let weight = (1.0 / (micro_batch * passes * length) as f64) as f32;
        self.engine.begin_step()?;
        for pass in 0..passes {
            let (mut ids, mut labels, mut datasets) = (Vec::new(), Vec::new(), Vec::new());
            for i in 0..micro_batch {
                let sequence = mixture.locate(first + (pass * micro_batch + i) as u64)?;
                let start = sequence.start_token;
                let window = self.corpus.sets[sequence.dataset].tokens(start..start + length as u64 + 1);
                ids.extend_from_slice(&window[..length]);
                labels.extend_from_slice(&window[1..]);
                datasets.push(sequence.dataset);
            }
            self.collect_down_to(1)?;
            let ticket = self.engine.micro_batch(&MicroBatch { ids: &ids, labels: &labels, weight })?;
            self.pending.push_back(Pending::Losses { ticket, datasets });
        }
        self.step += 1;
        self.tokens += stage.tokens_per_step;
        let lr = self.schedule.lr(self.step);
        let optimizer = &self.recipe.optimizer;
        let hyper = Hyper {
            lr,
            beta1: optimizer.betas[0],
            beta2: optimizer.betas[1],
            eps: optimizer.eps,
            weight_decay: optimizer.weight_decay,
            clip: optimizer.clip_norm,
        };
        self.collect_down_to(1)?;
        let ticket = self.engine.update(&hyper, self.step)?;
        self.pending.push_back(Pending::Norm { ticket, step: self.step, lr });
        Ok(())
    }

    /// Looks at results until at most `open` are outstanding.
    fn collect_down_to(&mut self, open: usize) -> Result<()> {
        while self.pending.len() > open {
            match self.pending.pop_front().expect("the queue is not empty") {
                Pending::Losses { ticket, datasets } => {
                    let nll = self.engine.fetch(ticket)?;
                    let length = nll.len() / datasets.len();
                    for (dataset, nll) in datasets.into_iter().zip(nll.chunks(length)) {
                        self.sums[dataset].0 += 1;
                        self.sums[dataset].1 += nll.iter().map(|&x| x as f64).sum::<f64>();
                    }
                }
                Pending::Norm { ticket, step, lr } => {
                    let norm = self.engine.fetch(ticket)?[0] as f64;
                    self.step_done(step, lr, norm)?;
                }
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        self.collect_down_to(0)
    }

    /// Checks and reports a step whose results are all in.
    fn step_done(&mut self, step: u64, lr: f64, grad_norm: f64) -> Result<()> {
        let length = self.engine.stage().shape.length as u64;
        let sums = std::mem::replace(&mut self.sums, vec![(0, 0.0); self.recipe.datasets.len()]);
        let tokens: u64 = sums.iter().map(|(sequences, _)| sequences * length).sum();
        let loss = sums.iter().map(|(_, nll)| nll).sum::<f64>() / tokens as f64;
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(
                self.diverged(&format!("step {step}: loss {loss}, gradient norm {grad_norm}: not finite"))
            );
        }
        let seconds = self.last_step.elapsed().as_secs_f64();
        self.last_step = Instant::now();
        let datasets = self.recipe.datasets.iter().zip(&sums).filter(|(_, (sequences, _))| *sequences > 0);
        let metrics = Metrics {
            step,
            tokens: self.tokens - (self.step - step) * tokens,
            loss,
            lr,
            grad_norm,
            datasets: datasets
                .map(|(dataset, &(sequences, nll))| {
                    let tokens = sequences * length;
                    (dataset.name.clone(), DatasetMetrics { tokens, loss: Some(nll / tokens as f64) })
                })
                .collect(),
            held_out_loss: self.held_out_loss.take(),
            timing: Timing {
                seconds: self.begun.elapsed().as_secs_f64(),
                tokens_per_second: tokens as f64 / seconds,
                gflops: self.engine.step_flops / seconds / 1e9,
                memory: self.engine.executor().allocated(),
            },
        };
        self.metrics.append(&metrics)?;
        self.progress.set(step, &format!("loss {loss:.3}  {:.0} tokens/s", metrics.timing.tokens_per_second));
        Ok(())
    }

    /// The error of a run that has gone astray, with the way back.
    fn diverged(&self, what: &str) -> Error {
        let good = match &self.last_saved {
            Some(path) => format!("the last good checkpoint is {}", path.display()),
            None => "there is no checkpoint yet".into(),
        };
        Error::failure(format!("{what}; {good}; lower schedule.peak_lr or check the data"))
    }

    /// Mean held-out loss over all datasets, and per dataset.
    pub fn held_out(&mut self) -> Result<Option<HeldOut>> {
        let Shape { micro_batch, length, .. } = self.engine.stage().shape;
        let windows = self.corpus.held_out_windows(length, self.recipe.held_out.sequences);
        if windows.is_empty() {
            return Ok(None);
        }
        let mut sums = vec![(0u64, 0.0f64); self.recipe.datasets.len()];
        for group in windows.chunks(micro_batch) {
            // The last group is filled up with copies of its first window, whose losses are not counted.
            let filled = (0..micro_batch).map(|i| &group.get(i).unwrap_or(&group[0]).1);
            let (mut ids, mut labels) = (Vec::new(), Vec::new());
            for window in filled {
                ids.extend_from_slice(&window[..length]);
                labels.extend_from_slice(&window[1..]);
            }
            let nll = self.engine.evaluate(&ids, &labels)?;
            for ((dataset, _), nll) in group.iter().zip(nll.chunks(length)) {
                sums[*dataset].0 += length as u64;
                sums[*dataset].1 += nll.iter().map(|&x| x as f64).sum::<f64>();
            }
        }
        let tokens: u64 = sums.iter().map(|sum| sum.0).sum();
        let loss = sums.iter().map(|sum| sum.1).sum::<f64>() / tokens as f64;
        let datasets = sums.iter().map(|&(tokens, nll)| (tokens > 0).then(|| nll / tokens as f64)).collect();
        Ok(Some(HeldOut { loss, datasets, windows }))
    }

    fn evaluate(&mut self) -> Result<()> {
        // The step's own line is written when its results are in; the held-out loss belongs on it.
        let Some(held_out) = self.held_out()? else { return self.drain() };
        self.collect_down_to(1)?;
        self.held_out_loss = Some(held_out.loss);
        self.drain()?;
        self.progress.line(&format!("step {:>6}  held-out loss {:.4}", self.step, held_out.loss));
        self.last_step = Instant::now();
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        self.drain()?;
        let stage = first_stage(&self.recipe, self.step.saturating_sub(1));
        let progress = saved::Position { step: self.step, tokens: self.tokens, stage };
        let saved =
            saved::save(&mut self.engine, &self.recipe, &self.corpus.tokenizer, &self.options.run, progress);
        let (path, warnings) = saved.map_err(|error| match error {
            Error::Failure(what) => self.diverged(&what),
            other => other,
        })?;
        warnings.iter().for_each(|warning| self.progress.line(&format!("warning: {warning}")));
        self.last_saved = Some(path);
        self.last_step = Instant::now();
        Ok(())
    }

    /// The checkpoint that was written last.
    pub fn last_saved(&self) -> Option<&Path> {
        self.last_saved.as_deref()
    }

    /// The recipe with what was chosen automatically.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }
}

/// Result of an evaluation.
pub struct HeldOut {
    /// Mean nll in nats per token over all windows.
    pub loss: f64,
    /// The same per dataset.
    pub datasets: Vec<Option<f64>>,
    /// The windows that were read: (dataset, tokens).
    pub windows: Vec<(usize, Vec<u32>)>,
}

/// The stage that comes after `step` steps; the last one at the end.
fn first_stage(recipe: &Recipe, step: u64) -> usize {
    let stages = recipe.stage_steps();
    stages.iter().find(|stage| step < stage.end_step).map_or(stages.len() - 1, |stage| stage.stage)
}

/// The shape of a stage that fits the memory.
fn choose_shape(recipe: &Recipe, options: &Options, stage: usize, micro_batch: usize) -> Result<Shape> {
    let micro_batch = if micro_batch == 0 { recipe.batch.micro_batch } else { micro_batch };
    let length = recipe.stages[stage].sequence_length;
    let caps = options.backend.caps();
    fit::choose(&recipe.model_at(stage), &caps, recipe.batch.sequences, length, micro_batch, options.memory)
        .map(|candidate| candidate.stage.shape)
        .map_err(|why| {
            let gib = options.memory as f64 / (1u64 << 30) as f64;
            Error::input(format!(
                "recipe {}: does not fit {gib:.1} GiB: {why}; give more with --memory",
                recipe.name
            ))
        })
}

/// The policy of this name.
pub(super) fn policy(name: &str) -> Option<Policy> {
    Policy::ALL.into_iter().find(|policy| policy.name() == name)
}
