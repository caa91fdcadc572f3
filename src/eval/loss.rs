//! The loss on held-out text beside that of an interpolated Kneser-Ney 5-gram of the same training text.

use super::ngram::NGram;
use super::runner::Examinee;
use crate::data::shard::TokenSet;
use crate::error::Result;
use crate::infer::scorer::Row;
use serde::Serialize;

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
    /// Windows of its tokens.
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
    /// Standard error of the model's loss, from how much the windows of text differ.
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

/// The held-out text of each dataset in windows of `length` tokens, at most `limit` of them. A dataset with less than a
/// window is left out.
pub fn held_out_text(sets: &[Held], vocab_size: usize, length: usize, limit: usize) -> Vec<HeldOutText> {
    let ngram = baseline(vocab_size, sets.iter().map(|set| &set.trained));
    let text = |set: &Held| {
        let count = (set.held_out.len().saturating_sub(1) / length as u64).min(limit as u64);
        let window = |w: u64| set.held_out.tokens(w * length as u64..(w + 1) * length as u64 + 1);
        let rows: Vec<Row> = (0..count).map(|w| Row::whole(window(w))).collect();
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
    let mut means =
        scores.iter().map(|nll| nll.iter().map(|&x| f64::from(x)).sum::<f64>() / nll.len() as f64);
    let mut of_text = |text: &HeldOutText| {
        // All windows are as long.
        let means: Vec<f64> = means.by_ref().take(text.rows.len()).collect();
        let n = means.len() as f64;
        let model = means.iter().sum::<f64>() / n;
        let squares: f64 = means.iter().map(|mean| (mean - model).powi(2)).sum();
        Loss {
            dataset: text.dataset.clone(),
            tokens: text.rows.iter().map(|row| row.count() as usize).sum(),
            model,
            standard_error: (squares / (n - 1.0).max(1.0) / n).sqrt(),
            ngram: text.ngram,
        }
    };
    Ok(texts.iter().map(&mut of_text).collect())
}
