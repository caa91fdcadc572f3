//! The way back behind a loss spike: to the last checkpoint before it, and on without the data that caused it.
//!
//! What is left out goes into the run's recipe, which so always holds all that decides the result. Killed at any moment of
//! this, the run finds either the recipe of before and comes to the same spike again, or that of after and goes on.

use super::history::{History, What};
use super::saved;
use super::spikes::Spike;
use crate::checkpoint::folder;
use crate::error::Result;
use crate::recipes::{Recipe, Skip, Span};
use crate::report::out;
use std::path::Path;

/// The recipe without the data of a spike in a stage, and what it leaves out more: also the data of some steps before, whose
/// updates may have caused it.
pub fn without(recipe: &Recipe, span: &Span, spike: Spike) -> (Recipe, Skip) {
    let mut recipe = recipe.clone();
    let [first, last] = [first(&recipe, span, spike), spike.last.min(span.end_step)];
    let stage = &mut recipe.stages[span.stage];
    let [first, last] = [first, last].map(|step| stage.data_step(step - 1 - span.start_step));
    let skip = Skip { step: first, steps: last + 1 - first };
    stage.leave_out(skip);
    (recipe, skip)
}

/// The first step of the run that is undone for a spike.
fn first(recipe: &Recipe, span: &Span, spike: Spike) -> u64 {
    spike.first.saturating_sub(recipe.spikes.before).max(span.start_step + 1)
}

/// Prepares the run folder so that the run goes on behind a spike; returns the step that it goes back to.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) naming what cannot be written or removed.
pub fn go_back(run: &Path, recipe: &Recipe, span: &Span, spike: Spike, history: &mut History) -> Result<u64> {
    let (changed, skip) = without(recipe, span, spike);
    folder::discard_from(run, first(recipe, span, spike))?;
    let to = folder::list(run)?.last().map_or(0, |(step, _)| *step);
    let stage = &recipe.stages[span.stage].name;
    history.add(spike.last, stage, What::Rewind { to, skipped: vec![skip] })?;
    saved::write_recipe(&changed, run)?;
    let skipped = skip.describe();
    out::say(format_args!("back to step {to}, and on without {skipped} of the data of stage {stage}"));
    Ok(to)
}
