//! Preference optimisation: of two answers to one prompt the chosen one is to become likelier than the rejected one. The
//! loss of a pair is made on the device of the log-probabilities of both; see [`preference_loss`](crate::ops::preference_loss).
//! Only answers are judged. Sequences are packed into rows in which they do not see each other, or have a row each.

use super::corpus::Corpus;
use super::metrics::Rewards;
use super::objective::{Batch, Batches, Loss, Pairs, Shape};
use super::packing::{Pass, pack};
use super::pretrain::{draw, exhausted};
use super::reference::{Reference, Side, rows};
use crate::data::mixture::{Mixture, Sequence};
use crate::data::pairs::{Cut, pair, pair_lengths};
use crate::error::Result;
use crate::graph::Graph;
use crate::nn::Llama;
use crate::ops::host::IGNORE;
use crate::ops::log_prob::LogProb;
use crate::ops::preference_loss::{PreferenceLoss, Variant};
use crate::ops::{TensorType, ValueId};
use crate::recipes::{PreferenceKind, Stage};
use std::sync::Arc;

/// The loss of up to `pairs` pairs. Each of their sequences is a row of its own, or with `segmented` they are packed into rows
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
    let (ranges, log_probs) = add_log_probs(graph, nll, 2 * pairs);
    let counts = graph.input("judged tokens", TensorType::u32(&[2 * pairs]));
    let reference = loss
        .variant
        .has_reference()
        .then(|| graph.input("reference log-probabilities", TensorType::f32(&[2 * pairs, 2])));
    let inputs: Vec<ValueId> = [log_probs, counts].into_iter().chain(reference).collect();
    let losses = graph.push(loss.clone(), &inputs)[0];
    let pairs = Some(Pairs { ranges, counts, reference, log_probs, losses });
    Loss { tokens, labels, weights, seeds: vec![(losses, weights)], nll, pairs }
}

/// Log-probabilities of `sequences` sequences [S, 2] from the negative log-likelihoods of all positions, and the input that says
/// which positions are each sequence's.
pub fn add_log_probs(graph: &mut Graph, nll: ValueId, sequences: usize) -> (ValueId, ValueId) {
    let ranges = graph.input("sequence ranges", TensorType::u32(&[sequences, 2]));
    (ranges, graph.push(LogProb, &[nll, ranges])[0])
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
    /// Whether their sequences are packed into rows.
    pub packed: bool,
    /// Log-probabilities under the model that the stage began with, where the loss has them.
    pub reference: Option<Arc<Reference>>,
}

/// Steps that are packed to tell what packing saves.
const SURVEYED: u64 = 32;

impl PreferencePairs {
    /// The pairs of a step of `count`.
    fn pairs(&self, step: u64, count: usize) -> Result<Vec<Sequence>> {
        (step * count as u64..(step + 1) * count as u64).map(|index| self.mixture.locate(index)).collect()
    }

    /// A step's pairs packed into passes of `rows` rows.
    fn pack(&self, pairs: &[Sequence], rows: usize) -> Vec<Pass> {
        let lengths = |at: &Sequence| pair_lengths(&self.corpus.sets[at.dataset], at.window, self.cut);
        pack(&pairs.iter().map(lengths).collect::<Vec<_>>(), rows, self.cut.length)
    }

    /// Rows that the pairs of a step take on average when packed, of the first of `steps` steps of `count` pairs.
    ///
    /// # Errors
    /// As [`Mixture::locate`].
    pub fn rows_per_step(&self, steps: u64, count: usize) -> Result<f64> {
        let steps = steps.clamp(1, SURVEYED);
        let passes = (0..steps).map(|step| Ok(self.pack(&self.pairs(step, count)?, 2).len()));
        Ok(2.0 * passes.sum::<Result<usize>>()? as f64 / steps as f64)
    }

    /// Adds a pair whose sequences lie at `firsts` among the positions of the batch.
    fn append(&self, batch: &mut Batch, at: &Sequence, firsts: [usize; 2]) {
        for (row, first) in rows(pair(&self.corpus.sets[at.dataset], at.window), self.cut).iter().zip(firsts)
        {
            let label = |t: usize| if row.scored[t] { row.tokens[t] } else { IGNORE };
            let end = first + row.tokens.len();
            batch.ids[first..end].copy_from_slice(&row.tokens);
            batch.labels[first..end - 1].iter_mut().zip(1..).for_each(|(it, t)| *it = label(t));
            batch.ranges.push([first as u32, end as u32]);
        }
        if let Some(reference) = &self.reference {
            batch.reference.extend(reference.of(Side::Training, at.dataset, at.window));
        }
        batch.weights.push(1.0);
        batch.datasets.push(at.dataset);
    }

    /// The share of all positions that is padding when packed so, and when not, in the first of `steps` steps.
    fn padding(&self, steps: u64, shape: Shape) -> Result<[f64; 2]> {
        let Shape { micro_batch, passes, length, .. } = shape;
        let (mut tokens, mut packed, mut alone) = (0, 0, 0);
        for step in 0..steps.min(SURVEYED) {
            let pairs = self.pairs(step, micro_batch * passes)?;
            let filled = self.pack(&pairs, 2 * micro_batch);
            tokens += filled.iter().flat_map(|pass| &pass.used).sum::<usize>();
            packed += filled.len() * 2 * micro_batch * length;
            alone += pairs.len() * 2 * length;
        }
        Ok([packed, alone].map(|positions| 1.0 - tokens as f64 / positions.max(1) as f64))
    }
}

/// A batch of padding.
fn padding(rows: usize, length: usize) -> Batch {
    Batch { ids: vec![0; rows * length], labels: vec![IGNORE; rows * length], ..Batch::default() }
}

impl Batches for PreferencePairs {
    fn step(&self, step: u64, shape: Shape) -> Result<Vec<Batch>> {
        let Shape { micro_batch, passes, length, .. } = shape;
        if !self.packed {
            return draw(&self.mixture, step, shape, |batch, at| {
                let first = batch.ids.len();
                let Batch { ids, labels, .. } = padding(2, length);
                batch.ids.extend(ids);
                batch.labels.extend(labels);
                self.append(batch, &at, [first, first + length]);
            });
        }
        let pairs = self.pairs(step, micro_batch * passes)?;
        let batch = |pass: &Pass| {
            let mut batch = padding(2 * micro_batch, length);
            for &(index, firsts) in &pass.pairs {
                self.append(&mut batch, &pairs[index], firsts);
            }
            batch.starts = pass.starts(length);
            batch
        };
        Ok(self.pack(&pairs, 2 * micro_batch).iter().map(batch).collect())
    }

    fn notes(&self, steps: u64, shape: Shape) -> Result<Vec<String>> {
        let mut notes = exhausted(&self.mixture, steps, shape)?;
        if self.packed {
            let [packed, alone] = self.padding(steps, shape)?.map(|share| 100.0 * share);
            notes.push(format!(
                "pairs are packed: {packed:.0} % of the positions are padding ({alone:.0} % with a row for each answer)"
            ));
        }
        Ok(notes)
    }
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
