//! Makes the token sets of datasets from text that is generated, read or fetched, or finds them: in the run's folder, or
//! beside it.

use super::{is_remote, register, source};
use crate::data::contents::Contents;
use crate::data::conversation::decontaminate::Benchmarks;
use crate::data::microcosm::Village;
use crate::data::pairs::Pairs;
use crate::data::shard::{TokenSet, Verify};
use crate::data::shared::SharedSets;
use crate::data::source::Report;
use crate::data::stream::{At, Stream};
use crate::data::tokenize::chat::Chat;
use crate::data::tokenize::{Counts, TokenizeOptions, held_out_name, judged_name, tokenize};
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
    pub(super) village: &'a Village,
    pub(super) tokenizer: &'a Tokenizer,
    /// Where there are conversations.
    pub(super) template: Option<&'a ChatTemplate>,
    pub(super) folder: &'a Path,
    pub(super) options: TokenizeOptions,
    pub(super) shared: Option<SharedSets>,
    /// Hashes of the sets that the run was trained on so far, if it goes on.
    pub(super) known: Option<BTreeMap<String, String>>,
    /// Tokens that the stages need of each dataset; all where that is not known.
    pub(super) needs: Vec<Option<u64>>,
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
        // A commit does not change.
        if is_remote(dataset) {
            return;
        }
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
                Ok(Some((sets, note))) => {
                    // Judged ones lie behind theirs.
                    let step = if self.recipe.needs_judged(index) { 2 } else { 1 };
                    let sets = || sets.iter().step_by(step);
                    let documents: u64 = sets().map(TokenSet::documents).sum();
                    let tokens: u64 = sets().map(TokenSet::len).sum();
                    let held_out = || sets().skip(1);
                    let what = match self.recipe.is_of_pairs(index) {
                        true => of_pairs(tokens, documents, held_out().map(TokenSet::documents).sum()),
                        false => of_documents(tokens, documents, held_out().map(TokenSet::len).sum()),
                    };
                    out::say(format_args!("{name}: {what}, shared"));
                    note.lines().for_each(|line| out::say(format_args!("{name}: {line}")));
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
        let note = self.tokenize(index, print)?;
        if let Some(shared) = &self.shared {
            // Where there can be no links, this run alone has the sets.
            let _ = shared.put(&key, names, &note, self.folder);
        }
        Ok(false)
    }

    /// What a dataset is of, and how it becomes tokens.
    fn contents(&self, index: usize) -> Result<Contents<'_>> {
        let (dataset, tokenizer) = (&self.recipe.datasets[index], self.tokenizer);
        let template = || self.template.expect("a recipe with conversations has a template");
        let columns = dataset.columns.clone();
        if self.recipe.is_of_pairs(index) {
            return Ok(Contents::Pairs(Pairs { tokenizer, template: template(), columns }));
        }
        if !self.recipe.is_chat(index) {
            return Ok(Contents::Text(tokenizer));
        }
        let (benchmarks, judged) =
            (Benchmarks::load(&dataset.decontaminate)?, self.recipe.needs_judged(index));
        Ok(Contents::Conversations(Chat { tokenizer, template: template(), columns, benchmarks, judged }))
    }

    fn options(&self, dataset: &Dataset) -> TokenizeOptions {
        TokenizeOptions { min_tokens: dataset.min_tokens.unwrap_or(0), ..self.options }
    }

    /// The files of a dataset of the Hub.
    fn stream(&self, index: usize) -> Result<Stream<'_>> {
        let (dataset, seed) = (&self.recipe.datasets[index], self.recipe.data_seed);
        let source = source(dataset, seed);
        Stream::open(self.folder, &dataset.name, &dataset.paths, seed, source, self.needs[index])
    }

    fn fingerprint(&self, index: usize) -> Result<u64> {
        let (dataset, seed) = (&self.recipe.datasets[index], self.recipe.world_seed());
        let options = self.options(dataset);
        if let Some((register, _)) = register(dataset)? {
            let shortest =
                if options.min_tokens > 0 { format!(" {}", options.min_tokens) } else { String::new() };
            let made = format!("{} {:?} {seed} {}", register.name(), dataset.documents, settings(options));
            return Ok(xxh3_64(format!("{made} {}{shortest}", self.tokenizer.hash()).as_bytes()));
        }
        let contents = self.contents(index)?;
        match is_remote(dataset) {
            true => Ok(self.stream(index)?.fingerprint(&contents, options)),
            false => contents.fingerprint(&source(dataset, seed), options),
        }
    }

    /// Tokenises a dataset, and says what came of it; returns what of it was left out, a line each.
    fn tokenize(&self, index: usize, print: u64) -> Result<String> {
        let dataset = &self.recipe.datasets[index];
        let (name, options) = (&dataset.name, self.options(dataset));
        let (counts, report) = if is_remote(dataset) {
            self.tokenize_stream(index, options)?
        } else {
            self.tokenize_here(index, TokenizeOptions { fingerprint: print, ..options })?
        };
        let Counts { tokens, documents, .. } = counts;
        let what = match self.recipe.is_of_pairs(index) {
            true => of_pairs(tokens, documents, counts.held_out_documents),
            false => of_documents(tokens, documents, counts.held_out_tokens),
        };
        out::say(format_args!("{name}: {what}"));
        let mut note = String::new();
        for (left_out, why) in [
            (report.unwanted, "documents left out for their score"),
            (counts.short, "documents left out for fewer than min_tokens"),
            (counts.contaminated, "conversations left out that contain a benchmark's text"),
            (counts.equal, "pairs left out whose answers are equal"),
        ] {
            if left_out > 0 {
                out::say(format_args!("{name}: {left_out} {why}"));
                note += &format!("{left_out} {why}\n");
            }
        }
        if report.broken > 0 {
            let broken = format!(
                "{} broken records skipped, first: {}",
                report.broken,
                report.first_broken.join("; ")
            );
            out::warn(format_args!("{name}: {broken}"));
            note += &broken;
        }
        Ok(note)
    }

    /// Tokenises what is generated, or read from files here.
    fn tokenize_here(&self, index: usize, options: TokenizeOptions) -> Result<(Counts, Report)> {
        let Preparation { village, tokenizer, folder, .. } = *self;
        let dataset = &self.recipe.datasets[index];
        let name = &dataset.name;
        let made = register(dataset)?;
        // How many documents files hold is known in the end.
        let total = made.as_ref().map(|&(_, count)| count);
        let mut progress = Progress::new(&format!("tokenising {name}"), total, 0);
        let show = |counts: &Counts| progress.set(counts.documents, &format!("{} tokens", counts.tokens));
        let Some((register, count)) = made else {
            let source = source(dataset, self.recipe.world_seed());
            return self.contents(index)?.tokenize(&source, folder, name, options, show);
        };
        let documents = (0..count).map(|index| Ok(village.document(register, index)));
        Ok((tokenize(tokenizer, documents, folder, name, options, show)?, Report::default()))
    }

    /// Tokenises files of the Hub.
    fn tokenize_stream(&self, index: usize, options: TokenizeOptions) -> Result<(Counts, Report)> {
        let (stream, name) = (self.stream(index)?, &self.recipe.datasets[index].name);
        let mut progress = Progress::new(&format!("tokenising {name}"), stream.needed(), 0);
        let show = |at: &At| {
            progress.set(at.counts.train_tokens(), &format!("tokens, file {} of {}", at.file, at.files));
        };
        let warn = |error: &Error| {
            out::warn(format_args!("{error}; {name} is fetched and tokenised again from its first file"));
        };
        stream.tokenize(&self.contents(index)?, options, show, warn)
    }
}

fn of_documents(tokens: u64, documents: u64, held_out_tokens: u64) -> String {
    format!("{documents} documents, {tokens} tokens ({held_out_tokens} held out)")
}

/// Each pair is three documents, behind which no token is learned.
fn of_pairs(tokens: u64, documents: u64, held_out_documents: u64) -> String {
    let [pairs, held_out] = [documents, held_out_documents].map(|documents| documents / 3);
    format!("{pairs} pairs, {} tokens ({held_out} pairs held out)", tokens - documents)
}

/// A hash as state keeps it: many JSON readers round large numbers.
pub(in crate::train) fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// The words by which generated sets are known, however the options are called by now.
fn settings(options: TokenizeOptions) -> String {
    let TokenizeOptions { held_out_fraction, shard_bytes, fingerprint, .. } = options;
    format!(
        "TokenizeOptions {{ held_out_fraction: {held_out_fraction:?}, shard_bytes: {shard_bytes}, fingerprint: {fingerprint} }}"
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_sets_are_known_by_the_words_of_before() {
        #[derive(Debug)]
        #[allow(dead_code, reason = "only its words matter")]
        struct TokenizeOptions {
            held_out_fraction: f64,
            shard_bytes: u64,
            fingerprint: u64,
        }
        for held_out_fraction in [0.0, 0.05, 1e-9] {
            let before = TokenizeOptions { held_out_fraction, shard_bytes: 2 << 30, fingerprint: 0 };
            let now = super::TokenizeOptions { held_out_fraction, min_tokens: 9, ..Default::default() };
            assert_eq!(settings(now), format!("{before:?}"));
        }
    }
}
