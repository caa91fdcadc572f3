//! The loss on text that is never trained on, measured by the scorer on the weights in training.

use super::fit::held_out_scorer;
use super::stages::PlannedStage;
use crate::error::Result;
use crate::graph::{Backend, Store};
use crate::infer::scorer::{Row, Scorer};
use std::sync::Arc;

/// What is held out for a stage, and the scorer for it.
pub struct HeldOut {
    scorer: Scorer,
    /// The rows that are scored, with the dataset of each.
    pub rows: Vec<(usize, Row)>,
}

/// Mean negative log-likelihood in nats per token.
pub struct HeldOutLoss {
    /// Over all rows.
    pub mean: f64,
    /// Over those of each dataset.
    pub datasets: Vec<Option<f64>>,
}

impl HeldOut {
    /// Takes [`Corpus::held_out_rows`](super::corpus::Corpus::held_out_rows); `None` where nothing is held out.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if memory runs out.
    pub fn new(
        backend: &Backend,
        store: &Arc<Store>,
        stage: &PlannedStage,
        rows: Vec<(usize, Row)>,
    ) -> Result<Option<Self>> {
        if rows.is_empty() {
            return Ok(None);
        }
        let graph = held_out_scorer(&stage.work.architecture, stage.shape);
        Ok(Some(HeldOut { scorer: Scorer::new(backend, graph, store)?, rows }))
    }

    /// The loss with the weights as they are.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device is lost.
    pub fn measure(&mut self, datasets: usize) -> Result<HeldOutLoss> {
        let mut sums = vec![(0u64, 0.0f64); datasets];
        let rows: Vec<Row> = self.rows.iter().map(|(_, row)| row.clone()).collect();
        for ((dataset, _), nll) in self.rows.iter().zip(self.scorer.score(&rows)?) {
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
