//! What a run tells of its steps: a line of metrics each, events for TensorBoard, and progress on the screen.

use super::events::EventFile;
use super::held_out::HeldOutLoss;
use super::metrics::{self, DatasetMetrics, METRICS_FILE, Metrics, MetricsFile, Timing};
use super::pace::Pace;
use super::results::StepResults;
use super::scores::TaskScore;
use crate::error::Result;
use crate::recipes::{Recipe, Span};
use crate::report::out;
use crate::report::progress::Progress;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// What a step took of the device.
pub struct Cost {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes allocated.
    pub memory: u64,
}

/// The files of a run's steps, and its progress.
pub struct Journal {
    metrics: MetricsFile,
    /// For TensorBoard, as long as they can be written.
    events: Option<EventFile>,
    progress: Progress,
    /// Time spent on steps, that of earlier sittings included.
    seconds: f64,
    pace: Pace,
    /// When the last step was done, or evaluation, saving or making ready after it.
    last_done: Instant,
}

impl Journal {
    /// That of a run which goes on at the end of step `step`.
    ///
    /// # Errors
    /// As [`MetricsFile::open`].
    pub fn open(run: &Path, recipe: &Recipe, step: u64) -> Result<Self> {
        let path = run.join(METRICS_FILE);
        let metrics = MetricsFile::open(&path, step)?;
        let mut progress = Progress::new("training", recipe.total_steps(), step).with_curve();
        if let Some(curve) = progress.curve() {
            metrics::read(&path)?.for_each(|earlier| earlier.draw_on(curve));
        }
        let events = EventFile::create(run, step);
        let events =
            events.map_err(|error| out::warn(format_args!("no events for TensorBoard: {error}"))).ok();
        let seconds = metrics.seconds;
        let pace = Pace::new(recipe, seconds);
        Ok(Journal { metrics, events, progress, seconds, pace, last_done: Instant::now() })
    }

    /// What was done since the last step is no part of the next one's time.
    pub fn resume_clock(&mut self) {
        self.last_done = Instant::now();
    }

    /// Writes a step of the stage with this span, and the held-out loss that was measured after it.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file of metrics.
    pub fn write(
        &mut self,
        recipe: &Recipe,
        span: &Span,
        results: &StepResults,
        held_out: Option<&HeldOutLoss>,
        cost: &Cost,
    ) -> Result<()> {
        let &StepResults { step, lr, grad_norm, done, ref sums, preference, .. } = results;
        // Never zero: a speed that is not finite is no JSON.
        let seconds = done.saturating_duration_since(self.last_done).as_secs_f64().max(1e-9);
        self.last_done = done;
        self.seconds += seconds;
        let pace = self.pace.step_done(step, seconds);
        let datasets = recipe.datasets.iter().zip(sums).filter(|(_, sum)| sum.tokens > 0);
        let metrics = Metrics {
            step,
            tokens: span.tokens_at(step),
            loss: results.loss(),
            lr,
            grad_norm,
            datasets: datasets
                .map(|(dataset, sum)| {
                    let loss = Some(sum.nll / sum.weight);
                    (dataset.name.clone(), DatasetMetrics { tokens: sum.tokens, loss })
                })
                .collect(),
            held_out_loss: held_out.map(|it| it.mean),
            held_out_datasets: held_out.map_or_else(BTreeMap::new, |it| it.by_name(recipe)),
            preference,
            held_out_preference: held_out.and_then(|it| it.preference),
            held_out_pairs: held_out.and_then(|it| it.pairs.clone()),
            timing: Timing {
                seconds: self.seconds,
                tokens_per_second: span.tokens_per_step as f64 / seconds,
                gflops: cost.flops / seconds / 1e9,
                memory: cost.memory,
            },
        };
        self.metrics.append(&metrics)?;
        self.add_events(|events| events.append(&metrics));
        if let Some(curve) = self.progress.curve() {
            metrics.draw_on(curve);
        }
        let speed = span.tokens_per_step as f64 / pace;
        let earned = metrics.preference.map_or(String::new(), |it| format!("  margin {:.3}", it.margin));
        self.show(recipe, step, &format!("loss {:.3}{earned}  {speed:.0} tokens/s", metrics.loss));
        Ok(())
    }

    /// An evaluation is done that took so long.
    pub fn evaluation_done(&mut self, seconds: f64) {
        self.pace.evaluation_done(seconds);
        self.resume_clock();
    }

    /// Shows what is done after `step` steps.
    pub fn show(&mut self, recipe: &Recipe, step: u64, what: &str) {
        let stage = self.pace.stage_of(step).map_or("", |stage| &recipe.stages[stage].name);
        self.progress.estimate(self.pace.estimate(recipe, step));
        self.progress.set_named(&format!("training {stage}"), step, what);
    }

    /// Adds scores to the events.
    pub fn add_scores(&mut self, scores: &[TaskScore]) {
        self.add_events(|events| events.append_scores(scores));
    }

    fn add_events(&mut self, add: impl FnOnce(&mut EventFile) -> Result<()>) {
        if let Some(Err(error)) = self.events.as_mut().map(add) {
            out::warn(format_args!("no more events for TensorBoard: {error}"));
            self.events = None;
        }
    }

    /// Forces what was written to the medium.
    ///
    /// # Errors
    /// As [`MetricsFile::sync`].
    pub fn sync(&self) -> Result<()> {
        self.metrics.sync()
    }

    /// Ends the display.
    pub fn finish(&mut self) {
        self.progress.finish();
    }
}
