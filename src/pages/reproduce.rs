//! How to get the same again: the command, the recipe, the program, the device and the data.

use super::page::{Block, Cell, Section, Table};
use super::run::Run;
use crate::files;
use crate::report::{quoted, shell_word, size};
use crate::train::history::What;
use crate::train::saved::RECIPE_FILE;
use crate::train::sitting::Sitting;

/// Most datasets whose hashes are listed, and sittings.
const MOST: usize = 200;

/// The section of a run.
pub fn of_run(run: &Run) -> Section {
    let mut section = Section::new("Reproduce");
    blocks(&mut section, run);
    section
}

/// The section of several runs.
pub fn of_runs(runs: &[Run]) -> Section {
    let mut section = Section::new("Reproduce");
    for run in runs {
        let mut own = Section::new("");
        blocks(&mut own, run);
        section.blocks.push(Block::Details(run.name.clone(), own.blocks));
    }
    section
}

fn blocks(section: &mut Section, run: &Run) {
    let path = run.path().join(RECIPE_FILE);
    let text = files::read_text(&path, files::SETTINGS);
    match (&text, &run.overview.recipe) {
        (Err(error), _) => section.note(format!("no command: {error}")),
        (Ok(_), None) => section.note("no command: smolter cannot read the recipe"),
        (Ok(_), Some(_)) => {
            let flags = run.sitting().map(flags);
            if flags.is_none() {
                section.note("device and memory are not known, and not part of this command");
            }
            let (path, flags) = (quoted(&path), flags.unwrap_or_default());
            section.blocks.push(Block::Code(format!("smolter train {path}{flags}")));
        }
    }
    if run.events.lines.iter().any(|event| matches!(event.what, What::Intervention { .. })) {
        let why = "the recipe was changed while it trained, as told under interventions: the command trains the \
                   recipe as it is now from the beginning";
        section.note(why);
    }
    if let Some(first) = run.sittings.lines.first() {
        let mut table =
            Table::new("who trained it", ["from step", "begun", "smolter", "commit", "device", "memory"])
                .words(6);
        let all = run.sittings.lines.iter();
        for sitting in [first].into_iter().chain(all.skip(1)).take(MOST) {
            table.row([
                Cell::from(sitting.step.to_string()),
                Cell::from(sitting.began.clone()),
                Cell::from(sitting.version.clone()),
                Cell::from(sitting.commit.clone()),
                Cell::from(sitting.device.clone()),
                Cell::from(size(sitting.memory)),
            ]);
        }
        section.blocks.push(Block::Table(table));
    }
    match &run.hashes {
        None => section.note("no hashes of the data: the run folder has no sound begun.json"),
        Some((tokenizer, sets)) => {
            let caption = "hashes of tokenizer and tokens: where they are equal, so is the data";
            let mut table = Table::new(caption, ["data", "hash"]).words(2);
            table.row([Cell::from("tokenizer"), Cell::from(tokenizer.clone())]);
            for (name, hash) in sets.iter().take(MOST) {
                table.row([Cell::from(name.clone()), Cell::from(hash.clone())]);
            }
            section.blocks.push(Block::Details("hashes of the data".into(), vec![Block::Table(table)]));
        }
    }
    if let Ok(text) = text {
        section.blocks.push(Block::Details("the whole recipe".into(), vec![Block::Code(text)]));
    }
}

/// What the command line says of device and memory.
fn flags(sitting: &Sitting) -> String {
    let device = sitting.adapter.as_deref().unwrap_or("reference");
    format!(" --device {} --memory {}", shell_word(device), sitting.memory)
}
