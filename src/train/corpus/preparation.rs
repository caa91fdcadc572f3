//! Makes the token sets of datasets, or finds them: in the run's folder, or beside it.

use super::{register, source};
use crate::data::conversation::decontaminate::Benchmarks;
use crate::data::microcosm::Microcosm;
use crate::data::pairs::{self, PairCounts, PairOptions};
use crate::data::shard::{TokenSet, Verify};
use crate::data::shared::SharedSets;
use crate::data::source::Report;
use crate::data::tokenize::chat::Chat;
use crate::data::tokenize::{
    Counts, TokenizeOptions, fingerprint, held_out_name, judged_name, tokenize, tokenize_source,
};
use crate::error::{Error, Result};
use crate::recipes::{Dataset, Recipe};
use crate::report::out;
use crate::report::progress::Progress;
use crate::tokenizer::{ChatTemplate, Tokenizer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// The folder beside the run folders with the sets that they share. It may be deleted at any time.
pub(super) const SHARED: &str = ".tokens";

/// Makes the sets of a dataset: training tokens, and held-out ones where there are some.
pub(super) struct Preparation<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) world: &'a Microcosm,
    pub(super) tokenizer: &'a Tokenizer,
    /// Where there are conversations.
    pub(super) template: Option<&'a ChatTemplate>,
    pub(super) folder: &'a Path,
    pub(super) options: TokenizeOptions,
    pub(super) shared: Option<SharedSets>,
    /// Hashes of the sets that the run was trained on so far, if it goes on.
    pub(super) known: Option<BTreeMap<String, String>>,
}

impl Preparation<'_> {
    /// Has the sets of a dataset ready in the folder. Returns their names, each with that of judged tokens behind it if
    /// there are some, and whether they have been verified.
    pub(super) fn prepare(&self, index: usize) -> Result<(Vec<String>, bool)> {
        let dataset = &self.recipe.datasets[index];
        let name = &dataset.name;
        let with = |held_out: String| {
            let held_out = (self.options.held_out_fraction != 0.0).then_some(held_out);
            let judged = self.recipe.needs_judged(index);
            let each =
                |name: String| [judged.then(|| judged_name(&name)), Some(name)].into_iter().rev().flatten();
            [name.clone()].into_iter().chain(held_out).flat_map(each).collect::<Vec<_>>()
        };
        let names = with(held_out_name(name));
        // Before held-out sets had names of their own, they were called like this.
        let earlier = with(format!("{name}-held-out"));
        let known = self.known.as_ref().and_then(|sets| names.iter().map(|name| sets.get(name)).collect());
        let Some(known): Option<Vec<&String>> = known else {
            let print = self.fingerprint(index)?;
            for names in [&names, &earlier] {
                if self.has(names, |_, set| set.fingerprint() == print)? {
                    return Ok((names.clone(), false));
                }
            }
            let verified = self.make(index, &names, print)?;
            return Ok((names, verified));
        };
        for names in [&names, &earlier] {
            if self.has(names, |i, set| hex(set.hash()) == *known[i])? {
                self.tell_of_changes(index);
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
            self.fingerprint(index).map_err(|error| gone(&format!("its text cannot be read ({error})")))?;
        let verified = self.make(index, &names, print)?;
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
    fn tell_of_changes(&self, index: usize) {
        let dataset = &self.recipe.datasets[index];
        let set = TokenSet::open(self.folder, &dataset.name, Verify::Header);
        if let (Ok(set), Ok(print)) = (set, self.fingerprint(index))
            && set.fingerprint() != print
        {
            let name = &dataset.name;
            out::warn(format_args!(
                "{name}: its text was changed; the run goes on with the tokens that it has"
            ));
        }
    }

    /// Links or makes the sets `names` of a dataset; returns whether they have been verified.
    fn make(&self, index: usize, names: &[String], print: u64) -> Result<bool> {
        let dataset = &self.recipe.datasets[index];
        let name = &dataset.name;
        let key = format!("{name}-{:016x}", shared_key(dataset, print));
        if let Some(shared) = &self.shared {
            match shared.take(&key, names, print, self.folder) {
                Ok(None) => {}
                Ok(Some(sets)) => {
                    // Judged ones lie behind theirs.
                    let step = if self.recipe.needs_judged(index) { 2 } else { 1 };
                    let sets = || sets.iter().step_by(step);
                    let documents: u64 = sets().map(TokenSet::documents).sum();
                    let tokens: u64 = sets().map(TokenSet::len).sum();
                    let held_out: u64 = sets().skip(1).map(TokenSet::len).sum();
                    let documents = match self.recipe.is_of_pairs(index) {
                        true => format!("{} pairs", sets().map(pairs::pair_count).sum::<u64>()),
                        false => format!("{documents} documents"),
                    };
                    out::say(format_args!(
                        "{name}: {documents}, {tokens} tokens ({held_out} held out), shared"
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
        self.tokenize(index, print)?;
        if let Some(shared) = &self.shared {
            // Where there can be no links, this run alone has the sets.
            let _ = shared.put(&key, names, self.folder);
        }
        Ok(false)
    }

    /// How a dataset of conversations becomes tokens; none if it is text.
    fn chat(&self, index: usize) -> Result<Option<Chat<'_>>> {
        if !self.recipe.is_chat(index) {
            return Ok(None);
        }
        let dataset = &self.recipe.datasets[index];
        Ok(Some(Chat {
            tokenizer: self.tokenizer,
            template: self.template.expect("a recipe with conversations has a template"),
            columns: dataset.columns.clone(),
            benchmarks: Benchmarks::load(&dataset.decontaminate)?,
            judged: self.recipe.needs_judged(index),
        }))
    }

    /// How a dataset of preference pairs becomes tokens; none if it is something else.
    fn pairs(&self, index: usize) -> Option<PairOptions<'_>> {
        let template = self.template.filter(|_| self.recipe.is_of_pairs(index))?;
        let columns = self.recipe.datasets[index].columns.clone();
        Some(PairOptions { template, columns, tokenize: self.options })
    }

    fn tokenize_pairs(&self, dataset: &Dataset, options: &PairOptions) -> Result<()> {
        let name = &dataset.name;
        let mut progress = Progress::new(&format!("tokenising {name}"), None, 0);
        let show = |counts: &PairCounts| progress.set(counts.pairs, &format!("{} tokens", counts.tokens));
        let (counts, report) = pairs::tokenize_pairs(
            self.tokenizer,
            &source(dataset, self.recipe.data_seed),
            self.folder,
            name,
            options,
            show,
        )?;
        progress.finish();
        let PairCounts { pairs, held_out_pairs, tokens, equal } = counts;
        out::say(format_args!("{name}: {pairs} pairs, {tokens} tokens ({held_out_pairs} pairs held out)"));
        if equal > 0 {
            out::say(format_args!("{name}: {equal} pairs left out whose answers are equal"));
        }
        tell_of_broken(name, &report);
        Ok(())
    }

    fn fingerprint(&self, index: usize) -> Result<u64> {
        let dataset = &self.recipe.datasets[index];
        if let Some(options) = self.pairs(index) {
            return pairs::fingerprint(self.tokenizer, &source(dataset, self.recipe.data_seed), &options);
        }
        if let Some(chat) = self.chat(index)? {
            return chat.fingerprint(&source(dataset, self.recipe.data_seed), self.options);
        }
        let Some(register) = &dataset.microcosm else {
            return fingerprint(self.tokenizer, &source(dataset, self.recipe.data_seed), self.options);
        };
        let made = format!("{register} {:?} {} {:?}", dataset.documents, self.recipe.data_seed, self.options);
        Ok(xxh3_64(format!("{made} {}", self.tokenizer.hash()).as_bytes()))
    }

    fn tokenize(&self, index: usize, print: u64) -> Result<()> {
        let Preparation { world, tokenizer, folder, options, .. } = *self;
        let dataset = &self.recipe.datasets[index];
        if let Some(options) = self.pairs(index) {
            return self.tokenize_pairs(dataset, &options);
        }
        let name = &dataset.name;
        let made = register(dataset)?;
        // How many documents files hold is known in the end.
        let total = made.as_ref().map(|&(_, count)| count);
        let mut progress = Progress::new(&format!("tokenising {name}"), total, 0);
        let mut show = |counts: &Counts| progress.set(counts.documents, &format!("{} tokens", counts.tokens));
        let (counts, broken) = match (self.chat(index)?, made) {
            (Some(chat), _) => {
                let (counts, report) =
                    chat.tokenize(&source(dataset, self.recipe.data_seed), folder, name, options, &mut show)?;
                (counts, Some(report))
            }
            (None, Some((register, count))) => {
                let options = TokenizeOptions { fingerprint: print, ..options };
                let documents = (0..count).map(|index| Ok(world.document(register, index)));
                (tokenize(tokenizer, documents, folder, name, options, &mut show)?, None)
            }
            (None, None) => {
                let (counts, report) = tokenize_source(
                    tokenizer,
                    &source(dataset, self.recipe.data_seed),
                    folder,
                    name,
                    options,
                    &mut show,
                )?;
                (counts, Some(report))
            }
        };
        progress.finish();
        out::say(format_args!(
            "{name}: {} documents, {} tokens ({} held out)",
            counts.documents, counts.tokens, counts.held_out_tokens
        ));
        if counts.contaminated > 0 {
            let what = "conversations left out that contain a benchmark's text";
            out::say(format_args!("{name}: {} {what}", counts.contaminated));
        }
        broken.iter().for_each(|report| tell_of_broken(name, report));
        Ok(())
    }
}

fn tell_of_broken(name: &str, Report { broken, first_broken, .. }: &Report) {
    if *broken > 0 {
        out::warn(format_args!(
            "{name}: {broken} broken records skipped, first: {}",
            first_broken.join("; ")
        ));
    }
}

/// A hash as state keeps it: many JSON readers round large numbers.
pub(in crate::train) fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// A fingerprint knows files by their names, sizes and times; between runs, also by their places.
fn shared_key(dataset: &Dataset, print: u64) -> u64 {
    let places = dataset.paths.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
    xxh3_64(format!("{print} {:?}", places.collect::<Vec<_>>()).as_bytes())
}

/// The folder that the run with the data folder `data` shares with those beside it.
pub(in crate::train) fn shared_folder(data: &Path) -> Option<PathBuf> {
    let data = data.canonicalize().ok()?;
    Some(data.ancestors().nth(2)?.join(SHARED))
}
