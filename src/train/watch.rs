//! Watches the losses of a run for spikes, does what its recipe says about them, and keeps what happened.

use super::corpus::Corpus;
use super::history::{History, What};
use super::rewind::without;
use super::saved;
use super::spikes::{Detector, Finding, Part, Spike};
use super::stages::check_data;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::recipes::{Recipe, Span, SpikeAction, Spikes};
use crate::report::{out, quoted};
use std::path::Path;

/// What a step belongs to.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The recipe of the run.
    pub recipe: &'a Recipe,
    /// Its data.
    pub corpus: &'a Corpus,
    /// The stage.
    pub span: &'a Span,
}

impl Place<'_> {
    fn stage(&self) -> &str {
        &self.recipe.stages[self.span.stage].name
    }
}

/// The watch over a run.
pub struct Watch {
    settings: Spikes,
    detector: Detector,
    history: History,
    /// Whether the run goes back behind the spike that goes on, as soon as that is over.
    held: bool,
    /// The spike behind which the run must go back now.
    behind: Option<Spike>,
}

impl Watch {
    /// That over the run in `run`, which goes on from `checkpoint`, if there is one.
    ///
    /// # Errors
    /// As [`History::open`].
    pub fn open(run: &Path, recipe: &Recipe, checkpoint: Option<&Checkpoint>) -> Result<Watch> {
        let history = History::open(run, checkpoint.map_or(0, |it| it.state.step), recipe)?;
        let detector = checkpoint.and_then(saved::detector_of).unwrap_or_default();
        // A spike that was only reported may go on: there may be no checkpoint before it.
        Ok(Watch { settings: recipe.spikes.clone(), detector, history, held: false, behind: None })
    }

    /// Begins a stage: its losses are others.
    pub fn begin_stage(&mut self) {
        self.detector = Detector::default();
    }

    /// What a run that goes on must know.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// What happened.
    pub fn history(&mut self) -> &mut History {
        &mut self.history
    }

    /// Whether what follows the last step is undecided: its state is not worth keeping.
    pub fn is_holding(&self) -> bool {
        self.held || self.behind.is_some()
    }

    /// The spike behind which the run must go back now.
    pub fn behind(&self) -> Option<Spike> {
        self.behind
    }

    /// Looks at a step's loss.
    ///
    /// # Errors
    /// [`Error::Failure`] if the recipe allows no more rewinds, [`Error::Io`] if history cannot be kept.
    pub fn observe(&mut self, place: Place, step: u64, loss: f64, parts: &[Part]) -> Result<()> {
        if self.settings.action == SpikeAction::Off || self.behind.is_some() {
            return Ok(());
        }
        match self.detector.observe(step, parts, self.settings.threshold) {
            Finding::Usual | Finding::GoesOn => {}
            Finding::Over(spike) => self.behind = self.held.then_some(spike),
            Finding::Begun { expected, datasets } => {
                let rose = datasets.join(", ");
                out::warn(format_args!(
                    "step {step}: the loss spikes: {loss:.3} where {expected:.3} was expected, by {rose}"
                ));
                let what = What::Spike { loss: Some(loss), expected: Some(expected), datasets };
                self.history.add(step, place.stage(), what)?;
                self.held = self.can_rewind(place, step)?;
            }
        }
        Ok(())
    }

    /// Notes that a step's loss or gradient is not finite. Returns whether the run goes back behind it.
    ///
    /// # Errors
    /// As [`Watch::observe`].
    pub fn not_finite(&mut self, place: Place, step: u64, loss: f64, parts: &[Part]) -> Result<bool> {
        if self.settings.action == SpikeAction::Off {
            return Ok(false);
        }
        let spike = self.detector.end();
        if spike.is_none() {
            let named = parts.iter().filter(|part| !part.loss.is_finite());
            let datasets = named.map(|part| part.dataset.to_string()).collect();
            let loss = Some(loss).filter(|loss| loss.is_finite());
            self.history.add(step, place.stage(), What::Spike { loss, expected: None, datasets })?;
        }
        if !(self.held || self.can_rewind(place, step)?) {
            return Ok(false);
        }
        out::warn(format_args!("step {step}: loss or gradient is not finite"));
        self.behind = Some(Spike { first: spike.map_or(step, |spike| spike.first), last: step });
        Ok(true)
    }

    /// Ends the spike that goes on at the end of a stage.
    pub fn end_stage(&mut self) {
        let spike = self.detector.end();
        if self.held {
            self.behind = self.behind.or(spike);
        }
    }

    /// Whether the run goes back behind a spike that has begun with `step`.
    fn can_rewind(&self, place: Place, step: u64) -> Result<bool> {
        if self.settings.action != SpikeAction::Rewind {
            return Ok(false);
        }
        let stage = place.stage();
        let is_rewind =
            |it: &&super::history::Event| matches!(it.what, What::Rewind { .. }) && it.stage == stage;
        let rewinds = self.history.events().iter().filter(is_rewind).count() as u64;
        if rewinds >= self.settings.rewinds {
            let run = quoted(self.history.run());
            return Err(Error::failure(format!(
                "step {step}: the loss spikes, and stage {stage} has gone back {rewinds} times already \
                 (spikes.rewinds); mend its data or its learning rate in a new run, or go on with the spikes: \
                 smolter train --resume {run} --set spikes.action=report"
            )));
        }
        // As much as may have to be left out.
        let (recipe, _) = without(place.recipe, place.span, Spike::longest(step));
        let lasts = check_data(&recipe, place.corpus);
        if let Err(error) = &lasts {
            out::warn(format_args!(
                "step {step}: the spike stays, since data would not last without its own: {error}"
            ));
        }
        Ok(lasts.is_ok())
    }
}
