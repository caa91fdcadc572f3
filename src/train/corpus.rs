//! From a recipe's datasets to token sets on disk, and from those to sequences.

mod tokenizer;

use crate::data::microcosm::{Microcosm, Register};
use crate::data::mixture::Mixture;
use crate::data::shard::{TokenSet, Verify};
use crate::data::shared::SharedSets;
use crate::data::source::{Report, Source};
use crate::data::stream::{self, At, Stream};
use crate::data::tokenize::{Counts, TokenizeOptions, fingerprint, held_out_name, tokenize, tokenize_source};
use crate::error::{Error, Result};
use crate::hub;
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
    /// Tokens that the stages need of each dataset; all where that is not known.
    needs: BTreeMap<&'a str, Option<u64>>,
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
            if self.has(names, |i, set| hex(set) == *known[i])? {
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
        if self.has(&names, |i, set| hex(set) == *known[i])? {
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
        // A commit does not change.
        if is_remote(dataset) {
            return;
        }
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

    fn options(&self, dataset: &Dataset) -> TokenizeOptions {
        TokenizeOptions { min_tokens: dataset.min_tokens.unwrap_or(0), ..self.options }
    }

    fn fingerprint(&self, dataset: &Dataset) -> Result<u64> {
        let options = self.options(dataset);
        let Some(register) = &dataset.microcosm else {
            return match is_remote(dataset) {
                true => Ok(self.stream(dataset)?.fingerprint(self.tokenizer, options)),
                false => fingerprint(self.tokenizer, &source(dataset), options),
            };
        };
        let TokenizeOptions { held_out_fraction, min_tokens, shard_bytes, fingerprint } = options;
        // Sets are known by these very words, however the options are called by now.
        let settings = format!(
            "TokenizeOptions {{ held_out_fraction: {held_out_fraction:?}, shard_bytes: {shard_bytes}, \
             fingerprint: {fingerprint} }}"
        );
        let shortest = if min_tokens > 0 { format!(" {min_tokens}") } else { String::new() };
        let made = format!("{register} {:?} {} {settings}", dataset.documents, self.recipe.data_seed);
        Ok(xxh3_64(format!("{made} {}{shortest}", self.tokenizer.hash()).as_bytes()))
    }

    /// The files of a dataset of the Hub.
    fn stream<'b>(&'b self, dataset: &'b Dataset) -> Result<Stream<'b>> {
        let needed = self.needs.get(dataset.name.as_str()).copied().flatten();
        let (seed, source) = (self.recipe.data_seed, source(dataset));
        Stream::open(self.folder, &dataset.name, &dataset.paths, seed, source, needed)
    }

    fn tokenize(&self, dataset: &Dataset, print: u64) -> Result<()> {
        let (name, options) = (&dataset.name, self.options(dataset));
        let (counts, report) = if is_remote(dataset) {
            self.tokenize_stream(dataset, options)?
        } else {
            self.tokenize_here(dataset, TokenizeOptions { fingerprint: print, ..options })?
        };
        out::say(format_args!(
            "{name}: {} documents, {} tokens ({} held out)",
            counts.documents, counts.tokens, counts.held_out_tokens
        ));
        for (left_out, why) in
            [(report.unwanted, "for their score"), (counts.short, "for fewer than min_tokens")]
        {
            if left_out > 0 {
                out::say(format_args!("{name}: {left_out} documents left out {why}"));
            }
        }
        if report.broken > 0 {
            out::warn(format_args!(
                "{name}: {} broken records skipped, first: {}",
                report.broken,
                report.first_broken.join("; ")
            ));
        }
        Ok(())
    }

    /// Tokenises text that is generated, or read from files here.
    fn tokenize_here(&self, dataset: &Dataset, options: TokenizeOptions) -> Result<(Counts, Report)> {
        let Preparation { world, tokenizer, folder, .. } = *self;
        let name = &dataset.name;
        let made = register(dataset)?;
        // How many documents files hold is known in the end.
        let total = made.as_ref().map(|&(_, count)| count);
        let mut progress = Progress::new(&format!("tokenising {name}"), total, 0);
        let show = |counts: &Counts| progress.set(counts.documents, &format!("{} tokens", counts.tokens));
        match made {
            Some((register, count)) => {
                let documents = (0..count).map(|index| Ok(world.document(register, index)));
                let counts = tokenize(tokenizer, documents, folder, name, options, show)?;
                Ok((counts, Report::default()))
            }
            None => tokenize_source(tokenizer, &source(dataset), folder, name, options, show),
        }
    }

    /// Tokenises files of the Hub.
    fn tokenize_stream(&self, dataset: &Dataset, options: TokenizeOptions) -> Result<(Counts, Report)> {
        let (stream, name) = (self.stream(dataset)?, &dataset.name);
        let mut progress = Progress::new(&format!("tokenising {name}"), stream.needed(), 0);
        let show = |at: &At| {
            progress.set(at.counts.train_tokens(), &format!("tokens, file {} of {}", at.file, at.files));
        };
        let warn = |error: &Error| {
            out::warn(format_args!("{error}; {name} is fetched and tokenised again from its first file"));
        };
        stream.tokenize(self.tokenizer, options, show, warn)
    }
}

/// A set's hash as state keeps it: many JSON readers round large numbers.
fn hex(set: &TokenSet) -> String {
    format!("{:016x}", set.hash())
}

/// A fingerprint knows files by their names, sizes and times; between runs, also by their places.
fn shared_key(dataset: &Dataset, print: u64) -> u64 {
    let places = dataset.paths.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
    xxh3_64(format!("{print} {:?}", places.collect::<Vec<_>>()).as_bytes())
}

/// The folder that the run with the data folder `data` shares with those beside it.
fn shared_sets(data: &Path) -> Option<SharedSets> {
    let data = data.canonicalize().ok()?;
    Some(SharedSets::new(data.ancestors().nth(2)?.join(SHARED)))
}
