//! Texts to token sets, on all cores, in order and in bounded memory; conversations in [`chat`].

pub mod chat;
mod sides;

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::source::Documents;
use crate::error::Result;
use crate::tokenizer::Tokenizer;
pub(super) use sides::{PausedSides, Sides};

/// Text per thread that is encoded at once, unless one document is longer. With its tokens and the encoder's own
/// needs (about 40 MiB per thread) this bounds the memory, whatever the number of documents.
const BATCH_BYTES_PER_THREAD: usize = 1 << 20;
const BATCH_DOCUMENTS: usize = 1 << 16;

/// How to make a token set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenizeOptions {
    /// Share of the documents, in [0, 1), that goes to the set `NAME.held-out` instead of `NAME`. A document's
    /// text alone decides, so equal documents are never on both sides. With 0 there is no held-out set.
    pub held_out_fraction: f64,
    /// Least number of tokens of a document, its end-of-text token not counted; shorter ones are left out.
    pub min_tokens: usize,
    /// Bytes after which a new shard begins.
    pub shard_bytes: u64,
    /// Kept with the set; see [`TokenSet::fingerprint`](super::shard::TokenSet::fingerprint).
    pub fingerprint: u64,
}

impl Default for TokenizeOptions {
    fn default() -> Self {
        Self { held_out_fraction: 0.0, min_tokens: 0, shard_bytes: 2 << 30, fingerprint: 0 }
    }
}

/// What has been tokenised so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Documents written, held-out ones included.
    pub documents: u64,
    /// Tokens written, end-of-text and held-out ones included.
    pub tokens: u64,
    /// Bytes of text that they were.
    pub bytes: u64,
    /// Documents in the held-out set.
    pub held_out_documents: u64,
    /// Tokens in the held-out set.
    pub held_out_tokens: u64,
    /// Documents without text, left out.
    pub empty: u64,
    /// Documents of too few tokens, left out.
    pub short: u64,
    /// Conversations that contain a benchmark's text, left out.
    #[serde(default)]
    pub contaminated: u64,
    /// Pairs with two equal answers, left out.
    #[serde(default)]
    pub equal: u64,
}

impl Counts {
    /// Tokens that are not held out.
    pub fn train_tokens(&self) -> u64 {
        self.tokens - self.held_out_tokens
    }
}

/// The name of the held-out set that belongs to the set `name`. No dataset has a name with a dot.
pub fn held_out_name(name: &str) -> String {
    format!("{name}.held-out")
}

/// The name of the set that says of each token of the set `name` whether a model is judged on it: 1, or else 0.
pub fn judged_name(name: &str) -> String {
    format!("{name}.judged")
}

/// Identifies the sets of the texts that `texts` identifies.
pub(super) fn fingerprint_of(tokenizer: &Tokenizer, texts: u64, options: TokenizeOptions) -> u64 {
    let TokenizeOptions { held_out_fraction, min_tokens, shard_bytes, .. } = options;
    let mut parts = vec![tokenizer.hash(), texts, held_out_fraction.to_bits(), shard_bytes];
    // Older sets know nothing of it.
    parts.extend((min_tokens > 0).then_some(min_tokens as u64));
    xxh3_64(&parts.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>())
}

/// The texts of `documents` that are not too long for the tokenizer.
pub(super) fn texts<'a>(
    tokenizer: &'a Tokenizer,
    documents: &'a mut Documents,
) -> impl Iterator<Item = Result<String>> + 'a {
    std::iter::from_fn(move || {
        loop {
            let document = match documents.next()? {
                Ok(document) => document,
                Err(error) => return Some(Err(error)),
            };
            let Some(why) = tokenizer.too_long(&document.value) else { return Some(Ok(document.value)) };
            if let Err(error) = documents.reject(&document, &why) {
                return Some(Err(error));
            }
        }
    })
}

/// Tokenises `documents` into the set `name` in `folder`, each followed by `<|endoftext|>`, in the given order.
/// The files do not depend on the number of threads. `progress` is called after every batch.
///
/// # Errors
/// The first error among `documents`; [`Error::Io`] naming a file that cannot be written; [`Error::Input`] for a
/// fraction outside [0, 1). After an error there is no set of this name.
pub fn tokenize(
    tokenizer: &Tokenizer,
    documents: impl IntoIterator<Item = Result<String>>,
    folder: impl AsRef<Path>,
    name: &str,
    options: TokenizeOptions,
    progress: impl FnMut(&Counts),
) -> Result<Counts> {
    let mut sides = Sides::create(tokenizer, folder.as_ref(), name, options, false)?;
    extend(&mut sides, tokenizer, documents, progress)?;
    sides.finish()
}

/// Appends documents to sets.
pub(super) fn extend(
    sides: &mut Sides,
    tokenizer: &Tokenizer,
    documents: impl IntoIterator<Item = Result<String>>,
    mut progress: impl FnMut(&Counts),
) -> Result<()> {
    let mut documents = documents.into_iter();
    let batch_bytes = BATCH_BYTES_PER_THREAD * rayon::current_num_threads();
    loop {
        let batch = next_batch(&mut documents, batch_bytes, &mut sides.counts.empty)?;
        if batch.is_empty() {
            return Ok(());
        }
        let encoded: Vec<_> = batch.par_iter().map(|text| tokenizer.encode(text)).collect();
        for (text, ids) in batch.iter().zip(encoded) {
            sides.push(xxh3_64(text.as_bytes()), text.len(), &ids?, &[])?;
        }
        progress(&sides.counts);
    }
}

fn next_batch(
    documents: &mut impl Iterator<Item = Result<String>>,
    batch_bytes: usize,
    empty: &mut u64,
) -> Result<Vec<String>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < batch_bytes && batch.len() < BATCH_DOCUMENTS {
        let Some(text) = documents.next().transpose()? else { break };
        if text.is_empty() {
            *empty += 1;
            continue;
        }
        bytes += text.len();
        batch.push(text);
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::super::contents::Contents;
    use super::super::shard::{TokenSet, Verify};
    use super::super::source::{OnBroken, Source};
    use super::*;
    use crate::error::Error;

    fn tokenizer() -> Tokenizer {
        let corpus = std::iter::repeat_n("the quick brown fox jumps over the lazy dog 42".to_string(), 9);
        Tokenizer::train(corpus, 320, |_| ()).unwrap()
    }

    fn texts() -> impl Iterator<Item = Result<String>> {
        (0..3000).map(|i| Ok(format!("the fox {} and the dog {}", i % 1000, "over ".repeat(i % 50))))
    }

    fn split() -> TokenizeOptions {
        TokenizeOptions { held_out_fraction: 0.2, shard_bytes: 20_000, fingerprint: 5, min_tokens: 0 }
    }

    fn documents(folder: &Path, name: &str, tokenizer: &Tokenizer) -> Vec<String> {
        let set = TokenSet::open(folder, name, Verify::Full).unwrap();
        let text = |i| {
            let ids = set.tokens(set.document(i));
            let (eos, ids) = ids.split_last().unwrap();
            assert_eq!(*eos, tokenizer.eos_id());
            tokenizer.decode(ids)
        };
        (0..set.documents()).map(text).collect()
    }

    #[test]
    fn documents_come_back_in_order_and_never_on_both_sides() {
        let (folder, tokenizer) = (tempfile::tempdir().unwrap(), tokenizer());
        let mut last = Counts::default();
        let counts = tokenize(&tokenizer, texts(), folder.path(), "web", split(), |c| last = *c).unwrap();
        assert_eq!(counts, last);
        let train = documents(folder.path(), "web", &tokenizer);
        let held_out = documents(folder.path(), &held_out_name("web"), &tokenizer);
        assert_eq!((train.len() + held_out.len()) as u64, counts.documents);
        assert_eq!(held_out.len() as u64, counts.held_out_documents);
        assert!((450..750).contains(&held_out.len()), "{} of 3000", held_out.len());
        let (mut t, mut h) = (train.iter().peekable(), held_out.iter().peekable());
        for text in texts().map(Result::unwrap) {
            let next = if t.peek() == Some(&&text) { t.next() } else { h.next() };
            assert_eq!(next, Some(&text));
        }
        assert!(held_out.iter().all(|text| !train.contains(text)));
    }

    #[test]
    fn files_do_not_depend_on_the_number_of_threads() {
        let tokenizer = tokenizer();
        let files = |threads| {
            let folder = tempfile::tempdir().unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| tokenize(&tokenizer, texts(), folder.path(), "web", split(), |_| ())).unwrap();
            let mut files: Vec<_> = std::fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
                .collect();
            files.sort();
            files
        };
        let one = files(1);
        assert!(one.len() > 4);
        assert!(one == files(3));
    }

    #[test]
    fn an_error_leaves_no_set_and_bad_fractions_are_refused() {
        let (folder, tokenizer) = (tempfile::tempdir().unwrap(), tokenizer());
        let run = |texts: Vec<Result<String>>, held_out_fraction| {
            let options = TokenizeOptions { held_out_fraction, ..Default::default() };
            tokenize(&tokenizer, texts, folder.path(), "web", options, |_| ())
        };
        run(vec![Ok("a".into()), Ok(String::new())], 0.0).unwrap();
        assert!(folder.path().join("web.json").exists());
        run(vec![Ok("a".into()), Err(Error::input("stop"))], 0.0).unwrap_err();
        assert!(!folder.path().join("web.json").exists());
        for fraction in [-0.1, 1.0, f64::NAN] {
            assert!(run(vec![], fraction).unwrap_err().to_string().contains("held_out_fraction"));
        }
    }

    #[test]
    fn broken_records_are_reported() {
        let (folder, tokenizer) = (tempfile::tempdir().unwrap(), tokenizer());
        let file = folder.path().join("in.jsonl");
        std::fs::write(&file, "{\"text\": \"fox\"}\n{\n{\"text\": \"\"}\n").unwrap();
        let source = Source::new([file]).on_broken(OnBroken::Skip);
        let text = Contents::Text(&tokenizer);
        let (counts, report) =
            text.tokenize(&source, folder.path(), "web", Default::default(), |_| ()).unwrap();
        assert_eq!((counts.documents, counts.bytes, counts.empty, report.broken), (1, 3, 1, 1));
        assert_eq!(documents(folder.path(), "web", &tokenizer), ["fox"]);
        assert!(!folder.path().join("web.held-out.json").exists());

        let current = |source: &Source| text.fingerprint(source, Default::default()).unwrap();
        let set = TokenSet::open(folder.path(), "web", Verify::Full).unwrap();
        assert_eq!(set.fingerprint(), current(&source));
        assert_ne!(set.fingerprint(), current(&source.fields(["body"], "")));
    }

    #[test]
    fn an_endless_stream_is_taken_in_bounded_batches() {
        let mut endless = std::iter::repeat_with(|| Ok("x".repeat(1000)));
        assert_eq!(next_batch(&mut endless, 4500, &mut 0).unwrap().len(), 5);
        let mut tiny = std::iter::repeat_with(|| Ok("x".to_string()));
        assert_eq!(next_batch(&mut tiny, usize::MAX, &mut 0).unwrap().len(), BATCH_DOCUMENTS);
    }
}
