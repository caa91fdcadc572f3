//! Pretraining: next-token prediction on packed documents, drawn from a mixture of datasets. Every position counts alike,
//! across documents too, as SmolLM2 was trained (no document mask); [`add_segmented_loss`] is the loss with one.

use super::corpus::Corpus;
use super::objective::{Batch, Batches, Loss, Shape};
use crate::data::mixture::Mixture;
use crate::error::Result;
use crate::graph::Graph;
use crate::nn::{Llama, Tokens};
use crate::ops::TensorType;
use std::sync::Arc;

/// The mean negative log-likelihood of the next token.
pub fn add_loss(graph: &mut Graph, model: &Llama, shape: Shape) -> Loss {
    let tokens = model.tokens(graph, shape.micro_batch, shape.length, true);
    add_mean_nll(graph, model, shape, tokens)
}

/// The same where the documents of a sequence do not see each other: batches say where they start.
pub fn add_segmented_loss(graph: &mut Graph, model: &Llama, shape: Shape) -> Loss {
    let tokens = model.tokens(graph, shape.micro_batch, shape.length, true).in_segments(graph);
    add_mean_nll(graph, model, shape, tokens)
}

fn add_mean_nll(graph: &mut Graph, model: &Llama, shape: Shape, tokens: Tokens) -> Loss {
    let rows = [shape.micro_batch * shape.length];
    let labels = graph.input("labels", TensorType::u32(&rows));
    let weights = graph.input("loss weights", TensorType::f32(&rows));
    let hidden = model.hidden(graph, &tokens);
    let nll = model.nll(graph, hidden, labels);
    Loss { tokens, labels, weights, seeds: vec![(nll, weights)], nll, pairs: None }
}

/// Windows of token sets.
pub struct Windows {
    /// The token sets.
    pub corpus: Arc<Corpus>,
    /// Which window comes when.
    pub mixture: Mixture,
}

impl Batches for Windows {
    fn step(&self, step: u64, shape: Shape) -> Result<Vec<Batch>> {
        let Shape { micro_batch, passes, length, .. } = shape;
        let first = step * (micro_batch * passes) as u64;
        let pass = |pass: usize| {
            let mut batch = Batch { weights: vec![1.0; micro_batch * length], ..Batch::default() };
            for i in 0..micro_batch {
                let sequence = self.mixture.locate(first + (pass * micro_batch + i) as u64)?;
                let start = sequence.start_token;
                let window = self.corpus.sets[sequence.dataset].tokens(start..start + length as u64 + 1);
                batch.ids.extend_from_slice(&window[..length]);
                batch.labels.extend_from_slice(&window[1..]);
                batch.datasets.push(sequence.dataset);
            }
            Ok(batch)
        };
        (0..passes).map(pass).collect()
    }

    fn notes(&self, steps: u64, shape: Shape) -> Result<Vec<String>> {
        exhausted(&self.mixture, steps, shape)
    }
}

/// The datasets whose caps are reached within `steps` steps, a line each.
pub(super) fn exhausted(mixture: &Mixture, steps: u64, shape: Shape) -> Result<Vec<String>> {
    let shares = mixture.shares(steps * (shape.micro_batch * shape.passes) as u64)?;
    let exhausted = mixture.datasets().iter().zip(shares).filter_map(|(dataset, share)| {
        let (name, epochs) = (&dataset.name, dataset.max_epochs.unwrap_or(0.0));
        let at = share.exhausted_at?;
        Some(format!(
            "{name}: its cap of {epochs} epochs is reached at sequence {at}; its share goes to the other datasets"
        ))
    });
    Ok(exhausted.collect())
}
