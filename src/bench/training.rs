//! A training step of one sequence: forward, backward, clipping and AdamW.

use super::peaks::Peaks;
use super::roofline::{OpTime, op_times};
use super::spread::{Spread, repeat};
use super::weights::Noise;
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::graph::recompute::Policy;
use crate::nn::Architecture;
use crate::ops::adamw::Hyper;
use crate::train::engine::Engine;
use crate::train::fit::Candidate;
use crate::train::objective::{Batch, Shape};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Steps before the measured ones: two that measure each op by itself.
const WARM_UP: usize = 2;

/// Most steps that are measured.
const STEPS: usize = 5;

/// Longest time for them; two are taken in any case.
const LIMIT: Duration = Duration::from_secs(12);

/// What one sequence of `length` tokens per step runs as.
pub fn shape(length: usize) -> Shape {
    Shape { micro_batch: 1, passes: 1, length, recompute: Policy::None }
}

/// A measured training step.
#[derive(Clone, Debug, Serialize)]
pub struct Training {
    /// Tokens of a step.
    pub tokens: usize,
    /// Seconds of a step.
    pub step_s: Spread,
    /// Tokens per second.
    pub tokens_per_s: f64,
    /// Operations of a step: three times those of the forward pass, whatever is computed again.
    pub model_flops: f64,
    /// Those per second.
    pub model_flops_per_s: f64,
    /// That, over the f32 peak.
    pub share_of_peak: f64,
    /// Bytes of each slab of the memory plan.
    pub memory: Vec<(String, u64)>,
    /// Time per op of a step.
    pub ops: Vec<OpTime>,
}

/// Measures a model with random weights; `planned` is its plan for [`shape`].
///
/// # Errors
/// [`Error::Device`] if memory runs out, [`Error::Failure`] if what it computes is not finite.
pub fn measure(
    backend: &Backend,
    architecture: &Architecture,
    planned: Candidate,
    peaks: &Peaks,
) -> Result<Training> {
    let length = planned.training.shape.length;
    let memory = [planned.store.slabs(), planned.plan.slabs()].concat();
    let store = backend.store(planned.store)?;
    Noise::new().fill(&store, architecture);
    let mut engine = Engine::new(backend, planned.training, &store)?;
    let tokens: Vec<u32> = (0..=length).map(|i| (i * 7919 % architecture.vocab_size()) as u32).collect();
    let (ids, labels) = (tokens[..length].to_vec(), tokens[1..].to_vec());
    let batch = Batch { ids, labels, weights: vec![1.0; length], datasets: vec![0], ..Batch::default() };
    let hyper = Hyper { lr: 1e-5, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.01, clip: 1.0 };
    let mut t = 0;
    let mut step = || {
        t += 1;
        let begun = Instant::now();
        engine.begin_step()?;
        let nll = engine.micro_batch(&batch, 1.0 / length as f64)?;
        let norm = engine.update(&hyper, t)?;
        let (nll, norm) = (engine.fetch(nll)?, engine.fetch(norm)?);
        if nll.iter().chain(&norm).any(|x| !x.is_finite()) {
            return Err(Error::failure(
                "the training step gave a loss or gradient that is not finite: run smolter doctor",
            ));
        }
        Ok(begun.elapsed().as_secs_f64())
    };
    for _ in 0..WARM_UP {
        step()?;
    }
    let step_s = repeat(STEPS, LIMIT, step)?;

    let training = engine.training();
    let mut ops = Vec::new();
    for program in [training.micro, training.update.program] {
        ops.extend(op_times(&training.graph, program, &engine.executor().profile(program), peaks));
    }
    ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let forward =
        training.graph.nodes().iter().filter(|node| node.program == training.micro && !node.backward);
    let model_flops = 3.0 * forward.map(|node| training.graph.node_cost(node).flops).sum::<f64>();
    let model_flops_per_s = model_flops / step_s.median;
    Ok(Training {
        tokens: length,
        step_s,
        tokens_per_s: length as f64 / step_s.median,
        model_flops,
        model_flops_per_s,
        share_of_peak: model_flops_per_s / peaks.f32.best,
        memory,
        ops,
    })
}
