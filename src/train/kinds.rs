//! From the kind of a stage to its objective: what is computed, and on which data. A new kind is a line in each.

use super::corpus::Corpus;
use super::dpo::{self, PreferencePairs};
use super::objective::{Batches, Loss, Shape};
use super::pretrain::{self, Windows};
use super::reference::Reference;
use crate::error::Result;
use crate::graph::Graph;
use crate::nn::Llama;
use crate::ops::preference_loss::PreferenceLoss;
use crate::recipes::{Recipe, StageKind};
use std::sync::Arc;

/// What a stage computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Objective {
    /// The next token.
    Pretrain,
    /// Which of two answers is preferred.
    Dpo(PreferenceLoss),
}

impl Objective {
    /// That of a recipe's stage.
    pub fn of(recipe: &Recipe, stage: usize) -> Objective {
        match recipe.stages[stage].kind {
            StageKind::Pretrain => Objective::Pretrain,
            StageKind::Dpo => Objective::Dpo(dpo::loss_of(&recipe.stages[stage])),
            kind @ (StageKind::ExtendContext | StageKind::Sft) => no_objective(kind),
        }
    }

    /// Adds its loss to the current program of a graph.
    pub fn add_loss(&self, graph: &mut Graph, model: &Llama, shape: Shape) -> Loss {
        match self {
            Objective::Pretrain => pretrain::add_loss(graph, model, shape),
            Objective::Dpo(loss) => {
                let rows = Shape { micro_batch: self.rows() * shape.micro_batch, ..shape };
                dpo::add_loss(graph, model, rows, loss, shape.micro_batch, false)
            }
        }
    }

    /// Rows of tokens that one of a batch's sequences takes: a pair has two.
    pub fn rows(&self) -> usize {
        match self {
            Objective::Pretrain => StageKind::Pretrain.rows(),
            Objective::Dpo(_) => StageKind::Dpo.rows(),
        }
    }

    /// The loss of pairs, if it is one.
    pub fn preference(&self) -> Option<&PreferenceLoss> {
        match self {
            Objective::Pretrain => None,
            Objective::Dpo(loss) => Some(loss),
        }
    }
}

/// The data of a recipe's stage, after `consumed` tokens (or pairs) of each dataset; `reference` has what its first model
/// says of its pairs, where the loss needs that.
///
/// # Errors
/// [`Error::Input`](crate::Error::Input) if there is none.
pub fn batches_of(
    recipe: &Recipe,
    stage: usize,
    consumed: &[u64],
    corpus: &Arc<Corpus>,
    reference: Option<&Arc<Reference>>,
) -> Result<Box<dyn Batches>> {
    let mixture = corpus.mixture(recipe, stage, consumed)?;
    let corpus = corpus.clone();
    match recipe.stages[stage].kind {
        StageKind::Pretrain => Ok(Box::new(Windows { corpus, mixture })),
        StageKind::Dpo => {
            let cut = recipe.stages[stage].cut();
            Ok(Box::new(PreferencePairs { corpus, mixture, cut, reference: reference.cloned() }))
        }
        kind @ (StageKind::ExtendContext | StageKind::Sft) => no_objective(kind),
    }
}

fn no_objective(kind: StageKind) -> ! {
    unreachable!("the recipe's check refuses {kind:?}")
}
