//! Documents that are kept or left out by a score that they have.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Entries, map};

/// `[datasets.score]`: which documents are kept, by a number that stands beside their text. The small SmolLM2 models
/// were trained on web pages that were filtered like this (arXiv 2502.02737, section 6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Field (Parquet: column) with the number.
    pub field: String,
    /// Shares of the documents with score 0, 1, 2, ... that are kept; of those with higher scores, all are. Scores are
    /// rounded, and below 0 they count as 0. The text alone decides which documents these are.
    pub keep: Vec<f64>,
}

/// Not the seeds of the hashes that choose held-out documents and those that a tokenizer is trained on: what is kept
/// must be a fair sample of both.
const SEED: u64 = 2;

impl Score {
    /// Whether a document is kept.
    fn keeps(&self, text: &str, score: f64) -> bool {
        // A conversion from float to integer stays within the integer's range.
        let share = self.keep.get(score.round() as usize).copied().unwrap_or(1.0);
        share >= 1.0 || xxh3_64_with_seed(text.as_bytes(), SEED) < (share * 2f64.powi(64)) as u64
    }
}

/// A text, and its score where one was asked for.
pub(super) struct Scored {
    pub text: String,
    pub score: Option<f64>,
}

/// Texts that have no scores.
pub(super) fn without(texts: Entries<String>) -> Entries<Scored> {
    map(texts, |text| Scored { text, score: None })
}

/// The texts that are wanted; `None` in the place of others.
pub(super) fn wanted(texts: Entries<Scored>, filter: Option<Score>) -> Entries<Option<String>> {
    map(texts, move |Scored { text, score }| {
        let keeps = |(filter, score): (&Score, f64)| filter.keeps(&text, score);
        let kept = filter.as_ref().zip(score).is_none_or(keeps);
        kept.then_some(text)
    })
}

/// What a field that should be a score means.
///
/// # Errors
/// Says that it is no number.
pub(super) fn parse(field: &str, number: Option<f64>) -> std::result::Result<f64, String> {
    number.filter(|number| !number.is_nan()).ok_or_else(|| format!("the score \"{field}\" is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_that_are_kept_are_those_asked_for() {
        let score = Score { field: "score".into(), keep: vec![0.0, 0.25, 0.5] };
        for (value, share) in [
            (-3.0, 0.0_f64),
            (0.0, 0.0),
            (0.49, 0.0),
            (0.51, 0.25),
            (1.4, 0.25),
            (2.0, 0.5),
            (3.0, 1.0),
            (1e300, 1.0),
        ] {
            let kept: Vec<usize> =
                (0..20_000).filter(|i| score.keeps(&format!("document {i}"), value)).collect();
            let expected: f64 = 20_000.0 * share;
            // Five standard deviations of a binomial distribution.
            let room = 5.0 * (expected * (1.0 - share)).sqrt();
            assert!((kept.len() as f64 - expected).abs() <= room, "{value}: {} of {expected}", kept.len());
            // The text alone decides, and what a low share keeps, a higher one keeps too.
            assert!(kept.iter().all(|i| score.keeps(&format!("document {i}"), 2.0)) || value > 2.0);
        }
    }
}
