//! Tokens of each dataset, beside what the recipe's mixtures plan.

use super::page::{Block, Cell, Section, Table, Tone};
use super::run::Run;
use crate::recipes::StageKind;
use crate::report::number::short;
use std::collections::BTreeSet;

/// Most datasets of a table.
const MOST: usize = 200;

/// Difference from the plan that stands out.
const MUCH: f64 = 0.005;

/// The section of a run.
pub fn of_run(run: &Run) -> Section {
    let mut section = Section::new("Data");
    let recipe = run.overview.recipe.as_ref();
    let begun: Vec<usize> = run.history.begun().map(|(index, _)| index).collect();
    let seen = begun.iter().flat_map(|&index| run.history.stages[index].datasets.keys().map(String::as_str));
    let seen: BTreeSet<&str> = seen.collect();
    let planned = recipe.iter().flat_map(|recipe| &recipe.datasets).map(|dataset| dataset.name.as_str());
    let mut names: Vec<&str> = planned.collect();
    names.extend(
        seen.iter()
            .copied()
            .filter(|name| recipe.is_none_or(|it| it.datasets.iter().all(|d| d.name != *name))),
    );
    if begun.is_empty() || names.is_empty() {
        section.note("no steps tell of what data they are");
        return section;
    }
    let header = ["dataset".to_string()].into_iter().chain(begun.iter().map(|&i| run.stages[i].name.clone()));
    let caption = "share of the stage's tokens in %: trained on / planned";
    let mut table = Table::new(caption, header.chain(["tokens".to_string()]));
    let (mut pairs, mut judged) = (false, false);
    for name in names.iter().take(MOST) {
        let mut all = 0u64;
        let mut cells = vec![Cell::from(*name)];
        for &index in &begun {
            let (stage, history) = (&run.stages[index], &run.history.stages[index]);
            let tokens = history.datasets.get(*name).copied().unwrap_or(0);
            let of_all: u64 = history.datasets.values().fold(0, |sum, &tokens| sum.saturating_add(tokens));
            all = all.saturating_add(tokens);
            let share = tokens as f64 / of_all.max(1) as f64;
            let mixture =
                stage.span.as_ref().zip(recipe).map(|(span, recipe)| &recipe.stages[span.stage].mixture);
            let plan = mixture.map(|mixture| mixture.get(*name).copied().unwrap_or(0.0));
            cells.push(match plan {
                Some(0.0) if tokens == 0 => Cell::none(),
                Some(plan) => {
                    // Plans are not of judged tokens.
                    let is_plain = !matches!(stage.kind, Some(StageKind::Sft | StageKind::Dpo));
                    pairs |= stage.is_of_pairs();
                    judged |= stage.kind == Some(StageKind::Sft);
                    // Sequences are whole.
                    let sequence = stage.length.unwrap_or(0) as f64 / of_all.max(1) as f64;
                    let far = is_plain && (share - plan).abs() > MUCH.max(sequence);
                    let tone = if far { Tone::Bad } else { Tone::Plain };
                    Cell::new(format!("{:.1} / {:.1}", 100.0 * share, 100.0 * plan), tone)
                }
                None => Cell::from(format!("{:.1}", 100.0 * share)),
            });
        }
        cells.push(if all > 0 { Cell::from(short(all)) } else { Cell::none() });
        table.row(cells);
    }
    section.blocks.push(Block::Table(table));
    if names.len() > MOST {
        section.note(format!("{} more datasets are left out", names.len() - MOST));
    }
    let mut told = format!(
        "Italic: more than {} % of the stage, and more than a sequence, away from the plan, ",
        100.0 * MUCH
    );
    told += "as where a dataset's cap of epochs gives its share to others.";
    if judged {
        told +=
            " In an sft stage the tokens are those that the model is judged on, while the plan counts all.";
    }
    if pairs {
        told += " In a dpo stage the tokens are those of the answers, while the plan counts pairs.";
    }
    section.blocks.push(Block::Text(told));
    section
}
