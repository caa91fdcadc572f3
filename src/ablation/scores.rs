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

/// The loss on what a run itself held out.
pub const OWN_LOSS: &str = "held-out loss";
/// The accuracy on pairs that a run itself held out.
pub const OWN_ACCURACY: &str = "held-out accuracy";

/// Whether less of it is better.
pub fn is_loss(task: &str) -> bool {
    task == OWN_LOSS || task.starts_with(LOSS_PREFIX)
}
