//! Text from a model: generation with a cache ([`engine`]), conversations ([`chat`]), and the choice of a token on the
//! host.

pub mod chat;
pub mod engine;
pub mod writer;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A token drawn from softmax(logits / temperature); the likeliest one where the temperature is 0.
pub fn sample(logits: &[f32], temperature: f64, rng: &mut ChaCha8Rng) -> u32 {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if temperature <= 0.0 {
        return logits.iter().position(|&x| x == peak).unwrap_or(0) as u32;
    }
    let weights: Vec<f64> = logits.iter().map(|&x| ((x - peak) as f64 / temperature).exp()).collect();
    let mut point = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (token, weight) in weights.iter().enumerate() {
        point -= weight;
        if point < 0.0 {
            return token as u32;
        }
    }
    logits.len() as u32 - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn draws_follow_the_probabilities() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let logits = [0.0, 3f32.ln(), f32::NEG_INFINITY];
        let hits = (0..4000).filter(|_| sample(&logits, 1.0, &mut rng) == 1).count();
        assert!((2850..3150).contains(&hits), "{hits} of 4000, expected 3000");
        assert_eq!(sample(&logits, 0.0, &mut rng), 1);
    }
}
