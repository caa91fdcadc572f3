//! What a stage learns: an objective adds its loss to the stage's graph, and makes the batches that it is computed on.
//!
//! The loop in [`super::trainer`] knows no more of a stage than this, its schedule and its shape. A loss may be computed
//! on the device from several sequences: its op gives the seed of the backward pass, where `pretrain` has the weights
//! that the host writes.

use super::corpus::Corpus;
use super::engine::Shape;
use super::pretrain;
use super::stages::PlannedStage;
use crate::error::Result;
use crate::graph::Graph;
use crate::nn::{Llama, Tokens};
use crate::ops::ValueId;
use crate::recipes::{Recipe, StageKind};
use std::sync::Arc;

/// What an objective adds to a graph for one pass.
pub struct Loss {
    /// The sequences.
    pub tokens: Tokens,
    /// The token that each position predicts, [B T].
    pub labels: ValueId,
    /// How much each position counts, [B T].
    pub weights: ValueId,
    /// Where the backward pass begins: values and their given gradients.
    pub seeds: Vec<(ValueId, ValueId)>,
    /// Negative log-likelihood per position, [B T]; the host reads it.
    pub nll: ValueId,
}

/// The sequences of one pass, row after row.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Token ids [B T].
    pub ids: Vec<u32>,
    /// The token that follows each, or [`IGNORE`](crate::ops::cross_entropy::IGNORE).
    pub labels: Vec<u32>,
    /// How much each position counts beside the others of the step, 0 where the label is ignored; the loop makes them
    /// sum to 1.
    pub weights: Vec<f32>,
    /// The dataset of each sequence.
    pub datasets: Vec<usize>,
}

/// Adds a loss to the current program of a graph.
pub type AddLoss = fn(&mut Graph, &Llama, Shape) -> Loss;

/// What a kind of stage computes.
pub fn loss_of(kind: StageKind) -> AddLoss {
    match kind {
        StageKind::Pretrain => pretrain::add_loss,
        // The recipe's check has refused them.
        StageKind::ExtendContext | StageKind::Sft | StageKind::Dpo => {
            unreachable!("no objective for {kind:?} yet")
        }
    }
}

/// The data of one stage.
pub trait Batches {
    /// The passes of the stage's step `step`, counted from 0, each of `shape.micro_batch` sequences. A pure function:
    /// another micro-batch cuts the same sequences otherwise.
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

/// The data of a stage.
///
/// # Errors
/// [`Error::Input`](crate::Error::Input) if there is none.
pub fn batches_of(stage: &PlannedStage, recipe: &Recipe, corpus: &Arc<Corpus>) -> Result<Box<dyn Batches>> {
    match recipe.stages[stage.span.stage].kind {
        StageKind::Pretrain => Ok(Box::new(pretrain::Windows::new(stage, recipe, corpus)?)),
        kind => unreachable!("no data for {kind:?} yet"),
    }
}
