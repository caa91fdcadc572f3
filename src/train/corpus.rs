//! From a recipe's datasets to token sets on disk, and from those to sequences.

mod preparation;
mod tokenizer;

use crate::data::microcosm::{Microcosm, Register};
use crate::data::mixture::Mixture;
use crate::data::shard::{TokenSet, Verify};
use crate::data::shared::SharedSets;
use crate::data::source::Source;
use crate::data::stream;
use crate::data::tokenize::{TokenizeOptions, held_out_name};
use crate::error::{Error, Result};
use crate::hub;
use crate::recipes::{Dataset, Recipe};
use crate::tokenizer::Tokenizer;
use preparation::Preparation;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::thread::JoinHandle;

/// The tokenised datasets of a recipe, in its order.
pub struct Corpus {
    /// The tokenizer, loaded or trained.
    pub tokenizer: Tokenizer,
    /// Training tokens per dataset.
    pub sets: Vec<TokenSet>,
    /// Held-out tokens per dataset.
    pub held_out: Vec<Option<TokenSet>>,
    /// Reads all sets in the background while the device is made ready.
    verification: Mutex<Option<JoinHandle<Result<()>>>>,
}

/// What a run was trained on so far, as its checkpoint knows it.
pub struct Known {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Hashes of token sets, as [`Corpus::hashes`] gives them; an older version knew none.
    pub sets: BTreeMap<String, String>,
}

/// The folder beside the run folders with the sets that they share. It may be deleted at any time.
const SHARED: &str = ".tokens";

fn source(dataset: &Dataset) -> Source {
    Source::new(&dataset.paths)
        .fields(&dataset.fields, "\n")
        .on_broken(dataset.on_broken)
        .max_record_bytes(dataset.max_record_bytes)
        .document_bytes(dataset.document_bytes)
        .score(dataset.score.clone())
}

/// Whether a dataset's files are on the Hub.
fn is_remote(dataset: &Dataset) -> bool {
    dataset.paths.iter().any(|path| hub::is_remote(path))
}

/// Writes into the recipe of which commits its datasets of the Hub are, so that they stay the same as long as the run
/// lives.
///
/// # Errors
/// As [`stream::pin`].
pub fn pin(recipe: &mut Recipe) -> Result<()> {
    for dataset in recipe.datasets.iter_mut().filter(|dataset| is_remote(dataset)) {
        dataset.paths = stream::pin(&dataset.paths)?;
    }
    Ok(())
}

/// Whether something has been fetched from the Hub for the data folder of a run.
pub fn has_fetched(recipe: &Recipe, folder: &Path) -> bool {
    let mut remote = recipe.datasets.iter().filter(|dataset| is_remote(dataset));
    remote.any(|dataset| stream::has_begun(folder, &dataset.name))
}

/// What a generated dataset consists of, and the number of its documents; none if it is read from files.
fn register(dataset: &Dataset) -> Result<Option<(Register, u64)>> {
    let Some(register) = &dataset.microcosm else { return Ok(None) };
    Ok(Some((register.parse()?, dataset.documents.unwrap_or(0) as u64)))
}

impl Corpus {
    /// Opens the token sets in a run's data folder, and makes those first that are missing or out of date. Sets that
    /// another run beside this one made are linked instead. [`Corpus::verified`] tells whether all are sound.
    ///
    /// A run that goes on gives what it is `known`: tokenizer and tokens are then these, or the run is refused. Text
    /// is read only for sets that are not in the folder.
    ///
    /// # Errors
    /// Those of reading the sources, [`Error::Damaged`] for a shard whose header is not what was written, and
    /// [`Error::Input`] naming a dataset whose tokens are not those that are known.
    pub fn prepare(recipe: &Recipe, folder: &Path, known: Option<Known>) -> Result<Corpus> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let world = &Microcosm::new(recipe.data_seed);
        let (tokenizer, known) = match known {
            None => (tokenizer::prepare(recipe, world, folder)?, None),
            Some(Known { tokenizer, sets }) => {
                tokenizer::restore(&tokenizer, recipe, folder)?;
                (tokenizer, Some(sets))
            }
        };
        if tokenizer.vocab_size() > recipe.model.vocab_size {
            return Err(Error::input(format!(
                "recipe {}: the tokenizer has {} tokens, but model.vocab_size is {}",
                recipe.name,
                tokenizer.vocab_size(),
                recipe.model.vocab_size
            )));
        }
        let options = TokenizeOptions { held_out_fraction: recipe.held_out.fraction, ..Default::default() };
        let shared = shared_sets(folder);
        let names = recipe.datasets.iter().map(|dataset| dataset.name.as_str());
        let needs = names.zip(recipe.needs()).collect();
        let preparation =
            Preparation { recipe, world, tokenizer: &tokenizer, folder, options, shared, known, needs };
        let (mut sets, mut held_out, mut unverified) = (Vec::new(), Vec::new(), Vec::new());
        for dataset in &recipe.datasets {
            let (names, verified) = preparation.prepare(dataset)?;
            let mut opened = names.iter().map(|name| TokenSet::open(folder, name, Verify::Header));
            sets.extend(opened.next().transpose()?);
            held_out.push(opened.next().transpose()?);
            if !verified {
                unverified.extend(names);
            }
        }
        let folder = folder.to_path_buf();
        let verify = move |name: &String| TokenSet::open(&folder, name, Verify::Full).map(|_| ());
        let verification = std::thread::spawn(move || unverified.iter().try_for_each(verify));
        Ok(Corpus { tokenizer, sets, held_out, verification: Mutex::new(Some(verification)) })
    }

    /// Waits until everything has been compared with its checksums; to be called before tokens are used.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the shard that is not what was written.
    pub fn verified(&self) -> Result<()> {
        let running = self.verification.lock().expect("no thread panics while it waits").take();
        let Some(verification) = running else { return Ok(()) };
        verification.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Hashes of the sets, by the names of datasets, and by [`held_out_name`] for held-out ones.
    pub fn hashes(&self, recipe: &Recipe) -> BTreeMap<String, String> {
        let sets = self.sets.iter().zip(&self.held_out).zip(&recipe.datasets);
        let named = sets.flat_map(|((set, held_out), dataset)| {
            let held_out = held_out.iter().map(|set| (held_out_name(&dataset.name), set));
            held_out.chain([(dataset.name.clone(), set)])
        });
        named.map(|(name, set)| (name, hex(set))).collect()
    }

    /// The mixture of a stage, given what earlier stages took from each dataset.
    pub fn mixture(&self, recipe: &Recipe, stage: usize, consumed: &[u64]) -> Result<Mixture> {
        recipe.mixture(stage, &self.sizes(), consumed)
    }

    /// Training tokens of each dataset.
    pub fn sizes(&self) -> Vec<u64> {
        self.sets.iter().map(TokenSet::len).collect()
    }

    /// Held-out windows of `length` + 1 tokens: (dataset, tokens), at most `limit` per dataset.
    pub fn held_out_windows(&self, length: usize, limit: usize) -> Vec<(usize, Vec<u32>)> {
        let mut windows = Vec::new();
        for (dataset, set) in self.held_out.iter().enumerate() {
            let Some(set) = set else { continue };
            let count = (set.len().saturating_sub(1) / length as u64).min(limit as u64);
            for w in 0..count {
                let start = w * length as u64;
                windows.push((dataset, set.tokens(start..start + length as u64 + 1)));
            }
        }
        windows
    }
}

/// A set's hash as state keeps it: many JSON readers round large numbers.
fn hex(set: &TokenSet) -> String {
    format!("{:016x}", set.hash())
}

/// The folder that the run with the data folder `data` shares with those beside it.
fn shared_sets(data: &Path) -> Option<SharedSets> {
    let data = data.canonicalize().ok()?;
    Some(SharedSets::new(data.ancestors().nth(2)?.join(SHARED)))
}
