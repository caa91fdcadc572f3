//! From a recipe's datasets to token sets on disk, and from those to sequences.

mod tokenizer;

use crate::data::microcosm::{Microcosm, Register};
use crate::data::mixture::{Mixture, MixtureDataset};
use crate::data::shard::{TokenSet, Verify, is_part};
use crate::data::shared::SharedSets;
use crate::data::source::Source;
use crate::data::tokenize::{Counts, TokenizeOptions, fingerprint, held_out_name, tokenize, tokenize_source};
use crate::error::{Error, Result};
use crate::files;
use crate::recipes::{Dataset, Recipe};
use crate::report::out;
use crate::report::progress::Progress;
use crate::tokenizer::Tokenizer;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::thread::JoinHandle;
use xxhash_rust::xxh3::xxh3_64;

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
    pub tokenizer: KnownTokenizer,
    /// Hashes of token sets, as [`Corpus::hashes`] gives them; an older version knew none.
    pub sets: BTreeMap<String, String>,
}

/// A run's tokenizer, as far as it is known.
pub enum KnownTokenizer {
    /// As a checkpoint has it.
    Whole(Box<Tokenizer>),
    /// Its hash, before there is a checkpoint.
    Hash(String),
}

impl KnownTokenizer {
    /// The hash, if that is all.
    pub fn hash(&self) -> Option<String> {
        match self {
            KnownTokenizer::Whole(_) => None,
            KnownTokenizer::Hash(hash) => Some(hash.clone()),
        }
    }
}

impl Known {
    /// Whether the tokens of all datasets are known.
    pub fn has_all(&self, recipe: &Recipe) -> bool {
        recipe.datasets.iter().all(|dataset| self.sets.contains_key(&dataset.name))
    }

    /// Leaves a dataset out, which is another by now.
    pub fn forget(&mut self, dataset: &Dataset) {
        self.sets.remove(&dataset.name);
        self.sets.remove(&held_out_name(&dataset.name));
    }
}

/// The folder beside the run folders with the sets that they share. It may be deleted at any time.
const SHARED: &str = ".tokens";

fn source(dataset: &Dataset) -> Source {
    Source::new(&dataset.paths)
        .fields(&dataset.fields, "\n")
        .on_broken(dataset.on_broken)
        .max_record_bytes(dataset.max_record_bytes)
        .document_bytes(dataset.document_bytes)
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
            None => (tokenizer::prepare(recipe, world, folder, None)?, None),
            Some(Known { tokenizer: KnownTokenizer::Hash(hash), sets }) => {
                (tokenizer::prepare(recipe, world, folder, Some(&hash))?, Some(sets))
            }
            Some(Known { tokenizer: KnownTokenizer::Whole(tokenizer), sets }) => {
                tokenizer::restore(&tokenizer, recipe, folder)?;
                (*tokenizer, Some(sets))
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
        let preparation =
            Preparation { recipe, world, tokenizer: &tokenizer, folder, options, shared, known };
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
        named.map(|(name, set)| (name, hex(set.hash()))).collect()
    }

    /// The mixture of a stage, given what earlier stages took from each dataset.
    pub fn mixture(&self, recipe: &Recipe, stage: usize, consumed: &[u64]) -> Result<Mixture> {
        let datasets = recipe
            .datasets
            .iter()
            .zip(recipe.weights_at(stage))
            .enumerate()
            .map(|(i, (dataset, weight))| MixtureDataset {
                name: dataset.name.clone(),
                weight,
                max_epochs: dataset.max_epochs,
                tokens: self.sets[i].len(),
                consumed: consumed[i],
            })
            .collect();
        Mixture::new(datasets, recipe.stages[stage].sequence_length as u64, recipe.data_seed)
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

/// Removes what [`Corpus::prepare`] has made in a run's data folder, and the folder if nothing else is in it.
pub fn remove(data: &Path) {
    tokenizer::remove(data);
    files::remove_some(data, is_part);
}

/// Removes the folder that the runs in `folder` share their sets in.
pub fn remove_shared(folder: &Path) {
    let shared = folder.join(SHARED);
    for group in std::fs::read_dir(&shared).into_iter().flatten().flatten() {
        files::remove_some(&group.path(), is_part);
    }
    let _ = std::fs::remove_dir(shared);
}

/// Makes the sets of a dataset: training tokens, and held-out ones where there are some.
struct Preparation<'a> {
    recipe: &'a Recipe,
    world: &'a Microcosm,
    tokenizer: &'a Tokenizer,
    folder: &'a Path,
    options: TokenizeOptions,
    shared: Option<SharedSets>,
    /// Hashes of the sets that the run was trained on so far, if it goes on.
    known: Option<BTreeMap<String, String>>,
}

impl Preparation<'_> {
    /// Has the sets of `dataset` ready in the folder. Returns their names, and whether they have been verified.
    fn prepare(&self, dataset: &Dataset) -> Result<(Vec<String>, bool)> {
        let name = &dataset.name;
        let with = |held_out: String| match self.options.held_out_fraction {
            0.0 => vec![name.clone()],
            _ => vec![name.clone(), held_out],
        };
        let names = with(held_out_name(name));
        // Before held-out sets had names of their own, they were called like this.
        let earlier = with(format!("{name}-held-out"));
        let known = self.known.as_ref().and_then(|sets| names.iter().map(|name| sets.get(name)).collect());
        let Some(known): Option<Vec<&String>> = known else {
            let print = self.fingerprint(dataset)?;
            for names in [&names, &earlier] {
                if self.has(names, |_, set| set.fingerprint() == print)? {
                    return Ok((names.clone(), false));
                }
            }
            let verified = self.make(dataset, &names, print)?;
            return Ok((names, verified));
        };
        for names in [&names, &earlier] {
            if self.has(names, |i, set| hex(set.hash()) == *known[i])? {
                self.tell_of_changes(dataset);
                return Ok((names.clone(), false));
            }
        }
        let places: Vec<String> = dataset.paths.iter().map(|path| path.display().to_string()).collect();
        let tokens = self.folder.join(name);
        let gone = |what: &str| {
            Error::input(format!(
                "{}: the tokens of dataset {name}, which the run was trained on, are missing or changed, and {what}; \
                 put {} back as it was",
                tokens.display(),
                places.join(", ")
            ))
        };
        out::warn(format_args!("{}: missing or changed; {name} is tokenised again", tokens.display()));
        let print =
            self.fingerprint(dataset).map_err(|error| gone(&format!("its text cannot be read ({error})")))?;
        let verified = self.make(dataset, &names, print)?;
        if self.has(&names, |i, set| hex(set.hash()) == *known[i])? {
            return Ok((names, verified));
        }
        Err(gone("its text is another by now"))
    }

    /// Whether the folder has all these sets, and `fits` of each with its index. A set with a file missing is none.
    fn has(&self, names: &[String], fits: impl Fn(usize, &TokenSet) -> bool) -> Result<bool> {
        for (i, name) in names.iter().enumerate() {
            match TokenSet::open(self.folder, name, Verify::Header) {
                Ok(set) if fits(i, &set) => {}
                Ok(_) => return Ok(false),
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The run's tokens stay what they are; that its text does not, the user should know.
    fn tell_of_changes(&self, dataset: &Dataset) {
        let set = TokenSet::open(self.folder, &dataset.name, Verify::Header);
        if let (Ok(set), Ok(print)) = (set, self.fingerprint(dataset))
            && set.fingerprint() != print
        {
            let name = &dataset.name;
            out::warn(format_args!(
                "{name}: its text was changed; the run goes on with the tokens that it has"
            ));
        }
    }

    /// Links or makes the sets `names` of `dataset`; returns whether they have been verified.
    fn make(&self, dataset: &Dataset, names: &[String], print: u64) -> Result<bool> {
        let name = &dataset.name;
        let key = format!("{name}-{:016x}", shared_key(dataset, print));
        if let Some(shared) = &self.shared {
            match shared.take(&key, names, print, self.folder) {
                Ok(None) => {}
                Ok(Some(sets)) => {
                    let documents: u64 = sets.iter().map(TokenSet::documents).sum();
                    let tokens: u64 = sets.iter().map(TokenSet::len).sum();
                    let held_out: u64 = sets[1..].iter().map(TokenSet::len).sum();
                    out::say(format_args!(
                        "{name}: {documents} documents, {tokens} tokens ({held_out} held out), shared"
                    ));
                    return Ok(true);
                }
                Err(error) => {
                    let place = match error {
                        Error::Damaged { path, .. } | Error::Io { path, .. } => path.display().to_string(),
                        other => other.to_string(),
                    };
                    out::warn(format_args!("{place}: damaged or out of reach; {name} is tokenised again"));
                }
            }
        }
        self.tokenize(dataset, print)?;
        if let Some(shared) = &self.shared {
            // Where there can be no links, this run alone has the sets.
            let _ = shared.put(&key, names, self.folder);
        }
        Ok(false)
    }

    fn fingerprint(&self, dataset: &Dataset) -> Result<u64> {
        let Some(register) = &dataset.microcosm else {
            return fingerprint(self.tokenizer, &source(dataset), self.options);
        };
        let made = format!("{register} {:?} {} {:?}", dataset.documents, self.recipe.data_seed, self.options);
        Ok(xxh3_64(format!("{made} {}", self.tokenizer.hash()).as_bytes()))
    }

    fn tokenize(&self, dataset: &Dataset, print: u64) -> Result<()> {
        let Preparation { world, tokenizer, folder, options, .. } = *self;
        let name = &dataset.name;
        let made = register(dataset)?;
        // How many documents files hold is known in the end.
        let total = made.as_ref().map(|&(_, count)| count);
        let mut progress = Progress::new(&format!("tokenising {name}"), total, 0);
        let mut show = |counts: &Counts| progress.set(counts.documents, &format!("{} tokens", counts.tokens));
        let (counts, broken) = match made {
            Some((register, count)) => {
                let options = TokenizeOptions { fingerprint: print, ..options };
                let documents = (0..count).map(|index| Ok(world.document(register, index)));
                (tokenize(tokenizer, documents, folder, name, options, &mut show)?, None)
            }
            None => {
                let (counts, report) =
                    tokenize_source(tokenizer, &source(dataset), folder, name, options, &mut show)?;
                (counts, Some(report))
            }
        };
        progress.finish();
        out::say(format_args!(
            "{name}: {} documents, {} tokens ({} held out)",
            counts.documents, counts.tokens, counts.held_out_tokens
        ));
        if let Some(report) = broken.filter(|report| report.broken > 0) {
            out::warn(format_args!(
                "{name}: {} broken records skipped, first: {}",
                report.broken,
                report.first_broken.join("; ")
            ));
        }
        Ok(())
    }
}

/// A hash as state keeps it: many JSON readers round large numbers.
pub(super) fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// A fingerprint knows files by their names, sizes and times; between runs, also by their places.
fn shared_key(dataset: &Dataset, print: u64) -> u64 {
    let places = dataset.paths.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
    xxh3_64(format!("{print} {:?}", places.collect::<Vec<_>>()).as_bytes())
}

/// The folder that the run with the data folder `data` shares with those beside it.
fn shared_sets(data: &Path) -> Option<SharedSets> {
    let data = data.canonicalize().ok()?;
    let shared = SharedSets::new(data.ancestors().nth(2)?.join(SHARED));
    shared.tidy();
    Some(shared)
}
