//! One training stage as programs of one graph on one executor: micro-batch, update, evaluation, next-token logits.

use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::graph::backend::Backend;
use crate::graph::backward::{Accumulate, backward};
use crate::graph::plan::{Plan, too_large};
use crate::graph::recompute::{Policy, recompute};
use crate::graph::{Executor, Graph, ProgramId};
use crate::nn::llama::{Llama, Tokens};
use crate::nn::{LlamaConfig, init};
use crate::ops::adamw::Hyper;
use crate::ops::embedding::Embedding;
use crate::ops::testing::order_of;
use crate::ops::{TensorType, ValueId};
use crate::optim::update::Update;

pub use crate::graph::executor::Ticket;
pub use crate::ops::testing::IGNORE;

/// Shape of a stage's work on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sequences per pass.
    pub micro_batch: usize,
    /// Passes per step.
    pub passes: usize,
    /// Tokens per sequence.
    pub length: usize,
    /// What the backward pass computes again.
    pub recompute: Policy,
}

/// The graph of a stage and the values that the host writes and reads. Plain data: no device.
pub struct StageGraph {
    /// The graph.
    pub graph: Graph,
    /// What it was built for.
    pub shape: Shape,
    /// The model.
    pub llama: Llama,
    tokens: Tokens,
    labels: ValueId,
    /// Weight of each position in the loss.
    dnll: ValueId,
    nll: ValueId,
    /// Forward and backward of one micro-batch.
    pub micro: ProgramId,
    /// The optimizer.
    pub update: Update,
    evaluate: ProgramId,
    evaluated_nll: ValueId,
    next: ProgramId,
    prompt: Tokens,
    row: ValueId,
    next_logits: ValueId,
    gradients: std::collections::HashMap<ValueId, ValueId>,
}

impl StageGraph {
    /// Builds the graph of a stage.
    pub fn new(config: &LlamaConfig, shape: Shape) -> Self {
        let mut graph = Graph::new();
        let llama = Llama::new(&mut graph, config);
        let tokens = Tokens::new(&mut graph, config, shape.micro_batch, shape.length, true);
        let rows = [shape.micro_batch * shape.length];
        let labels = graph.input("labels", TensorType::u32(&rows));
        let dnll = graph.input("loss weights", TensorType::f32(&rows));

        let micro = graph.program("micro-batch");
        let hidden = llama.hidden(&mut graph, &tokens);
        let nll = llama.nll(&mut graph, hidden, labels);
        graph.keep(nll);
        let accumulate = if shape.passes > 1 { Accumulate::Yes } else { Accumulate::No };
        let gradients = backward(&mut graph, &[(nll, dnll)], &[], accumulate);
        recompute(&mut graph, micro, shape.recompute);

        let update = Update::new(&mut graph, &gradients);

        let frozen = Tokens { order: None, ..tokens };
        let evaluate = graph.program("evaluation");
        let hidden = llama.hidden(&mut graph, &frozen);
        let evaluated_nll = llama.nll(&mut graph, hidden, labels);
        graph.keep(evaluated_nll);

        let ids = graph.input("prompt", TensorType::u32(&[shape.length]));
        let row = graph.input("last position", TensorType::u32(&[1]));
        let prompt = Tokens { batch: 1, ids, ..frozen };
        let next = graph.program("next token");
        let hidden = llama.hidden(&mut graph, &prompt);
        // Only the last position's logits: its row is gathered like an embedding.
        let last = graph.push(Embedding { trainable: false }, &[row, hidden])[0];
        let next_logits = llama.logits(&mut graph, last);
        graph.keep(next_logits);

        StageGraph {
            graph,
            shape,
            llama,
            tokens,
            labels,
            dnll,
            nll,
            micro,
            update,
            evaluate,
            evaluated_nll,
            next,
            prompt,
            row,
            next_logits,
            gradients,
        }
    }

    /// A memory plan for kernels of `caps`, or the reason why there cannot be one.
    pub fn plan(&self, caps: &Caps) -> std::result::Result<Plan, String> {
        match too_large(&self.graph) {
            None => Ok(Plan::new(&self.graph, caps)),
            Some(id) => {
                let value = self.graph.value(id);
                let mib = value.ty.bytes() >> 20;
                Err(format!("'{}' {:?} takes {mib} MiB, and a binding holds 128", value.name, value.ty))
            }
        }
    }
}

/// A stage on an executor.
pub struct Engine {
    stage: StageGraph,
    /// Floating-point operations of a step, without the optimizer's.
    pub step_flops: f64,
    executor: Box<dyn Executor>,
}

/// One micro-batch: rows of ids and their labels, sequence after sequence.
pub struct MicroBatch<'a> {
    /// Token ids [B T].
    pub ids: &'a [u32],
    /// The token that follows each, or [`IGNORE`].
    pub labels: &'a [u32],
    /// Weight of each position in the loss: 1 / (labels of the whole step).
    pub weight: f32,
}

impl Engine {
    /// Plans and allocates a stage; weights are still zero.
    ///
    /// # Errors
    /// [`Error::Input`] if no plan fits the limits of bindings, [`Error::Device`] if memory runs out.
    pub fn new(backend: &Backend, config: &LlamaConfig, shape: Shape) -> Result<Self> {
        let stage = StageGraph::new(config, shape);
        let plan = stage.plan(&backend.caps()).map_err(|why| {
            Error::input(format!("batch.micro_batch = {}: {why}; lower it", shape.micro_batch))
        })?;
        let mut executor = backend.execute(&stage.graph, plan)?;
        executor.write_f32(stage.tokens.rope, &stage.llama.rope_table(shape.length));
        let step_flops = stage.graph.cost(stage.micro).flops * shape.passes as f64;
        Ok(Engine { stage, step_flops, executor })
    }

    /// The stage's graph.
    pub fn stage(&self) -> &StageGraph {
        &self.stage
    }

    /// The executor, for measurements.
    pub fn executor(&self) -> &dyn Executor {
        &*self.executor
    }

    /// Draws the initial weights.
    pub fn initialize(&mut self, seed: u64) {
        let config = self.stage.llama.config.clone();
        for (index, (name, shape)) in config.parameters().into_iter().enumerate() {
            let values = init::weights(&config, seed, index, &name, &shape);
            self.write_weight(&name, &values);
        }
    }

    /// Writes a whole parameter, or what `of` maps its shards to.
    fn write_parameter(&mut self, name: &str, values: &[f32], of: impl Fn(&StageGraph, ValueId) -> ValueId) {
        let parameter = self.parameter(name);
        let mut rest = values;
        for shard in parameter {
            let (now, later) = rest.split_at(self.stage.graph.value(shard).ty.elements());
            self.executor.write_f32(of(&self.stage, shard), now);
            rest = later;
        }
    }

    fn parameter(&self, name: &str) -> Vec<ValueId> {
        let found = self.stage.graph.parameters().iter().find(|p| p.name == name);
        found.unwrap_or_else(|| panic!("the model has no parameter {name}")).shards.clone()
    }

    fn read_parameter(
        &mut self,
        name: &str,
        of: impl Fn(&StageGraph, ValueId) -> ValueId,
    ) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for shard in self.parameter(name) {
            values.extend(self.executor.read(of(&self.stage, shard))?);
        }
        Ok(values)
    }

    /// Writes a weight by its Hugging Face name.
    pub fn write_weight(&mut self, name: &str, values: &[f32]) {
        self.write_parameter(name, values, |_, shard| shard);
    }

    /// Reads a weight.
    pub fn read_weight(&mut self, name: &str) -> Result<Vec<f32>> {
        self.read_parameter(name, |_, shard| shard)
    }

    /// Writes moment 0 (`exp_avg`) or 1 (`exp_avg_sq`) of a parameter.
    pub fn write_moment(&mut self, name: &str, which: usize, values: &[f32]) {
        self.write_parameter(name, values, |stage, shard| stage.update.moments[&shard][which]);
    }

    /// Reads a moment.
    pub fn read_moment(&mut self, name: &str, which: usize) -> Result<Vec<f32>> {
        self.read_parameter(name, |stage, shard| stage.update.moments[&shard][which])
    }

    /// Reads a parameter's gradient as the last step left it.
    pub fn read_gradient(&mut self, name: &str) -> Result<Vec<f32>> {
        self.read_parameter(name, |stage, shard| stage.gradients[&shard])
    }

    /// Starts a step: gradients of several passes are summed from zero.
    pub fn begin_step(&mut self) -> Result<()> {
        if self.stage.shape.passes > 1 { self.executor.run(self.stage.update.zero) } else { Ok(()) }
    }

    /// Forward and backward of one micro-batch. The ticket brings its nll per position.
    pub fn micro_batch(&mut self, batch: &MicroBatch) -> Result<Ticket> {
        let weights: Vec<f32> =
            batch.labels.iter().map(|&label| if label == IGNORE { 0.0 } else { batch.weight }).collect();
        let order = self.stage.tokens.order.expect("training graphs sort their tokens");
        self.executor.write_u32(self.stage.tokens.ids, batch.ids);
        self.executor.write_u32(order, &order_of(batch.ids));
        self.executor.write_u32(self.stage.labels, batch.labels);
        self.executor.write_f32(self.stage.dnll, &weights);
        self.executor.run(self.stage.micro)?;
        self.executor.read_later(self.stage.nll)
    }

    /// Clips and applies the gradients at step `t`, counted from 1. The ticket brings their norm before clipping.
    pub fn update(&mut self, hyper: &Hyper, t: u64) -> Result<Ticket> {
        self.executor.write_f32(self.stage.update.hyper, &hyper.at_step(t));
        self.executor.run(self.stage.update.program)?;
        self.executor.read_later(self.stage.update.norm)
    }

    /// Waits for a result.
    pub fn fetch(&mut self, ticket: Ticket) -> Result<Vec<f32>> {
        self.executor.fetch(ticket)
    }

    /// Nll per position of a micro-batch, without gradients.
    pub fn evaluate(&mut self, ids: &[u32], labels: &[u32]) -> Result<Vec<f32>> {
        self.executor.write_u32(self.stage.tokens.ids, ids);
        self.executor.write_u32(self.stage.labels, labels);
        self.executor.run(self.stage.evaluate)?;
        self.executor.read(self.stage.evaluated_nll)
    }

    /// Logits [V] of the token after `prompt`, which must not exceed the stage's length.
    pub fn next_logits(&mut self, prompt: &[u32]) -> Result<Vec<f32>> {
        assert!(
            !prompt.is_empty() && prompt.len() <= self.stage.shape.length,
            "prompt of {} tokens",
            prompt.len()
        );
        let mut ids = prompt.to_vec();
        ids.resize(self.stage.shape.length, 0); // later positions cannot be seen from earlier ones
        self.executor.write_u32(self.stage.prompt.ids, &ids);
        self.executor.write_u32(self.stage.row, &[prompt.len() as u32 - 1]);
        self.executor.run(self.stage.next)?;
        self.executor.read(self.stage.next_logits) // one row: shard after shard is class after class
    }
}
