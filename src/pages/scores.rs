//! What the model can do: tasks as rows and stages as columns, as in table 3 of SmolLM2's paper, or runs as columns.

use super::page::{Block, Cell, Section, Table, Tone};
use super::run::Run;
use super::seeds::{Group, groups};
use crate::train::scores::{LOSS_PREFIX, TaskScore};
use std::collections::HashMap;

/// Standard errors by which a score must be above guessing, or a loss below the 5-gram's, to stand out.
const SURE: f64 = 3.0;

/// Most tasks of a table, and columns of stages that the recipe does not have.
const MOST: usize = 500;
const MOST_UNKNOWN: usize = 8;

type Key<'a> = (&'a str, bool);

/// A column: its name, and the scores in it.
struct Column<'a> {
    name: String,
    scores: HashMap<Key<'a>, &'a TaskScore>,
}

impl<'a> Column<'a> {
    /// Of several evaluations, the last one counts.
    fn new(name: String, scores: impl Iterator<Item = &'a TaskScore>) -> Self {
        let mut latest: HashMap<Key, &TaskScore> = HashMap::new();
        for score in scores {
            let kept = latest.entry(key(score)).or_insert(score);
            if kept.step <= score.step {
                *kept = score;
            }
        }
        Column { name, scores: latest }
    }
}

fn key(score: &TaskScore) -> Key<'_> {
    (score.task.as_str(), score.chat)
}

/// All tasks in the order in which they first come.
fn keys<'a>(scores: impl Iterator<Item = &'a TaskScore>) -> Vec<Key<'a>> {
    let mut seen = HashMap::new();
    scores.for_each(|score| {
        let next = seen.len();
        seen.entry(key(score)).or_insert(next);
    });
    let mut keys: Vec<(Key, usize)> = seen.into_iter().collect();
    keys.sort_by_key(|(_, place)| *place);
    keys.into_iter().map(|(key, _)| key).take(MOST).collect()
}

/// The scores of a run, stage by stage.
pub fn of_run(run: &Run) -> Section {
    let mut section = Section::new("Scores");
    section.blocks.extend(run.scores.note.iter().cloned().map(Block::Note));
    let all = &run.scores.lines;
    let column = |name: &str| Column::new(name.into(), of_stage(run, name).into_iter());
    // Stages that the recipe does not know, or no longer, come last.
    let mut names: Vec<&str> = run.stages.iter().map(|stage| stage.name.as_str()).collect();
    for score in all {
        if !names.contains(&score.stage.as_str()) && names.len() < run.stages.len() + MOST_UNKNOWN {
            names.push(&score.stage);
        }
    }
    let columns: Vec<Column> =
        names.into_iter().map(column).filter(|column| !column.scores.is_empty()).collect();
    section.blocks.extend(tables(keys(all.iter()), columns, &[], &[]).into_iter().map(Block::Table));
    section
}

fn of_stage<'a>(run: &'a Run, stage: &str) -> Vec<&'a TaskScore> {
    run.scores.lines.iter().filter(|score| score.stage == stage).collect()
}

/// The scores of several runs side by side, at the end of each stage.
pub fn of_runs(runs: &[Run]) -> Section {
    let mut section = Section::new("Scores");
    for run in runs {
        section
            .blocks
            .extend(run.scores.note.iter().map(|note| Block::Note(format!("{}: {note}", run.name))));
    }
    let mut stages: Vec<&str> = Vec::new();
    for stage in runs.iter().flat_map(|run| &run.stages) {
        if !stages.contains(&stage.name.as_str()) {
            stages.push(&stage.name);
        }
    }
    let groups = groups(runs);
    let mut all = Vec::new();
    for stage in stages {
        let scores: Vec<Vec<&TaskScore>> = runs.iter().map(|run| of_stage(run, stage)).collect();
        let columns: Vec<Column> = runs
            .iter()
            .zip(&scores)
            .map(|(run, it)| Column::new(run.name.clone(), it.iter().copied()))
            .collect();
        let found = tables(keys(scores.iter().flatten().copied()), columns, &groups, runs);
        if !found.is_empty() {
            all.push((stage, found));
        }
    }
    let last = all.len().saturating_sub(1);
    for (index, (stage, tables)) in all.into_iter().enumerate().rev() {
        let (title, tables) = (format!("after {stage}"), tables.into_iter().map(Block::Table));
        match index == last {
            true => section.blocks.extend([Block::Heading(title)].into_iter().chain(tables)),
            false => section.blocks.push(Block::Details(title, tables.collect())),
        }
    }
    section
}

/// Whether the questions of a task are put in a chat and as plain text after the same stage.
fn forms_meet(columns: &[Column]) -> bool {
    let both = |(task, chat): &Key, column: &Column| *chat && column.scores.contains_key(&(*task, false));
    columns.iter().any(|column| column.scores.keys().any(|key| both(key, column)))
}

/// Leaves out in which form questions were put, but for the names of columns.
fn without_forms<'a>(keys: &[Key<'a>], columns: &mut [Column<'a>]) -> Vec<Key<'a>> {
    for column in columns {
        if column.scores.keys().any(|(_, chat)| *chat) {
            column.name += " (in a chat)";
        }
        column.scores = column.scores.drain().map(|((task, _), score)| ((task, false), score)).collect();
    }
    let mut tasks: Vec<Key> = Vec::new();
    for (task, _) in keys {
        if !tasks.iter().any(|(known, _)| known == task) {
            tasks.push((task, false));
        }
    }
    tasks
}

/// A table of tasks and one of held-out losses, as far as there are some.
fn tables<'a>(
    mut keys: Vec<Key<'a>>,
    mut columns: Vec<Column<'a>>,
    groups: &[Group],
    runs: &[Run],
) -> Vec<Table> {
    if !forms_meet(&columns) {
        keys = without_forms(&keys, &mut columns);
    }
    let columns = &columns[..];
    let is_loss = |key: &&Key| key.0.starts_with(LOSS_PREFIX);
    let (losses, tasks): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(is_loss);
    let header = |first: &str, last: &[&str]| {
        let names = columns.iter().map(|column| column.name.clone());
        let means = groups.iter().map(|group| group.name(runs));
        let last = last.iter().map(|name| name.to_string());
        [first.to_string()].into_iter().chain(names).chain(means).chain(last).collect::<Vec<_>>()
    };
    let mut tables = Vec::new();
    if !tasks.is_empty() {
        let caption = format!(
            "right answers in %, ± standard error{}; bold: above guessing by {SURE} standard errors",
            spread(groups)
        );
        let mut table = Table::new(&caption, header("task", &["guessing", "items"]));
        for key in tasks {
            let any = columns.iter().filter_map(|column| column.scores.get(key)).next();
            let guessing = any.and_then(|score| score.guessing);
            let name = if key.1 { format!("{} (chat)", key.0) } else { key.0.to_string() };
            let last = [
                guessing.map_or(Cell::none(), |it| Cell::new(format!("{:.1}", 100.0 * it), Tone::Quiet)),
                any.map_or(Cell::none(), |it| Cell::new(it.items.to_string(), Tone::Quiet)),
            ];
            table.row(cells(name, key, columns, groups, 100.0, 1).into_iter().chain(last));
        }
        tables.push(table);
    }
    if !losses.is_empty() {
        let caption = format!(
            "held-out loss in nats per token, ± standard error{}; bold: below the 5-gram by {SURE} standard errors, \
             italic: above it",
            spread(groups)
        );
        let mut table = Table::new(&caption, header("held-out text", &["5-gram", "tokens"]));
        for key in losses {
            let all = || columns.iter().filter_map(|column| column.scores.get(key));
            let baseline = all().filter_map(|score| score.baseline).next();
            let last = [
                baseline.map_or(Cell::none(), |it| Cell::new(format!("{it:.3}"), Tone::Quiet)),
                all().next().map_or(Cell::none(), |it| Cell::new(it.items.to_string(), Tone::Quiet)),
            ];
            let name = key.0.trim_start_matches(LOSS_PREFIX).to_string();
            table.row(cells(name, key, columns, groups, 1.0, 3).into_iter().chain(last));
        }
        tables.push(table);
    }
    tables
}

fn spread(groups: &[Group]) -> &'static str {
    if groups.is_empty() { "" } else { " (of means: standard deviation over the seeds)" }
}

/// The name of a row and its scores, times `scale`.
fn cells(
    name: String,
    key: &Key,
    columns: &[Column],
    groups: &[Group],
    scale: f64,
    digits: usize,
) -> Vec<Cell> {
    let pair = |value: f64, error: f64| format!("{:.digits$} ± {:.digits$}", scale * value, scale * error);
    let values: Vec<Option<f64>> =
        columns.iter().map(|column| column.scores.get(key).map(|score| score.score)).collect();
    let of_column = |column: &Column| match column.scores.get(key) {
        None => Cell::none(),
        Some(score) => Cell::new(pair(score.score, score.standard_error), tone(score)),
    };
    let of_group = |group: &Group| {
        group.mean(&values).map_or(Cell::none(), |(mean, spread)| Cell::from(pair(mean, spread)))
    };
    [Cell::from(name)]
        .into_iter()
        .chain(columns.iter().map(of_column))
        .chain(groups.iter().map(of_group))
        .collect()
}

fn tone(score: &TaskScore) -> Tone {
    let below = score.baseline.map(|baseline| (baseline - score.score) / score.standard_error.max(1e-12));
    match (score.above_guessing(), below) {
        (Some(above), _) => {
            if above >= SURE {
                Tone::Good
            } else {
                Tone::Quiet
            }
        }
        (None, Some(below)) if below >= SURE => Tone::Good,
        (None, Some(below)) if below < 0.0 => Tone::Bad,
        _ => Tone::Plain,
    }
}
