//! Random weights, cheaply: a measurement needs values of the right size, not independent ones.

use crate::nn::LlamaConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Values that every matrix is cut from.
pub struct Noise(Vec<f32>);

impl Noise {
    /// A million uniform values of deviation 1.
    pub fn new() -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let width = 12f32.sqrt();
        Noise((0..1 << 20).map(|_| (rng.random::<f32>() - 0.5) * width).collect())
    }

    /// Parameter `index` of a model: ones for a norm, else noise of the initial deviation.
    pub fn weight(&self, config: &LlamaConfig, index: usize, name: &str, shape: &[usize]) -> Vec<f32> {
        let elements = shape.iter().product();
        if name.ends_with("norm.weight") {
            return vec![1.0; elements];
        }
        let std = config.initializer_std as f32;
        self.0.iter().cycle().skip(index * 7919 % self.0.len()).take(elements).map(|x| std * x).collect()
    }
}
