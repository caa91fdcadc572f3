//! What a stage learns from in one of its steps: the sequences, and on which of their tokens the model is judged.

use crate::checkpoint::replace;
use crate::error::{Error, Result};
use crate::graph::recompute::Policy;
use crate::ops::host::IGNORE;
use crate::recipes::Recipe;
use crate::report::out;
use crate::tokenizer::Tokenizer;
use crate::train::corpus::Corpus;
use crate::train::kinds::batches_of;
use crate::train::objective::{Batch, Shape};
use crate::train::stages::consumed_before;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which batch.
pub struct Choice<'a> {
    /// Name of a stage, or its index; the first if not given.
    pub stage: Option<&'a str>,
    /// Step of the stage, counted from 0.
    pub step: u64,
    /// Sequences to print.
    pub print: usize,
}

/// A sequence as a file has it.
#[derive(Debug, Serialize)]
struct Sequence<'a> {
    dataset: &'a str,
    /// Of a preference pair, which are a chosen and a rejected one in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'static str>,
    /// Tokens before the padding.
    length: usize,
    input_ids: &'a [u32],
    /// The token that follows each, -100 where the model is not judged on it.
    labels: Vec<i64>,
    /// How much each label counts; those of the step sum to 1. Of a pair, how much the pair counts.
    weights: Vec<f64>,
    /// Position of each token in its document, where documents do not see each other, else in the sequence.
    positions: Vec<u32>,
    /// Which of the documents that do not see each other a token is in.
    segments: Vec<u32>,
}

/// Prints the first sequences of the batch, and writes all of them into the JSON file `out`.
///
/// # Errors
/// Those of [`Corpus::prepare`], and [`Error::Input`] if there is no such stage or step.
pub fn run(mut recipe: Recipe, choice: &Choice, out: Option<&Path>) -> Result<()> {
    recipe.check_files(None)?;
    let stage = stage_of(&recipe, choice.stage)?;
    let scratch = Scratch::new()?;
    let corpus = Arc::new(Corpus::prepare(&recipe, &scratch.0.join("run/data"), None)?);
    corpus.settle_epochs(&mut recipe)?;
    corpus.verified()?;
    let span = recipe.span_of(stage);
    if choice.step >= span.steps() {
        let (name, steps) = (&recipe.stages[stage].name, span.steps());
        return Err(Error::input(format!(
            "--step {}: stage {name} has {steps} steps: give one from 0 to {}",
            choice.step,
            steps - 1
        )));
    }
    let length = recipe.stages[stage].sequence_length;
    let shape = Shape { micro_batch: span.sequences_per_step, passes: 1, length, recompute: Policy::None };
    let consumed = consumed_before(&recipe, &corpus)?;
    let data = batches_of(&recipe, stage, &consumed[stage], &corpus, None)?;
    let it = &recipe.stages[stage];
    data.notes(it.data_steps(span.steps()), shape)?.iter().for_each(out::say);
    let batch = data.step(it.data_step(choice.step), shape)?.swap_remove(0);
    let sequences = sequences(&recipe, stage, &batch, length);
    for (i, sequence) in sequences.iter().take(choice.print).enumerate() {
        print(i, sequence, &corpus.tokenizer)?;
    }
    let Some(path) = out else { return Ok(()) };
    let contents = serde_json::json!({
        "recipe": recipe.name,
        "stage": recipe.stages[stage].name,
        "step": choice.step,
        "rows": sequences,
    });
    replace(path, format!("{contents}\n").as_bytes())
}

fn stage_of(recipe: &Recipe, given: Option<&str>) -> Result<usize> {
    let Some(given) = given else { return Ok(0) };
    let named = recipe.stages.iter().position(|stage| stage.name == given);
    let index = given.parse().ok().filter(|&index: &usize| index < recipe.stages.len());
    named.or(index).ok_or_else(|| {
        let known: Vec<&str> = recipe.stages.iter().map(|stage| stage.name.as_str()).collect();
        Error::input(format!("--stage {given}: the recipe has no such stage; it has: {}", known.join(", ")))
    })
}

fn sequences<'a>(recipe: &'a Recipe, stage: usize, batch: &'a Batch, length: usize) -> Vec<Sequence<'a>> {
    let sum: f64 = batch.weights.iter().map(|&weight| f64::from(weight)).sum();
    let rows = recipe.stages[stage].kind.rows();
    let sequence = |i: usize| {
        let dataset = batch.datasets[i / rows];
        let at = match batch.ranges.get(i) {
            Some(&[first, end]) => first as usize..end as usize,
            None => i * length..(i + 1) * length,
        };
        let length = at.len();
        let labels = &batch.labels[at.clone()];
        let of_pair = |&label: &u32| if label == IGNORE { 0.0 } else { batch.weights[i / rows] };
        let weights: Vec<f32> = match rows {
            1 => batch.weights[at.clone()].to_vec(),
            _ => labels.iter().map(of_pair).collect(),
        };
        let counts = labels.iter().zip(&weights);
        // A packed answer is shown alone, as if it had a row of its own.
        let starts = batch.starts.get(at.clone()).filter(|_| rows == 1);
        let starts = starts.map_or(vec![0; length], <[u32]>::to_vec);
        let begun = |pair: &[u32]| u32::from(pair[0] != pair[1]);
        let segments = starts.windows(2).scan(0, |segment, pair| {
            *segment += begun(pair);
            Some(*segment)
        });
        // The last label is that of the token before the last one.
        let last = labels.iter().rposition(|&label| label != IGNORE).map_or(0, |last| last + 2);
        Sequence {
            dataset: &recipe.datasets[dataset].name,
            answer: (rows == 2).then(|| ["chosen", "rejected"][i % 2]),
            length: if rows == 1 && recipe.stages[stage].packs() { length } else { last.min(length) },
            input_ids: &batch.ids[at],
            labels: counts.map(|(&label, &weight)| if weight > 0.0 { label.into() } else { -100 }).collect(),
            weights: weights.iter().map(|&weight| f64::from(weight) / sum).collect(),
            positions: starts.iter().zip(0..).map(|(start, at)| at - start).collect(),
            segments: [0].into_iter().chain(segments).collect(),
        }
    };
    (0..rows * batch.datasets.len()).map(sequence).collect()
}

/// Marks what the model is judged on, where there are no colours.
const JUDGED: [&str; 2] = ["\u{27e6}", "\u{27e7}"];

/// Prints a sequence, with what the model is judged on in green or between brackets.
fn print(index: usize, sequence: &Sequence, tokenizer: &Tokenizer) -> Result<()> {
    let judged = sequence.labels.iter().filter(|&&label| label >= 0).count();
    let (dataset, length) = (sequence.dataset, sequence.length);
    let answer = sequence.answer.map_or(String::new(), |answer| format!(", {answer}"));
    let title = format!("sequence {index}: {dataset}{answer}, {length} tokens, judged on {judged}");
    out::line(console::style(title).bold())?;
    // A token is judged where the one before it has a label.
    let is_judged = |at: usize| at > 0 && sequence.labels[at - 1] >= 0;
    let mark = |at: usize| (is_judged(at), sequence.segments[at]);
    let places: Vec<usize> = (0..length).collect();
    let mut text = String::new();
    let mut segment = 0;
    for run in places.chunk_by(|&a, &b| mark(a) == mark(b)) {
        let words = printable(&tokenizer.decode(&sequence.input_ids[run[0]..=run[run.len() - 1]]));
        if std::mem::replace(&mut segment, sequence.segments[run[0]]) != segment {
            text += "\n--- another document, which does not see those before ---\n";
        }
        text += &match (is_judged(run[0]), console::colors_enabled()) {
            (true, true) => console::style(words).green().to_string(),
            (false, true) => console::style(words).dim().to_string(),
            (true, false) => format!("{}{words}{}", JUDGED[0], JUDGED[1]),
            (false, false) => words,
        };
    }
    out::line(text + "\n")
}

/// Text that moves no cursor.
fn printable(text: &str) -> String {
    let escape = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        _ if c.is_control() => c.escape_default().to_string(),
        _ => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// A folder that goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let place = format!("smolter-batch-{}", std::process::id());
        let path = std::env::temp_dir().join(place);
        std::fs::create_dir_all(&path).map_err(Error::io(&path))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
