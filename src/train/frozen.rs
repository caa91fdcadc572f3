//! The model that a preference stage begins with says its part once, by the scorer, before the first step: training then
//! holds one model.
//!
//! What it says is kept in the run's data folder, from which a run goes on, and in the folder that runs share: another run
//! that begins with the same weights on the same pairs, perhaps with another beta, computes nothing.

use super::corpus::{Corpus, REFERENCE, shared_folder};
use super::fit::held_out_scorer;
use super::reference::{PairSet, Reference, Side, rows};
use super::stages::PlannedStage;
use crate::checkpoint::replace;
use crate::data::pairs::{pair, pair_count};
use crate::error::Result;
use crate::files;
use crate::graph::{Backend, Store};
use crate::infer::scorer::{Row, Scorer};
use crate::recipes::{Recipe, Stage};
use crate::report::out;
use crate::report::progress::Progress;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The stage whose first model is asked, and on what.
pub struct Frozen<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The stage.
    pub stage: &'a PlannedStage,
    /// Its pairs.
    pub corpus: &'a Corpus,
    /// Where log-probabilities are computed: others round otherwise.
    pub backend: &'a Backend,
    /// The run's data folder.
    pub folder: &'a Path,
}

impl Frozen<'_> {
    fn of(&self) -> &Stage {
        &self.recipe.stages[self.stage.span.stage]
    }

    /// The pairs that it is asked about: those that are trained on where the loss has a reference, and in any case those
    /// that are held out, for what becomes of them is told.
    fn sets(&self) -> Vec<PairSet<'_>> {
        let datasets = self.recipe.datasets.iter().enumerate();
        let wanted = datasets.filter(|(_, dataset)| self.of().mixture.contains_key(&dataset.name));
        let loss = self.stage.work.objective.preference();
        let has_reference = loss.is_some_and(|loss| loss.variant.has_reference());
        let sets = wanted.flat_map(|(i, _)| {
            let training = has_reference.then(|| (Side::Training, i, &self.corpus.sets[i]));
            let held_out = self.corpus.held_out[i].iter().map(move |set| (Side::HeldOut, i, set));
            training.into_iter().chain(held_out)
        });
        sets.collect()
    }

    /// Whether the stage has pairs that it is asked about.
    pub fn is_asked(&self) -> bool {
        self.stage.work.objective.preference().is_some() && !self.sets().is_empty()
    }

    /// Identifies the weights in `store`, the pairs, how they are cut, and the device.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device is lost.
    pub fn key(&self, store: &Store) -> Result<u64> {
        let mut hasher = Xxh3::new();
        let architecture = &self.stage.work.architecture;
        let made = format!(
            "{} {:?} {} {} {}",
            architecture.to_hf_json("float32"),
            self.of().cut(),
            self.stage.shape.micro_batch,
            self.backend.description(),
            env!("CARGO_PKG_VERSION")
        );
        hasher.update(made.as_bytes());
        self.sets().iter().for_each(|(_, _, set)| hasher.update(&set.hash().to_le_bytes()));
        for (name, _) in architecture.shapes() {
            hasher.update(bytemuck::cast_slice(&store.read(&name)?));
        }
        Ok(hasher.digest())
    }

    /// What was computed before under this key, here or by another run.
    pub fn find(&self, key: u64) -> Option<Arc<Reference>> {
        let sets = self.sets();
        let read = |path: &PathBuf| {
            let bytes = files::read(path, Reference::bytes(&sets)).ok()?;
            Reference::decode(&bytes, key, &sets).map(|reference| (Arc::new(reference), bytes))
        };
        if let Some((reference, _)) = read(&self.own()) {
            return Some(reference);
        }
        let (reference, bytes) = read(&self.shared(key)?)?;
        replace(&self.own(), &bytes).ok()?;
        let name = &self.of().name;
        out::say(format_args!("{name}: what the first model says of the pairs is known from an earlier run"));
        Some(reference)
    }

    /// Computes it with the weights in `store`, and keeps it.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if memory runs out, [`Error::Io`](crate::Error::Io) if it cannot be kept.
    pub fn compute(&self, key: u64, store: &Arc<Store>) -> Result<Arc<Reference>> {
        let stage = self.stage;
        let mut scorer = Scorer::new(self.backend, held_out_scorer(&stage.work, stage.shape), store)?;
        let (sets, cut) = (self.sets(), self.of().cut());
        let total = sets.iter().map(|(_, _, set)| pair_count(set)).sum();
        let mut progress = Progress::new("asking the first model", Some(total), 0);
        let (mut done, mut values) = (0, Vec::new());
        for (_, _, set) in &sets {
            for first in (0..pair_count(set)).step_by(CHUNK as usize) {
                let pairs = first..(first + CHUNK).min(pair_count(set));
                done += pairs.end - pairs.start;
                let rows: Vec<Row> = pairs.flat_map(|index| rows(pair(set, index), cut)).collect();
                values.extend(scorer.log_probs(&rows)?);
                progress.set(done, "pairs");
            }
        }
        progress.finish();
        let bytes = Reference::encode(key, &values);
        replace(&self.own(), &bytes)?;
        if let Some(shared) = self.shared(key) {
            // Where that cannot be, this run alone has it.
            let _ = shared.parent().map(std::fs::create_dir_all).map(|_| replace(&shared, &bytes));
        }
        Ok(Arc::new(Reference::decode(&bytes, key, &sets).expect("it was written so")))
    }

    /// The run's own file.
    fn own(&self) -> PathBuf {
        self.folder.join(format!("{}.{REFERENCE}", self.of().name))
    }

    /// The file that runs share.
    fn shared(&self, key: u64) -> Option<PathBuf> {
        Some(shared_folder(self.folder)?.join(format!("reference-{key:016x}")))
    }
}

/// Pairs that are scored between two looks at the progress.
const CHUNK: u64 = 64;
