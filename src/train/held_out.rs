//! The loss on text that is never trained on, measured by the scorer on the weights in training.

use super::corpus::Corpus;
use super::fit::held_out_scorer;
use super::stages::PlannedStage;
use crate::error::Result;
use crate::graph::{Backend, Store};
use crate::infer::scorer::{Row, Scorer};
use std::sync::Arc;

/// Held-out windows of a stage and the scorer for them.
pub struct HeldOut {
    scorer: Scorer,
    /// The windows that are read: (dataset, tokens).
    pub windows: Vec<(usize, Vec<u32>)>,
}

/// Mean negative log-likelihood in nats per token.
pub struct HeldOutLoss {
    /// Over all windows.
    pub mean: f64,
    /// Over those of each dataset.
    pub datasets: Vec<Option<f64>>,
}

impl HeldOut {
    /// At most `limit` windows of each dataset; `None` where nothing is held out.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if memory runs out.
    pub fn new(
        backend: &Backend,
        store: &Arc<Store>,
        stage: &PlannedStage,
        corpus: &Corpus,
        limit: usize,
    ) -> Result<Option<Self>> {
        let windows = corpus.held_out_windows(stage.shape.length, limit);
        if windows.is_empty() {
            return Ok(None);
        }
        let graph = held_out_scorer(&stage.work.architecture, stage.shape);
        Ok(Some(HeldOut { scorer: Scorer::new(backend, graph, store)?, windows }))
    }

    /// The loss with the weights as they are.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device is lost.
    pub fn measure(&mut self, datasets: usize) -> Result<HeldOutLoss> {
        let mut sums = vec![(0u64, 0.0f64); datasets];
        let rows: Vec<Row> = self.windows.iter().map(|(_, tokens)| Row::whole(tokens.clone())).collect();
        for ((dataset, _), nll) in self.windows.iter().zip(self.scorer.score(&rows)?) {
            sums[*dataset].0 += nll.len() as u64;
            sums[*dataset].1 += nll.iter().map(|&x| x as f64).sum::<f64>();
        }
        let tokens: u64 = sums.iter().map(|sum| sum.0).sum();
        let mean = sums.iter().map(|sum| sum.1).sum::<f64>() / tokens as f64;
        let datasets = sums.iter().map(|&(tokens, nll)| (tokens > 0).then(|| nll / tokens as f64)).collect();
        Ok(HeldOutLoss { mean, datasets })
    }

    /// Bytes allocated, without the weights.
    pub fn allocated(&self) -> u64 {
        self.scorer.allocated()
    }
}
