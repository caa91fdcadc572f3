//! Changes of a run's recipe while the run rests. What has not begun may change; what is done stands.

use super::saved::{self, RECIPE_FILE};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::recipes::Recipe;
use crate::report::{out, quoted};
use std::path::{Path, PathBuf};

/// Changes the recipe of the run in `run`, which is at `checkpoint`, if it has one, by assignments `path.to.key=value`, and
/// says what has changed.
///
/// # Errors
/// [`Error::Input`] if there is no such key or value, or what is done would have been another; the recipe is then as it was.
pub fn intervene(
    run: &Path,
    recipe: Recipe,
    set: &[String],
    checkpoint: Option<&Checkpoint>,
) -> Result<Recipe> {
    if set.is_empty() {
        return Ok(recipe);
    }
    // It may have been lost.
    saved::write_recipe(&recipe, run)?;
    let path = run.join(RECIPE_FILE);
    let read = |set: &[String]| {
        let mut changed = Recipe::load(&path.to_string_lossy(), set)?;
        if checkpoint.is_some() {
            keep_tokenizer(&recipe, &mut changed);
        }
        Ok::<_, Error>(changed)
    };
    let changed = read(set)?;
    let mut added = changed.clone();
    let is_known =
        |name: &str, paths: &[PathBuf]| recipe.datasets.iter().any(|it| it.name == name && it.paths == paths);
    added.datasets.retain(|dataset| !is_known(&dataset.name, &dataset.paths));
    // Of the others the run has its tokens, and its tokenizer.
    added.tokenizer.path = None;
    added.check_files(None)?;
    if let Some(checkpoint) = checkpoint
        && let Some(why) = touched(&recipe, &changed, checkpoint)
    {
        // The first without which nothing is touched; together they may read where alone they do not.
        let is_fault =
            |end: &usize| read(&set[..*end]).is_ok_and(|it| touched(&recipe, &it, checkpoint).is_some());
        let fault = (1..=set.len()).find(is_fault).unwrap_or(set.len());
        return Err(refusal(run, &recipe, &set[fault - 1], &why, checkpoint));
    }
    for change in changed.changes_since(&recipe)? {
        out::say(format_args!("changed: {change}"));
    }
    for (span, before) in changed.spans().iter().zip(recipe.spans()) {
        let (name, now, were) = (&changed.stages[span.stage].name, span.steps(), before.steps());
        if now != were && *name == recipe.stages[span.stage].name {
            out::say(format_args!("stage {name} has {now} steps (were {were})"));
        }
    }
    saved::write_recipe(&changed, run)?;
    Ok(changed)
}

/// A dataset that is new to a run is no reason to learn other tokens.
fn keep_tokenizer(recipe: &Recipe, changed: &mut Recipe) {
    let Some(train) = &mut changed.tokenizer.train else { return };
    let names = || recipe.datasets.iter().map(|dataset| dataset.name.clone());
    if train.datasets.is_none() && changed.datasets.iter().any(|it| names().all(|name| name != it.name)) {
        train.datasets = Some(names().collect());
    }
}

/// What of the run up to `checkpoint` would have been another with the recipe `changed`, if something would.
fn touched(recipe: &Recipe, changed: &Recipe, checkpoint: &Checkpoint) -> Option<String> {
    let state = &checkpoint.state;
    let current = recipe.stages.iter().position(|stage| stage.name == state.stage)?;
    let spans = recipe.spans();
    (0..=current).find_map(|stage| {
        let (name, span) = (&recipe.stages[stage].name, &spans[stage]);
        let step = if stage == current { state.step } else { span.end_step };
        let is_same = changed.stages.get(stage).is_some_and(|it| it.name == *name)
            && changed.key_at(stage, step) == recipe.key_at(stage, step);
        if !is_same {
            let has = if step == span.end_step { "is done" } else { "has begun" };
            return Some(format!("stage {name} {has}, and it would have been another"));
        }
        let done = span.schedule_start + step - span.start_step;
        let [before, after] = [recipe, changed].map(|recipe| recipe.stage_schedules().swap_remove(stage));
        let at = before.differs_before(&after, done)?;
        Some(format!(
            "the learning rate of step {at} of stage {name}'s schedule, which is done, would be another"
        ))
    })
}

fn refusal(run: &Path, recipe: &Recipe, set: &str, why: &str, checkpoint: &Checkpoint) -> Error {
    let state = &checkpoint.state;
    let current = recipe.stages.iter().position(|stage| stage.name == state.stage).unwrap_or(0);
    let later: Vec<&str> = recipe.stages[current + 1..].iter().map(|stage| stage.name.as_str()).collect();
    let change = match later.is_empty() {
        true => String::new(),
        false => format!("change a stage that has not begun ({}), or ", later.join(", ")),
    };
    Error::input(format!(
        "--set {set}: {why}; {change}branch off: add [[stages]] with from = \"{}@{}\" to {}",
        state.stage,
        state.step,
        quoted(&run.join(RECIPE_FILE))
    ))
}
