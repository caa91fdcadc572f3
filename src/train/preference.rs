//! Preference optimisation: of two answers to one prompt the chosen one is to become likelier than the rejected one. The
//! loss of a pair is made on the device of the log-probabilities of both; see [`preference_loss`](crate::ops::preference_loss).

use super::objective::{Loss, Pairs, Shape};
use crate::graph::Graph;
use crate::nn::Llama;
use crate::ops::log_prob::LogProb;
use crate::ops::preference_loss::PreferenceLoss;
use crate::ops::{TensorType, ValueId};

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
