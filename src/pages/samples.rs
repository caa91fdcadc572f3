//! What the model writes on the same prompts, from stage to stage or run to run.

use super::page::{Block, Section};
use super::run::Run;
use crate::train::samples::SampleText;

/// Most prompts, and letters of a text.
const MOST: usize = 40;
const LONGEST: usize = 3000;

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.trim().to_string(),
        Some((at, _)) => format!("{} ... ({} more bytes)", &text[..at], text.len() - at),
    }
}

fn form(sample: &SampleText) -> &'static str {
    if sample.chat { "asked in a chat" } else { "continued" }
}

/// The prompts in the order in which they first come.
fn prompts<'a>(samples: impl Iterator<Item = &'a SampleText>) -> Vec<&'a str> {
    let mut prompts: Vec<&str> = Vec::new();
    for sample in samples {
        if prompts.len() < MOST && !prompts.contains(&sample.prompt.as_str()) {
            prompts.push(&sample.prompt);
        }
    }
    prompts
}

/// What it wrote last of each stage.
fn by_stage<'a>(samples: &'a [SampleText], prompt: &str) -> Vec<&'a SampleText> {
    let mut found: Vec<&SampleText> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.prompt == prompt) {
        let same = |it: &&SampleText| (&it.stage, it.chat) == (&sample.stage, sample.chat);
        match found.iter().position(same) {
            Some(earlier) if found[earlier].step <= sample.step => found[earlier] = sample,
            Some(_) => {}
            None if found.len() < MOST => found.push(sample),
            None => {}
        }
    }
    found.sort_by_key(|sample| sample.step);
    found
}

/// Of a run: before and after each stage.
pub fn of_run(run: &Run) -> Section {
    let mut section = Section::new("What it writes");
    section.blocks.extend(run.samples.note.iter().cloned().map(Block::Note));
    for prompt in prompts(run.samples.lines.iter()) {
        section.blocks.push(Block::Heading(cut(prompt)));
        let quote = |sample: &SampleText| {
            (format!("after {}, step {}, {}", sample.stage, sample.step, form(sample)), cut(&sample.text))
        };
        let quotes = by_stage(&run.samples.lines, prompt).into_iter().map(quote);
        section.blocks.push(Block::Quotes(quotes.collect()));
    }
    section
}

/// Of several runs: the last that each wrote.
pub fn of_runs(runs: &[Run]) -> Section {
    let mut section = Section::new("What they write");
    for run in runs {
        section
            .blocks
            .extend(run.samples.note.iter().map(|note| Block::Note(format!("{}: {note}", run.name))));
    }
    for prompt in prompts(runs.iter().flat_map(|run| &run.samples.lines)) {
        section.blocks.push(Block::Heading(cut(prompt)));
        let quote = |run: &Run| {
            let last = by_stage(&run.samples.lines, prompt).pop()?;
            Some((format!("{}, after {}, {}", run.name, last.stage, form(last)), cut(&last.text)))
        };
        section.blocks.push(Block::Quotes(runs.iter().filter_map(quote).collect()));
    }
    section
}
