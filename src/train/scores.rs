//! `scores.jsonl`: how good the model is at its tasks, as a line per task and evaluation.

use super::records::OfStep;
use crate::eval::loss::Loss;
use crate::eval::runner::{Score, above_guessing};
use serde::{Deserialize, Serialize};

/// File of the scores in a run folder.
pub const SCORES_FILE: &str = "scores.jsonl";

/// What the losses on held-out text are called: `loss/DATASET`.
pub const LOSS_PREFIX: &str = "loss/";

/// When a model was evaluated.
#[derive(Clone, Debug)]
pub struct When {
    /// The run's step.
    pub step: u64,
    /// The stage that it lies in.
    pub stage: String,
    /// Tokens trained on.
    pub tokens: u64,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    /// The run's step.
    pub step: u64,
    /// The stage that it lies in.
    pub stage: String,
    /// Tokens trained on.
    pub tokens: u64,
    /// A task, or `loss/DATASET`.
    pub task: String,
    /// Whether questions were put as messages in a chat.
    pub chat: bool,
    /// Questions, or tokens that were predicted.
    pub items: usize,
    /// Share of right answers, or nats per token.
    pub score: f64,
    /// Standard error of the score.
    pub standard_error: f64,
    /// Of a task: share of right answers by guessing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guessing: Option<f64>,
    /// Of a task: a character per item, `1` where the answer is right and `0` where it is not. All evaluations of a run ask the
    /// same items.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub right: String,
    /// Of a loss: that of an interpolated Kneser-Ney 5-gram of the training text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
}

impl OfStep for TaskScore {
    fn step(&self) -> u64 {
        self.step
    }
}

impl TaskScore {
    /// That of a task.
    pub fn of_task(when: &When, chat: bool, score: &Score) -> Self {
        TaskScore {
            task: score.task.clone(),
            chat,
            items: score.answers.len(),
            score: score.accuracy(),
            standard_error: score.standard_error(),
            guessing: Some(score.guessing),
            right: score.answers.iter().map(|it| if it.right { '1' } else { '0' }).collect(),
            ..Self::empty(when)
        }
    }

    /// That of held-out text.
    pub fn of_loss(when: &When, loss: &Loss) -> Self {
        TaskScore {
            task: format!("{LOSS_PREFIX}{}", loss.dataset),
            items: loss.tokens,
            score: loss.model,
            standard_error: loss.standard_error,
            baseline: loss.ngram,
            ..Self::empty(when)
        }
    }

    fn empty(when: &When) -> Self {
        let When { step, stage, tokens } = when.clone();
        let (task, chat, items, score, standard_error) = (String::new(), false, 0, 0.0, 0.0);
        TaskScore {
            step,
            stage,
            tokens,
            task,
            chat,
            items,
            score,
            standard_error,
            guessing: None,
            right: String::new(),
            baseline: None,
        }
    }

    /// The dataset whose loss it is, if it is one.
    pub fn dataset(&self) -> Option<&str> {
        self.task.strip_prefix(LOSS_PREFIX)
    }

    /// How far a task's score is above guessing, in standard errors.
    pub fn above_guessing(&self) -> Option<f64> {
        self.guessing.map(|guessing| above_guessing(self.score, guessing, self.items))
    }

    /// Whether the ability has not improved by a standard error since `before`, though there was room for it, or has
    /// clearly fallen.
    pub fn stalls_since(&self, before: &TaskScore) -> bool {
        match self.dataset() {
            Some(_) => before.score - self.score < self.standard_error,
            None => {
                // No item can be half right.
                let half = 0.5 / self.items.max(1) as f64;
                let step = self.standard_error.max(half);
                let rise = self.score - before.score;
                rise < step && before.score + step < 1.0 || -rise > step + half
            }
        }
    }
}
