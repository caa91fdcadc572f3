//! What a token set is, beside its shards: its format, the names of its files, and the manifest that lists them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Header;
use crate::files;

/// What all shards of a set have in common.
#[derive(Debug, Clone, Copy)]
pub struct SetFormat {
    /// Ids run from 0 to this, exclusive.
    pub vocab_size: usize,
    /// Appended to every document.
    pub eos: u32,
    /// See [`Tokenizer::hash`](crate::tokenizer::Tokenizer::hash).
    pub tokenizer_hash: u64,
    /// Bytes after which a new shard begins. Documents are never split, so shards end up a little larger.
    pub shard_bytes: u64,
    /// Whatever identifies what the set was made from; see [`TokenSet::fingerprint`](super::TokenSet::fingerprint).
    pub fingerprint: u64,
}

/// `NAME.json`, written when every shard is whole: a set without it does not exist.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) vocab_size: u64,
    pub(super) tokenizer_hash: String,
    pub(super) fingerprint: String,
    pub(super) shards: Vec<ShardEntry>,
}

/// A shard as the manifest knows it. Hashes are hexadecimal: many JSON readers round large numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShardEntry {
    file: String,
    pub(super) tokens: u64,
    pub(super) documents: u64,
    pub(super) payload_hash: String,
}

impl Manifest {
    pub(super) fn new(format: &SetFormat, shards: Vec<ShardEntry>) -> Self {
        Self {
            vocab_size: format.vocab_size as u64,
            tokenizer_hash: hex(format.tokenizer_hash),
            fingerprint: hex(format.fingerprint),
            shards,
        }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a manifest holds only strings and integers")
    }
}

impl ShardEntry {
    pub(super) fn new(path: &Path, header: &Header) -> Self {
        Self {
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            tokens: header.tokens,
            documents: header.documents,
            payload_hash: hex(header.payload_hash),
        }
    }
}

pub(super) fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// Whether a file is a shard or a manifest by its name and, as a manifest may be named anything, by what it holds.
pub fn is_part(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let shard = name
        .strip_suffix(".starts.tmp")
        .or_else(|| name.trim_end_matches(".tmp").strip_suffix(".tokens"))
        .and_then(|name| name.rsplit_once('-'));
    let is_shard = shard.is_some_and(|(_, i)| i.len() >= 5 && i.bytes().all(|digit| digit.is_ascii_digit()));
    let is_manifest = || {
        let bytes = files::read(path, files::LISTS).ok();
        bytes.is_some_and(|bytes| serde_json::from_slice::<Manifest>(&bytes).is_ok())
    };
    is_shard || name.ends_with(".json") && is_manifest()
}

pub(super) fn manifest_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

/// Where the starts of documents are kept while a shard is not whole.
pub(super) fn starts_path(folder: &Path, name: &str, index: usize) -> PathBuf {
    folder.join(format!("{name}-{index:05}.starts.tmp"))
}

pub(super) fn shard_path(folder: &Path, name: &str, index: usize) -> PathBuf {
    folder.join(format!("{name}-{index:05}.tokens"))
}
