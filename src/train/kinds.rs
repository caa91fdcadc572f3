//! From the kind of a stage to its objective: what is computed, and on which data. A new kind is a line in each.

use super::corpus::Corpus;
use super::dpo::{self, PreferencePairs};
use super::objective::{Batches, Loss, Shape};
use super::pretrain::{self, Windows};
use super::reference::Reference;
use super::sft::Conversations;
use crate::error::Result;
use crate::graph::Graph;
use crate::nn::Llama;
use crate::ops::preference_loss::PreferenceLoss;
use crate::recipes::{Dataset, Recipe, StageKind};
use std::sync::Arc;

/// What a stage computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Objective {
    /// The next token; of documents that do not see each other, if so.
    NextToken {
        /// Whether that is so.
        document_mask: bool,
    },
    /// Which of two answers is preferred; with the sequences packed into rows, if so.
    Preference {
        /// The loss.
        loss: PreferenceLoss,
        /// Whether that is so.
        packed: bool,
    },
}

impl Objective {
    /// That of a recipe's stage.
    pub fn of(recipe: &Recipe, stage: usize) -> Objective {
        let stage = &recipe.stages[stage];
        match stage.kind {
            StageKind::Pretrain | StageKind::ExtendContext | StageKind::Sft => {
                Objective::NextToken { document_mask: stage.document_mask }
            }
            StageKind::Dpo => Objective::Preference { loss: dpo::loss_of(stage), packed: stage.packs() },
        }
    }

    /// Adds its loss to the current program of a graph.
    pub fn add_loss(&self, graph: &mut Graph, model: &Llama, shape: Shape) -> Loss {
        match self {
            Objective::NextToken { document_mask: false } => pretrain::add_loss(graph, model, shape),
            Objective::NextToken { document_mask: true } => pretrain::add_segmented_loss(graph, model, shape),
            Objective::Preference { loss, packed } => {
                let rows = Shape { micro_batch: self.rows() * shape.micro_batch, ..shape };
                // Packed, a pass may have all pairs of the step; each takes four positions or more.
                let pairs = match packed {
                    true => {
                        (shape.micro_batch * shape.passes).min((rows.micro_batch * shape.length).div_ceil(4))
                    }
                    false => shape.micro_batch,
                };
                dpo::add_loss(graph, model, rows, loss, pairs, *packed)
            }
        }
    }

    /// Rows of tokens that one of a batch's sequences takes: a pair has two.
    pub fn rows(&self) -> usize {
        match self {
            Objective::NextToken { .. } => 1,
            Objective::Preference { .. } => StageKind::Dpo.rows(),
        }
    }

    /// The loss of pairs, if it is one.
    pub fn preference(&self) -> Option<&PreferenceLoss> {
        match self {
            Objective::NextToken { .. } => None,
            Objective::Preference { loss, .. } => Some(loss),
        }
    }
}

/// The data of a recipe's stage, after `consumed` tokens of each dataset; `reference` has what its first model says of its
/// pairs, which the loss may need.
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
    let (it, corpus) = (&recipe.stages[stage], corpus.clone());
    let judged = it.judged();
    match it.kind {
        StageKind::Pretrain | StageKind::ExtendContext | StageKind::Sft if it.packs() => {
            Ok(Box::new(Windows { corpus, mixture, document_mask: it.document_mask, judged }))
        }
        StageKind::Pretrain | StageKind::ExtendContext | StageKind::Sft => {
            let rows = |(i, dataset): (usize, &Dataset)| {
                let mixed = !dataset.replay && it.mixture.contains_key(&dataset.name);
                mixed.then(|| corpus.rows(i, it.sequence_length)).transpose()
            };
            let rows = recipe.datasets.iter().enumerate().map(rows).collect::<Result<_>>()?;
            Ok(Box::new(Conversations { corpus, mixture, rows, judged }))
        }
        StageKind::Dpo => {
            let reference = reference.filter(|_| dpo::loss_of(it).variant.has_reference()).cloned();
            let (cut, packed) = (it.cut(), it.packs());
            Ok(Box::new(PreferencePairs { corpus, mixture, cut, packed, reference }))
        }
    }
}

/// The most sequences of a pass that are worth having in a recipe's stage, after `consumed` tokens of each dataset: where
/// pairs are packed, more would be padding.
///
/// # Errors
/// As [`batches_of`].
pub fn most_of_a_pass(
    recipe: &Recipe,
    stage: usize,
    consumed: &[u64],
    corpus: &Arc<Corpus>,
) -> Result<usize> {
    let (it, count) = (&recipe.stages[stage], recipe.batch_of(stage).sequences);
    if it.kind != StageKind::Dpo || !it.packs() {
        return Ok(count);
    }
    let mixture = corpus.mixture(recipe, stage, consumed)?;
    let pairs =
        PreferencePairs { corpus: corpus.clone(), mixture, cut: it.cut(), packed: true, reference: None };
    let rows = pairs.rows_per_step(recipe.span_of(stage).steps(), count)?;
    Ok(((rows / it.kind.rows() as f64).ceil() as usize).clamp(1, count))
}
