//! Spikes of the loss, rewinds, and what its owner changed while the run trained.

use super::page::{Block, Cell, Section, Table};
use super::records::{Event, HISTORY_FILE};
use super::run::Run;
use serde_json::Value;

/// Most events, and letters of one.
const MOST: usize = 200;
const LONGEST: usize = 1000;

/// The section of a run.
pub fn of_run(run: &Run) -> Section {
    let mut section = Section::new("Spikes and interventions");
    let events = &run.events.lines;
    // A run to which nothing happened has no such file.
    if !run.path().join(HISTORY_FILE).exists() {
        section.blocks.push(Block::Text("None were recorded.".into()));
    } else if let Some(note) = &run.events.note {
        section.note(note.clone());
    }
    if events.is_empty() {
        return section;
    }
    let mut table = Table::new("", ["step", "stage", "what", "more"]).words(4);
    for event in events.iter().take(MOST) {
        table.row([
            Cell::from(event.step.to_string()),
            Cell::from(event.stage.clone()),
            Cell::from(event.kind.clone()),
            Cell::from(told(event)),
        ]);
    }
    section.blocks.push(Block::Table(table));
    if events.len() > MOST {
        section.note(format!("{} more are left out", events.len() - MOST));
    }
    section
}

/// What else the line says, as `name value` between semicolons.
fn told(event: &Event) -> String {
    let parts: Vec<String> =
        event.more.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
    let text = parts.join("; ");
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{} ...", &text[..at]),
        None => text,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Number(number) => match number.as_f64() {
            Some(x) if !number.is_u64() && !number.is_i64() => format!("{x:.3}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}
