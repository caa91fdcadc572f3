//! Finite differences of a whole model: the gradients of adapters on frozen weights, as the references compute them.

use crate::error::Result;
use crate::graph::backward::{Accumulate, backward};
use crate::graph::recompute::Policy;
use crate::graph::reference::ReferenceExecutor;
use crate::graph::{Executor, Graph, Kind};
use crate::nn::{Architecture, LlamaConfig, Lora};
use crate::ops::random::normal;
use crate::ops::{Data, ValueId};
use crate::train::objective::Shape;
use crate::train::pretrain;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Distance of the losses whose difference is taken.
const STEP: f64 = 1e-4;

/// Elements of each tensor that are looked at.
const SAMPLES: usize = 3;

/// Adapters on every linear layer of a small model.
fn model() -> Architecture {
    let config = LlamaConfig {
        vocab_size: 31,
        hidden_size: 12,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 6,
        max_position_embeddings: 16,
        ..LlamaConfig::smollm2_135m()
    };
    let lora = Lora { rank: 3, alpha: Some(2.0), ..Lora::default() };
    Architecture::from(config).with_lora(Some(lora))
}

/// Largest difference between the adapters' gradients and central differences of the loss, relative to the largest
/// gradient of a tensor.
///
/// # Errors
/// None that the reference executor has.
pub fn adapters() -> Result<f64> {
    let architecture = model();
    let mut graph = Graph::new();
    let decoder = architecture.decoder(&mut graph);
    let program = graph.program("micro-batch");
    let shape = Shape { micro_batch: 2, passes: 1, length: 7, recompute: Policy::None };
    let loss = pretrain::add_loss(&mut graph, &decoder, shape);
    graph.keep(loss.nll);
    let gradients = backward(&mut graph, &loss.seeds, &[], Accumulate::No);
    let parameters: Vec<(ValueId, usize)> =
        graph.parameters().iter().map(|it| (it.whole(), it.spec.shape.len())).collect();

    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut contents: Vec<(ValueId, Vec<f64>)> = Vec::new();
    for (id, dimensions) in parameters {
        // In a store weights are f32, beside which no small step shows.
        graph.set_kind(id, Kind::Input);
        let center = if dimensions == 1 { 1.0 } else { 0.0 };
        let values = normal(&mut rng, graph.value(id).ty.elements(), 0.3);
        contents.push((id, values.into_iter().map(|x| center + x).collect()));
    }
    let mut oracle = ReferenceExecutor::<f64>::alone(graph);
    let rows = shape.micro_batch * shape.length;
    let mut tokens = || (0..rows).map(|_| rng.random_range(0..31)).collect::<Vec<u32>>();
    oracle.set(loss.tokens.ids, Data::Index(tokens()));
    oracle.set(loss.labels, Data::Index(tokens()));
    oracle.set(loss.weights, Data::Float(vec![1.0; rows]));
    let table = decoder.rope_table(shape.length);
    oracle.set(loss.tokens.rope, Data::Float(table.into_iter().map(f64::from).collect()));
    for (id, values) in &contents {
        oracle.set(*id, Data::Float(values.clone()));
    }
    oracle.run(program)?;
    let found: Vec<(ValueId, Vec<f64>)> =
        gradients.iter().map(|(&id, &gradient)| (id, oracle.contents(gradient).floats().to_vec())).collect();
    assert_eq!(found.len(), architecture.trained_shapes().len(), "only adapters have gradients");

    let mut worst = 0.0f64;
    for (id, gradient) in found {
        let values = &contents.iter().find(|(it, _)| *it == id).expect("a parameter").1;
        let scale = gradient.iter().fold(1e-3f64, |most, &x| most.max(x.abs()));
        for element in (0..gradient.len()).step_by(gradient.len().div_ceil(SAMPLES)) {
            let mut loss_at = |step: f64| -> Result<f64> {
                let mut changed = values.clone();
                changed[element] += step;
                oracle.set(id, Data::Float(changed));
                oracle.run(program)?;
                Ok(oracle.contents(loss.nll).floats().iter().sum())
            };
            let difference = (loss_at(STEP)? - loss_at(-STEP)?) / (2.0 * STEP);
            worst = worst.max((difference - gradient[element]).abs() / scale);
        }
        oracle.set(id, Data::Float(values.clone()));
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    #[test]
    fn gradients_of_adapters_agree_with_finite_differences() {
        let error = super::adapters().unwrap();
        assert!(error < 1e-5, "off by {error:e}");
    }
}
