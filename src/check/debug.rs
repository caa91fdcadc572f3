//! What `smolter debug` computes: one batch through a model from disk, for comparison with other programs.

use crate::checkpoint::safetensors::write;
use crate::checkpoint::{Dtype, TensorFile};
use crate::error::{Error, Result};
use crate::graph::plan::too_large;
use crate::graph::recompute::Policy;
use crate::graph::{Backend, Store};
use crate::infer;
use crate::infer::scorer::{Bucket, Output, Scorer, ScorerGraph};
use crate::model::ModelFolder;
use crate::ops::adamw::Hyper;
use crate::ops::host::IGNORE;
use crate::train::engine::{Engine, TrainGraph};
use crate::train::objective::{Batch, Shape};
use crate::train::pretrain;
use std::path::Path;
use std::sync::Arc;

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
pub(super) struct Rows {
    pub batch: usize,
    pub length: usize,
    pub values: Vec<u32>,
}

/// Reads the tensor `name` of `input`, whose values are below `vocab`, or -100 where `ignored` says so.
pub(super) fn read_rows(input: &Path, name: &str, vocab: usize, ignored: bool) -> Result<Rows> {
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

/// Runs `job` for the model folder `model` on the tensors of `input` and writes `out`. An adapter is not merged: with
/// one, gradients are its own, and only it is changed.
///
/// # Errors
/// [`Error::Input`] or [`Error::Damaged`] naming the file and the tensor, [`Error::Device`] from the backend.
pub fn run(backend: &Backend, model: &ModelFolder, input: &Path, out: &Path, job: Job) -> Result<()> {
    let vocab = model.architecture.vocab_size();
    let ids = read_rows(input, "input_ids", vocab, false)?;
    match job {
        Job::Forward => {
            let shape = vec![ids.batch, ids.length, vocab];
            let logits = forward(backend, model, &ids)?;
            write(out, Dtype::F32, &[("logits".to_string(), shape)], |_| Ok(logits.clone()))
        }
        Job::Backward => {
            let mut training = Training::load(backend, model, input, ids)?;
            let loss = training.pass()?;
            let mut tensors = vec![("loss".to_string(), Vec::new())];
            tensors.extend(model.adapted().trained_shapes());
            write(out, Dtype::F32, &tensors, |name| {
                if name == "loss" { Ok(vec![loss as f32]) } else { training.engine.read_gradient(name) }
            })
        }
        Job::Step { steps, hyper } => {
            let mut training = Training::load(backend, model, input, ids)?;
            for t in 1..=steps {
                training.pass()?;
                let norm = training.engine.update(&hyper, t)?;
                training.engine.fetch(norm)?;
            }
            write(out, Dtype::F32, &model.adapted().trained_shapes(), |name| training.store.read(name))
        }
    }
}

/// One batch in training.
struct Training {
    engine: Engine,
    store: Arc<Store>,
    batch: Batch,
    /// Labels that count.
    count: usize,
}

impl Training {
    /// The model on the backend, and the labels of `input` shifted so that each position has the token after it.
    fn load(backend: &Backend, model: &ModelFolder, input: &Path, ids: Rows) -> Result<Self> {
        let labels = read_rows(input, "labels", model.architecture.vocab_size(), true)?;
        if (labels.batch, labels.length) != (ids.batch, ids.length) {
            return Err(Error::input(format!("{}: labels and input_ids differ in shape", input.display())));
        }
        let shifted: Vec<u32> = labels
            .values
            .chunks(labels.length)
            .flat_map(|row| row[1..].iter().copied().chain([IGNORE]))
            .collect();
        let weights: Vec<f32> =
            shifted.iter().map(|&label| if label == IGNORE { 0.0 } else { 1.0 }).collect();
        let count = weights.iter().filter(|&&weight| weight > 0.0).count();
        if count == 0 {
            return Err(Error::input(format!("{}: labels: none is left after the shift", input.display())));
        }
        let shape = Shape { micro_batch: ids.batch, passes: 1, length: ids.length, recompute: Policy::None };
        let graph = TrainGraph::new(&model.adapted(), pretrain::add_loss, shape);
        let store = infer::load_unmerged(backend, model, &[&graph.graph])?;
        let engine = Engine::new(backend, graph, &store)?;
        let batch = Batch {
            ids: ids.values,
            labels: shifted,
            weights,
            datasets: vec![0; ids.batch],
            ..Batch::default()
        };
        Ok(Training { engine, store, batch, count })
    }

    /// Forward and backward; returns the mean loss.
    fn pass(&mut self) -> Result<f64> {
        let ticket = self.engine.micro_batch(&self.batch, 1.0 / self.count as f64)?;
        let nll = self.engine.fetch(ticket)?;
        Ok(nll.iter().map(|&x| x as f64).sum::<f64>() / self.count as f64)
    }
}

/// Logits [B, T, V].
fn forward(backend: &Backend, model: &ModelFolder, ids: &Rows) -> Result<Vec<f32>> {
    let bucket = Bucket { length: ids.length, rows: ids.batch };
    let graph = ScorerGraph::new(&model.adapted(), &[bucket], Output::Logits);
    if too_large(&graph.graph).is_some() {
        return Err(Error::input(format!(
            "input_ids [{}, {}]: the logits exceed a 128 MiB binding; give fewer tokens",
            ids.batch, ids.length
        )));
    }
    let store = infer::load_unmerged(backend, model, &[&graph.graph])?;
    Scorer::new(backend, graph, &store)?.logits(&ids.values)
}
