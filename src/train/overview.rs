//! What a run folder tells of its run: how far it is, how well it does, and how it ended.

use super::made::ENDING_FILE;
use super::metrics::{self, METRICS_FILE, Metrics};
use super::run_folder::is_locked;
use super::saved::RECIPE_FILE;
use crate::checkpoint::{folder, replace};
use crate::error::{Error, Result};
use crate::files;
use crate::recipes::Recipe;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes at the end of the metrics in which the last lines are looked for.
const TAIL: u64 = 1 << 20;

/// How a run ended, as its folder keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Record {
    /// All steps are done.
    Finished,
    /// Stopped early, with a checkpoint.
    Stopped,
    /// An error ended it.
    Failed {
        /// The error's line.
        error: String,
    },
}

impl Record {
    /// Keeps it in the run folder.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn write(&self, run: &Path) -> Result<()> {
        let json = serde_json::to_string(self).expect("a record is plain data") + "\n";
        replace(&run.join(ENDING_FILE), json.as_bytes())
    }

    /// Removes that of an earlier sitting: the run goes on. A folder of that name steps aside.
    ///
    /// # Errors
    /// [`Error::Io`] if it is there and cannot be removed.
    pub fn clear(run: &Path) -> Result<()> {
        let path = run.join(ENDING_FILE);
        if path.is_dir() {
            return files::set_aside(&path).map(|_| ());
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(error)),
            _ => Ok(()),
        }
    }

    fn read(run: &Path) -> Option<Record> {
        serde_json::from_slice(&files::read(&run.join(ENDING_FILE), files::SETTINGS).ok()?).ok()
    }
}

/// What a run is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A process trains it.
    Running,
    /// It has ended and said so.
    Ended(Record),
    /// No process trains it, and it had no time to say why.
    Killed,
}

impl State {
    /// `running`, `stopped`, `finished` or `failed`.
    pub fn name(&self) -> &'static str {
        match self {
            State::Running => "running",
            State::Ended(Record::Finished) => "finished",
            State::Ended(Record::Stopped) => "stopped",
            State::Ended(Record::Failed { .. }) | State::Killed => "failed",
        }
    }

    /// More about it than its name, if there is more.
    pub fn reason(&self) -> Option<&str> {
        match self {
            State::Ended(Record::Failed { error }) => Some(error),
            State::Killed => Some("its process was killed"),
            _ => None,
        }
    }
}

/// A run in short.
pub struct Overview {
    /// The run folder.
    pub path: PathBuf,
    /// What it is doing.
    pub state: State,
    /// Its recipe, if it can be read.
    pub recipe: Option<Recipe>,
    /// The newest step with metrics.
    pub last: Option<Metrics>,
    /// The newest held-out loss.
    pub held_out_loss: Option<f64>,
    /// The newest checkpoint's folder, whole or not.
    pub checkpoint: Option<PathBuf>,
    /// The last sign of life.
    pub changed: Option<SystemTime>,
}

impl Overview {
    /// That of the run in `path`; `None` if there is no run. What cannot be read is left out.
    pub fn of(path: &Path) -> Option<Overview> {
        let metrics = path.join(METRICS_FILE);
        let recipe = path.join(RECIPE_FILE);
        if !recipe.is_file() && !metrics.is_file() {
            return None;
        }
        let tail = tail(&metrics).unwrap_or_default();
        let last = tail.last().cloned();
        let checkpoint = folder::list(path).ok().and_then(|all| all.last().map(|(_, path)| path.clone()));
        let recipe = Recipe::load(&recipe.to_string_lossy(), &[]).ok();
        let state = match Record::read(path) {
            _ if is_locked(path) => State::Running,
            Some(record) => State::Ended(record),
            // Runs of earlier versions kept no record.
            None if last
                .as_ref()
                .is_some_and(|it| Some(it.step) == recipe.as_ref().map(Recipe::total_steps)) =>
            {
                State::Ended(Record::Finished)
            }
            None => State::Killed,
        };
        let times =
            [&metrics, &path.join(RECIPE_FILE)].map(|path| path.metadata().and_then(|it| it.modified()));
        Some(Overview {
            path: path.into(),
            state,
            recipe,
            held_out_loss: tail.iter().rev().find_map(|metrics| metrics.held_out_loss),
            last,
            checkpoint,
            changed: times.into_iter().flatten().max(),
        })
    }

    /// Those of all runs in `folder`, the one with the newest sign of life last.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be listed.
    pub fn of_all(folder: &Path) -> Result<Vec<Overview>> {
        let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()).map_err(Error::io(folder)));
        let paths = paths.collect::<Result<Vec<PathBuf>>>()?;
        let mut all: Vec<Overview> = paths.iter().filter_map(|path| Overview::of(path)).collect();
        all.sort_by(|a, b| (a.changed, &a.path).cmp(&(b.changed, &b.path)));
        Ok(all)
    }
}

/// The last steps of the metrics, as many as lie in the last [`TAIL`] bytes.
fn tail(path: &Path) -> Result<Vec<Metrics>> {
    let mut file: File = files::open(path)?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// All steps of a run that have metrics, one at a time.
///
/// # Errors
/// [`Error::Io`] or [`Error::Input`] if there are none to read.
pub fn steps(run: &Path) -> Result<impl Iterator<Item = Metrics> + use<>> {
    metrics::read(&run.join(METRICS_FILE))
}
