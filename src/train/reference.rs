//! What the model that a preference stage begins with says of its pairs: the log-probability of each answer.

use crate::data::pairs::{Cut, PairTokens, pair_count};
use crate::data::shard::TokenSet;
use crate::infer::scorer::Row;
use xxhash_rust::xxh3::xxh3_64;

/// Pairs that are trained on, or held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Trained on.
    Training,
    /// Held out.
    HeldOut,
}

/// A set of pairs: which it is, the dataset, and the pairs.
pub type PairSet<'a> = (Side, usize, &'a TokenSet);

/// Log-probabilities of chosen and rejected answers under the model that a stage began with.
pub struct Reference {
    /// Identifies model and pairs.
    pub key: u64,
    /// Per set; see [`PairSet`].
    sets: Vec<(Side, usize, Vec<[f64; 2]>)>,
}

const MAGIC: &[u8; 8] = b"SMOLREF1";

impl Reference {
    /// Those of a pair: chosen, rejected.
    ///
    /// # Panics
    /// If the stage has no such pair.
    pub fn of(&self, side: Side, dataset: usize, pair: u64) -> [f64; 2] {
        let set = self.sets.iter().find(|set| (set.0, set.1) == (side, dataset));
        set.expect("the dataset is the stage's").2[pair as usize]
    }

    /// The file that holds `values`, those of chosen and rejected answers of all pairs of all sets in turn.
    pub fn encode(key: u64, values: &[f64]) -> Vec<u8> {
        let mut bytes = [MAGIC.as_slice(), &key.to_le_bytes()].concat();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a file; none unless it is whole and has this key and these sets.
    pub fn decode(bytes: &[u8], key: u64, sets: &[PairSet]) -> Option<Reference> {
        let (content, hash) = bytes.split_last_chunk()?;
        let values = content.strip_prefix(MAGIC)?.strip_prefix(&key.to_le_bytes())?;
        let pairs: u64 = sets.iter().map(|(_, _, set)| pair_count(set)).sum();
        if xxh3_64(content) != u64::from_le_bytes(*hash) || values.len() as u64 != 16 * pairs {
            return None;
        }
        let (numbers, _) = values.as_chunks().0.as_chunks();
        let mut numbers = numbers.iter().map(|pair: &[[u8; 8]; 2]| pair.map(f64::from_le_bytes));
        let take = |&(side, dataset, set): &PairSet| {
            (side, dataset, numbers.by_ref().take(pair_count(set) as usize).collect())
        };
        Some(Reference { key, sets: sets.iter().map(take).collect() })
    }

    /// Bytes of the file for these sets.
    pub fn bytes(sets: &[PairSet]) -> u64 {
        24 + 16 * sets.iter().map(|(_, _, set)| pair_count(set)).sum::<u64>()
    }
}

/// Both sequences of a pair for the scorer: the answers are scored.
pub fn rows(pair: PairTokens, cut: Cut) -> [Row; 2] {
    let PairTokens { prompt, answers } = pair.cut(cut);
    answers.map(|answer| Row::ending(&prompt, &answer))
}
