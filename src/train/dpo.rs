//! Preference optimisation: of two answers to one prompt the chosen one is to become likelier than the rejected one. The
//! loss of a pair is made on the device of the log-probabilities of both; see [`preference_loss`](crate::ops::preference_loss).
//! Only answers are judged. Each sequence is a row of its own.

use super::corpus::Corpus;
use super::metrics::Rewards;
use super::objective::{Batch, Batches, Loss, Pairs, Shape};
use super::pretrain::{draw, exhausted};
use super::reference::{Reference, Side, rows};
use crate::data::mixture::Mixture;
use crate::data::pairs::{Cut, pair};
use crate::error::Result;
use crate::graph::Graph;
use crate::infer::scorer::Row;
use crate::nn::Llama;
use crate::ops::host::IGNORE;
use crate::ops::log_prob::LogProb;
use crate::ops::preference_loss::{PreferenceLoss, Variant};
use crate::ops::{TensorType, ValueId};
use crate::recipes::{PreferenceKind, Stage};
use std::sync::Arc;

/// The loss of `pairs` pairs. Each of their sequences is a row of its own, or with `segmented` they are packed into rows
/// and do not see each other.
pub fn add_loss(
    graph: &mut Graph,
    model: &Llama,
    shape: Shape,
    loss: &PreferenceLoss,
    pairs: usize,
    segmented: bool,
) -> Loss {
    let tokens = model.tokens(graph, shape.micro_batch, shape.length, true);
    let tokens = if segmented { tokens.in_segments(graph) } else { tokens };
    let labels = graph.input("labels", TensorType::u32(&[shape.micro_batch * shape.length]));
    let weights = graph.input("loss weights", TensorType::f32(&[pairs]));
    let hidden = model.hidden(graph, &tokens);
    let nll = model.nll(graph, hidden, labels);
    let (ends, log_probs) = add_log_probs(graph, nll, 2 * pairs);
    let counts = graph.input("judged tokens", TensorType::u32(&[2 * pairs]));
    let reference = loss
        .variant
        .has_reference()
        .then(|| graph.input("reference log-probabilities", TensorType::f32(&[2 * pairs, 2])));
    let inputs: Vec<ValueId> = [log_probs, counts].into_iter().chain(reference).collect();
    let losses = graph.push(loss.clone(), &inputs)[0];
    let pairs = Some(Pairs { ends, counts, reference, log_probs, losses });
    Loss { tokens, labels, weights, seeds: vec![(losses, weights)], nll, pairs }
}

/// Log-probabilities of `sequences` sequences [S, 2] from the negative log-likelihoods of all positions, and the input that says
/// where each sequence ends.
pub fn add_log_probs(graph: &mut Graph, nll: ValueId, sequences: usize) -> (ValueId, ValueId) {
    let ends = graph.input("sequence ends", TensorType::u32(&[sequences]));
    (ends, graph.push(LogProb, &[nll, ends])[0])
}

/// The loss of a recipe's stage.
pub fn loss_of(stage: &Stage) -> PreferenceLoss {
    let dpo = stage.dpo.clone().unwrap_or_default();
    let variant = match dpo.loss {
        PreferenceKind::Sigmoid => Variant::Sigmoid,
        PreferenceKind::Hinge => Variant::Hinge,
        PreferenceKind::Ipo => Variant::Ipo,
        PreferenceKind::Orpo => Variant::Orpo,
        PreferenceKind::Simpo => Variant::Simpo,
    };
    let (label_smoothing, gamma, lambda) = (dpo.label_smoothing, dpo.gamma, dpo.lambda);
    PreferenceLoss { variant, beta: dpo.beta, label_smoothing, gamma, lambda }
}

/// The pairs of a stage.
pub struct PreferencePairs {
    /// The pairs, as tokens.
    pub corpus: Arc<Corpus>,
    /// Which pair comes when: its windows are pairs.
    pub mixture: Mixture,
    /// How they are cut.
    pub cut: Cut,
    /// Log-probabilities under the model that the stage began with, where the loss has them.
    pub reference: Option<Arc<Reference>>,
}

impl Batches for PreferencePairs {
    fn step(&self, step: u64, shape: Shape) -> Result<Vec<Batch>> {
        draw(&self.mixture, step, shape, |batch, at| {
            for row in rows(pair(&self.corpus.sets[at.dataset], at.window), self.cut) {
                push(batch, &row, shape.length);
            }
            if let Some(reference) = &self.reference {
                batch.reference.extend(reference.of(Side::Training, at.dataset, at.window));
            }
            batch.weights.push(1.0);
            batch.datasets.push(at.dataset);
        })
    }

    fn notes(&self, steps: u64, shape: Shape) -> Result<Vec<String>> {
        exhausted(&self.mixture, steps, shape)
    }
}

/// Adds a sequence as a row of `length` tokens.
fn push(batch: &mut Batch, row: &Row, length: usize) {
    let padding = length - row.tokens.len();
    let label = |t: usize| if row.scored[t] { row.tokens[t] } else { IGNORE };
    batch.ids.extend(row.tokens.iter().copied().chain(std::iter::repeat_n(0, padding)));
    batch.labels.extend((1..row.tokens.len()).map(label).chain(std::iter::repeat_n(IGNORE, padding + 1)));
    batch.ends.push(batch.ids.len() as u32);
}

/// Adds what a pair has earned: its log-probabilities, those of the reference, and how many tokens were judged.
pub fn reward(
    rewards: &mut Rewards,
    loss: &PreferenceLoss,
    logps: [f64; 2],
    reference: [f64; 2],
    counts: [u32; 2],
) {
    let [chosen, rejected] = [0, 1].map(|side| loss.reward(logps[side], reference[side], counts[side]));
    rewards.add(chosen, rejected);
}
