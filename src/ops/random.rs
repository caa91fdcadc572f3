//! Random numbers that repeat: of initial weights and of test cases.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// `n` normal numbers with deviation `std`, rounded to f32 (Box-Muller on uniform numbers).
pub fn normal(rng: &mut ChaCha8Rng, n: usize, std: f64) -> Vec<f64> {
    (0..n)
        .map(|_| {
            let (u, v): (f64, f64) = (rng.random(), rng.random());
            let x = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            (x * std) as f32 as f64
        })
        .collect()
}

/// `n` uniform numbers from `-bound` to `bound`, rounded to f32.
pub fn uniform(rng: &mut ChaCha8Rng, n: usize, bound: f64) -> Vec<f64> {
    (0..n).map(|_| ((2.0 * rng.random::<f64>() - 1.0) * bound) as f32 as f64).collect()
}
