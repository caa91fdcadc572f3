//! From the kind of a stage to its objective: what is computed, and on which data. A new kind is a line in each.

use super::corpus::Corpus;
use super::objective::{AddLoss, Batches};
use super::{pretrain, sft};
use crate::error::Result;
use crate::recipes::{Dataset, Recipe, Stage, StageKind};
use std::sync::Arc;

/// What a stage computes.
pub fn loss_of(stage: &Stage) -> AddLoss {
    match stage.kind {
        StageKind::Pretrain | StageKind::Sft if stage.document_mask => pretrain::add_segmented_loss,
        StageKind::Pretrain | StageKind::Sft => pretrain::add_loss,
        kind @ (StageKind::ExtendContext | StageKind::Dpo) => no_objective(kind),
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
    let (it, corpus) = (&recipe.stages[stage], corpus.clone());
    let judged = it.judged();
    match it.kind {
        StageKind::Pretrain | StageKind::Sft if it.packs() => {
            let mixture = corpus.mixture(recipe, stage, consumed)?;
            Ok(Box::new(pretrain::Windows { corpus, mixture, document_mask: it.document_mask, judged }))
        }
        StageKind::Pretrain | StageKind::Sft => {
            let mixture = corpus.mixture(recipe, stage, consumed)?;
            let rows = |(i, dataset): (usize, &Dataset)| {
                let mixed = it.mixture.contains_key(&dataset.name);
                mixed.then(|| corpus.rows(i, it.sequence_length)).transpose()
            };
            let rows = recipe.datasets.iter().enumerate().map(rows).collect::<Result<_>>()?;
            Ok(Box::new(sft::Conversations { corpus, mixture, rows, judged }))
        }
        kind @ (StageKind::ExtendContext | StageKind::Dpo) => no_objective(kind),
    }
}

fn no_objective(kind: StageKind) -> ! {
    unreachable!("the recipe's check refuses {kind:?}")
}
