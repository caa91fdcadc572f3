//! What the stages of a whole life do to a model, by the scores that its runs kept: the paper's findings as effects.

use super::estimate::Estimate;
use super::scores;
use crate::error::{Error, Result};
use crate::recipes::{Origin, Recipe, StageKind};
use crate::report::{quoted, table};
use crate::train::records;
use crate::train::saved::RECIPE_FILE;
use crate::train::scores::{SCORES_FILE, TaskScore};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A finding that a stage brings about.
#[derive(Debug)]
pub struct Effect {
    /// What is asked; of several tasks, the mean counts.
    pub tasks: &'static [&'static str],
    /// What these are called.
    pub about: &'static str,
    /// The stage after which it shows; what it goes on from is the stage before it.
    pub stage: Role,
    /// What happens.
    pub change: Change,
}

/// A stage by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The last of kind `pretrain`, in which the learning rate falls and the best text comes.
    Decay,
    /// The first of this kind.
    First(StageKind),
}

/// What a stage does to a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It rises.
    Rises,
    /// It rises faster by the token than in the stage before. "Before" is what the pace of that stage would have given.
    RisesFaster,
    /// It rises above guessing, and was not above it before.
    Begins,
    /// It does not fall.
    Stays,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Change::Rises => "rise",
            Change::RisesFaster => "faster rise",
            Change::Begins => "begins",
            Change::Stays => "no fall",
        }
    }
}

/// How many standard errors make an effect.
pub const ENOUGH: f64 = 2.0;

/// What is asked in contexts that are short enough for all stages.
const SHORT: &[&str] = &["facts", "facts-cloze", "arithmetic", "programs", "needle-short"];

/// SmolLM2's findings (arXiv 2502.02737, sections 4.5 to 4.7, 5.1 and 5.3).
pub const EFFECTS: [Effect; 6] = [
    Effect { tasks: &["arithmetic"], about: "sums", stage: Role::Decay, change: Change::RisesFaster },
    Effect { tasks: &["programs"], about: "programs", stage: Role::Decay, change: Change::RisesFaster },
    Effect {
        tasks: &["needle-long"],
        about: "far needle",
        stage: Role::First(StageKind::ExtendContext),
        change: Change::Begins,
    },
    Effect {
        tasks: SHORT,
        about: "short context",
        stage: Role::First(StageKind::ExtendContext),
        change: Change::Stays,
    },
    Effect {
        tasks: &["constraints"],
        about: "constraints",
        stage: Role::First(StageKind::Sft),
        change: Change::Rises,
    },
    Effect {
        tasks: &["preference"],
        about: "preference",
        stage: Role::First(StageKind::Dpo),
        change: Change::Rises,
    },
];

/// A run that went through the stages.
pub struct Life {
    folder: PathBuf,
    recipe: Recipe,
    scores: Vec<TaskScore>,
}

impl Life {
    /// Reads a run folder.
    ///
    /// # Errors
    /// [`Error::Input`] if it is none, and those of reading it.
    pub fn open(folder: &Path) -> Result<Life> {
        let path = folder.join(RECIPE_FILE);
        if !path.is_file() {
            return Err(Error::input(format!(
                "{}: is no run folder: it has no {RECIPE_FILE}",
                folder.display()
            )));
        }
        let recipe = Recipe::load(&path.to_string_lossy(), &[])?;
        Ok(Life { folder: folder.into(), recipe, scores: records::read(&folder.join(SCORES_FILE)) })
    }

    fn score(&self, task: &str, tasks: &[&str], Moment { stage, step }: Moment) -> Result<&TaskScore> {
        let name = &self.recipe.stages[stage].name;
        scores::last(&self.scores, task, name, step).ok_or_else(|| {
            let group = tasks.iter().map(|task| format!("\"{task}\"")).collect::<Vec<_>>().join(", ");
            Error::input(format!(
                "{}: no score of {task} in stage {name} up to step {step}: it must be trained to there with \
                 stages.{name}.evaluate = [{group}]",
                quoted(&self.folder)
            ))
        })
    }

    /// The mean of tasks, of which each is a sum of the scores at some moments times their weights, and its standard error.
    fn mean(&self, tasks: &[&str], moments: &[(f64, Moment)]) -> Result<(f64, f64)> {
        let (mut sum, mut squares) = (0.0, 0.0);
        for task in tasks {
            let terms: Vec<(f64, &TaskScore)> = moments
                .iter()
                .map(|&(weight, moment)| Ok((weight, self.score(task, tasks, moment)?)))
                .collect::<Result<_>>()?;
            let (value, error) = scores::weighted(&terms);
            sum += value;
            squares += error.powi(2);
        }
        let count = tasks.len() as f64;
        Ok((sum / count, squares.sqrt() / count))
    }

    /// How far the mean of tasks is above guessing at a moment, and its standard error.
    fn above_guessing(&self, tasks: &[&str], moment: Moment) -> Result<(f64, f64)> {
        let (mean, error) = self.mean(tasks, &[(1.0, moment)])?;
        let mut guessing = 0.0;
        for task in tasks {
            guessing += self.score(task, tasks, moment)?.guessing.unwrap_or(0.0);
        }
        Ok((mean - guessing / tasks.len() as f64, error))
    }
}

/// The end of a stage, or a step in it.
#[derive(Clone, Copy)]
struct Moment {
    stage: usize,
    step: u64,
}

/// A stage of a recipe by what it does, and what it goes on from.
fn stage_of(recipe: &Recipe, role: Role) -> Option<(usize, Moment)> {
    let of_kind = |kind| (0..recipe.stages.len()).filter(move |&i| recipe.stages[i].kind == kind);
    let stage = match role {
        Role::Decay => of_kind(StageKind::Pretrain).next_back(),
        Role::First(kind) => of_kind(kind).next(),
    }?;
    match recipe.span_of(stage).origin {
        Origin::Noise => None,
        Origin::Step { stage: before, step } => Some((stage, Moment { stage: before, step })),
    }
}

/// Checks that a recipe's stages ask what effects need, before hours are spent on them.
///
/// # Errors
/// [`Error::Input`] with the stage and what to ask there.
pub fn check(recipe: &Recipe) -> Result<()> {
    for effect in &EFFECTS {
        let Some((stage, before)) = stage_of(recipe, effect.stage) else { continue };
        let mut asked_in = vec![stage, before.stage];
        if let (Change::RisesFaster, Origin::Step { stage, .. }) =
            (effect.change, recipe.span_of(before.stage).origin)
        {
            asked_in.push(stage);
        }
        for stage in asked_in {
            let (name, asked) = (&recipe.stages[stage].name, recipe.evaluated_at(stage));
            if let Some(task) = effect.tasks.iter().find(|task| !asked.contains(task)) {
                return Err(Error::input(format!(
                    "recipe {}: stage {name} does not ask {task}: give --set 'stages.{name}.evaluate=[\"microcosm\"]'",
                    recipe.name
                )));
            }
        }
    }
    Ok(())
}

/// An effect as some runs show it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What is asked, and what happens in which stage.
    pub effect: String,
    /// Score before, or what the pace of before would have given.
    pub before: Estimate,
    /// Score after.
    pub after: Estimate,
    /// How much higher that is, run by run.
    pub difference: Estimate,
    /// The same in standard errors.
    pub in_errors: f64,
    /// Whether it is an effect by [`ENOUGH`] standard errors.
    pub appears: bool,
    /// Why it is none.
    #[serde(skip)]
    why_not: Option<String>,
}

/// Looks for an effect in runs; none if their recipe has no such stage.
///
/// # Errors
/// [`Error::Input`] naming the run that lacks a score.
pub fn find(effect: &Effect, lives: &[Life]) -> Result<Option<Finding>> {
    let (mut befores, mut afters, mut differences) = (Vec::new(), Vec::new(), Vec::new());
    let mut above_guessing = [Vec::new(), Vec::new()];
    let mut name = "";
    for life in lives {
        let Some((stage, was)) = stage_of(&life.recipe, effect.stage) else { return Ok(None) };
        name = &life.recipe.stages[stage].name;
        let span = life.recipe.span_of(stage);
        let is = Moment { stage, step: span.end_step };
        above_guessing[1].push(life.above_guessing(effect.tasks, is)?);
        above_guessing[0].push(life.above_guessing(effect.tasks, was)?);
        let mut before = vec![(1.0, was)];
        if effect.change == Change::RisesFaster {
            let parent_span = life.recipe.span_of(was.stage);
            let tokens = (span.tokens_at(span.end_step) - span.start_tokens) as f64;
            let longer = tokens / (span.start_tokens - parent_span.start_tokens) as f64;
            before = vec![(1.0 + longer, was)];
            // A model of noise has no answer right.
            if let Origin::Step { stage, step } = parent_span.origin {
                before.push((-longer, Moment { stage, step }));
            }
        }
        let change: Vec<_> =
            before.iter().map(|&(weight, moment)| (-weight, moment)).chain([(1.0, is)]).collect();
        befores.push(life.mean(effect.tasks, &before)?);
        afters.push(life.mean(effect.tasks, &[(1.0, is)])?);
        differences.push(life.mean(effect.tasks, &change)?);
    }
    let [before, after, difference] = [&befores, &afters, &differences].map(|values| Estimate::of(values));
    let in_errors = difference.in_errors();
    let [was_above, is_above] = above_guessing.map(|values| Estimate::of(&values).in_errors() >= ENOUGH);
    let why_not = match effect.change {
        Change::Stays if in_errors > -ENOUGH => None,
        change if change == Change::Stays || in_errors < ENOUGH => {
            Some(format!("{in_errors:+.1} standard errors"))
        }
        Change::Begins if was_above => Some("above guessing before".into()),
        Change::Begins if !is_above => Some("not above guessing after".into()),
        _ => None,
    };
    let effect = format!("{}: {} in {name}", effect.about, effect.change.name());
    Ok(Some(Finding { effect, before, after, difference, in_errors, appears: why_not.is_none(), why_not }))
}

/// The findings as a table of 80 columns.
pub fn draw(findings: &[Finding]) -> String {
    let mut rows = table(&["effect", "before", "after", "difference", "errors", ""]);
    for it in findings {
        rows.add_row([
            it.effect.clone(),
            format!("{:.3}", it.before.mean),
            format!("{:.3}", it.after.mean),
            format!("{:+.3} +- {:.3}", it.difference.mean, it.difference.standard_error),
            format!("{:+.1}", it.in_errors),
            if it.appears { "yes" } else { "no" }.into(),
        ]);
    }
    rows.to_string()
}

/// In words: which do not appear.
pub fn summary(findings: &[Finding]) -> String {
    let missing: Vec<String> = findings
        .iter()
        .filter_map(|it| it.why_not.as_ref().map(|why| format!("{} ({why})", it.effect)))
        .collect();
    match &missing[..] {
        [] => format!("all {} effects appear by {ENOUGH} standard errors", findings.len()),
        missing => format!(
            "{} of {} effects appear by {ENOUGH} standard errors; not: {}",
            findings.len() - missing.len(),
            findings.len(),
            missing.join("; ")
        ),
    }
}
