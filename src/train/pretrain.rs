//! Pretraining: next-token prediction on packed documents, drawn from a mixture of datasets. Every position counts alike,
//! across documents too, as SmolLM2 was trained (no document mask); [`add_segmented_loss`] is the loss with one.
//! Fine-tuning on packed conversations is the same, where only some tokens may count.

use super::corpus::Corpus;
use super::objective::{Batch, Batches, Loss, Shape};
use crate::data::mixture::{Mixture, Sequence};
use crate::data::shard::TokenSet;
use crate::error::Result;
use crate::graph::Graph;
use crate::nn::{Llama, Tokens};
use crate::ops::TensorType;
use crate::ops::host::IGNORE;
use crate::tokenizer::Judged;
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
    /// Whether documents do not see each other.
    pub document_mask: bool,
    /// Which tokens count.
    pub judged: Judged,
}

impl Windows {
    /// Appends the window of `length` tokens from `start` on of a dataset.
    fn append(&self, batch: &mut Batch, dataset: usize, start: u64, length: usize) {
        let set = &self.corpus.sets[dataset];
        let predicted = start + 1..start + 1 + length as u64;
        let window = set.tokens(start..predicted.end);
        let first = batch.labels.len();
        batch.ids.extend_from_slice(&window[..length]);
        batch.labels.extend_from_slice(&window[1..]);
        // Of text, every token counts.
        match self.corpus.judged[dataset].as_ref().filter(|_| self.judged == Judged::Assistant) {
            None => batch.weights.extend(vec![1.0; length]),
            Some(judged) => {
                batch.weights.extend(judged.tokens(predicted).into_iter().map(|judged| judged as f32));
            }
        }
        if self.document_mask {
            batch.starts.extend(document_starts(set, start, length));
            // What begins a document is not foretold by another.
            for begun in set.starts_in(start + 1..start + 1 + length as u64) {
                let before = first + (begun - start - 1) as usize;
                (batch.labels[before], batch.weights[before]) = (IGNORE, 0.0);
            }
        }
        batch.datasets.push(dataset);
    }
}

/// For each token of a window the index in it of its document's first token.
fn document_starts(set: &TokenSet, start: u64, length: usize) -> Vec<u32> {
    let mut starts = vec![0; length];
    for begun in set.starts_in(start..start + length as u64) {
        let at = (begun - start) as usize;
        starts[at..].fill(at as u32);
    }
    starts
}

impl Batches for Windows {
    fn step(&self, step: u64, shape: Shape) -> Result<Vec<Batch>> {
        draw(&self.mixture, step, shape, |batch, sequence| {
            self.append(batch, sequence.dataset, sequence.start_token, shape.length)
        })
    }

    fn notes(&self, steps: u64, shape: Shape) -> Result<Vec<String>> {
        exhausted(&self.mixture, steps, shape)
    }
}

/// The passes of a step, to which `append` adds the sequences that the mixture says.
///
/// # Errors
/// As [`Mixture::locate`].
pub fn draw(
    mixture: &Mixture,
    step: u64,
    shape: Shape,
    append: impl Fn(&mut Batch, Sequence),
) -> Result<Vec<Batch>> {
    let Shape { micro_batch, passes, .. } = shape;
    let first = step * (micro_batch * passes) as u64;
    let pass = |pass: usize| {
        let mut batch = Batch::default();
        for i in 0..micro_batch {
            append(&mut batch, mixture.locate(first + (pass * micro_batch + i) as u64)?);
        }
        Ok(batch)
    };
    (0..passes).map(pass).collect()
}

/// Datasets whose caps are reached on the way, a line each.
pub fn exhausted(mixture: &Mixture, steps: u64, shape: Shape) -> Result<Vec<String>> {
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
