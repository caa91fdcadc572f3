//! Lines of the files that a run keeps of its model's abilities and of what happened to it.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A line of `scores.jsonl`.
#[derive(Clone, Debug, Deserialize)]
pub struct TaskScore {
    pub step: u64,
    pub stage: String,
    pub tokens: u64,
    pub task: String,
    #[serde(default)]
    pub chat: bool,
    pub items: usize,
    pub score: f64,
    pub standard_error: f64,
    #[serde(default)]
    pub guessing: Option<f64>,
    #[serde(default)]
    pub baseline: Option<f64>,
}

impl TaskScore {
    pub fn dataset(&self) -> Option<&str> {
        self.task.strip_prefix("loss/")
    }
    pub fn above_baseline(&self) -> Option<f64> {
        match (self.guessing, self.baseline) {
            (Some(guessing), _) => {
                let error = (guessing * (1.0 - guessing) / self.items.max(1) as f64).sqrt();
                Some((self.score - guessing) / error.max(self.standard_error).max(f64::MIN_POSITIVE))
            }
            (_, Some(baseline)) => Some((baseline - self.score) / self.standard_error.max(f64::MIN_POSITIVE)),
            _ => None,
        }
    }
}

/// A line of `samples.jsonl`.
#[derive(Clone, Debug, Deserialize)]
pub struct SampleText {
    pub step: u64,
    pub stage: String,
    #[serde(default)]
    pub chat: bool,
    pub prompt: String,
    pub text: String,
}

/// File of events in a run folder.
pub const HISTORY_FILE: &str = "history.jsonl";

/// A line of it: what happened, and more about it, which depends on that.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// The run's step.
    pub step: u64,
    /// The stage that it lies in.
    pub stage: Option<String>,
    /// `spike`, `rewind` or `intervention`.
    pub kind: String,
    /// All else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}
