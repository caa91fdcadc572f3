//! What `smolter debug` computes: one batch through a model from disk, for comparison with other programs.

use super::engine::{Engine, IGNORE, MicroBatch, Shape};
use crate::checkpoint::safetensors::write;
use crate::checkpoint::{Dtype, TensorFile};
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::graph::Graph;
use crate::graph::plan::{Plan, too_large};
use crate::graph::recompute::Policy;
use crate::model::ModelFolder;
use crate::nn::llama::Tokens;
use crate::nn::{Llama, LlamaConfig};
use crate::ops::adamw::Hyper;
use crate::ops::logits::rows_of;
use std::path::Path;

/// What to compute.
#[derive(Clone, Copy, Debug)]
pub enum Job {
    /// `logits` [B, T, V].
    Forward,
    /// `loss` and gradients.
    Backward,
    /// Weights after AdamW steps.
    Step {
        /// How many.
        steps: u64,
        /// The optimizer's scalars.
        hyper: Hyper,
    },
}

/// Token ids or labels [B, T] from a file.
struct Rows {
    batch: usize,
    length: usize,
    values: Vec<u32>,
}

fn read_rows(input: &Path, name: &str, vocab: usize, ignored: bool) -> Result<Rows> {
    let file = TensorFile::open(input)?;
    let (shape, values) = file.read_i64(name)?;
    let wrong = |what: String| Error::input(format!("{}: {name}: {what}", input.display()));
    let &[batch, length] = shape.as_slice() else {
        return Err(wrong(format!("shape {shape:?}, expected [B, T]")));
    };
    if values.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    let convert = |&value: &i64| match u32::try_from(value) {
        Ok(id) if (id as usize) < vocab => Ok(id),
        _ if ignored && value == -100 => Ok(IGNORE),
        _ => Err(wrong(format!("{value} is not a token of the model, whose vocabulary has {vocab}"))),
    };
    let values = values.iter().map(convert).collect::<Result<Vec<u32>>>()?;
    Ok(Rows { batch, length, values })
}

/// Runs `job` for the model folder `model` on the tensors of `input` and writes `out`.
///
/// # Errors
/// [`Error::Input`] or [`Error::Damaged`] naming the file and the tensor, [`Error::Device`] from the backend.
pub fn run(backend: &Backend, model: &Path, input: &Path, out: &Path, job: Job) -> Result<()> {
    let ModelFolder { config, tensors: weights, .. } = ModelFolder::open(model)?;
    let ids = read_rows(input, "input_ids", config.vocab_size, false)?;
    match job {
        Job::Forward => forward(backend, &config, &weights, &ids, out),
        Job::Backward => {
            let (mut engine, labels) = load(backend, &config, &weights, input, &ids)?;
            let loss = pass(&mut engine, &ids, &labels)?;
            let mut tensors = vec![("loss".to_string(), Vec::new())];
            tensors.extend(config.parameters());
            write(out, Dtype::F32, &tensors, |name| {
                if name == "loss" { Ok(vec![loss as f32]) } else { engine.read_gradient(name) }
            })
        }
        Job::Step { steps, hyper } => {
            let (mut engine, labels) = load(backend, &config, &weights, input, &ids)?;
            for t in 1..=steps {
                pass(&mut engine, &ids, &labels)?;
                let norm = engine.update(&hyper, t)?;
                engine.fetch(norm)?;
            }
            write(out, Dtype::F32, &config.parameters(), |name| engine.read_weight(name))
        }
    }
}

/// The model on the backend, and the labels of `input` shifted so that each position has the token after it.
fn load(
    backend: &Backend,
    config: &LlamaConfig,
    weights: &TensorFile,
    input: &Path,
    ids: &Rows,
) -> Result<(Engine, Vec<u32>)> {
    let labels = read_rows(input, "labels", config.vocab_size, true)?;
    if (labels.batch, labels.length) != (ids.batch, ids.length) {
        return Err(Error::input(format!("{}: labels and input_ids differ in shape", input.display())));
    }
    let shifted: Vec<u32> = labels
        .values
        .chunks(labels.length)
        .flat_map(|row| row[1..].iter().copied().chain([IGNORE]))
        .collect();
    if shifted.iter().all(|&label| label == IGNORE) {
        return Err(Error::input(format!("{}: labels: none is left after the shift", input.display())));
    }
    let shape = Shape { micro_batch: ids.batch, passes: 1, length: ids.length, recompute: Policy::None };
    let mut engine = Engine::new(backend, config, shape)?;
    for (name, shape) in config.parameters() {
        engine.write_weight(&name, &weights.read_f32(&name, &shape)?);
    }
    Ok((engine, shifted))
}

/// Forward and backward; returns the mean loss.
fn pass(engine: &mut Engine, ids: &Rows, labels: &[u32]) -> Result<f64> {
    let count = labels.iter().filter(|&&label| label != IGNORE).count();
    let weight = (1.0 / count as f64) as f32;
    let ticket = engine.micro_batch(&MicroBatch { ids: &ids.values, labels, weight })?;
    let nll = engine.fetch(ticket)?;
    Ok(nll.iter().map(|&x| x as f64).sum::<f64>() / count as f64)
}

fn forward(
    backend: &Backend,
    config: &LlamaConfig,
    weights: &TensorFile,
    ids: &Rows,
    out: &Path,
) -> Result<()> {
    let mut graph = Graph::new();
    let llama = Llama::new(&mut graph, config);
    let tokens = Tokens::new(&mut graph, config, ids.batch, ids.length, false);
    let program = graph.program("forward");
    let hidden = llama.hidden(&mut graph, &tokens);
    let logits = llama.logits(&mut graph, hidden);
    graph.keep(logits);
    if too_large(&graph).is_some() {
        return Err(Error::input(format!(
            "input_ids [{}, {}]: the logits exceed a 128 MiB binding; give fewer tokens",
            ids.batch, ids.length
        )));
    }
    let plan = Plan::new(&graph, &backend.caps());
    let mut executor = backend.execute(&graph, plan)?;
    for parameter in graph.parameters() {
        let values = weights.read_f32(&parameter.name, &parameter.shape)?;
        let mut rest = values.as_slice();
        for &shard in &parameter.shards {
            let (now, later) = rest.split_at(graph.value(shard).ty.elements());
            executor.write_f32(shard, now);
            rest = later;
        }
    }
    executor.write_f32(tokens.rope, &llama.rope_table(ids.length));
    executor.write_u32(tokens.ids, &ids.values);
    executor.run(program)?;
    let values = rows_of(&executor.read(logits)?, ids.batch * ids.length, llama.logits_shard(&graph));
    let shape = vec![ids.batch, ids.length, config.vocab_size];
    write(out, Dtype::F32, &[("logits".to_string(), shape)], |_| Ok(values.clone()))
}
