//! A run as its folder tells of it, with what of that is missing.

use super::history::{Axis, History};
use super::lines::{self, Lines};
use super::peak::Peak;
use crate::recipes::{Origin, Recipe, Span, StageKind};
use crate::train::begun::Begun;
use crate::train::history::{Event, HISTORY_FILE};
use crate::train::overview::{Overview, steps};
use crate::train::samples::{SAMPLES_FILE, SampleText};
use crate::train::scores::{SCORES_FILE, TaskScore};
use crate::train::sitting::{SITTINGS_FILE, Sitting};
use std::collections::BTreeMap;
use std::path::Path;

/// Most stages that tables and curves show: the last ones.
const MOST_STAGES: usize = 24;

/// Everything that a report tells of a run.
pub struct Run {
    /// What it is called, unlike all others of the report.
    pub name: String,
    /// Its state and recipe.
    pub overview: Overview,
    /// Its stages, in the order of training; one without a name where there is no recipe.
    pub stages: Vec<Stage>,
    /// Its steps.
    pub history: History,
    /// What tasks it solves.
    pub scores: Lines<TaskScore>,
    /// What it writes.
    pub samples: Lines<SampleText>,
    /// Spikes and interventions.
    pub events: Lines<Event>,
    /// Who trained it, with what.
    pub sittings: Lines<Sitting>,
    /// Hash of its tokenizer, and of its token sets.
    pub hashes: Option<(Option<String>, BTreeMap<String, String>)>,
    /// What its device can do.
    pub peak: Option<Peak>,
    /// What is missing or damaged and concerns everything.
    pub notes: Vec<String>,
}

/// A stage of a run.
pub struct Stage {
    /// Its name.
    pub name: String,
    /// What it learns, if that is known.
    pub kind: Option<StageKind>,
    /// When it trains, if that is known.
    pub span: Option<Span>,
    /// Tokens of a sequence.
    pub length: Option<usize>,
}

impl Stage {
    /// Whether its loss is one of preference pairs.
    pub fn is_of_pairs(&self) -> bool {
        self.kind == Some(StageKind::Dpo)
    }

    /// Its kind as recipes call it.
    pub fn kind_name(&self) -> Option<String> {
        let name = match self.kind? {
            StageKind::Pretrain => "pretrain",
            StageKind::ExtendContext => "extend_context",
            StageKind::Sft => "sft",
            StageKind::Dpo => "dpo",
        };
        Some(name.into())
    }
}

/// The axis on which curves of these runs can be laid over each other.
pub fn axis_of(overviews: &[Overview]) -> Axis {
    let goes_straight = |recipe: &Recipe| {
        let goes_on = |span: &Span| match span.origin {
            Origin::Noise => span.start_step == 0,
            Origin::Step { step, .. } => step == span.start_step,
        };
        recipe.spans().iter().all(goes_on)
    };
    let straight = overviews.iter().all(|run| run.recipe.as_ref().is_some_and(goes_straight));
    if straight { Axis::Tokens } else { Axis::Steps }
}

impl Run {
    /// Reads the folder of `overview`. `peaks` are what devices can do.
    pub fn read(name: String, overview: Overview, axis: Axis, peaks: &[Peak]) -> Run {
        let path = overview.path.clone();
        let mut notes = Vec::new();
        let all = overview.recipe.as_ref().map(stages_of);
        if all.is_none() {
            notes.push("no recipe that can be read: stages, plans and settings are not known".into());
        }
        let all = all.unwrap_or_else(|| {
            vec![Stage { name: "all steps".into(), kind: None, span: None, length: None }]
        });
        let ends: Vec<u64> =
            all.iter().map(|stage| stage.span.as_ref().map_or(u64::MAX, |span| span.end_step)).collect();
        let mut history = match steps(&path) {
            Ok(steps) => History::new(steps, &ends, axis),
            Err(error) => {
                notes.push(format!("no curves: {error}"));
                History::new(std::iter::empty(), &ends, axis)
            }
        };
        if history.steps == 0 && notes.iter().all(|note| !note.starts_with("no curves")) {
            notes.push("no curves: there are no sound lines of steps yet".into());
        } else if history.steps < history.last_step {
            let missing = history.last_step - history.steps;
            notes.push(format!("{missing} of {} steps have no sound line of metrics", history.last_step));
        }
        let (mut stages, hidden) = (all, ends.len().saturating_sub(MOST_STAGES));
        if hidden > 0 {
            notes.push(format!("the first {hidden} stages are left out: there are too many to show"));
            stages.drain(..hidden);
            history.stages.drain(..hidden);
        }
        let sittings: Lines<Sitting> = lines::read(&path, SITTINGS_FILE, "device and memory plan");
        let adapter = sittings.lines.last().and_then(|sitting| sitting.adapter.as_deref());
        let peak = Peak::of(&path, adapter, peaks);
        Run {
            name,
            stages,
            history,
            scores: lines::read(&path, SCORES_FILE, "scores"),
            samples: lines::read(&path, SAMPLES_FILE, "samples"),
            events: lines::read(&path, HISTORY_FILE, "record of spikes or interventions"),
            sittings,
            hashes: Begun::read(&path).map(|begun| {
                let (tokenizer, sets) = begun.hashes();
                (tokenizer.map(str::to_string), sets.clone())
            }),
            peak,
            notes,
            overview,
        }
    }

    /// The run folder.
    pub fn path(&self) -> &Path {
        &self.overview.path
    }

    /// The newest sitting.
    pub fn sitting(&self) -> Option<&Sitting> {
        self.sittings.lines.last()
    }

    /// The training loss at the end of the last stage that has steps and is not of preference pairs.
    pub fn final_loss(&self) -> Option<f64> {
        let begun = self.history.begun().filter(|(index, _)| !self.stages[*index].is_of_pairs());
        begun.last().and_then(|(_, stage)| stage.final_loss())
    }

    /// The held-out loss at that place.
    pub fn final_held_out(&self) -> Option<f64> {
        let begun = self.history.begun().filter(|(index, _)| !self.stages[*index].is_of_pairs());
        begun.filter_map(|(_, stage)| super::history::last(&stage.held_out)).last()
    }

    /// Tokens and billions of operations per second over the whole run.
    pub fn pace(&self) -> Option<(f64, f64)> {
        let sum =
            |of: fn(&super::history::StageHistory) -> f64| self.history.stages.iter().map(of).sum::<f64>();
        let (seconds, tokens, gflop) = (sum(|it| it.seconds), sum(|it| it.tokens), sum(|it| it.gflop));
        (seconds > 0.0 && gflop.is_finite()).then(|| (tokens / seconds, gflop / seconds))
    }

    /// Most bytes that were allocated.
    pub fn memory(&self) -> u64 {
        self.history.stages.iter().map(|stage| stage.memory).max().unwrap_or(0)
    }
}

fn stages_of(recipe: &Recipe) -> Vec<Stage> {
    let stage = |span: Span| {
        let stage = &recipe.stages[span.stage];
        let (kind, length) = (Some(stage.kind), Some(stage.sequence_length));
        Stage { name: stage.name.clone(), kind, length, span: Some(span) }
    };
    recipe.spans().into_iter().map(stage).collect()
}
