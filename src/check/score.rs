//! What `smolter debug score` computes: negative log-likelihoods of given tokens, for comparison with other programs.

use crate::checkpoint::write_file;
use crate::error::{Error, Result};
use crate::files;
use crate::graph::Backend;
use crate::infer;
use crate::infer::scorer::{Output, Row, Scorer, ScorerGraph, buckets};
use crate::model::ModelFolder;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// Tokens per pass, about.
const TOKENS: usize = 2048;

/// A line of the input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    input_ids: Vec<u32>,
    /// 1 for tokens that are scored; all but the first where it is not given.
    mask: Option<Vec<u8>>,
}

/// A line of the output: nats per scored token, in order.
#[derive(Serialize)]
struct Scores {
    nll: Vec<f32>,
}

/// Scores the JSON Lines of `input`, `{"input_ids": [...], "mask": [...]}`, with `model`, its adapter merged, and writes a
/// line `{"nll": [...]}` for each to `out`.
///
/// # Errors
/// [`Error::Input`] naming file and line, or [`Error::Damaged`]; [`Error::Device`] from the backend.
pub fn run(backend: &Backend, model: &ModelFolder, input: &Path, out: &Path) -> Result<()> {
    let text = files::read_text(input, files::LISTS)?;
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let wrong = |why: String| Error::input(format!("{}: line {}: {why}", input.display(), i + 1));
        rows.push(row(line, model).map_err(wrong)?);
    }
    let longest = rows.iter().map(|row| row.tokens.len().saturating_sub(1)).max().unwrap_or(0);
    let graph = ScorerGraph::new(&model.architecture, &buckets(longest, TOKENS), Output::Nll);
    let store = infer::load(backend, model, &[&graph.graph])?;
    let scores = Scorer::new(backend, graph, &store)?.score(&rows)?;
    write_file(out, |file| {
        scores.into_iter().try_for_each(|nll| {
            let line = serde_json::to_string(&Scores { nll }).expect("numbers are JSON");
            writeln!(file, "{line}").map_err(Error::io(out))
        })
    })
}

fn row(line: &str, model: &ModelFolder) -> std::result::Result<Row, String> {
    let Line { input_ids: tokens, mask } = serde_json::from_str(line)
        .map_err(|e| format!("not {{\"input_ids\": [...], \"mask\": [...]}}: {e}"))?;
    let (vocab, positions) = (model.architecture.vocab_size(), model.architecture.positions());
    if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab) {
        return Err(format!("{id} is not a token of the model, whose vocabulary has {vocab}"));
    }
    if tokens.len() > positions + 1 {
        return Err(format!(
            "it has {} tokens, and the model {positions} positions: shorten it",
            tokens.len()
        ));
    }
    let Some(mask) = mask else { return Ok(Row::whole(tokens)) };
    if mask.len() != tokens.len() {
        return Err(format!("mask has {} entries, but there are {} tokens", mask.len(), tokens.len()));
    }
    let scored = mask.iter().enumerate().map(|(t, &mark)| t > 0 && mark != 0).collect();
    Ok(Row { tokens, scored })
}
