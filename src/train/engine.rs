//! One training stage as programs of one graph on one executor: a micro-batch, the update. Weights and optimizer state are
//! a store's, which outlives the stage.

use super::objective::{Batch, Loss, Shape};
use crate::error::{Error, Result};
use crate::graph::backend::Backend;
use crate::graph::backward::{Accumulate, backward};
use crate::graph::recompute::recompute;
use crate::graph::{Executor, Graph, Plan, ProgramId, Store, StorePlan};
use crate::nn::{Architecture, Llama, init};
use crate::ops::adamw::Hyper;
use crate::ops::host::{IGNORE, order_of};
use crate::ops::log_prob::parts;
use crate::ops::{HostTensor, ValueId};
use crate::optim::update::Update;
use std::collections::HashMap;
use std::sync::Arc;

pub use crate::graph::executor::Ticket;

/// The graph of a stage and the values that the host writes and reads. Plain data: no device.
pub struct TrainGraph {
    /// The graph.
    pub graph: Graph,
    /// What it was built for.
    pub shape: Shape,
    /// Forward and backward of one micro-batch.
    pub micro: ProgramId,
    /// The optimizer.
    pub update: Update,
    loss: Loss,
    /// Contents of the rotary table.
    rope: Vec<f32>,
    gradients: HashMap<ValueId, ValueId>,
}

impl TrainGraph {
    /// Builds the graph of a stage whose loss is `add_loss`.
    pub fn new(
        architecture: &Architecture,
        add_loss: impl FnOnce(&mut Graph, &Llama, Shape) -> Loss,
        shape: Shape,
    ) -> Self {
        let mut graph = Graph::new();
        let model = architecture.decoder(&mut graph);
        let micro = graph.program("micro-batch");
        let loss = add_loss(&mut graph, &model, shape);
        let read = loss.pairs.map_or(vec![loss.nll], |pairs| vec![pairs.log_probs, pairs.losses]);
        read.into_iter().for_each(|value| graph.keep(value));
        let accumulate = if shape.passes > 1 { Accumulate::Yes } else { Accumulate::No };
        let gradients = backward(&mut graph, &loss.seeds, &[], accumulate);
        recompute(&mut graph, micro, shape.recompute);
        let update = Update::new(&mut graph, &gradients);
        TrainGraph { graph, shape, micro, update, loss, rope: model.rope_table(shape.length), gradients }
    }

    /// Floating-point operations of a pass.
    pub fn pass_flops(&self) -> f64 {
        self.graph.cost(self.micro).flops
    }

    /// Floating-point operations of a step of all passes, without the optimizer's.
    pub fn step_flops(&self) -> f64 {
        self.pass_flops() * self.shape.passes as f64
    }
}

/// Draws the initial weights, adapters included.
pub fn initialize(store: &Store, architecture: &Architecture, seed: u64) {
    initialize_from(0, store, architecture, seed);
}

/// Draws the adapters as they begin, if there are any.
pub fn initialize_adapters(store: &Store, architecture: &Architecture, seed: u64) {
    initialize_from(architecture.shapes().len(), store, architecture, seed);
}

fn initialize_from(first: usize, store: &Store, architecture: &Architecture, seed: u64) {
    for (index, spec) in architecture.parameters().iter().enumerate().skip(first) {
        store.write(&spec.name, &init::weights(spec, seed, index));
    }
}

/// A stage on an executor.
pub struct Engine {
    training: TrainGraph,
    executor: Box<dyn Executor>,
}

impl Engine {
    /// Plans and allocates a stage whose weights are in `store`.
    ///
    /// # Errors
    /// [`Error::Input`] if no plan fits the limits of bindings, [`Error::Device`] if memory runs out.
    pub fn new(backend: &Backend, training: TrainGraph, store: &Arc<Store>) -> Result<Self> {
        let plan = Plan::checked(&training.graph, &backend.caps(), store.plan()).map_err(|why| {
            Error::input(format!("batch.micro_batch = {}: {why}; lower it", training.shape.micro_batch))
        })?;
        let mut executor = backend.execute(&training.graph, plan, store)?;
        executor.write(training.loss.tokens.rope, (&training.rope).into());
        Ok(Engine { training, executor })
    }

    /// A stage alone with a store of its own, whose weights are still zero.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn alone(backend: &Backend, training: TrainGraph) -> Result<(Self, Arc<Store>)> {
        let store = backend.store(StorePlan::new(&[&training.graph], &backend.caps()))?;
        Ok((Self::new(backend, training, &store)?, store))
    }

    /// The stage's graph.
    pub fn training(&self) -> &TrainGraph {
        &self.training
    }

    /// The executor, for measurements.
    pub fn executor(&self) -> &dyn Executor {
        &*self.executor
    }

    /// Reads a parameter's gradient as the last step left it.
    pub fn read_gradient(&mut self, name: &str) -> Result<Vec<f32>> {
        let parameter = self.training.graph.parameters().iter().find(|parameter| parameter.spec.name == name);
        let mut values = Vec::new();
        for shard in &parameter.unwrap_or_else(|| panic!("the model has no parameter {name}")).shards {
            values.extend(self.executor.read(self.training.gradients[shard])?.into_f32());
        }
        Ok(values)
    }

    /// Losses of the pairs of the last pass, and the log-probabilities of their sequences, also of those that are empty.
    ///
    /// # Panics
    /// If the loss is not of pairs.
    pub fn read_pairs(&mut self) -> Result<(Vec<f64>, Vec<f64>)> {
        let pairs = self.training.loss.pairs.expect("the loss is of pairs");
        let log_probs = self.executor.read_f64(pairs.log_probs)?;
        let log_probs = log_probs.chunks(2).map(|parts| parts.iter().sum()).collect();
        Ok((self.executor.read_f64(pairs.losses)?, log_probs))
    }

    /// Starts a step: gradients of several passes are summed from zero.
    pub fn begin_step(&mut self) -> Result<()> {
        if self.training.shape.passes > 1 { self.executor.run(self.training.update.zero) } else { Ok(()) }
    }

    /// Forward and backward of one micro-batch, whose weights count as they are, times `scale`. The ticket brings its
    /// nll per position, or the loss per pair.
    ///
    /// # Panics
    /// If a position counts whose label is ignored: means would be too small.
    pub fn micro_batch(&mut self, batch: &Batch, scale: f64) -> Result<Ticket> {
        let mut weights: Vec<f32> =
            batch.weights.iter().map(|&weight| (weight as f64 * scale) as f32).collect();
        let loss = &self.training.loss;
        if let Some(pairs) = loss.pairs {
            // Where there are fewer pairs than there is room for, the others are empty and count for nothing.
            let room = self.training.graph.value(pairs.losses).ty.elements();
            let (mut ranges, mut judged) = (batch.ranges.clone(), batch.judged());
            ranges.resize(2 * room, [0, 0]);
            judged.resize(2 * room, 0);
            weights.resize(room, 0.0);
            self.executor.write(pairs.ranges, ranges.as_flattened().into());
            self.executor.write(pairs.counts, (&judged).into());
            if let Some(reference) = pairs.reference {
                let mut split: Vec<f64> = batch.reference.iter().flat_map(|&logp| parts(logp)).collect();
                split.resize(4 * room, 0.0);
                self.executor.write_f64(reference, &split);
            }
        } else {
            let mut positions = batch.weights.iter().zip(&batch.labels);
            let sound = positions.all(|(&weight, &label)| weight == 0.0 || label != IGNORE);
            assert!(sound, "a position counts whose label is ignored");
        }
        self.executor.write(loss.tokens.ids, (&batch.ids).into());
        if let Some(order) = loss.tokens.order {
            self.executor.write(order, (&order_of(&batch.ids)).into());
        }
        if let Some(segments) = loss.tokens.segments {
            let length = self.training.shape.length;
            let positions: Vec<u32> =
                batch.starts.iter().enumerate().map(|(n, &start)| (n % length) as u32 - start).collect();
            self.executor.write(segments.starts, (&batch.starts).into());
            self.executor.write(segments.positions, (&positions).into());
        }
        self.executor.write(loss.labels, (&batch.labels).into());
        self.executor.write(loss.weights, (&weights).into());
        self.executor.run(self.training.micro)?;
        self.executor.read_later(loss.pairs.map_or(loss.nll, |pairs| pairs.losses))
    }

    /// Asks for the log-probabilities of the pairs of the pass that was handed over last, in two parts each
    /// ([`log_prob`](crate::ops::log_prob)); none where the loss is not of pairs.
    pub fn log_probs_later(&mut self) -> Result<Option<Ticket>> {
        self.training.loss.pairs.map(|pairs| self.executor.read_later(pairs.log_probs)).transpose()
    }

    /// Clips and applies the gradients at step `t`, counted from 1. The ticket brings their norm before clipping; where
    /// that is not finite, the device has changed nothing.
    pub fn update(&mut self, hyper: &Hyper, t: u64) -> Result<Ticket> {
        self.executor.write(self.training.update.hyper, HostTensor::from(hyper.at_step(t).as_slice()));
        self.executor.run(self.training.update.program)?;
        self.executor.read_later(self.training.update.norm)
    }

    /// Whether a result is known to be there; does not wait.
    pub fn is_done(&self, ticket: &Ticket) -> bool {
        self.executor.is_done(ticket)
    }

    /// Waits for a result.
    pub fn fetch(&mut self, ticket: Ticket) -> Result<Vec<f32>> {
        Ok(self.executor.fetch(ticket)?.into_f32())
    }
}
