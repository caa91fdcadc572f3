//! Random weights, cheaply: a measurement needs values of the right size, not independent ones.

use crate::graph::{Initial, Store};
use crate::nn::Architecture;
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

    /// Writes every parameter of a model: ones, or noise of its initial deviation.
    pub fn fill(&self, store: &Store, architecture: &Architecture) {
        for (index, spec) in architecture.parameters().iter().enumerate() {
            let elements = spec.shape.iter().product();
            let noise = self.0.iter().cycle().skip(index * 7919 % self.0.len()).take(elements);
            match spec.initial {
                Initial::Ones => store.write(&spec.name, &vec![1.0; elements]),
                Initial::Zeros => store.write(&spec.name, &vec![0.0; elements]),
                Initial::Normal(size) | Initial::Uniform(size) => {
                    store.write(&spec.name, &noise.map(|x| size as f32 * x).collect::<Vec<_>>());
                }
            }
        }
    }
}
