//! The loss on held-out text beside that of an interpolated Kneser-Ney 5-gram of the same training text.

use super::ngram::NGram;
use super::runner::Examinee;
use crate::data::shard::TokenSet;
use crate::error::Result;
use crate::graph::Backend;
use crate::infer::scorer::{Output, Row, Scorer, ScorerGraph, buckets};
use crate::nn::Architecture;
use serde::Serialize;

/// Order of the baseline.
pub const ORDER: usize = 5;

/// A dataset's tokens.
pub struct Held {
    /// Its name.
    pub name: String,
    /// What was trained on.
    pub trained: TokenSet,
    /// What was held out.
    pub held_out: TokenSet,
}

/// Losses in nats per token.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// The dataset.
    pub dataset: String,
    /// Tokens that were predicted.
    pub tokens: usize,
    /// The model's loss.
    pub model: f64,
    /// The n-gram's, which learned from all datasets as the model did.
    pub ngram: f64,
}

/// The losses on each dataset's held-out text, in windows of `length` tokens and at most `limit` of them. A dataset with
/// less held-out text than a window is left out.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
pub fn losses(
    backend: &Backend,
    examinee: &Examinee,
    architecture: &Architecture,
    sets: &[Held],
    length: usize,
    limit: usize,
) -> Result<Vec<Loss>> {
    let trained: Vec<Vec<u32>> = sets.iter().map(|set| set.trained.tokens(0..set.trained.len())).collect();
    let ngram = NGram::train(ORDER, architecture.vocab_size(), trained.iter().map(Vec::as_slice));
    let graph = ScorerGraph::new(architecture, &buckets(length, 2048), Output::Nll);
    let mut scorer = Scorer::new(backend, graph, examinee.store())?;
    let mut losses = Vec::new();
    for set in sets {
        let count = (set.held_out.len().saturating_sub(1) / length as u64).min(limit as u64);
        let window = |w: u64| set.held_out.tokens(w * length as u64..(w + 1) * length as u64 + 1);
        let rows: Vec<Row> = (0..count).map(|w| Row::whole(window(w))).collect();
        if rows.is_empty() {
            continue;
        }
        let nll = scorer.score(&rows)?.concat();
        losses.push(Loss {
            dataset: set.name.clone(),
            tokens: nll.len(),
            model: nll.iter().map(|&nll| f64::from(nll)).sum::<f64>() / nll.len() as f64,
            ngram: ngram.mean_loss(rows.iter().map(|row| row.tokens.as_slice())),
        });
    }
    Ok(losses)
}
