//! What a run was told of itself, by its `scores.jsonl`.

use crate::train::scores::{LOSS_PREFIX, TaskScore};

/// The last answer to `task` in a stage, up to a step; as a chat if it was asked in both ways.
pub fn last<'s>(scores: &'s [TaskScore], task: &str, stage: &str, until: u64) -> Option<&'s TaskScore> {
    let its = scores.iter().filter(|it| it.task == task && it.stage == stage && it.step <= until);
    its.max_by_key(|it| (it.step, it.chat))
}

/// A score and its standard error. That of shares is at least half an item: where all items are right, or none, others
/// might not be.
pub fn with_error(score: &TaskScore) -> (f64, f64) {
    let least = if is_loss(&score.task) { 0.0 } else { 0.5 / score.items.max(1) as f64 };
    (score.score, score.standard_error.max(least))
}

/// The sum of scores of one task, each times its weight, and its standard error. Where all were asked the same items, it is
/// that of the items' own sums: a model that answers as another one does differs from it in nothing.
pub fn weighted(terms: &[(f64, &TaskScore)]) -> (f64, f64) {
    let sum = terms.iter().map(|(weight, score)| weight * score.score).sum();
    let items = terms.first().map_or(0, |(_, score)| score.right.len());
    let is_paired = items > 1 && terms.iter().all(|(_, score)| score.right.len() == items);
    if !is_paired {
        let squares: f64 = terms.iter().map(|(weight, score)| (weight * with_error(score).1).powi(2)).sum();
        return (sum, squares.sqrt());
    }
    let of_item = |i: usize| -> f64 {
        terms.iter().filter(|(_, score)| score.right.as_bytes()[i] == b'1').map(|(weight, _)| weight).sum()
    };
    let n = items as f64;
    let squares: f64 = (0..items).map(|i| (of_item(i) - sum).powi(2)).sum();
    (sum, (squares / (n - 1.0) / n).sqrt().max(0.5 / n))
}

/// The loss on what a run itself held out.
pub const OWN_LOSS: &str = "held-out loss";
/// The accuracy on pairs that a run itself held out.
pub const OWN_ACCURACY: &str = "held-out accuracy";

/// Whether less of it is better.
pub fn is_loss(task: &str) -> bool {
    task == OWN_LOSS || task.starts_with(LOSS_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(right: &str, told: bool) -> TaskScore {
        let items = right.len();
        let mean = right.matches('1').count() as f64 / items as f64;
        let standard_error = (mean * (1.0 - mean) / (items as f64 - 1.0)).sqrt();
        let right = if told { right } else { "" };
        let json = serde_json::json!({
            "step": 1, "stage": "a", "tokens": 1, "task": "sums", "chat": false, "items": items, "score": mean,
            "standard_error": standard_error, "right": right,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_same_items_are_compared_one_by_one() {
        let (before, after) = ("1100000000", "1111100000");
        let difference = |told| weighted(&[(1.0, &score(after, told)), (-1.0, &score(before, told))]);
        // Three of ten differ: variance 0.3 * 0.7 / 9.
        let (paired, error) = difference(true);
        assert!((paired - 0.3).abs() < 1e-12 && (error - (0.3f64 * 0.7 / 9.0).sqrt()).abs() < 1e-12);
        // Nothing is known of the items: both errors count.
        let (sum, apart) = difference(false);
        assert!((sum - 0.3).abs() < 1e-12 && (apart - (0.16f64 / 9.0 + 0.25 / 9.0).sqrt()).abs() < 1e-12);
        // Alike in every item; others might differ.
        assert_eq!(weighted(&[(1.0, &score(after, true)), (-1.0, &score(after, true))]), (0.0, 0.05));
        // One score is what it says of itself.
        let (alone, error) = weighted(&[(1.0, &score(after, true))]);
        assert!((alone - 0.5).abs() < 1e-12 && (error - (0.25f64 / 9.0).sqrt()).abs() < 1e-12);
    }
}
