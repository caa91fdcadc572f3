//! From the kind of a stage to its objective: what is computed, and on which data. A new kind is a line in each.

use super::corpus::Corpus;
use super::objective::{AddLoss, Batches};
use super::pretrain;
use crate::error::Result;
use crate::recipes::{Recipe, StageKind};
use std::sync::Arc;

/// What a kind of stage computes.
pub fn loss_of(kind: StageKind) -> AddLoss {
    match kind {
        StageKind::Pretrain | StageKind::ExtendContext => pretrain::add_loss,
        StageKind::Sft | StageKind::Dpo => no_objective(kind),
    }
}

/// The data of a recipe's stage, after `consumed` tokens of each dataset.
///
/// # Errors
/// [`Error::Input`](crate::Error::Input) if there is none.
pub fn batches_of(
    recipe: &Recipe,
    stage: usize,
    consumed: &[u64],
    corpus: &Arc<Corpus>,
) -> Result<Box<dyn Batches>> {
    match recipe.stages[stage].kind {
        StageKind::Pretrain | StageKind::ExtendContext => {
            let mixture = corpus.mixture(recipe, stage, consumed)?;
            Ok(Box::new(pretrain::Windows { corpus: corpus.clone(), mixture }))
        }
        kind @ (StageKind::Sft | StageKind::Dpo) => no_objective(kind),
    }
}

fn no_objective(kind: StageKind) -> ! {
    unreachable!("the recipe's check refuses {kind:?}")
}
