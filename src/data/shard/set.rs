//! A dataset: shards in order, as its manifest lists them.

use std::ops::Range;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::manifest::{Manifest, manifest_path, shard_path};
use super::{Header, REMEDY, Shard, Verify, with_remedy};
use crate::error::{Error, Result};
use crate::files;

/// A tokenised dataset: one stream of tokens over all its shards, in order.
#[derive(Debug)]
pub struct TokenSet {
    shards: Vec<Shard>,
    /// First token and first document of each shard, then the totals.
    first_token: Vec<u64>,
    first_document: Vec<u64>,
    fingerprint: u64,
}

impl TokenSet {
    /// Opens the set `name` in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] if a file is missing; [`Error::Damaged`], naming the file, if one is not what was written.
    pub fn open(folder: impl AsRef<Path>, name: &str, verify: Verify) -> Result<Self> {
        let folder = folder.as_ref();
        let path = manifest_path(folder, name);
        let json = files::read(&path, files::LISTS).map_err(|error| with_remedy(&path, error))?;
        let damaged = |what: &str| Error::damaged(&path, format!("{what}; {REMEDY}"));
        let manifest: Manifest = serde_json::from_slice(&json).map_err(|e| damaged(&e.to_string()))?;
        let hash = |hex: &str| u64::from_str_radix(hex, 16).map_err(|_| damaged("not a hash"));
        let mut set = Self {
            shards: Vec::new(),
            first_token: vec![0],
            first_document: vec![0],
            fingerprint: hash(&manifest.fingerprint)?,
        };
        let tokenizer_hash = hash(&manifest.tokenizer_hash)?;
        for (i, entry) in manifest.shards.iter().enumerate() {
            let shard = Shard::open(&shard_path(folder, name, i), verify)?;
            let expected = Header {
                vocab_size: manifest.vocab_size,
                tokens: entry.tokens,
                documents: entry.documents,
                tokenizer_hash,
                payload_hash: hash(&entry.payload_hash)?,
            };
            if shard.header != expected {
                return Err(Error::damaged(
                    &shard.path,
                    format!("not the shard of {}; {REMEDY}", path.display()),
                ));
            }
            set.first_token.push(set.len() + entry.tokens);
            set.first_document.push(set.documents() + entry.documents);
            set.shards.push(shard);
        }
        Ok(set)
    }

    /// The number of tokens, end-of-text tokens included.
    pub fn len(&self) -> u64 {
        *self.first_token.last().expect("one entry at least")
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of documents.
    pub fn documents(&self) -> u64 {
        *self.first_document.last().expect("one entry at least")
    }

    /// What the writer was told about the set's origin; another value means that the set is out of date.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Identifies the tokens and the documents: two sets with the same hash are read as the same stream.
    pub fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        for Header { vocab_size, tokens, documents, payload_hash, .. } in
            self.shards.iter().map(|it| it.header)
        {
            for field in [vocab_size, tokens, documents, payload_hash] {
                hasher.update(&field.to_le_bytes());
            }
        }
        hasher.digest()
    }

    /// Fills `out` with the tokens from `start` on, across shards.
    ///
    /// # Panics
    /// If the range ends beyond [`TokenSet::len`].
    pub fn read(&self, start: u64, out: &mut [u32]) {
        assert!(start + out.len() as u64 <= self.len(), "tokens {start}+{} of {}", out.len(), self.len());
        let (mut start, mut out) = (start, out);
        while !out.is_empty() {
            let shard = self.first_token.partition_point(|&first| first <= start) - 1;
            let here = (self.first_token[shard + 1] - start).min(out.len() as u64) as usize;
            let (head, tail) = out.split_at_mut(here);
            self.shards[shard].read(start - self.first_token[shard], head);
            (start, out) = (start + here as u64, tail);
        }
    }

    /// The tokens of `range`.
    ///
    /// # Panics
    /// As [`TokenSet::read`].
    pub fn tokens(&self, range: Range<u64>) -> Vec<u32> {
        let mut tokens = vec![0; range.end.saturating_sub(range.start) as usize];
        self.read(range.start, &mut tokens);
        tokens
    }

    /// Where document `index` lies in the stream, its end-of-text token included.
    ///
    /// # Panics
    /// If there are not so many documents.
    pub fn document(&self, index: u64) -> Range<u64> {
        assert!(index < self.documents(), "document {index} of {}", self.documents());
        let shard = self.first_document.partition_point(|&first| first <= index) - 1;
        let range = self.shards[shard].document(index - self.first_document[shard]);
        range.start + self.first_token[shard]..range.end + self.first_token[shard]
    }

    /// Where documents start in `range`, in order.
    ///
    /// # Panics
    /// If the range ends beyond [`TokenSet::len`].
    pub fn starts_in(&self, range: Range<u64>) -> Vec<u64> {
        assert!(range.end <= self.len(), "tokens {range:?} of {}", self.len());
        // The first document that does not start before the range.
        let (mut first, mut end) = (0, self.documents());
        while first < end {
            let middle = first + (end - first) / 2;
            if self.document(middle).start < range.start { first = middle + 1 } else { end = middle }
        }
        let starts = (first..self.documents()).map(|index| self.document(index).start);
        starts.take_while(|start| range.contains(start)).collect()
    }
}
