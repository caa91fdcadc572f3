//! The training loop: stages, steps, metrics, evaluation, checkpoints.
//!
//! Nothing waits for a result in the hot loop: losses and norms are fetched while later work runs, and checked then.

use super::beginning;
use super::begun::Begun;
use super::corpus::{self, Corpus};
use super::engine::Engine;
use super::evaluation::{Evaluation, Subject};
use super::frozen::Frozen;
use super::held_out::{HeldOut, HeldOutLoss};
use super::journal::{Cost, Journal};
use super::kinds::batches_of;
use super::made::DATA_FOLDER;
use super::objective::Batches;
use super::reference::Reference;
use super::results::{Results, StepResults};
use super::rewind;
use super::run_folder::RunFolder;
use super::saved;
use super::score_table;
use super::sitting::Sitting;
use super::stages::{PlannedStage, plan_stages};
use super::watch::{Place, Watch};
use crate::checkpoint::{Checkpoint, folder};
use crate::error::{Error, Result};
use crate::graph::{Backend, Store};
use crate::nn::Architecture;
use crate::recipes::{Recipe, Saving};
use crate::report::{out, quoted};
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
    /// Gone back behind a loss spike: the run's folder is as after a kill, and its recipe leaves out what caused the spike.
    Rewound,
}

/// Why there is an engine.
const ENTERED: &str = "a stage has been entered";

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
    journal: Journal,
    watch: Watch,
    evaluation: Evaluation,
    /// Steps submitted.
    step: u64,
    /// What the device has not told of them yet.
    results: Results,
    pass_flops: f64,
    held_out_loss: Option<HeldOutLoss>,
    /// What the model that the stage began with says of its pairs; see [`Frozen`].
    reference: Option<Arc<Reference>>,
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
        let evaluation = Evaluation::open(options.run, step)?;
        // A stage whose end is still to be evaluated has something left.
        let is_due = |&(stage, _): &(usize, _)| evaluation.is_due(&recipe, &recipe.span_of(stage), step);
        let done = if begun.as_ref().is_some_and(is_due) { step - 1 } else { step };
        let caps = options.backend.caps();
        let stages = plan_stages(&mut recipe, &corpus, &caps, options.memory, done, begun)?;
        if let Some(beginning) = &mut beginning {
            beginning.resolve(&recipe, &corpus)?;
            beginning.write(options.run)?;
        }
        saved::write_recipe(&recipe, options.run)?;
        let sitting = Sitting::new(&recipe, &stages, &options.backend, options.memory, step);
        sitting.append(options.run).unwrap_or_else(out::warn);
        let store = options.backend.store(stages[0].store.clone())?;
        let architecture = &stages[0].work.architecture;
        match &checkpoint {
            // `enter` loads what the stage begins with.
            Some(_) if step == stages[0].span.start_step && stages[0].begins_from().is_some() => {}
            None => drop(beginning::load(&store, options.run, &recipe, &stages[0], source.as_ref())?),
            Some(checkpoint) => saved::load(&store, checkpoint, architecture)?,
        }
        let journal = Journal::open(options.run, &recipe, step)?;
        let watch = Watch::open(options.run, &recipe, checkpoint.as_ref())?;
        Ok(Trainer {
            results: Results::new(recipe.datasets.len()),
            recipe,
            options,
            corpus,
            store,
            stages,
            current: 0,
            engine: None,
            held_out: None,
            journal,
            watch,
            evaluation,
            step,
            pass_flops: 0.0,
            held_out_loss: None,
            reference: None,
            last_saved: checkpoint.map(|checkpoint| checkpoint.path),
            saved_at: Instant::now(),
        })
    }

    /// Trains to the end of the recipe, to `until`, or until interrupted. A checkpoint is on disk when it returns.
    pub fn run(&mut self) -> Result<Ending> {
        let ending = self.train();
        self.options.requests.unsaved.store(false, Ordering::Relaxed);
        self.journal.finish();
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
            let data_steps = self.recipe.stages[stage_index].data_steps(stage.span.steps());
            data.notes(data_steps, stage.shape)?.iter().for_each(out::say);
            loop {
                // First what an earlier sitting has left. While a spike goes on, the step will come again.
                if self.evaluation_is_due() && !self.watch.is_holding() {
                    self.evaluate()?;
                }
                let until = self.options.until.is_some_and(|until| self.step >= until);
                if until && self.step < end && self.last_saved.is_some() && !self.watch.is_holding() {
                    return Ok(Ending::Stopped { step: self.step });
                }
                if self.step == end_step {
                    break;
                }
                self.train_step(&*data)?;
                let requests = self.options.requests;
                requests.unsaved.store(true, Ordering::Relaxed);
                let stop = requests.stop.load(Ordering::Relaxed);
                let until = self.options.until.is_some_and(|until| self.step >= until);
                let last = self.step == end;
                if last || self.step.is_multiple_of(self.recipe.held_out.every) {
                    self.measure_held_out()?;
                }
                if self.step == end_step {
                    self.drain()?;
                    self.watch.end_stage();
                }
                let (asked, due) = (requests.save.swap(false, Ordering::Relaxed), self.evaluation_is_due());
                if stop || until || asked || due || self.save_is_due() || kept.contains(&self.step) {
                    self.save()?;
                }
                if let Some(spike) = self.watch.behind() {
                    let (run, span) = (self.options.run, &self.stages[index].span);
                    rewind::go_back(run, &self.recipe, span, spike, self.watch.history())?;
                    return Ok(Ending::Rewound);
                }
                if stop && (due || !last) && !self.watch.is_holding() {
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
            self.watch.begin_stage();
            beginning::enter(&mut self.store, backend, run, &self.recipe, stage)?;
        }
        self.reference = None;
        let (recipe, corpus, folder) = (&self.recipe, &*self.corpus, &run.join(DATA_FOLDER));
        let frozen = Frozen { recipe, stage, corpus, backend, folder };
        if frozen.is_asked() {
            // What takes long from here on can be computed again.
            self.options.requests.unsaved.store(false, Ordering::Relaxed);
            self.corpus.verified()?;
            let resumed = (!at_start).then_some(self.step);
            self.reference = Some(beginning::reference(&self.store, run, &frozen, resumed)?);
        }
        let engine = self.new_engine()?;
        self.pass_flops = engine.training().pass_flops();
        self.engine = Some(engine);
        self.journal.resume_clock();
        Ok(())
    }

    /// The programs of the stage.
    fn new_engine(&self) -> Result<Engine> {
        let stage = &self.stages[self.current];
        Engine::new(&self.options.backend, stage.work.graph(stage.shape), &self.store)
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect(ENTERED)
    }

    fn train_step(&mut self, data: &dyn Batches) -> Result<()> {
        let stage = &self.stages[self.current];
        let data_step = self.recipe.stages[stage.span.stage].data_step(self.step - stage.span.start_step);
        let batches = data.step(data_step, stage.shape)?;
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
        for batch in batches {
            self.collect_down_to(1)?;
            let engine = self.engine.as_mut().expect(ENTERED);
            self.results.submit(engine, batch, 1.0 / weight)?;
        }
        self.step += 1;
        self.collect_down_to(1)?;
        let ticket = self.engine().update(&hyper, t)?;
        self.results.expect_norm(ticket, self.step, hyper.lr);
        self.look_for_norms();
        Ok(())
    }

    fn look_for_norms(&mut self) {
        if let Some(engine) = &self.engine {
            self.results.look_for_norms(engine);
        }
    }

    /// Looks at results until at most `open` are outstanding.
    fn collect_down_to(&mut self, open: usize) -> Result<()> {
        while let Some(engine) = &mut self.engine {
            let loss = self.stages[self.current].work.objective.preference();
            let Some(step) = self.results.next_step(open, engine, loss)? else { break };
            self.step_done(&step)?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        self.collect_down_to(0)
    }

    /// Checks and reports a step whose results are all in.
    fn step_done(&mut self, results: &StepResults) -> Result<()> {
        if self.watch.behind().is_some() {
            // It will come again, or something else in its place.
            return Ok(());
        }
        let (step, loss, norm) = (results.step, results.loss(), results.grad_norm);
        let parts = results.parts(&self.recipe);
        let span = &self.stages[self.current].span;
        let place = Place { recipe: &self.recipe, corpus: &self.corpus, span };
        if !loss.is_finite() || !norm.is_finite() {
            if self.watch.not_finite(place, step, loss, &parts)? {
                return Ok(());
            }
            return Err(self.diverged(&format!("step {step}: loss {loss}, gradient norm {norm}: not finite")));
        }
        let cost = Cost { flops: self.pass_flops * results.passes as f64, memory: self.allocated() };
        let held_out = self.held_out_loss.take();
        self.journal.write(&self.recipe, span, results, held_out.as_ref(), &cost)?;
        self.watch.observe(place, step, loss, &parts)?;
        self.options.run.keep();
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
        Ok(Some((held_out.measure()?, held_out)))
    }

    fn measure_held_out(&mut self) -> Result<()> {
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
        self.journal.resume_clock();
        Ok(())
    }

    fn evaluation_is_due(&self) -> bool {
        self.evaluation.is_due(&self.recipe, &self.stages[self.current].span, self.step)
    }

    /// Asks the model what is due after this step, whose state is saved: nothing is lost if that is cut off.
    fn evaluate(&mut self) -> Result<()> {
        self.options.requests.unsaved.store(false, Ordering::Relaxed);
        // Training's memory is enough for it.
        self.release()?;
        let stage = &self.stages[self.current];
        let subject = Subject {
            run: self.options.run,
            recipe: &self.recipe,
            corpus: &self.corpus,
            backend: &self.options.backend,
            store: &self.store,
            architecture: &stage.work.architecture,
            span: &stage.span,
            step: self.step,
        };
        let (journal, step, begun) = (&mut self.journal, self.step, Instant::now());
        let scores = self.evaluation.run(&subject, &mut |what| journal.show(&self.recipe, step, what))?;
        journal.add_scores(scores);
        let is_scored = !scores.is_empty();
        self.options.backend.wait()?;
        journal.evaluation_done(begun.elapsed().as_secs_f64());
        let all = self.evaluation.scores();
        if let Some(table) =
            score_table::by_stage(all, out::size().1).filter(|_| is_scored && step == stage.span.end_step)
        {
            out::say(format_args!("\n{table}\n"));
        }
        if step < stage.span.end_step {
            self.engine = Some(self.new_engine()?);
        }
        self.journal.resume_clock();
        Ok(())
    }

    fn save_is_due(&self) -> bool {
        let Saving { every, minutes, .. } = self.recipe.checkpoint;
        let late = minutes > 0.0 && self.saved_at.elapsed().as_secs_f64() >= 60.0 * minutes;
        self.step.is_multiple_of(every) || late
    }

    fn save(&mut self) -> Result<()> {
        self.drain()?;
        if self.watch.is_holding() {
            return Ok(());
        }
        self.journal.sync()?;
        let stage = &self.stages[self.current];
        let (run, reference) = (self.options.run, self.reference.as_ref().map(|reference| reference.key));
        let detector = self.watch.detector();
        let saved =
            saved::save(&self.store, &self.recipe, stage, &self.corpus, run, self.step, reference, detector);
        let (path, warnings) = saved.map_err(|error| match error {
            Error::Failure(what) => self.diverged(&what),
            other => other,
        })?;
        warnings.iter().for_each(out::warn);
        self.last_saved = Some(path);
        self.journal.resume_clock();
        self.saved_at = Instant::now();
        Ok(())
    }

    /// The programs of the stage that was trained last, for measurements.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn engine_of_last_stage(&mut self) -> Result<&Engine> {
        if self.engine.is_none() {
            self.engine = Some(self.new_engine()?);
        }
        Ok(self.engine())
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

    /// What the model was asked so far.
    pub fn evaluation(&self) -> &Evaluation {
        &self.evaluation
    }

    /// How the run was to be done.
    pub fn options(&self) -> &Options<'a> {
        &self.options
    }

    /// Gives back what is needed to go on with the run; all else goes.
    pub fn into_options(self) -> Options<'a> {
        self.options
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
