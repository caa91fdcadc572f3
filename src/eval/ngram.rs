//! Interpolated Kneser-Ney n-gram models: the baseline that a trained transformer has to beat.
//!
//! Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (1999), section 3.5,
//! with one discount per order, D = n1 / (n1 + 2 n2):
//!
//! `p(w | h) = max(c(h w) - D, 0) / c(h) + D * types(h) / c(h) * p(w | h')`
//!
//! `h'` is `h` without its first token. The highest order counts occurrences; each lower order counts in how many
//! different contexts its n-gram was seen. Below the unigrams stands the uniform distribution, so no token has
//! probability 0.

/// An interpolated Kneser-Ney model. An n-gram is packed into 128 bits: see [`NGram::largest_vocabulary`].
#[derive(Debug, Clone)]
pub struct NGram {
    vocab_size: usize,
    /// Bits of a packed token.
    bits: u32,
    /// `levels[k]` holds the (k + 1)-grams.
    levels: Vec<Level>,
}

#[derive(Debug, Clone)]
struct Level {
    discount: f64,
    grams: Table<u32>,
    contexts: Table<Context>,
}

#[derive(Debug, Clone, Copy)]
struct Context {
    total: u32,
    types: u32,
}

/// Rows sorted by packed n-gram: compact, and deterministic where a hash map would not be.
#[derive(Debug, Clone)]
struct Table<T> {
    keys: Vec<u128>,
    rows: Vec<T>,
}

impl NGram {
    /// Tokens of the largest vocabulary for n-grams of `order`: 2^25 for 5-grams.
    pub const fn largest_vocabulary(order: usize) -> usize {
        let bits = u128::BITS / order as u32;
        1 << if bits < 32 { bits } else { 32 }
    }

    /// Counts the n-grams of `streams`; no n-gram crosses from one stream to the next.
    ///
    /// # Panics
    /// If `order` is not in 1..=5, `vocab_size` not in 1..=[`NGram::largest_vocabulary`], or a token not below
    /// `vocab_size`.
    pub fn train<'a>(order: usize, vocab_size: usize, streams: impl IntoIterator<Item = &'a [u32]>) -> Self {
        assert!((1..=5).contains(&order), "n-gram order {order} is not in 1..=5");
        let largest = Self::largest_vocabulary(order);
        assert!((1..=largest).contains(&vocab_size), "vocabulary of {vocab_size} tokens");
        let bits = (vocab_size as u64).next_power_of_two().trailing_zeros().max(1);
        let mut keys = Vec::new();
        for stream in streams {
            assert!(
                stream.iter().all(|&token| (token as usize) < vocab_size),
                "token outside the vocabulary"
            );
            keys.extend(stream.windows(order).map(|gram| pack(bits, gram)));
        }
        keys.sort_unstable();
        let mut levels = vec![Level::new(bits, Table::count(&keys))];
        for k in (1..order).rev() {
            let mask = (1u128 << (bits * k as u32)) - 1;
            let mut keys: Vec<u128> =
                levels[levels.len() - 1].grams.keys.iter().map(|key| key & mask).collect();
            keys.sort_unstable();
            levels.push(Level::new(bits, Table::count(&keys)));
        }
        levels.reverse();
        Self { vocab_size, bits, levels }
    }

    /// The probability of `token` after `context`, of which the last `order - 1` tokens count.
    fn probability(&self, context: &[u32], token: u32) -> f64 {
        let mut p = 1.0 / self.vocab_size as f64;
        for (k, level) in self.levels.iter().enumerate().take(context.len() + 1) {
            let history = pack(self.bits, &context[context.len() - k..]);
            let Some(seen) = level.contexts.get(history) else { break };
            let count = level.grams.get(history << self.bits | u128::from(token)).unwrap_or(0);
            let kept = (f64::from(count) - level.discount).max(0.0);
            p = (kept + level.discount * f64::from(seen.types) * p) / f64::from(seen.total);
        }
        p
    }

    /// The sum of -ln p over `window[first_target..]`, each token given the tokens before it in the window.
    fn nll(&self, window: &[u32], first_target: usize) -> f64 {
        (first_target..window.len()).map(|i| -self.probability(&window[..i], window[i]).ln()).sum()
    }

    /// The mean loss in nats per target. Each window holds T + 1 tokens; its targets are positions 1..=T, as in
    /// a transformer's training. NaN if there is no target.
    pub fn mean_loss<'a>(&self, windows: impl IntoIterator<Item = &'a [u32]>) -> f64 {
        let (mut nll, mut targets) = (0.0, 0);
        for window in windows {
            nll += self.nll(window, 1);
            targets += window.len().saturating_sub(1);
        }
        nll / targets as f64
    }
}

impl Level {
    fn new(bits: u32, grams: Table<u32>) -> Self {
        let with_count = |n| grams.rows.iter().filter(|&&count| count == n).count() as f64;
        let (n1, n2) = (with_count(1), with_count(2));
        // A tiny corpus may have no n1 or no n2; a discount inside (0, 1) keeps every probability above 0.
        let discount = if n1 > 0.0 { (n1 / (n1 + 2.0 * n2)).min(0.95) } else { 0.5 };
        let mut contexts: Table<Context> = Table { keys: Vec::new(), rows: Vec::new() };
        for (key, &count) in grams.keys.iter().zip(&grams.rows) {
            let history = key >> bits;
            if contexts.keys.last() != Some(&history) {
                contexts.keys.push(history);
                contexts.rows.push(Context { total: 0, types: 0 });
            }
            if let Some(context) = contexts.rows.last_mut() {
                context.total += count;
                context.types += 1;
            }
        }
        Self { discount, grams, contexts }
    }
}

impl<T: Copy> Table<T> {
    fn get(&self, key: u128) -> Option<T> {
        self.keys.binary_search(&key).ok().map(|row| self.rows[row])
    }
}

impl Table<u32> {
    fn count(sorted: &[u128]) -> Self {
        let (keys, rows) = sorted.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u32)).unzip();
        Self { keys, rows }
    }
}

fn pack(bits: u32, tokens: &[u32]) -> u128 {
    tokens.iter().fold(0, |key, &token| key << bits | u128::from(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "a b a b ... c" with a rule that only two tokens of context reveal: x x -> y, otherwise x -> x.
    fn corpus() -> Vec<u32> {
        (0..300).map(|i| [1, 1, 2, 1, 1, 2, 3][i % 7] + u32::from(i % 13 == 0)).collect()
    }

    #[test]
    fn probabilities_sum_to_one_and_none_is_zero() {
        let corpus = corpus();
        let vocab_size = 9;
        for order in 1..=5 {
            let model = NGram::train(order, vocab_size, [&corpus[..200], &corpus[200..]]);
            let contexts: [&[u32]; 7] = [&[], &[1], &[8], &[1, 1], &[2, 8], &[8, 1], &[1, 2, 1, 1, 2]];
            for context in contexts {
                let p: Vec<f64> = (0..vocab_size as u32).map(|w| model.probability(context, w)).collect();
                assert!(
                    (p.iter().sum::<f64>() - 1.0).abs() < 1e-12,
                    "order {order}, context {context:?}: {p:?}"
                );
                assert!(p.iter().all(|&p| p > 0.0), "order {order}, context {context:?}: {p:?}");
            }
        }
    }

    #[test]
    fn matches_a_computation_by_hand() {
        // Bigrams of 0 0 1 0 2: (0 0) (0 1) (1 0) (0 2), one each, so D = 1, held at 0.95.
        // Continuation counts: 0 after {0, 1}, 1 after {0}, 2 after {0}: n1 = 2, n2 = 1, D = 2 / 4.
        let model = NGram::train(2, 4, [&[0, 0, 1, 0, 2][..]]);
        let unigram = |count: f64| ((count - 0.5f64).max(0.0) + 0.5 * 3.0 / 4.0) / 4.0;
        assert!((model.probability(&[], 0) - unigram(2.0)).abs() < 1e-12);
        assert!((model.probability(&[], 3) - unigram(0.0)).abs() < 1e-12);
        let bigram = (0.05 + 0.95 * 3.0 * unigram(1.0)) / 3.0;
        assert!((model.probability(&[0], 2) - bigram).abs() < 1e-12);
        assert!((model.probability(&[2], 1) - unigram(1.0)).abs() < 1e-12, "unseen context backs off");
    }

    /// The formula as it stands in the module's doc, counted anew for every probability.
    fn by_definition(corpus: &[u32], order: usize, vocab: usize, context: &[u32], token: u32) -> f64 {
        use std::collections::{HashMap, HashSet};
        // Every n-gram with its count: occurrences for the highest order, distinct tokens before it for the others.
        let counts = |k: usize| -> HashMap<Vec<u32>, f64> {
            let grams: Vec<Vec<u32>> = corpus.windows(order).map(<[u32]>::to_vec).collect();
            let mut counts = HashMap::new();
            if k == order {
                grams.into_iter().for_each(|gram| *counts.entry(gram).or_insert(0.0) += 1.0);
            } else {
                let longer: HashSet<Vec<u32>> =
                    grams.iter().map(|gram| gram[order - k - 1..].to_vec()).collect();
                longer.iter().for_each(|gram| *counts.entry(gram[1..].to_vec()).or_insert(0.0) += 1.0);
            }
            counts
        };
        let mut p = 1.0 / vocab as f64;
        for k in 1..=order.min(context.len() + 1) {
            let counts = counts(k);
            let with = |n: f64| counts.values().filter(|&&count| count == n).count() as f64;
            let d = if with(1.0) > 0.0 { (with(1.0) / (with(1.0) + 2.0 * with(2.0))).min(0.95) } else { 0.5 };
            let history = &context[context.len() + 1 - k..];
            let follows = counts.iter().filter(|(gram, _)| gram[..k - 1] == *history);
            let (total, types) = follows.fold((0.0, 0.0), |(sum, n), (_, count)| (sum + count, n + 1.0));
            if total == 0.0 {
                break;
            }
            let count = counts.get(&[history, &[token]].concat()).copied().unwrap_or(0.0);
            p = ((count - d).max(0.0) + d * types * p) / total;
        }
        p
    }

    #[test]
    fn all_orders_match_the_definition() {
        let corpus = &corpus()[..60];
        for order in 1..=5 {
            let model = NGram::train(order, 9, [corpus]);
            for context in
                [&[][..], &[1], &[1, 1, 2, 1], &[2, 1, 1, 2], &[1, 1, 2, 1, 1, 2, 3], &[7, 1, 1, 2]]
            {
                for token in 0..9 {
                    let expected = by_definition(corpus, order, 9, context, token);
                    let p = model.probability(context, token);
                    assert!(
                        (p - expected).abs() < 1e-12,
                        "order {order}, {token} after {context:?}: {p}, {expected}"
                    );
                }
            }
        }
    }

    /// Names of tokens mean nothing: the same text in the largest ids has the same probabilities.
    #[test]
    fn the_largest_vocabularies_are_packed_without_loss() {
        let corpus = corpus();
        for order in 1..=5 {
            let largest = NGram::largest_vocabulary(order);
            for vocab_size in [(1 << 16) + 9, 200_000, largest].map(|size| size.min(largest)) {
                let far: Vec<u32> = corpus.iter().map(|&token| (vocab_size - 1) as u32 - token).collect();
                let near = NGram::train(order, vocab_size, [&corpus[..]]);
                let far = (NGram::train(order, vocab_size, [&far[..]]), far);
                let (near, far) = (near.mean_loss([&corpus[..]]), far.0.mean_loss([&far.1[..]]));
                assert!((near - far).abs() < 1e-12, "order {order}, {vocab_size} tokens: {near} and {far}");
            }
        }
    }

    #[test]
    fn contexts_do_not_cross_streams() {
        let apart = NGram::train(2, 4, [&[0, 1][..], &[2, 3][..]]);
        let joined = NGram::train(2, 4, [&[0, 1, 2, 3][..]]);
        assert!(joined.probability(&[1], 2) > joined.probability(&[], 2) + 0.01);
        assert!((apart.probability(&[1], 2) - apart.probability(&[], 2)).abs() < 1e-12);
    }

    #[test]
    fn longer_context_pays_where_there_is_structure() {
        let corpus = corpus();
        let (train, held_out) = corpus.split_at(200);
        let loss = |order| NGram::train(order, 9, [train]).mean_loss(held_out.chunks(25));
        assert!(loss(2) < loss(1) - 0.05 && loss(3) < loss(2) - 0.05, "{} {} {}", loss(1), loss(2), loss(3));
    }

    #[test]
    fn windows_count_the_transformers_targets() {
        let model = NGram::train(3, 9, [&corpus()[..]]);
        let window = [1, 1, 2, 1];
        let by_hand: f64 = (1..4).map(|i| -model.probability(&window[..i], window[i]).ln()).sum();
        assert!((model.nll(&window, 1) - by_hand).abs() < 1e-12);
        assert!((model.mean_loss([&window[..]]) - by_hand / 3.0).abs() < 1e-12);
        assert!(model.mean_loss([]).is_nan());
    }

    #[test]
    fn the_microcosm_has_structure_that_longer_contexts_find() {
        use crate::data::microcosm::{Register, Village};
        use std::collections::HashMap;
        let village = Village::new(1);
        let mut ids: HashMap<String, u32> = HashMap::new();
        let mut tokens = |indices: std::ops::Range<u64>| -> Vec<Vec<u32>> {
            let texts = indices.flat_map(|i| Register::ALL.map(|register| village.document(register, i)));
            let mut id = |word: &str| {
                let next = ids.len() as u32;
                *ids.entry(word.to_owned()).or_insert(next)
            };
            texts.map(|text| text.split_inclusive([' ', '\n']).map(&mut id).collect()).collect()
        };
        let (train, held_out) = (tokens(0..150), tokens(1_000..1_020));
        let loss = |order| {
            let model = NGram::train(order, ids.len(), train.iter().map(Vec::as_slice));
            model.mean_loss(held_out.iter().map(Vec::as_slice))
        };
        assert!(loss(3) < loss(2) - 0.1 && loss(2) < loss(1) - 1.0, "{} {} {}", loss(1), loss(2), loss(3));
    }
}
