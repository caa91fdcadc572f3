//! What a run was told of itself: the lines of `scores.jsonl`.

use crate::error::{Error, Result};
use crate::files;
use serde::Deserialize;
use std::path::Path;

/// File of the scores in a run folder.
const SCORES_FILE: &str = "scores.jsonl";

/// A task at a step of a run, or the loss of held-out text.
#[derive(Clone, Debug, Deserialize)]
pub struct Score {
    /// Steps of the run that were done.
    pub step: u64,
    /// The stage of that step.
    pub stage: String,
    /// The task's name, or `loss/DATASET`.
    pub task: String,
    /// Whether it was asked as a chat.
    pub chat: bool,
    /// Share of right answers, or nats per token.
    pub score: f64,
    /// Standard error over the items.
    pub standard_error: f64,
    /// Score by guessing.
    #[serde(default)]
    pub guessing: f64,
}

/// The lines of a run folder, in the order of steps; none where the file is not there.
///
/// # Errors
/// [`Error::Damaged`] with the number of the line that is no score.
pub fn read(run: &Path) -> Result<Vec<Score>> {
    let path = run.join(SCORES_FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = files::read_text(&path, files::LISTS)?;
    let line = |(number, line): (usize, &str)| {
        let why = |error| format!("line {number} is no score ({error}); remove it");
        serde_json::from_str(line).map_err(|error| Error::damaged(&path, why(error)))
    };
    (1..).zip(text.lines()).map(line).collect()
}

/// The last answer to `task` in a stage, up to a step; as a chat if it was asked in both ways.
pub fn last<'s>(scores: &'s [Score], task: &str, stage: &str, until: u64) -> Option<&'s Score> {
    let its = scores.iter().filter(|it| it.task == task && it.stage == stage && it.step <= until);
    its.max_by_key(|it| (it.step, it.chat))
}

/// The loss on what a run itself held out.
pub const OWN_LOSS: &str = "held-out loss";
/// The accuracy on pairs that a run itself held out.
pub const OWN_ACCURACY: &str = "held-out accuracy";

/// Whether less of it is better.
pub fn is_loss(task: &str) -> bool {
    task == OWN_LOSS || task.starts_with("loss/")
}
