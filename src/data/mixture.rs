//! Weighted mixtures of datasets: which tokens training sequence i is made of (as SmolLM2 mixes its
//! stages: arXiv 2502.02737, section 4).
//!
//! The order is a pure function of the datasets (names, sizes, weights, caps, what earlier stages took), the
//! sequence length, the seed and i. Any i is looked up in constant time, so resuming costs nothing, and
//! a batch of any size is just the next indices.

mod permutation;
mod turns;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, Result};
use permutation::permute;
use turns::{Turns, integer_weights};

/// Least weight of a dataset in a mixture; what weighs less is left out.
pub const LEAST_WEIGHT: f64 = 1e-6;

/// Most datasets of a mixture, those included that a stage leaves out.
pub const MOST_DATASETS: usize = u16::MAX as usize;

/// One dataset of a mixture.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureDataset {
    /// Its name, unique in the mixture.
    pub name: String,
    /// Its share of the tokens. All shares sum to 1; they are kept to a millionth.
    pub weight: f64,
    /// How often its tokens may be seen, over all stages.
    pub max_epochs: Option<f64>,
    /// Its size in tokens.
    pub tokens: u64,
    /// Tokens that earlier stages took from it; see [`Mixture::consumed`].
    pub consumed: u64,
}

/// Where the tokens of one training sequence lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// Index of the dataset in the mixture.
    pub dataset: usize,
    /// How often the whole dataset was seen before.
    pub epoch: u64,
    /// Which window of the dataset.
    pub window: u64,
    /// The window's first token. It has `sequence_length` + 1 tokens: inputs, and labels shifted by one.
    pub start_token: u64,
}

/// A dataset that reached its cap of epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exhausted {
    /// Index of the dataset in the mixture.
    dataset: usize,
    /// The first sequence that it cannot serve.
    at: u64,
}

/// What a number of sequences takes from one dataset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Sequences.
    pub sequences: u64,
    /// Tokens: sequences times the sequence length.
    pub tokens: u64,
    /// How often its tokens will have been seen, earlier stages included.
    pub epochs: f64,
    /// The sequence at which it reached its cap, if it did.
    pub exhausted_at: Option<u64>,
}

/// A weighted mixture of datasets.
#[derive(Debug, Clone)]
pub struct Mixture {
    datasets: Vec<MixtureDataset>,
    sequence_length: u64,
    seed: u64,
    /// Stretches with constant weights: one more for each dataset that is exhausted on the way.
    phases: Vec<Phase>,
    /// Datasets that reach their caps if training goes on long enough, in order. Their weight then goes to the others
    /// in proportion.
    exhausted: Vec<Exhausted>,
    /// The number of sequences that there are, if that is limited.
    capacity: Option<u64>,
}

#[derive(Debug, Clone)]
struct Phase {
    /// Its first sequence.
    start: u64,
    /// Windows taken from each dataset before it, earlier stages included.
    taken: Vec<u64>,
    turns: Turns,
}

impl Phase {
    fn taken_by(&self, index: u64) -> Vec<u64> {
        let counts = self.turns.counts(index - self.start);
        self.taken.iter().zip(counts).map(|(taken, count)| taken + count).collect()
    }
}

impl Mixture {
    /// Plans the order for sequences of `sequence_length` tokens.
    ///
    /// # Errors
    /// [`Error::Input`] naming the dataset or the weights if weights do not sum to 1 (within 1e-6) or are
    /// negative, a name comes twice, a cap is not above 0, or a dataset is shorter than one sequence.
    pub fn new(datasets: Vec<MixtureDataset>, sequence_length: u64, seed: u64) -> Result<Self> {
        check(&datasets, sequence_length)?;
        let mut mixture = Self {
            datasets,
            sequence_length,
            seed,
            phases: Vec::new(),
            exhausted: Vec::new(),
            capacity: None,
        };
        mixture.plan_phases();
        Ok(mixture)
    }

    fn plan_phases(&mut self) {
        let shares: Vec<f64> = self.datasets.iter().map(|dataset| dataset.weight).collect();
        let weights = integer_weights(&shares);
        let all = 0..self.datasets.len();
        let caps: Vec<u64> = all.clone().map(|i| self.cap(i)).collect();
        let mut start = 0;
        let mut taken: Vec<u64> =
            self.datasets.iter().map(|dataset| dataset.consumed.div_ceil(self.sequence_length)).collect();
        loop {
            // The weight of a dataset that has nothing left goes to the others in proportion.
            let left = |i: usize| caps[i].saturating_sub(taken[i]);
            for dataset in all.clone().filter(|&i| weights[i] > 0 && left(i) == 0) {
                if self.exhausted.iter().all(|exhausted| exhausted.dataset != dataset) {
                    self.exhausted.push(Exhausted { dataset, at: start });
                }
            }
            let active: Vec<u64> = all.clone().map(|i| if left(i) > 0 { weights[i] } else { 0 }).collect();
            if active.iter().all(|&weight| weight == 0) {
                self.capacity = Some(start);
                return;
            }
            let phase = Phase { start, turns: Turns::new(active), taken: taken.clone() };
            let ends = all.clone().filter(|&i| caps[i] < u64::MAX && left(i) > 0);
            let length = ends.filter_map(|i| phase.turns.turns_until(i, left(i))).min();
            let end = length.and_then(|length| start.checked_add(length));
            if let Some(end) = end {
                (start, taken) = (end, phase.taken_by(end));
            }
            self.phases.push(phase);
            if end.is_none() {
                return;
            }
        }
    }

    /// Windows of a dataset: they overlap by one token, which is the label of one and the input of the next.
    fn windows(&self, dataset: usize) -> u64 {
        self.datasets[dataset].tokens.saturating_sub(1) / self.sequence_length
    }

    /// Windows that may be taken from a dataset, over all stages.
    fn cap(&self, dataset: usize) -> u64 {
        match self.datasets[dataset].max_epochs {
            Some(epochs) => (self.windows(dataset) as f64 * epochs) as u64,
            None => u64::MAX,
        }
    }

    /// Where sequence `index` lies.
    ///
    /// # Errors
    /// [`Error::Input`] naming the datasets if all are exhausted before it.
    pub fn locate(&self, index: u64) -> Result<Sequence> {
        self.check_capacity(index.saturating_add(1))?;
        let phase = &self.phases[self.phases.partition_point(|phase| phase.start <= index) - 1];
        let (dataset, count) = phase.turns.at(index - phase.start);
        let (taken, windows) = (phase.taken[dataset] + count, self.windows(dataset));
        let epoch = taken / windows;
        let window = permute(taken % windows, windows, self.key(dataset, epoch));
        Ok(Sequence { dataset, epoch, window, start_token: window * self.sequence_length })
    }

    fn key(&self, dataset: usize, epoch: u64) -> u64 {
        let name = xxh3_64_with_seed(self.datasets[dataset].name.as_bytes(), self.seed);
        xxh3_64_with_seed(&epoch.to_le_bytes(), name)
    }

    /// What the first `sequences` sequences take from each dataset.
    ///
    /// # Errors
    /// As [`Mixture::locate`].
    pub fn shares(&self, sequences: u64) -> Result<Vec<Share>> {
        let taken = self.taken(sequences)?;
        let share = |(i, &taken): (usize, &u64)| {
            let before = self.datasets[i].consumed.div_ceil(self.sequence_length);
            let exhausted = self.exhausted.iter().find(|exhausted| exhausted.dataset == i);
            Share {
                sequences: taken - before,
                tokens: (taken - before) * self.sequence_length,
                epochs: taken as f64 / self.windows(i).max(1) as f64,
                exhausted_at: exhausted.map(|exhausted| exhausted.at).filter(|&at| at < sequences),
            }
        };
        Ok(taken.iter().enumerate().map(share).collect())
    }

    /// Tokens taken from each dataset after `sequences` sequences, earlier stages included: what the next
    /// stage's [`MixtureDataset::consumed`] is.
    ///
    /// # Errors
    /// As [`Mixture::locate`].
    pub fn consumed(&self, sequences: u64) -> Result<Vec<u64>> {
        Ok(self.taken(sequences)?.iter().map(|taken| taken * self.sequence_length).collect())
    }

    /// The datasets, as given.
    pub fn datasets(&self) -> &[MixtureDataset] {
        &self.datasets
    }

    fn taken(&self, sequences: u64) -> Result<Vec<u64>> {
        self.check_capacity(sequences)?;
        let before = self.phases.partition_point(|phase| phase.start <= sequences);
        let phase = before.checked_sub(1).map(|i| &self.phases[i]);
        let start = || self.datasets.iter().map(|d| d.consumed.div_ceil(self.sequence_length)).collect();
        Ok(phase.map_or_else(start, |phase| phase.taken_by(sequences)))
    }

    fn check_capacity(&self, sequences: u64) -> Result<()> {
        let Some(capacity) = self.capacity.filter(|&capacity| sequences > capacity) else { return Ok(()) };
        let caps: Vec<_> = self
            .datasets
            .iter()
            .filter(|dataset| dataset.weight > 0.0)
            .map(|dataset| {
                format!("{} ({} epochs)", dataset.name, dataset.max_epochs.unwrap_or(f64::INFINITY))
            })
            .collect();
        Err(Error::input(format!(
            "mixture: every dataset is exhausted after {capacity} sequences of {} tokens: {}; raise max_epochs, \
             add data or train on fewer tokens",
            self.sequence_length,
            caps.join(", ")
        )))
    }
}

fn check(datasets: &[MixtureDataset], sequence_length: u64) -> Result<()> {
    let refuse = |what: String| Err(Error::input(format!("mixture: {what}")));
    if sequence_length == 0 {
        return refuse("the sequence length is 0: choose at least 1 token".into());
    }
    if datasets.len() > MOST_DATASETS {
        return refuse(format!("{} datasets: at most {MOST_DATASETS} can be mixed", datasets.len()));
    }
    let sum: f64 = datasets.iter().map(|dataset| dataset.weight).sum();
    if !(1.0 - 1e-6..=1.0 + 1e-6).contains(&sum) {
        let weights: Vec<_> = datasets.iter().map(|d| format!("{} {}", d.name, d.weight)).collect();
        return refuse(format!("weights sum to {sum}, not 1: {}", weights.join(", ")));
    }
    for (i, dataset) in datasets.iter().enumerate() {
        let MixtureDataset { name, weight, max_epochs, tokens, .. } = dataset;
        if datasets[..i].iter().any(|other| other.name == *name) {
            return refuse(format!("dataset {name} is named twice: add up its weights"));
        }
        if *weight != 0.0 && *weight < LEAST_WEIGHT {
            let remedy = format!("give at least {LEAST_WEIGHT}, or leave it out");
            return refuse(format!("dataset {name} has weight {weight}: {remedy}"));
        }
        if max_epochs.is_some_and(|epochs| epochs.is_nan() || epochs <= 0.0) {
            return refuse(format!("dataset {name} has max_epochs {max_epochs:?}: give a number above 0"));
        }
        if *weight > 0.0 && *tokens <= sequence_length {
            return refuse(format!(
                "dataset {name} has {tokens} tokens, but one sequence takes {sequence_length} + 1: add data or \
                 shorten sequences"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
