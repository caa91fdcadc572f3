//! The loss on held-out text beside that of an interpolated Kneser-Ney 5-gram of the same training text.

use super::ngram::NGram;
use super::runner::Examinee;
use crate::data::shard::TokenSet;
use crate::error::Result;
use crate::infer::scorer::Row;
use serde::Serialize;
use std::ops::Range;

/// Order of the baseline.
const ORDER: usize = 5;

/// Most tokens per dataset that the baseline learns from.
const BASELINE_TOKENS: u64 = 20_000_000;

/// A dataset's tokens.
pub struct Held {
    /// Its name.
    pub name: String,
    /// What was trained on.
    pub trained: TokenSet,
    /// What was held out.
    pub held_out: TokenSet,
}

/// A dataset's held-out text as rows to score.
pub struct HeldOutText {
    /// The dataset.
    pub dataset: String,
    /// Its documents, each by itself.
    pub rows: Vec<Row>,
    /// What a [`baseline`] loses on them in nats per token, if there is one.
    pub ngram: Option<f64>,
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
    /// Standard error of the model's loss, from how much the documents differ.
    pub standard_error: f64,
    /// The n-gram's, which learned from all datasets as the model did; none if there are too many tokens for one.
    pub ngram: Option<f64>,
}

/// The n-gram model that has read what was trained on; none if the vocabulary is too large for it.
pub fn baseline<'a>(vocab_size: usize, trained: impl IntoIterator<Item = &'a TokenSet>) -> Option<NGram> {
    if vocab_size > NGram::largest_vocabulary(ORDER) {
        return None;
    }
    let read = |set: &TokenSet| set.tokens(0..set.len().min(BASELINE_TOKENS));
    let streams: Vec<Vec<u32>> = trained.into_iter().map(read).collect();
    Some(NGram::train(ORDER, vocab_size, streams.iter().map(Vec::as_slice)))
}

/// The held-out text of each dataset: its first documents, until they have `limit` tokens, of each at most the first
/// `length`. A dataset that holds nothing out is left out.
pub fn held_out_text(sets: &[Held], vocab_size: usize, length: usize, limit: usize) -> Vec<HeldOutText> {
    let ngram = baseline(vocab_size, sets.iter().map(|set| &set.trained));
    let text = |set: &Held| {
        let document = |i: u64| {
            let Range { start, end } = set.held_out.document(i);
            Row::whole(set.held_out.tokens(start..end.min(start + length as u64 + 1)))
        };
        let documents = (0..set.held_out.documents()).map(document).filter(|row| row.count() > 0);
        let room = documents.scan(0, |tokens, row| {
            let before = std::mem::replace(tokens, *tokens + row.count() as usize);
            (before < limit).then_some(row)
        });
        let rows: Vec<Row> = room.collect();
        let ngram = ngram.as_ref().map(|ngram| ngram.mean_loss(rows.iter().map(|row| row.tokens.as_slice())));
        HeldOutText { dataset: set.name.clone(), rows, ngram }
    };
    sets.iter().map(text).filter(|text| !text.rows.is_empty()).collect()
}

/// The losses of a model on texts.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
pub fn losses(examinee: &Examinee, texts: &[HeldOutText]) -> Result<Vec<Loss>> {
    let rows: Vec<Row> = texts.iter().flat_map(|text| text.rows.clone()).collect();
    let scores = examinee.score(&rows)?;
    let mut sums =
        scores.iter().map(|nll| (nll.iter().map(|&x| f64::from(x)).sum::<f64>(), nll.len() as f64));
    let mut of_text = |text: &HeldOutText| {
        let sums: Vec<(f64, f64)> = sums.by_ref().take(text.rows.len()).collect();
        let (n, tokens) = (sums.len() as f64, sums.iter().map(|(_, tokens)| tokens).sum::<f64>());
        let model = sums.iter().map(|(nll, _)| nll).sum::<f64>() / tokens;
        // Of a ratio, as documents are not equally long.
        let squares: f64 = sums.iter().map(|(nll, tokens)| (nll - model * tokens).powi(2)).sum();
        Loss {
            dataset: text.dataset.clone(),
            tokens: tokens as usize,
            model,
            standard_error: (squares * n / (n - 1.0).max(1.0)).sqrt() / tokens,
            ngram: text.ngram,
        }
    };
    Ok(texts.iter().map(&mut of_text).collect())
}
