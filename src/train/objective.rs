//! What a stage learns: an objective adds its loss to the stage's graph, and makes the batches that it is computed on.
//!
//! The loop in [`super::trainer`] knows no more of a stage than this, its schedule and its shape. A loss may be computed
//! on the device from several sequences: its op then gives the seed of the backward pass, where `pretrain` has the
//! weights that the host writes.

use crate::error::Result;
use crate::graph::recompute::Policy;
use crate::nn::Tokens;
use crate::ops::ValueId;
use crate::ops::host::IGNORE;

/// Shape of a stage's work on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sequences per pass, B; where the loss is of pairs, pairs.
    pub micro_batch: usize,
    /// Passes per step.
    pub passes: usize,
    /// Tokens per sequence, T.
    pub length: usize,
    /// What the backward pass computes again.
    pub recompute: Policy,
}

/// What an objective adds to a graph for one pass.
pub struct Loss {
    /// The sequences.
    pub tokens: Tokens,
    /// The token that each position predicts, [B T].
    pub labels: ValueId,
    /// How much each position counts, [B T], or each pair where the loss is of pairs.
    pub weights: ValueId,
    /// Where the backward pass begins: values and their given gradients.
    pub seeds: Vec<(ValueId, ValueId)>,
    /// Negative log-likelihood per position, [B T]; the host reads it.
    pub nll: ValueId,
    /// Where the loss is of pairs of sequences.
    pub pairs: Option<Pairs>,
}

/// Pairs of sequences, P of them, the chosen one first, as graph values.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// The positions of each sequence [2 P, 2]; see [`log_prob`](crate::ops::log_prob).
    pub ranges: ValueId,
    /// Judged tokens of each sequence [2 P].
    pub counts: ValueId,
    /// Log-probability of each sequence under a frozen model [2 P, 2], where the loss has one.
    pub reference: Option<ValueId>,
    /// Log-probability of each sequence [2 P, 2]; the host reads it.
    pub log_probs: ValueId,
    /// Loss of each pair [P]; the host reads it.
    pub losses: ValueId,
}

/// The sequences of one pass, row after row.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Token ids [B T].
    pub ids: Vec<u32>,
    /// The token that follows each, or [`IGNORE`].
    pub labels: Vec<u32>,
    /// How much each position counts beside the others of the step, 0 where the label is ignored, or each pair where the
    /// loss is of pairs; the loop makes them sum to 1.
    pub weights: Vec<f32>,
    /// The dataset of each sequence, or of each pair where the loss is of pairs.
    pub datasets: Vec<usize>,
    /// Index in its sequence of the first token of each token's document, where the stage's documents do not see each
    /// other; empty elsewhere.
    pub starts: Vec<u32>,
    /// First position of each sequence of the pairs, and that behind its last one, chosen and rejected in turn; empty
    /// without pairs. A pass may have fewer pairs than there is room for.
    pub ranges: Vec<[u32; 2]>,
    /// The log-probability of each under a frozen model; empty without one.
    pub reference: Vec<f64>,
}

impl Batch {
    /// How many tokens are judged of each sequence of the pairs.
    pub fn judged(&self) -> Vec<u32> {
        let judged = |&[first, end]: &[u32; 2]| {
            let labels = &self.labels[first as usize..end as usize];
            labels.iter().filter(|&&label| label != IGNORE).count() as u32
        };
        self.ranges.iter().map(judged).collect()
    }
}

/// The data of one stage.
pub trait Batches {
    /// The passes of the stage's step `step`, counted from 0, each of `shape.micro_batch` sequences; fewer passes where
    /// sequences are packed closer. A pure function: another micro-batch cuts the same sequences otherwise.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if the data has an end and `step` lies behind it.
    fn step(&self, step: u64, shape: Shape) -> Result<Vec<Batch>>;

    /// What the user should know before `steps` steps begin, a line each.
    ///
    /// # Errors
    /// As [`Batches::step`].
    fn notes(&self, steps: u64, shape: Shape) -> Result<Vec<String>>;
}
