//! Spikes of the loss, rewinds, and what its owner changed while the run trained.

use super::page::{Block, Section, Table};
use super::run::Run;
use crate::train::history::HISTORY_FILE;

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
    let mut table = Table::new("", ["step", "stage", "kind", "what happened", "when"]).words(5);
    for event in events.iter().take(MOST) {
        table.row([
            event.step.to_string(),
            event.stage.clone(),
            event.what.name().into(),
            cut(event.what.describe()),
            event.timing.time.clone(),
        ]);
    }
    section.blocks.push(Block::Table(table));
    if events.len() > MOST {
        section.note(format!("{} more are left out", events.len() - MOST));
    }
    section
}

fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(at);
        text += " ...";
    }
    text
}
