//! What the stages of a whole life do to a model, by the scores that its runs kept: the paper's findings as effects.

use super::estimate::Estimate;
use super::scores;
use crate::error::{Error, Result};
use crate::recipes::{Origin, Recipe, StageKind};
use crate::report::{quoted, table};
use crate::train::comparison::Comparison;
use crate::train::metrics::{self, METRICS_FILE};
use crate::train::records;
use crate::train::saved::RECIPE_FILE;
use crate::train::scores::{SCORES_FILE, TaskScore};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A finding that a stage brings about.
#[derive(Debug)]
pub struct Effect {
    /// What is asked.
    pub asked: Asked,
    /// What that is called.
    pub about: &'static str,
    /// The stage after which it shows; what it goes on from is the stage before it.
    pub stage: Role,
    /// What happens.
    pub change: Change,
}

/// What tells of an effect.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// Tasks of the score table; their mean counts.
    Tasks(&'static [&'static str]),
    /// Of the preference pairs that the run held out, the share whose chosen answer is the likelier one, as the stage's own
    /// measurement has it before and after.
    HeldOutPairs,
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
pub const EFFECTS: [Effect; 7] = [
    Effect {
        asked: Asked::Tasks(&["arithmetic"]),
        about: "sums",
        stage: Role::Decay,
        change: Change::RisesFaster,
    },
    Effect {
        asked: Asked::Tasks(&["programs"]),
        about: "programs",
        stage: Role::Decay,
        change: Change::RisesFaster,
    },
    Effect {
        asked: Asked::Tasks(&["needle-long"]),
        about: "far needle",
        stage: Role::First(StageKind::ExtendContext),
        change: Change::Begins,
    },
    Effect {
        asked: Asked::Tasks(SHORT),
        about: "short context",
        stage: Role::First(StageKind::ExtendContext),
        change: Change::Stays,
    },
    Effect {
        asked: Asked::Tasks(&["constraints"]),
        about: "constraints",
        stage: Role::First(StageKind::Sft),
        change: Change::Rises,
    },
    Effect {
        asked: Asked::HeldOutPairs,
        about: "held-out pairs",
        stage: Role::First(StageKind::Dpo),
        change: Change::Rises,
    },
    Effect {
        asked: Asked::Tasks(&["preference"]),
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

    /// What guessing would give: the mean of tasks.
    fn guessing(&self, tasks: &[&str], moment: Moment) -> Result<f64> {
        let mut sum = 0.0;
        for task in tasks {
            sum += self.score(task, tasks, moment)?.guessing.unwrap_or(0.0);
        }
        Ok(sum / tasks.len() as f64)
    }

    /// How a stage has changed the mean of tasks from the moment that it began with.
    fn seen(&self, tasks: &[&str], change: Change, stage: usize, was: Moment) -> Result<Seen> {
        let span = self.recipe.span_of(stage);
        let is = Moment { stage, step: span.end_step };
        let after = self.mean(tasks, &[(1.0, is)])?;
        let mut before = vec![(1.0, was)];
        if change == Change::RisesFaster {
            let parent_span = self.recipe.span_of(was.stage);
            let tokens = (span.tokens_at(span.end_step) - span.start_tokens) as f64;
            let longer = tokens / (span.start_tokens - parent_span.start_tokens) as f64;
            before = vec![(1.0 + longer, was)];
            // A model of noise has no answer right.
            if let Origin::Step { stage, step } = parent_span.origin {
                before.push((-longer, Moment { stage, step }));
            }
        }
        let negated = before.iter().map(|&(weight, moment)| (-weight, moment));
        let difference: Vec<_> = negated.chain([(1.0, is)]).collect();
        let above_guessing = |moment| -> Result<(f64, f64)> {
            let (mean, error) = self.mean(tasks, &[(1.0, moment)])?;
            Ok((mean - self.guessing(tasks, moment)?, error))
        };
        Ok(Seen {
            before: self.mean(tasks, &before)?,
            after,
            difference: self.mean(tasks, &difference)?,
            above_guessing: [above_guessing(was)?, above_guessing(is)?],
        })
    }

    /// The same of the pairs that the run held out, as it was measured last in the stage.
    fn seen_of_pairs(&self, stage: usize, was: Moment) -> Result<Seen> {
        let steps = was.step + 1..=self.recipe.span_of(stage).end_step;
        let measured = metrics::read(&self.folder.join(METRICS_FILE)).into_iter().flatten();
        let last = measured.filter(|it| steps.contains(&it.step)).filter_map(|it| it.held_out_pairs).last();
        let Comparison { pairs, log_prob, .. } = last.map(|it| it.all).ok_or_else(|| {
            let stage = &self.recipe.stages[stage].name;
            Error::input(format!(
                "{}: tells nothing of held-out pairs in stage {stage}: it must be trained to there with \
                 held_out.fraction above 0",
                quoted(&self.folder)
            ))
        })?;
        let least = 0.5 / pairs as f64;
        let share = |it: f64| (it, (it * (1.0 - it) / pairs as f64).sqrt().max(least));
        let [before, after] = [log_prob.before, log_prob.now].map(share);
        let above_guessing = [before, after].map(|(share, error)| (share - 0.5, error));
        let difference = (log_prob.difference, log_prob.standard_error.max(least));
        Ok(Seen { before, after, difference, above_guessing })
    }
}

/// What one run shows of an effect: values with their standard errors.
struct Seen {
    before: (f64, f64),
    after: (f64, f64),
    difference: (f64, f64),
    /// Before and after.
    above_guessing: [(f64, f64); 2],
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
        let Asked::Tasks(tasks) = effect.asked else {
            if recipe.held_out.fraction == 0.0 {
                return Err(Error::input(format!(
                    "recipe {}: holds no pairs out: give --set held_out.fraction=0.03",
                    recipe.name
                )));
            }
            continue;
        };
        let mut asked_in = vec![stage, before.stage];
        if let (Change::RisesFaster, Origin::Step { stage, .. }) =
            (effect.change, recipe.span_of(before.stage).origin)
        {
            asked_in.push(stage);
        }
        for stage in asked_in {
            let (name, asked) = (&recipe.stages[stage].name, recipe.evaluated_at(stage));
            if let Some(task) = tasks.iter().find(|task| !asked.contains(task)) {
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
    let (mut seen, mut name) = (Vec::new(), "");
    for life in lives {
        let Some((stage, was)) = stage_of(&life.recipe, effect.stage) else { return Ok(None) };
        name = &life.recipe.stages[stage].name;
        seen.push(match effect.asked {
            Asked::Tasks(tasks) => life.seen(tasks, effect.change, stage, was)?,
            Asked::HeldOutPairs => life.seen_of_pairs(stage, was)?,
        });
    }
    let over_runs = |of: fn(&Seen) -> (f64, f64)| Estimate::of(&seen.iter().map(of).collect::<Vec<_>>());
    let [before, after, difference] =
        [over_runs(|it| it.before), over_runs(|it| it.after), over_runs(|it| it.difference)];
    let in_errors = difference.in_errors();
    let [was_above, is_above] = [over_runs(|it| it.above_guessing[0]), over_runs(|it| it.above_guessing[1])]
        .map(|estimate| estimate.in_errors() >= ENOUGH);
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
