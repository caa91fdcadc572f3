//! T2: documents packed into one sequence learn as if each were alone.

use crate::support::device;
use smolter::check::doctor::variants;
use smolter::graph::recompute::Policy;
use smolter::graph::{Backend, Graph};
use smolter::nn::{Architecture, Llama, LlamaConfig};
use smolter::ops::host::segments_of;
use smolter::ops::testing::nmse;
use smolter::train::engine::{Engine, TrainGraph, initialize};
use smolter::train::objective::{Batch, Loss, Shape};
use smolter::train::pretrain;

/// Tokens of a sequence; two sequences hold the documents.
const LENGTH: usize = 41;
const DOCUMENTS: [usize; 5] = [7, 1, 33, 40, 1];

fn model() -> Architecture {
    Architecture::from(LlamaConfig {
        vocab_size: 97,
        hidden_size: 36,
        intermediate_size: 52,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        num_key_value_heads: 1,
        head_dim: 12,
        max_position_embeddings: 64,
        initializer_std: 0.3,
        ..LlamaConfig::smollm2_135m()
    })
}

/// What is computed of some sequences: nll per position, and the gradient of its sum by parameter.
#[derive(Clone, Debug, PartialEq)]
struct Pass {
    nll: Vec<f32>,
    gradients: Vec<Vec<f32>>,
}

impl Pass {
    /// The worst tensor's error.
    fn error(&self, want: &Pass) -> f64 {
        let wide = |x: &[f32]| x.iter().map(|&x| x as f64).collect::<Vec<_>>();
        let pairs = self.gradients.iter().zip(&want.gradients).chain([(&self.nll, &want.nll)]);
        pairs.map(|(got, want)| nmse(&wide(got), &wide(want))).fold(0.0, f64::max)
    }
}

/// Forward and backward of `sequences` of `length` tokens that begin with the text's token `first`; `starts` where the
/// loss takes them.
fn pass(
    backend: &Backend,
    add_loss: fn(&mut Graph, &Llama, Shape) -> Loss,
    recompute: Policy,
    first: usize,
    sequences: usize,
    length: usize,
    starts: &[u32],
) -> Pass {
    let shape = Shape { micro_batch: sequences, passes: 1, length, recompute };
    let graph = TrainGraph::new(&model(), add_loss, shape);
    let (mut engine, store) = Engine::alone(backend, graph).expect("an engine");
    initialize(&store, &model(), 3);
    let text: Vec<u32> = (0..200u32).map(|i| i.wrapping_mul(2_654_435_761).rotate_left(9) % 97).collect();
    let rows = sequences * length;
    let batch = Batch {
        ids: text[first..first + rows].to_vec(),
        labels: text[first + 1..first + rows + 1].to_vec(),
        weights: vec![1.0; rows],
        datasets: vec![0; sequences],
        starts: starts.to_vec(),
        ..Batch::default()
    };
    let ticket = engine.micro_batch(&batch, 1.0).expect("a pass");
    let nll = engine.fetch(ticket).expect("losses");
    let names = model().shapes().into_iter().map(|(name, _)| name);
    let gradients = names.map(|name| engine.read_gradient(&name).expect("a gradient")).collect();
    Pass { nll, gradients }
}

fn packed(backend: &Backend, recompute: Policy, starts: &[u32]) -> Pass {
    pass(backend, pretrain::add_segmented_loss, recompute, 0, 2, LENGTH, starts)
}

/// Each document as a sequence of its own; the gradients are summed.
fn alone(backend: &Backend) -> Pass {
    let mut first = 0;
    let mut each = DOCUMENTS.iter().map(|&length| {
        first += length;
        pass(backend, pretrain::add_loss, Policy::None, first - length, 1, length, &[])
    });
    let mut all = each.next().expect("a document");
    for one in each {
        all.nll.extend(one.nll);
        for (sum, gradient) in all.gradients.iter_mut().zip(one.gradients) {
            sum.iter_mut().zip(gradient).for_each(|(sum, x)| *sum += x);
        }
    }
    all
}

/// The oracle, and every kernel family of the adapter, with the largest error that passes.
fn backends() -> Vec<(Backend, f64)> {
    let adapter = device().map(|_| Backend::open("auto").expect("an adapter that exists opens"));
    let families = adapter
        .iter()
        .flat_map(|adapter| variants(adapter).into_iter().map(|(_, caps)| (adapter.with_caps(caps), 1e-9)));
    // A relative error of 1e-6 is 1e-12 when squared.
    [(Backend::Oracle, 1e-12)].into_iter().chain(families).collect()
}

#[test]
fn packed_documents_are_as_if_alone() {
    let (starts, _) = segments_of(&DOCUMENTS, LENGTH);
    let want = alone(&Backend::Oracle);
    for (backend, limit) in backends() {
        let got = packed(&backend, Policy::None, &starts);
        let error = got.error(&want);
        assert!(error < limit, "{}: {error:e}", backend.description());
        for recompute in [Policy::Cheap, Policy::Block] {
            let again = packed(&backend, recompute, &starts);
            assert!(again == got, "{}: {recompute:?} changes results", backend.description());
        }
        // Documents that see the ones before them are noticed.
        let mut wrong = starts.clone();
        wrong[..LENGTH].fill(0);
        assert!(packed(&backend, Policy::None, &wrong).error(&want) > 1e-6);
    }
}

#[test]
fn one_document_is_plain_causal_attention_bit_for_bit() {
    for (backend, _) in backends() {
        let got = packed(&backend, Policy::None, &[0; 2 * LENGTH]);
        let want = pass(&backend, pretrain::add_loss, Policy::None, 0, 2, LENGTH, &[]);
        assert!(got == want, "{}: off by {:e}", backend.description(), got.error(&want));
    }
}

#[test]
fn a_document_that_a_sequence_cuts_begins_anew() {
    let (starts, positions) = segments_of(&[2, 3, 4, 0, 1], 4);
    assert_eq!(starts, [0, 0, 2, 2, 0, 1, 1, 1, 0, 1]);
    assert_eq!(positions, [0, 1, 0, 1, 0, 0, 1, 2, 0, 0]);
}
