//! The sets of one dataset: found, linked, or made from text that is generated, read, or fetched.

use super::{hex, is_remote, register, source};
use crate::data::microcosm::Microcosm;
use crate::data::shard::{TokenSet, Verify};
use crate::data::shared::SharedSets;
use crate::data::source::Report;
use crate::data::stream::{At, Stream};
use crate::data::tokenize::{Counts, TokenizeOptions, fingerprint, held_out_name, tokenize, tokenize_source};
use crate::error::{Error, Result};
use crate::recipes::{Dataset, Recipe};
use crate::report::out;
use crate::report::progress::Progress;
use crate::tokenizer::Tokenizer;
use std::collections::BTreeMap;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Makes the sets of a dataset: training tokens, and held-out ones where there are some.
pub(super) struct Preparation<'a> {
    pub recipe: &'a Recipe,
    pub world: &'a Microcosm,
    pub tokenizer: &'a Tokenizer,
    pub folder: &'a Path,
    pub options: TokenizeOptions,
    pub shared: Option<SharedSets>,
    /// Hashes of the sets that the run was trained on so far, if it goes on.
    pub known: Option<BTreeMap<String, String>>,
    /// Tokens that the stages need of each dataset; all where that is not known.
    pub needs: BTreeMap<&'a str, Option<u64>>,
}

impl Preparation<'_> {
    /// Has the sets of `dataset` ready in the folder. Returns their names, and whether they have been verified.
    pub fn prepare(&self, dataset: &Dataset) -> Result<(Vec<String>, bool)> {
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
        let shortest =
            if options.min_tokens > 0 { format!(" {}", options.min_tokens) } else { String::new() };
        let settings = settings(options);
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
