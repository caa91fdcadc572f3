//! The outcome of an ablation: what each candidate reached in each task, over seeds.

use super::estimate::Estimate;
use super::plan::Plan;
use super::runs::Run;
use super::scores::{self, is_loss};
use crate::error::{Error, Result};
use crate::report::table;
use crate::train::overview::Overview;
use crate::train::records;
use crate::train::scores::{SCORES_FILE, TaskScore};
use serde_json::{Value, json};
use std::path::Path;

/// Width of a table.
const COLUMNS: usize = 80;

/// What all candidates reached in a task.
pub struct Row {
    /// The task.
    pub task: String,
    /// For each candidate, its runs' scores with their standard errors over items, in the order of seeds.
    pub values: Vec<Vec<(f64, f64)>>,
}

impl Row {
    /// For each candidate, the mean over its runs.
    pub fn estimates(&self) -> Vec<Estimate> {
        self.values.iter().map(|values| Estimate::of(values)).collect()
    }

    /// The best candidate, if it is better than the next one by more than the error of their difference, which is taken seed
    /// by seed.
    pub fn best(&self) -> Option<usize> {
        let better = |estimate: &Estimate| if is_loss(&self.task) { -estimate.mean } else { estimate.mean };
        let estimates = self.estimates();
        let mut order: Vec<usize> = (0..estimates.len()).collect();
        order.sort_by(|&a, &b| better(&estimates[b]).total_cmp(&better(&estimates[a])));
        let &[best, next, ..] = &order[..] else { return None };
        let pairs = self.values[best].iter().zip(&self.values[next]);
        let differences: Vec<(f64, f64)> = pairs.map(|(a, b)| (a.0 - b.0, a.1.hypot(b.1))).collect();
        let difference = Estimate::of(&differences);
        (difference.mean.abs() > difference.standard_error).then_some(best)
    }
}

/// Gathers the scores of finished runs, which lie in the order of candidates and, for each, of seeds.
///
/// # Errors
/// [`Error::Failure`] if there is nothing that all runs have.
pub fn rows(plan: &Plan, runs: &[Run]) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |task: &str, run: usize, value: (f64, f64)| {
        let at = rows.iter().position(|row| row.task == task).unwrap_or_else(|| {
            rows.push(Row { task: task.into(), values: vec![Vec::new(); plan.candidates.len()] });
            rows.len() - 1
        });
        rows[at].values[run / plan.seeds.len()].push(value);
    };
    for (i, run) in runs.iter().enumerate() {
        for (task, value) in outcome(&run.folder, plan.protocol.name) {
            add(&task, i, value);
        }
    }
    // A text may have too little held out in one of the runs.
    rows.retain(|row| row.values.iter().all(|values| values.len() == plan.seeds.len()));
    match rows.is_empty() {
        true => Err(Error::failure("the runs have no score in common: give other --tasks, or hold text out")),
        false => Ok(rows),
    }
}

/// The scores at the end of a run of one stage, with their standard errors over items. A run that was asked nothing tells
/// what it measured on the text, conversations or pairs that it held out.
fn outcome(run: &Path, stage: &str) -> Vec<(String, (f64, f64))> {
    let all: Vec<TaskScore> = records::read(&run.join(SCORES_FILE));
    let last = all.iter().map(|score| score.step).max();
    let its = all.iter().filter(|score| Some(score.step) == last && score.stage == stage);
    let mut found: Vec<_> = its.map(|it| (it.task.clone(), scores::with_error(it))).collect();
    if found.is_empty()
        && let Some(last) = Overview::of(run).and_then(|run| run.last)
    {
        let accuracy = last.held_out_preference.map(|it| it.accuracy);
        let own = [(scores::OWN_LOSS, last.held_out_loss), (scores::OWN_ACCURACY, accuracy)];
        found.extend(own.into_iter().filter_map(|(name, value)| Some((name.into(), (value?, 0.0)))));
    }
    found
}

/// The rows as tables of at most `COLUMNS`, with as many candidates each as there is room for.
pub fn tables(plan: &Plan, rows: &[Row]) -> Vec<String> {
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let headers: Vec<String> = plan.candidates.iter().map(|it| it.name.replace('+', "\n+")).collect();
    let width = |column: usize| {
        let lines = headers[column].lines().chain(cells.iter().map(|row| row[column].as_str()));
        lines.map(|line| line.chars().count()).max().unwrap_or(0) + 2
    };
    let first = rows.iter().map(|row| row.task.chars().count()).max().unwrap_or(0).max(4) + 2;
    let mut blocks: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for column in 0..headers.len() {
        if blocks.is_empty() || width(column) > room {
            blocks.push(Vec::new());
            room = COLUMNS - first;
        }
        room = room.saturating_sub(width(column));
        blocks.last_mut().expect("one was pushed").push(column);
    }
    let draw = |columns: &Vec<usize>| {
        let header = ["task"].into_iter().chain(columns.iter().map(|&column| headers[column].as_str()));
        let mut drawn = table(&header.collect::<Vec<_>>());
        for (row, cells) in rows.iter().zip(&cells) {
            drawn.add_row([&row.task].into_iter().chain(columns.iter().map(|&column| &cells[column])));
        }
        drawn.to_string()
    };
    blocks.iter().map(draw).collect()
}

fn cells(row: &Row) -> Vec<String> {
    let (best, digits) = (row.best(), if is_loss(&row.task) { 4 } else { 3 });
    let cell = |(i, it): (usize, Estimate)| {
        let mark = if best == Some(i) { '*' } else { ' ' };
        format!("{:.digits$} +- {:.digits$} {mark}", it.mean, it.standard_error)
    };
    row.estimates().into_iter().enumerate().map(cell).collect()
}

/// All of it, for other programs.
pub fn to_json(plan: &Plan, runs: &[Run], rows: &[Row]) -> Value {
    let (steps, tokens) = plan.length();
    let of = |candidate: usize| &runs[candidate * plan.seeds.len()..][..plan.seeds.len()];
    let candidates = plan.candidates.iter().enumerate().map(|(i, candidate)| {
        let scores = rows.iter().map(|row| {
            let values: Vec<f64> = row.values[i].iter().map(|value| value.0).collect();
            json!({"task": row.task, "estimate": row.estimates()[i], "values": values})
        });
        json!({
            "name": candidate.name,
            "mixture": of(i)[0].recipe.stages[0].mixture,
            "runs": of(i).iter().map(|run| &run.folder).collect::<Vec<_>>(),
            "scores": scores.collect::<Vec<_>>(),
        })
    });
    let best = |row: &Row| (row.task.clone(), json!(row.best().map(|i| &plan.candidates[i].name)));
    json!({
        "protocol": plan.protocol.name, "stage": plan.stage, "steps": steps, "tokens": tokens, "seeds": plan.seeds,
        "from": runs[0].recipe.source.as_ref().map(|source| &source.from),
        "candidates": candidates.collect::<Vec<_>>(),
        "best": rows.iter().map(best).collect::<serde_json::Map<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_marked_where_the_difference_exceeds_its_error() {
        let row = |task: &str, values: [&[f64]; 3], error: f64| Row {
            task: task.into(),
            values: values.map(|runs| runs.iter().map(|&value| (value, error)).collect()).into(),
        };
        // Seed by seed the second is better by 0.1, though the seeds differ more.
        let paired: [&[f64]; 3] = [&[0.1, 0.5, 0.9], &[0.2, 0.6, 1.0], &[0.0, 0.0, 0.0]];
        assert_eq!(row("sums", paired, 0.01).best(), Some(1));
        // But not beyond what the items leave open: 0.3 * sqrt(2) / sqrt(3) > 0.1.
        assert_eq!(row("sums", paired, 0.3).best(), None);
        assert_eq!(row("loss/a", paired, 0.01).best(), Some(2));
        let mixed: [&[f64]; 3] = [&[0.1, 0.5], &[0.2, 0.5], &[0.0, 0.0]];
        assert_eq!(row("sums", mixed, 0.0).best(), None, "0.05 +- 0.05");
        let alone = Row { task: "sums".into(), values: vec![vec![(0.5, 0.0)]] };
        assert_eq!(alone.best(), None);
    }
}
