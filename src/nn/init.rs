//! Initial weights, as nanotron draws them (its scaling/parametrization.py): matrices and embedding Normal(0, std), those that write
//! to the residual stream Normal(0, std / sqrt(2 layers)), norms 1.

use super::LlamaConfig;
use crate::ops::testing::normal;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Elements that share one random stream; fixed, so that weights do not depend on the number of cores.
const BLOCK: usize = 1 << 16;

/// Values of parameter `index` (its place in [`LlamaConfig::parameters`]), row-major.
pub fn weights(config: &LlamaConfig, seed: u64, index: usize, name: &str, shape: &[usize]) -> Vec<f32> {
    let mut values = vec![1.0; shape.iter().product()];
    if name.ends_with("norm.weight") {
        return values;
    }
    let residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    let shrink = if residual { (2.0 * config.num_hidden_layers as f64).sqrt() } else { 1.0 };
    let std = config.initializer_std / shrink;
    values.par_chunks_mut(BLOCK).enumerate().for_each(|(block, values)| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(((index as u64) << 32) | block as u64);
        for (value, x) in values.iter_mut().zip(normal(&mut rng, values_in(block, shape), std)) {
            *value = x as f32;
        }
    });
    values
}

fn values_in(block: usize, shape: &[usize]) -> usize {
    BLOCK.min(shape.iter().product::<usize>() - block * BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deviation(values: &[f32]) -> f64 {
        (values.iter().map(|&x| (x as f64).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn scales_follow_the_recipe() {
        let config = LlamaConfig::smollm2_135m();
        let shape = [576, 576];
        let draw = |name: &str, index| weights(&config, 8, index, name, &shape);
        let q = draw("model.layers.0.self_attn.q_proj.weight", 2);
        let o = draw("model.layers.0.self_attn.o_proj.weight", 5);
        assert!((deviation(&q) / (1.0 / 24.0) - 1.0).abs() < 0.01);
        assert!((deviation(&o) / (1.0 / 24.0 / 60f64.sqrt()) - 1.0).abs() < 0.01);
        assert!(q.iter().sum::<f32>().abs() / (q.len() as f32) < 1e-3);
        assert!(draw("model.norm.weight", 9).iter().all(|&x| x == 1.0));
        assert_eq!(q, draw("model.layers.0.self_attn.q_proj.weight", 2));
        assert_ne!(q, draw("model.layers.0.self_attn.k_proj.weight", 3));
    }
}
