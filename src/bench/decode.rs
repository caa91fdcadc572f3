//! Decoding one token per sequence and step, and taking in prompts: the generator that `smolter generate` runs.
//!
//! A decode step must read every weight and what the cache holds once, and does two operations with each: it is
//! bound by memory bandwidth, and its share of the bandwidth says how good it is.

use super::peaks::Peaks;
use super::roofline::{OpTime, op_times};
use super::spread::{Spread, repeat};
use super::weights::Noise;
use crate::error::{Error, Result};
use crate::graph::{Backend, Graph, Kind, Node, ProgramId, StorePlan};
use crate::infer::generator::{Generator, GeneratorGraph, Sizes};
use crate::nn::Architecture;
use crate::ops::sample::Sampling;
use crate::ops::{ElementType, Op, ValueId};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Steps before the measured ones: two that measure each op by itself, one more to settle.
const WARM_UP: usize = 3;

/// Most steps that are measured.
const STEPS: usize = 16;

/// Longest time for the steps of one measurement.
const LIMIT: Duration = Duration::from_secs(8);

/// A measured decode step.
#[derive(Clone, Debug, Serialize)]
pub struct Decode {
    /// Sequences.
    pub batch: usize,
    /// Room of each sequence in the cache, in tokens.
    pub context: usize,
    /// Tokens in the cache at the first measured step.
    pub position: usize,
    /// Seconds of a step.
    pub step_s: Spread,
    /// New tokens of all sequences per second.
    pub tokens_per_s: f64,
    /// Bytes of weights that a step must read.
    pub weight_bytes: u64,
    /// Bytes of keys and values that it must read.
    pub cache_bytes: u64,
    /// Both per second.
    pub bytes_per_s: f64,
    /// That, over what the adapter can read.
    pub share_of_read: f64,
    /// Prompt tokens of each sequence per pass.
    pub prefill_chunk: usize,
    /// Seconds of such a pass.
    pub prefill_s: Spread,
    /// Prompt tokens of all sequences per second.
    pub prefill_tokens_per_s: f64,
    /// Time per op of a step.
    pub ops: Vec<OpTime>,
}

/// The least context that leaves room for what is measured, in tokens.
pub fn least_context(chunk: usize) -> usize {
    3 * chunk + 1 + WARM_UP + STEPS
}

/// Bytes that weights and cache take: what decoding needs at least.
pub fn least_memory(architecture: &Architecture, sizes: Sizes) -> u64 {
    let mut graph = Graph::new();
    architecture.decoder(&mut graph).cache(&mut graph, sizes.batch, sizes.context);
    graph.values().iter().map(|value| value.ty.bytes()).sum()
}

/// Measures a model with random weights.
///
/// # Errors
/// [`Error::Input`] if the sizes do not fit the model, [`Error::Device`] if memory runs out, [`Error::Failure`] if
/// what it computes is not finite.
pub fn measure(
    backend: &Backend,
    architecture: &Architecture,
    sizes: Sizes,
    peaks: &Peaks,
) -> Result<Decode> {
    let Backend::Gpu(device) = backend else { unreachable!("peaks are those of a device") };
    let Sizes { batch, context, chunk } = sizes;
    let graph = GeneratorGraph::new(architecture, sizes)?;
    let store = backend.store(StorePlan::new(&[&graph.graph], &backend.caps()))?;
    Noise::new().fill(&store, architecture);
    let mut generator = Generator::new(backend, graph, &store)?;

    // Every call adds one chunk to what is in the cache already. The first two measure each op by itself.
    let chunks = (context - 1 - WARM_UP - STEPS) / chunk;
    let token = |i: usize| (i * 7919 % architecture.vocab_size()) as u32;
    let mut filled = 0;
    let mut prefill = || {
        filled += chunk;
        let prompt: Vec<u32> = (0..=filled).map(token).collect();
        let begun = Instant::now();
        generator.prompt(&vec![prompt; batch])?;
        device.wait()?;
        Ok(begun.elapsed().as_secs_f64())
    };
    prefill()?;
    prefill()?;
    let prefill_s = repeat(chunks - 2, LIMIT, prefill)?;

    let (uniform, active) = (vec![0.0; batch], vec![true; batch]);
    let mut step = || {
        let begun = Instant::now();
        let choices = generator.step(&Sampling::greedy(), &uniform, &active)?;
        if choices.iter().flatten().any(|choice| !choice.logprob.is_finite()) {
            return Err(Error::failure(
                "decoding gave a log-probability that is not finite: run smolter doctor",
            ));
        }
        Ok(begun.elapsed().as_secs_f64())
    };
    for _ in 0..WARM_UP {
        step()?;
    }
    let step_s = repeat(STEPS, LIMIT, step)?;

    let graph = generator.graph();
    let (program, profile) = generator.decode_profile();
    let position = filled + WARM_UP;
    let weight_bytes = weights_read(graph, program);
    let cache_bytes = cache_read(graph) * position as u64 / context as u64;
    let bytes_per_s = (weight_bytes + cache_bytes) as f64 / step_s.median;
    Ok(Decode {
        batch,
        context,
        position,
        step_s,
        tokens_per_s: batch as f64 / step_s.median,
        weight_bytes,
        cache_bytes,
        bytes_per_s,
        share_of_read: bytes_per_s / peaks.read.best,
        prefill_chunk: chunk,
        prefill_s,
        prefill_tokens_per_s: (batch * chunk) as f64 / prefill_s.median,
        ops: op_times(graph, program, &profile, peaks),
    })
}

/// Bytes of all weights that a program reads whole: of an embedding that is not the head as well, only rows are read.
fn weights_read(graph: &Graph, program: ProgramId) -> u64 {
    let whole = |node: &&Node| node.program == program && !matches!(node.op, Op::Embedding(_));
    let read: BTreeSet<ValueId> =
        graph.nodes().iter().filter(whole).flat_map(|node| node.inputs.clone()).collect();
    let weights = read.iter().map(|&id| graph.value(id)).filter(|value| value.kind == Kind::Weight);
    weights.map(|value| value.ty.bytes()).sum()
}

/// Keys and values of all positions that there is room for.
fn cache_read(graph: &Graph) -> u64 {
    let cache = graph
        .values()
        .iter()
        .filter(|value| value.kind == Kind::State && value.ty.element == ElementType::F32);
    cache.map(|value| value.ty.bytes()).sum()
}
