//! What `smolter debug preference` computes: the loss of pairs of sequences, with all gradients, for comparison with other
//! programs.

use super::debug::{Rows, read_rows};
use crate::checkpoint::Dtype;
use crate::checkpoint::safetensors::write;
use crate::error::{Error, Result};
use crate::graph::recompute::Policy;
use crate::graph::{Backend, Graph, Plan, StorePlan};
use crate::infer;
use crate::model::ModelFolder;
use crate::ops::TensorType;
use crate::ops::host::IGNORE;
use crate::ops::preference_loss::PreferenceLoss;
use crate::train::dpo;
use crate::train::engine::{Engine, TrainGraph};
use crate::train::objective::{Batch, Shape};
use std::path::Path;

/// Pairs of sequences: rows of one length, chosen and rejected in turn.
struct Input {
    pairs: usize,
    length: usize,
    ids: Vec<u32>,
    /// Shifted: each position has the token after it.
    labels: Vec<u32>,
    /// Judged tokens of each row.
    counts: Vec<u32>,
}

impl Input {
    /// Reads `chosen_input_ids`, `chosen_labels`, `rejected_input_ids` and `rejected_labels` for models of `vocab` tokens.
    /// Where one side is shorter it is padded behind, which causal attention does not see.
    fn read(path: &Path, vocab: usize) -> Result<Input> {
        let side = |name: &str| -> Result<[Rows; 2]> {
            let ids = read_rows(path, &format!("{name}_input_ids"), vocab, false)?;
            let labels = read_rows(path, &format!("{name}_labels"), vocab, true)?;
            if (labels.batch, labels.length) != (ids.batch, ids.length) {
                return Err(Error::input(format!(
                    "{}: {name}_labels and {name}_input_ids differ in shape",
                    path.display()
                )));
            }
            Ok([ids, labels])
        };
        let sides = [side("chosen")?, side("rejected")?];
        let [[chosen, _], [rejected, _]] = &sides;
        if chosen.batch != rejected.batch {
            return Err(Error::input(format!(
                "{}: chosen_input_ids has {} rows and rejected_input_ids {}: give a row each per pair",
                path.display(),
                chosen.batch,
                rejected.batch
            )));
        }
        let (pairs, length) = (chosen.batch, chosen.length.max(rejected.length));
        let mut input = Input { pairs, length, ids: Vec::new(), labels: Vec::new(), counts: Vec::new() };
        for pair in 0..pairs {
            for ([ids, labels], name) in sides.iter().zip(["chosen", "rejected"]) {
                let padding = length - ids.length;
                let row = |rows: &Rows| rows.values[pair * rows.length..][..rows.length].to_vec();
                let (ids, labels) = (row(ids), row(labels)[1..].to_vec());
                let count = labels.iter().filter(|&&label| label != IGNORE).count();
                if count == 0 {
                    return Err(Error::input(format!(
                        "{}: {name}_labels: row {pair} has none left after the shift",
                        path.display()
                    )));
                }
                input.counts.push(count as u32);
                input.ids.extend(ids.into_iter().chain(std::iter::repeat_n(0, padding)));
                input.labels.extend(labels.into_iter().chain(std::iter::repeat_n(IGNORE, padding + 1)));
            }
        }
        Ok(input)
    }

    fn rows(&self) -> usize {
        2 * self.pairs
    }

    fn ranges(&self) -> Vec<[u32; 2]> {
        (0..self.rows()).map(|row| [row, row + 1].map(|row| (row * self.length) as u32)).collect()
    }

    /// Log-probability of each row under `model`.
    fn log_probs(&self, backend: &Backend, model: &ModelFolder) -> Result<Vec<f64>> {
        let mut graph = Graph::new();
        let decoder = model.architecture.decoder(&mut graph);
        let tokens = decoder.tokens(&mut graph, self.rows(), self.length, false);
        let labels = graph.input("labels", TensorType::u32(&[self.labels.len()]));
        let program = graph.program("log-probabilities");
        let hidden = decoder.hidden(&mut graph, &tokens);
        let nll = decoder.nll(&mut graph, hidden, labels);
        let (ranges, log_probs) = dpo::add_log_probs(&mut graph, nll, self.rows());
        graph.keep(log_probs);
        let store = infer::load(backend, model, &[&graph])?;
        let plan = Plan::checked(&graph, &backend.caps(), store.plan()).map_err(|why| self.too_many(&why))?;
        let mut executor = backend.execute(&graph, plan, &store)?;
        executor.write(tokens.rope, (&decoder.rope_table(self.length)).into());
        executor.write(tokens.ids, (&self.ids).into());
        executor.write(labels, (&self.labels).into());
        executor.write(ranges, self.ranges().as_flattened().into());
        executor.run(program)?;
        Ok(executor.read_f64(log_probs)?.chunks(2).map(|parts| parts.iter().sum()).collect())
    }

    fn too_many(&self, why: &str) -> Error {
        Error::input(format!("{} pairs of {} tokens: {why}; give fewer", self.pairs, self.length))
    }
}

/// Writes the loss of the pairs in `input` under the model folder `model`, with the log-probabilities and rewards behind
/// it, and the gradient of every parameter, to `out`. `reference`: the frozen model, where the loss has one.
///
/// # Errors
/// [`Error::Input`] or [`Error::Damaged`] naming the file and the tensor, [`Error::Device`] from the backend.
pub fn run(
    backend: &Backend,
    model: &Path,
    reference: Option<&Path>,
    input: &Path,
    out: &Path,
    loss: &PreferenceLoss,
) -> Result<()> {
    assert_eq!(reference.is_some(), loss.variant.has_reference(), "a reference where the loss has one");
    let model = ModelFolder::open(model)?;
    let frozen = reference.map(ModelFolder::open).transpose()?;
    let vocab = frozen.iter().chain([&model]).map(|model| model.architecture.vocab_size()).min();
    let input = Input::read(input, vocab.expect("there is a model"))?;
    let reference = frozen.map(|frozen| input.log_probs(backend, &frozen)).transpose()?;

    let shape = Shape { micro_batch: input.rows(), passes: 1, length: input.length, recompute: Policy::None };
    let add_loss = |graph: &mut Graph, decoder: &_, shape| {
        dpo::add_loss(graph, decoder, shape, loss, input.pairs, false)
    };
    let training = TrainGraph::new(&model.architecture, add_loss, shape);
    let placed = StorePlan::new(&[&training.graph], &backend.caps());
    Plan::checked(&training.graph, &backend.caps(), &placed).map_err(|why| input.too_many(&why))?;
    let store = infer::load(backend, &model, &[&training.graph])?;
    let mut engine = Engine::new(backend, training, &store)?;
    let batch = Batch {
        ids: input.ids.clone(),
        labels: input.labels.clone(),
        weights: vec![1.0; input.pairs],
        datasets: vec![0; input.rows()],
        ranges: input.ranges(),
        reference: reference.clone().unwrap_or_default(),
        ..Batch::default()
    };
    let ticket = engine.micro_batch(&batch, 1.0 / input.pairs as f64)?;
    engine.fetch(ticket)?;
    let (losses, log_probs) = engine.read_pairs()?;

    let rewards: Vec<f64> = (0..input.rows())
        .map(|row| {
            let reference = reference.as_ref().map_or(0.0, |reference| reference[row]);
            loss.reward(log_probs[row], reference, input.counts[row])
        })
        .collect();
    let side = |of: &[f64], side: usize| of.iter().skip(side).step_by(2).map(|&x| x as f32).collect();
    let mut values: Vec<(String, Vec<f32>)> = Vec::new();
    for (i, name) in ["chosen", "rejected"].into_iter().enumerate() {
        values.push((format!("{name}_logps"), side(&log_probs, i)));
        values.push((format!("{name}_rewards"), side(&rewards, i)));
        values.extend(reference.iter().map(|it| (format!("reference_{name}_logps"), side(it, i))));
    }
    let mean = losses.iter().sum::<f64>() / input.pairs as f64;
    let mut tensors: Vec<(String, Vec<usize>)> = vec![("loss".into(), Vec::new())];
    tensors.extend(values.iter().map(|(name, _)| (name.clone(), vec![input.pairs])));
    tensors.extend(model.architecture.shapes());
    write(out, Dtype::F32, &tensors, |name| match values.iter().find(|(it, _)| it == name) {
        _ if name == "loss" => Ok(vec![mean as f32]),
        Some((_, values)) => Ok(values.clone()),
        None => engine.read_gradient(name),
    })
}
