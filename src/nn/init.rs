//! Initial weights, drawn as each parameter says.

use crate::graph::{Initial, ParameterSpec};
use crate::ops::random::{normal, uniform};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Elements that share one random stream; fixed, so that weights do not depend on the number of cores.
const BLOCK: usize = 1 << 16;

/// Draws so many numbers of a size.
type Draw = fn(&mut ChaCha8Rng, usize, f64) -> Vec<f64>;

/// First values of the `index`th parameter of a model, row-major.
pub fn weights(spec: &ParameterSpec, seed: u64, index: usize) -> Vec<f32> {
    let elements = spec.shape.iter().product();
    let (draw, size): (Draw, f64) = match spec.initial {
        Initial::Ones => return vec![1.0; elements],
        Initial::Zeros => return vec![0.0; elements],
        Initial::Normal(std) => (normal, std),
        Initial::Uniform(bound) => (uniform, bound),
    };
    let mut values = vec![0.0; elements];
    values.par_chunks_mut(BLOCK).enumerate().for_each(|(block, values)| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(((index as u64) << 32) | block as u64);
        let drawn = draw(&mut rng, values.len(), size);
        for (value, x) in values.iter_mut().zip(drawn) {
            *value = x as f32;
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::LlamaConfig;

    fn deviation(values: &[f32]) -> f64 {
        (values.iter().map(|&x| (x as f64).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn scales_follow_the_recipe() {
        let all = LlamaConfig::smollm2_135m().parameters();
        let draw = |name: &str| {
            let index = all.iter().position(|spec| spec.name == name).unwrap();
            weights(&all[index], 8, index)
        };
        let q = draw("model.layers.0.self_attn.q_proj.weight");
        let o = draw("model.layers.0.self_attn.o_proj.weight");
        let down = draw("model.layers.0.mlp.down_proj.weight");
        assert!((deviation(&q) / 0.041_666_7 - 1.0).abs() < 0.01);
        assert!((deviation(&o) / (0.041_666_7 / 60f64.sqrt()) - 1.0).abs() < 0.01);
        assert!((deviation(&down) / deviation(&o) - 1.0).abs() < 0.01);
        assert!(q.iter().sum::<f32>().abs() / (q.len() as f32) < 1e-3);
        assert!(draw("model.norm.weight").iter().all(|&x| x == 1.0));
        assert!(draw("model.layers.29.input_layernorm.weight").iter().all(|&x| x == 1.0));
        assert_eq!(q, draw("model.layers.0.self_attn.q_proj.weight"));
        assert_ne!(q[..9], draw("model.layers.1.self_attn.q_proj.weight")[..9]);
    }
}
