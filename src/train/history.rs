//! `history.jsonl`: what happened to a run besides its steps. Everything in it but the `timing` objects repeats bit for bit,
//! as long as nobody intervenes.

use crate::checkpoint::replace;
use crate::error::Result;
use crate::files;
use crate::recipes::{Change, Recipe, Skip};
use crate::report::out;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// File in a run folder.
pub const HISTORY_FILE: &str = "history.jsonl";

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The run's step that was done when it did.
    pub step: u64,
    /// Name of the stage that the step lies in.
    pub stage: String,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
    /// What differs from run to run.
    #[serde(default)]
    pub timing: Timing,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum What {
    /// The first step of a loss spike.
    Spike {
        /// Its loss; none if it is not finite.
        loss: Option<f64>,
        /// The loss that was expected; none if nobody asked, because something was not finite.
        expected: Option<f64>,
        /// The datasets whose loss rose, the largest share of the rise first.
        datasets: Vec<String>,
    },
    /// The run went back.
    Rewind {
        /// To the end of this step.
        to: u64,
        /// Steps of the stage's data that are left out for it.
        skipped: Vec<Skip>,
    },
    /// Somebody changed the recipe while the run rested.
    Intervention {
        /// `KEY=VALUE` of each key that was changed; `KEY` alone if it is no longer given.
        set: Vec<String>,
        /// The same as it was before.
        before: Vec<String>,
    },
}

impl Event {
    /// It in a line for people.
    pub fn describe(&self) -> String {
        format!("step {} ({}): {}", self.step, self.stage, self.what.describe())
    }
}

impl What {
    /// Its `kind`.
    pub fn name(&self) -> &'static str {
        match self {
            What::Spike { .. } => "spike",
            What::Rewind { .. } => "rewind",
            What::Intervention { .. } => "intervention",
        }
    }

    /// It in a line for people.
    pub fn describe(&self) -> String {
        match self {
            What::Spike { loss, expected, datasets } => {
                let loss = loss.map_or("not finite".into(), |loss| format!("{loss:.3}"));
                let expected =
                    expected.map_or(String::new(), |expected| format!(" where {expected:.3} was expected"));
                let by = if datasets.is_empty() { "" } else { ", by " };
                format!("the loss spiked: {loss}{expected}{by}{}", datasets.join(", "))
            }
            What::Rewind { to, skipped } => {
                let skipped: Vec<String> = skipped.iter().map(Skip::describe).collect();
                format!("back to step {to}, and on without {} of the stage's data", skipped.join(", "))
            }
            What::Intervention { set, before } => {
                let changed =
                    set.iter().zip(before).map(|(set, before)| format!("{set} (was {})", value(before)));
                changed.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// What stands behind a key, if it is given.
fn value(assignment: &str) -> &str {
    assignment.split_once('=').map_or("not given", |(_, value)| value)
}

/// When it happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Local time, as RFC 3339 has it.
    pub time: String,
}

impl Timing {
    fn now() -> Timing {
        Timing { time: chrono::Local::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, false) }
    }
}

/// The file of a run that is trained.
pub struct History {
    path: PathBuf,
    events: Vec<Event>,
}

impl History {
    /// Opens that of the run folder `run` at the end of step `step`. What later steps brought is dropped: it will come again.
    /// What is no file steps aside.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file that cannot be read or written.
    pub fn open(run: &Path, step: u64, recipe: &Recipe) -> Result<History> {
        let path = run.join(HISTORY_FILE);
        if path.symlink_metadata().is_ok() && !path.is_file() {
            let aside = files::set_aside(&path)?;
            out::warn(format_args!("{}: not a regular file; it is now {}", path.display(), aside.display()));
        }
        if !path.exists() {
            return Ok(History { path, events: Vec::new() });
        }
        let (found, damaged) = read_lines(&path)?;
        if damaged > 0 {
            out::warn(format_args!("{}: {damaged} damaged lines are dropped", path.display()));
        }
        let events = cut_back(&found, step, recipe);
        let history = History { path, events };
        if damaged > 0 || history.events.len() < found.len() {
            history.write()?;
        }
        Ok(history)
    }

    /// Adds an event.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub fn add(&mut self, step: u64, stage: &str, what: What) -> Result<()> {
        self.events.push(Event { step, stage: stage.into(), what, timing: Timing::now() });
        self.write()
    }

    /// Adds what somebody has changed in the recipe since the checkpoint of `step`, if it is not there yet: a run may be cut
    /// off before its next checkpoint, as often as it likes.
    ///
    /// # Errors
    /// As [`History::add`].
    pub fn add_changes(&mut self, step: u64, stage: &str, changes: &[Change]) -> Result<()> {
        let mut before: BTreeMap<String, String> = BTreeMap::new();
        let mut now: BTreeMap<String, String> = BTreeMap::new();
        for Change { key, before: was, after: is, .. } in changes {
            let assignment = |value: &Option<String>| match value {
                Some(value) => format!("{key}={value}"),
                None => key.clone(),
            };
            before.insert(key.clone(), assignment(was));
            now.insert(key.clone(), assignment(is));
        }
        for event in self.events.iter().filter(|event| event.step >= step) {
            let What::Intervention { set, before: first } = &event.what else { continue };
            for (set, first) in set.iter().zip(first) {
                let key = set.split('=').next().unwrap_or_default().to_string();
                // What is not among the changes is as it was at first.
                now.entry(key.clone()).or_insert_with(|| first.clone());
                before.insert(key, set.clone());
            }
        }
        now.retain(|key, set| before[key] != *set);
        if now.is_empty() {
            return Ok(());
        }
        let before = now.keys().map(|key| before[key].clone()).collect();
        self.add(step, stage, What::Intervention { set: now.into_values().collect(), before })
    }

    /// The run's folder.
    pub fn run(&self) -> &Path {
        self.path.parent().expect("it lies in the folder")
    }

    /// What happened, in this order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// All of it anew: it is short, and never half there.
    fn write(&self) -> Result<()> {
        let line = |event| serde_json::to_string(event).expect("events are plain data") + "\n";
        replace(&self.path, self.events.iter().map(line).collect::<String>().as_bytes())
    }
}

/// What has happened to the run in `run`; nothing if that cannot be read.
pub fn read(run: &Path) -> Vec<Event> {
    read_lines(&run.join(HISTORY_FILE)).map_or(Vec::new(), |(events, _)| events)
}

/// Leaves out of `recipe`, which the run had before, what it has gone back behind since and `now` leaves out.
pub fn catch_up(recipe: &mut Recipe, now: &Recipe, events: &[Event]) {
    for event in events {
        let What::Rewind { skipped, .. } = &event.what else { continue };
        let of_stage = |recipe: &Recipe| recipe.stages.iter().position(|stage| stage.name == event.stage);
        let (Some(before), Some(now_at)) = (of_stage(recipe), of_stage(now)) else { continue };
        for skip in skipped.iter().filter(|skip| now.stages[now_at].leaves_out(skip)) {
            recipe.stages[before].leave_out(*skip);
        }
    }
}

/// The file's events, and how many of its lines are none.
fn read_lines(path: &Path) -> Result<(Vec<Event>, usize)> {
    let bytes = files::read(path, files::LISTS)?;
    let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    let events: Vec<Event> = lines.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let damaged = lines.len() - events.len();
    Ok((events, damaged))
}

/// The events that are part of the run's way to the end of step `step`.
///
/// A rewind is one as long as the recipe leaves out what it did: a run may be cut off between the two. With it, what it has
/// undone is one.
fn cut_back(events: &[Event], step: u64, recipe: &Recipe) -> Vec<Event> {
    let stands = |event: &Event| match &event.what {
        What::Rewind { to, skipped } => {
            let stage = recipe.stages.iter().find(|stage| stage.name == event.stage);
            stage.is_some_and(|stage| skipped.iter().all(|skip| stage.leaves_out(skip))).then_some(*to)
        }
        What::Spike { .. } | What::Intervention { .. } => None,
    };
    let is_kept = |(i, event): &(usize, &Event)| match &event.what {
        What::Rewind { .. } => stands(event).is_some(),
        // Of the recipe, which is kept.
        What::Intervention { .. } => true,
        What::Spike { .. } => {
            let undone =
                |later: &Event| stands(later).is_some_and(|to| to < event.step && event.step <= later.step);
            event.step <= step || events[i + 1..].iter().any(undone)
        }
    };
    events.iter().enumerate().filter(is_kept).map(|(_, event)| event.clone()).collect()
}
