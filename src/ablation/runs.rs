//! The runs of an ablation: ordinary ones, in folders of their own, that go on where they were.

use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::recipes::{Change, Recipe};
use crate::report::{out, quoted};
use crate::train::begun::Begun;
use crate::train::overview::{Overview, Record, State};
use crate::train::run::{resume, start};
use crate::train::run_folder::{RunFolder, can_be_resumed};
use crate::train::trainer::{Ending, Options, Requests};
use std::path::{Path, PathBuf};

/// A run that an ablation needs.
pub struct Run {
    /// What people call it.
    pub title: String,
    /// Its folder, which need not be there yet.
    pub folder: PathBuf,
    /// What it trains.
    pub recipe: Recipe,
}

/// Trains all that are not finished, one after another. Stopped on the way, the same again goes on.
///
/// # Errors
/// [`Error::Input`] if a folder holds a run of another recipe, before anything is trained; those of training.
pub fn train(runs: &[Run], backend: &Backend, memory: u64, requests: &Requests) -> Result<Ending> {
    runs.iter().try_for_each(check)?;
    for (number, run) in (1..).zip(runs) {
        let Run { title, folder, recipe } = run;
        let of = runs.len();
        if is_finished(folder) {
            out::say(format_args!("run {number} of {of}: {title}: finished"));
            continue;
        }
        out::say(format_args!("run {number} of {of}: {title}"));
        let options = |run| Options { run, backend: backend.clone(), memory, until: None, requests };
        let ending = match can_be_resumed(folder) {
            true => resume(options(&RunFolder::open(folder)?), &[])?,
            false => start(recipe.clone(), options(&RunFolder::claim(folder)?))?,
        };
        if ending != Ending::Finished {
            return Ok(ending);
        }
    }
    Ok(Ending::Finished)
}

/// Whether all steps of the run in a folder are done.
pub fn is_finished(folder: &Path) -> bool {
    Overview::of(folder).is_some_and(|run| run.state == State::Ended(Record::Finished))
}

/// Requires that the folder holds no run that began with another recipe.
fn check(run: &Run) -> Result<()> {
    let (folder, begun) = (&run.folder, Begun::read(&run.folder));
    // What it began with was as it was given; of a run that cannot tell, `resume` judges.
    let Some(before) = begun.and_then(|begun| begun.recipes().into_iter().next()) else { return Ok(()) };
    let mut wanted = run.recipe.clone();
    // Those of the Hub have their commits by now.
    for (dataset, before) in wanted.datasets.iter_mut().zip(&before.datasets) {
        if dataset.paths.iter().any(|path| crate::hub::is_remote(path)) {
            dataset.paths = before.paths.clone();
        }
    }
    match &wanted.changes_since(&before)?[..] {
        [] => Ok(()),
        changes => Err(Error::input(format!(
            "{}: holds a run under other conditions ({}): give another folder with --runs, or remove it",
            quoted(folder),
            changes.iter().map(Change::to_string).collect::<Vec<_>>().join(", ")
        ))),
    }
}
