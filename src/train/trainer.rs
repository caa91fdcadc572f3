//! The training loop: stages, steps, metrics, evaluation, checkpoints.
//!
//! Nothing waits for a result in the hot loop: losses and norms are fetched while later work runs, and checked then.

use super::beginning;
use super::begun::Begun;
use super::corpus::{self, Corpus};
use super::dpo::reward;
use super::engine::{Engine, Ticket};
use super::events::EventFile;
use super::frozen::Frozen;
use super::held_out::{HeldOut, HeldOutLoss};
use super::kinds::batches_of;
use super::made::DATA_FOLDER;
use super::metrics::{self, DatasetMetrics, METRICS_FILE, Metrics, MetricsFile, Rewards, Timing};
use super::objective::{Batch, Batches};
use super::reference::Reference;
use super::run_folder::RunFolder;
use super::saved;
use super::stages::{PlannedStage, plan_stages};
use crate::checkpoint::{Checkpoint, folder};
use crate::error::{Error, Result};
use crate::graph::{Backend, Store};
use crate::nn::Architecture;
use crate::recipes::{Recipe, Saving};
use crate::report::progress::Progress;
use crate::report::{out, quoted};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How to run a recipe.
pub struct Options<'a> {
    /// The run folder.
    pub run: &'a RunFolder,
    /// Where to compute.
    pub backend: Backend,
    /// Bytes of device memory to stay within.
    pub memory: u64,
    /// Stop, with a checkpoint, after this step.
    pub until: Option<u64>,
    /// What the user asks for meanwhile.
    pub requests: &'a Requests,
}

/// What the user asks of a run while it trains, and what he should know for that; shared with other threads.
#[derive(Debug, Default)]
pub struct Requests {
    /// Finish the step, save, and stop.
    pub stop: AtomicBool,
    /// Save after this step, and go on.
    pub save: AtomicBool,
    /// Whether there are steps that a stop at once would lose; the trainer says so.
    pub unsaved: AtomicBool,
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
    /// Nll of a micro-batch, with the weight of each position and the dataset of each of its sequences; or losses of
    /// pairs, with those of each pair.
    Losses { ticket: Ticket, weights: Vec<f32>, datasets: Vec<usize>, pairs: Option<PairResults> },
    /// Gradient norm, the last result of its step, and when it was first seen to be there.
    Norm { ticket: Ticket, step: u64, lr: f64, passes: usize, done: Option<Instant> },
}

/// What else a micro-batch of pairs brings.
struct PairResults {
    log_probs: Ticket,
    /// Per sequence: judged tokens.
    judged: Vec<u32>,
    /// Per sequence: log-probability under the frozen model, if there is one.
    reference: Vec<f64>,
}

/// A dataset's part of a step whose results are coming in.
#[derive(Clone, Copy, Default)]
struct Sum {
    /// Positions that count, or judged tokens of pairs.
    tokens: u64,
    weight: f64,
    /// Weighted.
    nll: f64,
}

/// Share of a step's time in the displayed pace.
const PACE_SHARE: f64 = 0.1;

/// A run in progress.
pub struct Trainer<'a> {
    recipe: Recipe,
    options: Options<'a>,
    /// The tokenised datasets.
    pub corpus: Arc<Corpus>,
    /// Weights and optimizer state.
    pub store: Arc<Store>,
    /// What is left to train.
    stages: Vec<PlannedStage>,
    /// Index of the stage that `engine` and `held_out` are for.
    current: usize,
    engine: Option<Engine>,
    held_out: Option<HeldOut>,
    metrics: MetricsFile,
    /// For TensorBoard, as long as they can be written.
    events: Option<EventFile>,
    progress: Progress,
    /// Steps submitted.
    step: u64,
    pending: VecDeque<Pending>,
    sums: Vec<Sum>,
    rewards: Rewards,
    pass_flops: f64,
    held_out_loss: Option<HeldOutLoss>,
    /// What the model that the stage began with says of its pairs, where the loss needs that.
    reference: Option<Arc<Reference>>,
    /// Time spent on steps, that of earlier sittings included.
    seconds: f64,
    /// Seconds per step of this stage of late, for the display: single steps scatter.
    pace: Option<f64>,
    /// When the last step was done, or evaluation, saving or making ready after it.
    last_done: Instant,
    last_saved: Option<PathBuf>,
    /// When that was, or when the run began.
    saved_at: Instant,
}

impl<'a> Trainer<'a> {
    /// Prepares data and model, from `checkpoint` if there is one, and writes the resolved recipe. Whatever any stage
    /// needs is checked here.
    pub fn new(mut recipe: Recipe, options: Options<'a>, checkpoint: Option<Checkpoint>) -> Result<Self> {
        folder::clean(options.run)?;
        let (step, begun, known) = match &checkpoint {
            None => (0, None, Begun::read(options.run).and_then(|begun| begun.known(&recipe))),
            Some(checkpoint) => {
                let begun = saved::check(checkpoint, &recipe)?;
                saved::prune(&recipe, options.run, checkpoint.state.step)?.iter().for_each(out::warn);
                (checkpoint.state.step, Some(begun), Some(saved::known(checkpoint, &recipe)?))
            }
        };
        // A checkpoint has all that the run began with.
        let source = if checkpoint.is_none() { recipe.open_source()? } else { None };
        corpus::pin(&mut recipe)?;
        // Before the text is tokenised: with its recipe, a run that is cut off can be resumed.
        saved::write_recipe(&recipe, options.run)?;
        // From the first checkpoint on, that tells the same.
        let mut beginning = checkpoint.is_none().then(|| Begun::new(&recipe, known.as_ref())).transpose()?;
        if let Some(beginning) = &beginning {
            beginning.write(options.run)?;
        }
        let data = options.run.join(DATA_FOLDER);
        let corpus = Corpus::prepare(&recipe, &data, known).inspect_err(|_| {
            // The network may fail after days, long before the first step.
            if corpus::has_fetched(&recipe, &data) {
                options.run.keep();
                out::say(format_args!(
                    "what was fetched is kept; continue with: smolter train --resume {}",
                    quoted(options.run)
                ));
            }
        })?;
        let corpus = Arc::new(corpus);
        corpus.settle_epochs(&mut recipe)?.iter().for_each(out::warn);
        let caps = options.backend.caps();
        let stages = plan_stages(&mut recipe, &corpus, &caps, options.memory, step, begun)?;
        if let Some(beginning) = &mut beginning {
            beginning.resolve(&recipe, &corpus)?;
            beginning.write(options.run)?;
        }
        saved::write_recipe(&recipe, options.run)?;
        let store = options.backend.store(stages[0].store.clone())?;
        let architecture = &stages[0].work.architecture;
        match &checkpoint {
            // `enter` loads what the stage begins with.
            Some(_) if step == stages[0].span.start_step && stages[0].begins_from().is_some() => {}
            None => drop(beginning::load(&store, options.run, &recipe, &stages[0], source.as_ref())?),
            Some(checkpoint) => saved::load(&store, checkpoint, architecture)?,
        }
        let path = options.run.join(METRICS_FILE);
        let metrics = MetricsFile::open(&path, step)?;
        let mut progress = Progress::new("training", recipe.total_steps(), step).with_curve();
        if let Some(curve) = progress.curve() {
            metrics::read(&path)?.for_each(|earlier| earlier.draw_on(curve));
        }
        let events = EventFile::create(options.run, step);
        let events =
            events.map_err(|error| out::warn(format_args!("no events for TensorBoard: {error}"))).ok();
        Ok(Trainer {
            sums: vec![Sum::default(); recipe.datasets.len()],
            recipe,
            options,
            corpus,
            store,
            stages,
            current: 0,
            engine: None,
            held_out: None,
            seconds: metrics.seconds,
            pace: None,
            metrics,
            events,
            progress,
            step,
            pending: VecDeque::new(),
            rewards: Rewards::default(),
            pass_flops: 0.0,
            held_out_loss: None,
            reference: None,
            last_done: Instant::now(),
            last_saved: checkpoint.map(|checkpoint| checkpoint.path),
            saved_at: Instant::now(),
        })
    }

    /// Trains to the end of the recipe, to `until`, or until interrupted. A checkpoint is on disk when it returns.
    pub fn run(&mut self) -> Result<Ending> {
        let ending = self.train();
        self.options.requests.unsaved.store(false, Ordering::Relaxed);
        self.progress.finish();
        ending
    }

    fn train(&mut self) -> Result<Ending> {
        let first = &self.stages[0];
        if !self.corpus.holds_out(&self.recipe, first.span.stage) {
            let (length, fraction) = (first.shape.length, self.recipe.held_out.fraction);
            out::say(format_args!(
                "no held-out loss will be measured: no dataset has {length} held-out tokens (held_out.fraction = {fraction})"
            ));
        }
        let (kept, end) = (self.recipe.kept_steps(), self.recipe.total_steps());
        for index in 0..self.stages.len() {
            self.enter(index)?;
            self.corpus.verified()?;
            let stage = &self.stages[index];
            let end_step = stage.span.end_step;
            let (stage_index, reference) = (stage.span.stage, self.reference.as_ref());
            let data = batches_of(&self.recipe, stage_index, &stage.consumed, &self.corpus, reference)?;
            data.notes(stage.span.steps(), stage.shape)?.iter().for_each(out::say);
            while self.step < end_step {
                if self.options.until.is_some_and(|until| self.step >= until) && self.last_saved.is_some() {
                    return Ok(Ending::Stopped { step: self.step });
                }
                self.train_step(&*data)?;
                let requests = self.options.requests;
                requests.unsaved.store(true, Ordering::Relaxed);
                let stop = requests.stop.load(Ordering::Relaxed)
                    || self.options.until.is_some_and(|until| self.step >= until);
                let last = self.step == end;
                if last || self.step.is_multiple_of(self.recipe.held_out.every) {
                    self.evaluate()?;
                }
                let asked = requests.save.swap(false, Ordering::Relaxed);
                if stop || asked || self.save_is_due() || kept.contains(&self.step) {
                    self.save()?;
                }
                if stop && !last {
                    return Ok(Ending::Stopped { step: self.step });
                }
            }
        }
        Ok(Ending::Finished)
    }

    /// Makes ready for a stage: its state, its programs. Those of the stage before are gone before these are allocated.
    fn enter(&mut self, index: usize) -> Result<()> {
        self.release()?;
        self.current = index;
        let (stage, run, backend) = (&self.stages[index], self.options.run, &self.options.backend);
        let at_start = self.step == stage.span.start_step;
        if at_start {
            beginning::enter(&mut self.store, backend, run, &self.recipe, stage)?;
        }
        self.reference = None;
        if stage.work.objective.preference().is_some_and(|loss| loss.variant.has_reference()) {
            // What takes long from here on can be computed again.
            self.options.requests.unsaved.store(false, Ordering::Relaxed);
            self.corpus.verified()?;
            let (recipe, corpus, folder) = (&self.recipe, &*self.corpus, &run.join(DATA_FOLDER));
            let frozen = Frozen { recipe, stage, corpus, backend, folder };
            let resumed = (!at_start).then_some(self.step);
            self.reference = Some(beginning::reference(&self.store, run, &frozen, resumed)?);
        }
        let stage = &self.stages[index];
        let graph = stage.work.graph(stage.shape);
        self.pass_flops = graph.pass_flops();
        self.engine = Some(Engine::new(&self.options.backend, graph, &self.store)?);
        self.last_done = Instant::now();
        self.pace = None;
        Ok(())
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("a stage has been entered")
    }

    fn train_step(&mut self, data: &dyn Batches) -> Result<()> {
        let stage = &self.stages[self.current];
        let batches = data.step(self.step - stage.span.start_step, stage.shape)?;
        let (hyper, t) = stage.update(self.step + 1);
        self.look_for_norms();
        let weight: f64 = batches.iter().flat_map(|batch| &batch.weights).map(|&weight| weight as f64).sum();
        if weight <= 0.0 {
            let step = self.step + 1;
            return Err(Error::failure(format!(
                "step {step}: no position of its sequences counts; check the data"
            )));
        }
        self.engine().begin_step()?;
        let passes = batches.len();
        for batch in batches {
            self.collect_down_to(1)?;
            let ticket = self.engine().micro_batch(&batch, 1.0 / weight)?;
            let (log_probs, judged) = (self.engine().log_probs_later()?, batch.judged());
            let Batch { weights, datasets, reference, .. } = batch;
            let pairs = log_probs.map(|log_probs| PairResults { log_probs, judged, reference });
            self.pending.push_back(Pending::Losses { ticket, weights, datasets, pairs });
        }
        self.step += 1;
        self.collect_down_to(1)?;
        let ticket = self.engine().update(&hyper, t)?;
        self.pending.push_back(Pending::Norm { ticket, step: self.step, lr: hyper.lr, passes, done: None });
        self.look_for_norms();
        Ok(())
    }

    /// Notes which steps are done. A device that is quicker than the host is done before its results are fetched.
    fn look_for_norms(&mut self) {
        let Some(engine) = &self.engine else { return };
        for pending in &mut self.pending {
            if let Pending::Norm { ticket, done, .. } = pending
                && done.is_none()
                && engine.is_done(ticket)
            {
                *done = Some(Instant::now());
            }
        }
    }

    /// Looks at results until at most `open` are outstanding.
    fn collect_down_to(&mut self, open: usize) -> Result<()> {
        while self.pending.len() > open {
            match self.pending.pop_front().expect("the queue is not empty") {
                Pending::Losses { ticket, weights, datasets, pairs } => {
                    let nll = self.engine().fetch(ticket)?;
                    if let Some(pairs) = pairs {
                        self.collect_pairs(pairs, &datasets)?;
                    }
                    let is_text = self.stages[self.current].work.objective.preference().is_none();
                    // Of pairs there may be fewer than there is room for.
                    let length = if is_text { nll.len() / datasets.len() } else { 1 };
                    let rows = nll.chunks(length).zip(weights.chunks(length));
                    for (dataset, (nll, weights)) in datasets.into_iter().zip(rows) {
                        let sum = &mut self.sums[dataset];
                        if is_text {
                            sum.tokens += weights.iter().filter(|&&weight| weight > 0.0).count() as u64;
                        }
                        sum.weight += weights.iter().map(|&w| w as f64).sum::<f64>();
                        sum.nll += nll.iter().zip(weights).map(|(&x, &w)| x as f64 * w as f64).sum::<f64>();
                    }
                }
                Pending::Norm { ticket, step, lr, passes, done } => {
                    let norm = self.engine().fetch(ticket)?[0] as f64;
                    self.step_done(step, lr, norm, passes, done.unwrap_or_else(Instant::now))?;
                }
            }
        }
        Ok(())
    }

    /// Adds up what the pairs of a micro-batch have earned, and their judged tokens.
    fn collect_pairs(&mut self, pairs: PairResults, datasets: &[usize]) -> Result<()> {
        let PairResults { log_probs, judged, reference } = pairs;
        let parts = self.engine().fetch(log_probs)?;
        let logps: Vec<f64> =
            parts.chunks(2).map(|parts| parts.iter().map(|&x| f64::from(x)).sum()).collect();
        let loss = self.stages[self.current].work.objective.preference().expect("the loss is of pairs");
        for (i, &dataset) in datasets.iter().enumerate() {
            let side = |of: &[f64]| [0, 1].map(|side| of.get(2 * i + side).copied().unwrap_or(0.0));
            let counts = [judged[2 * i], judged[2 * i + 1]];
            reward(&mut self.rewards, loss, side(&logps), side(&reference), counts);
            self.sums[dataset].tokens += u64::from(counts[0] + counts[1]);
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        self.collect_down_to(0)
    }

    /// Checks and reports a step whose results are all in since `done`.
    fn step_done(&mut self, step: u64, lr: f64, grad_norm: f64, passes: usize, done: Instant) -> Result<()> {
        let sums = std::mem::replace(&mut self.sums, vec![Sum::default(); self.recipe.datasets.len()]);
        let weight: f64 = sums.iter().map(|sum| sum.weight).sum();
        let loss = sums.iter().map(|sum| sum.nll).sum::<f64>() / weight;
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(
                self.diverged(&format!("step {step}: loss {loss}, gradient norm {grad_norm}: not finite"))
            );
        }
        // Never zero: a speed that is not finite is no JSON.
        let seconds = done.saturating_duration_since(self.last_done).as_secs_f64().max(1e-9);
        self.last_done = done;
        self.seconds += seconds;
        let pace = self.pace.map_or(seconds, |pace| pace + (seconds - pace) * PACE_SHARE);
        self.pace = Some(pace);
        let stage = &self.stages[self.current];
        let datasets = self.recipe.datasets.iter().zip(&sums).filter(|(_, sum)| sum.tokens > 0);
        let held_out = self.held_out_loss.take();
        let metrics = Metrics {
            step,
            tokens: stage.span.tokens_at(step),
            loss,
            lr,
            grad_norm,
            datasets: datasets
                .map(|(dataset, sum)| {
                    let loss = Some(sum.nll / sum.weight);
                    (dataset.name.clone(), DatasetMetrics { tokens: sum.tokens, loss })
                })
                .collect(),
            held_out_loss: held_out.as_ref().map(|it| it.mean),
            preference: std::mem::take(&mut self.rewards).mean(),
            held_out_preference: held_out.and_then(|it| it.preference),
            timing: Timing {
                seconds: self.seconds,
                tokens_per_second: stage.span.tokens_per_step as f64 / seconds,
                gflops: self.pass_flops * passes as f64 / seconds / 1e9,
                memory: self.allocated(),
            },
        };
        self.metrics.append(&metrics)?;
        self.options.run.keep();
        if let Some(Err(error)) = self.events.as_mut().map(|events| events.append(&metrics)) {
            out::warn(format_args!("no more events for TensorBoard: {error}"));
            self.events = None;
        }
        if let Some(curve) = self.progress.curve() {
            metrics.draw_on(curve);
        }
        let speed = stage.span.tokens_per_step as f64 / pace;
        let earned = metrics.preference.map_or(String::new(), |it| format!("  margin {:.3}", it.margin));
        self.progress.set(step, &format!("loss {loss:.3}{earned}  {speed:.0} tokens/s"));
        Ok(())
    }

    /// Bytes allocated at present.
    pub fn allocated(&self) -> u64 {
        let engine = self.engine.as_ref().map_or(0, |engine| engine.executor().allocated());
        self.store.allocated() + engine + self.held_out.as_ref().map_or(0, HeldOut::allocated)
    }

    /// The error of a run that has gone astray, with the way back.
    fn diverged(&self, what: &str) -> Error {
        let good = match &self.last_saved {
            Some(path) => format!("the last good checkpoint is {}", path.display()),
            None => "there is no checkpoint yet".into(),
        };
        Error::failure(format!(
            "{what}; {good}; check the data, or start again with a lower schedule.peak_lr"
        ))
    }

    /// The held-out loss, and the rows that it was measured on; `None` where nothing is held out.
    pub fn held_out(&mut self) -> Result<Option<(HeldOutLoss, &HeldOut)>> {
        if self.held_out.is_none() {
            let (stage, reference) = (&self.stages[self.current], self.reference.as_deref());
            let (backend, recipe, corpus) = (&self.options.backend, &self.recipe, &self.corpus);
            self.held_out = HeldOut::new(backend, &self.store, recipe, stage, corpus, reference)?;
        }
        let Some(held_out) = &mut self.held_out else { return Ok(None) };
        Ok(Some((held_out.measure(self.recipe.datasets.len())?, held_out)))
    }

    fn evaluate(&mut self) -> Result<()> {
        // What follows is no part of the step's time.
        self.options.backend.wait()?;
        self.look_for_norms();
        // The step's own line is written when its results are in; the held-out loss belongs on it.
        let Some((loss, _)) = self.held_out()? else { return self.drain() };
        let text = loss.describe();
        self.collect_down_to(1)?;
        self.held_out_loss = Some(loss);
        self.drain()?;
        out::say(format_args!("step {:>6}  held-out {text}", self.step));
        self.last_done = Instant::now();
        Ok(())
    }

    fn save_is_due(&self) -> bool {
        let Saving { every, minutes, .. } = self.recipe.checkpoint;
        let late = minutes > 0.0 && self.saved_at.elapsed().as_secs_f64() >= 60.0 * minutes;
        self.step.is_multiple_of(every) || late
    }

    fn save(&mut self) -> Result<()> {
        self.drain()?;
        self.metrics.sync()?;
        let stage = &self.stages[self.current];
        let (run, reference) = (self.options.run, self.reference.as_ref().map(|reference| reference.key));
        let saved = saved::save(&self.store, &self.recipe, stage, &self.corpus, run, self.step, reference);
        let (path, warnings) = saved.map_err(|error| match error {
            Error::Failure(what) => self.diverged(&what),
            other => other,
        })?;
        warnings.iter().for_each(out::warn);
        self.last_saved = Some(path);
        self.last_done = Instant::now();
        self.saved_at = self.last_done;
        Ok(())
    }

    /// The programs of the stage that was trained last, for measurements.
    pub fn last_engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// Gives the memory of training and evaluation back; the weights stay.
    pub fn release(&mut self) -> Result<()> {
        self.drain()?;
        (self.engine, self.held_out) = (None, None);
        // What was dropped is given back when the device has nothing more to do with it.
        self.options.backend.wait()
    }

    /// The model as the stage that was trained last has it.
    pub fn architecture(&self) -> &Architecture {
        &self.stages[self.current].work.architecture
    }

    /// How the run was to be done.
    pub fn options(&self) -> &Options<'a> {
        &self.options
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
