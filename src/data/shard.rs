//! Token shards: the tokens of many documents in one memory-mapped file. A [`TokenSet`] is a dataset: an
//! ordered list of shards, read as one stream of tokens.
//!
//! A shard, all numbers little-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `SMOLTOK1` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | bytes per token: 2 where the vocabulary has at most 65,536 ids, else 4 |
//! | 16 | 8 | vocabulary size |
//! | 24 | 8 | number of tokens, T |
//! | 32 | 8 | number of documents, D |
//! | 40 | 8 | tokenizer hash ([`Tokenizer::hash`](crate::tokenizer::Tokenizer::hash)) |
//! | 48 | 8 | XXH3 of everything after the header |
//! | 56 | 8 | XXH3 of the 56 bytes before |
//! | 64 | T x width | token ids, zero-padded to a multiple of 8 bytes |
//! | | 8 x D | where each document starts, in tokens; it ends, with its end-of-text token, where the next starts |

mod manifest;
mod set;
mod writer;

pub use manifest::{SetFormat, is_part};
pub use set::TokenSet;
pub use writer::{Paused, TokenSetWriter, link};

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::files;

const MAGIC: &[u8; 8] = b"SMOLTOK1";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const REMEDY: &str = "remove it, and it is made again when the run is resumed";

/// How much of a shard to check when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Header, length, the checksum of the contents, and whether they make sense, which reads the whole file.
    #[default]
    Full,
    /// Header and length only.
    Header,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    vocab_size: u64,
    tokens: u64,
    documents: u64,
    tokenizer_hash: u64,
    payload_hash: u64,
}

fn token_bytes(vocab_size: u64) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(token_bytes(self.vocab_size) as u32).to_le_bytes());
        let fields = [self.vocab_size, self.tokens, self.documents, self.tokenizer_hash, self.payload_hash];
        for (field, place) in fields.iter().zip(bytes[16..56].chunks_exact_mut(8)) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let hash = xxh3_64(&bytes[..56]);
        bytes[56..].copy_from_slice(&hash.to_le_bytes());
        bytes
    }

    /// Takes a header only if writing it again gives the same bytes.
    fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, String> {
        if !bytes.starts_with(MAGIC) {
            return Err("not a token shard".into());
        }
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err("cut inside the header".into());
        };
        let field = |i: usize| u64::from_le_bytes(std::array::from_fn(|j| bytes[16 + 8 * i + j]));
        let header = Self {
            vocab_size: field(0),
            tokens: field(1),
            documents: field(2),
            tokenizer_hash: field(3),
            payload_hash: field(4),
        };
        if header.to_bytes() != *bytes {
            return Err("the header is damaged or of another version".into());
        }
        Ok(header)
    }

    /// Bytes of the token ids, padding included. None if no file can be that long.
    fn token_area(&self) -> Option<usize> {
        usize::try_from(self.tokens)
            .ok()?
            .checked_mul(token_bytes(self.vocab_size))?
            .checked_next_multiple_of(8)
    }

    fn file_bytes(&self) -> Option<usize> {
        let starts = usize::try_from(self.documents).ok()?.checked_mul(8)?;
        self.token_area()?.checked_add(starts)?.checked_add(HEADER_BYTES)
    }
}

/// Something else in the place of a file, such as a folder, is damage too.
fn with_remedy(path: &Path, error: Error) -> Error {
    match error {
        Error::Input(_) => Error::damaged(path, format!("not a file that can be read; {REMEDY}")),
        other => other,
    }
}

/// One shard, memory-mapped. The file must not be changed while it is open.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl Shard {
    fn open(path: &Path, verify: Verify) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(path, format!("{what}; {REMEDY}"));
        let file = files::open(path).map_err(|error| with_remedy(path, error))?;
        // SAFETY: the map is only read, as bytes. Shards appear by rename and are never written again; someone
        // who truncates one while it is mapped gets SIGBUS, as with every memory-mapped format.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let header = Header::from_bytes(&map).map_err(|what| damaged(&what))?;
        if header.file_bytes() != Some(map.len()) {
            return Err(damaged(&format!("truncated or extended, {} bytes", map.len())));
        }
        if verify == Verify::Full && xxh3_64(&map[HEADER_BYTES..]) != header.payload_hash {
            return Err(damaged("the contents do not match their checksum"));
        }
        let shard = Self { path: path.to_path_buf(), map, header };
        match verify {
            Verify::Full => shard.problem().map_or(Ok(shard), |what| Err(damaged(&what))),
            Verify::Header => Ok(shard),
        }
    }

    /// What a right checksum does not exclude: documents that overlap, tokens that do not exist.
    fn problem(&self) -> Option<String> {
        let Header { vocab_size, tokens, documents, .. } = self.header;
        let orderly = |i| self.document(i).start <= self.document(i).end;
        if !(0..documents).all(orderly) || self.start(0).unwrap_or(tokens) != 0 {
            return Some(format!("its {documents} documents do not follow one another"));
        }
        let mut piece = vec![0; 1 << 16];
        for start in (0..tokens).step_by(piece.len()) {
            let piece = &mut piece[..(tokens - start).min(1 << 16) as usize];
            self.read(start, piece);
            if let Some(id) = piece.iter().find(|&&id| u64::from(id) >= vocab_size) {
                return Some(format!("it holds token {id}, but the vocabulary has {vocab_size}"));
            }
        }
        None
    }

    /// Where document `index` starts, counted in this shard.
    fn start(&self, index: u64) -> Option<u64> {
        let starts = &self.map[self.map.len() - 8 * self.header.documents as usize..];
        starts.as_chunks().0.get(index as usize).map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// Fills `out` with the tokens from `start` on; all must lie in this shard.
    fn read(&self, start: u64, out: &mut [u32]) {
        let width = token_bytes(self.header.vocab_size);
        let first = HEADER_BYTES + start as usize * width;
        let bytes = &self.map[first..first + out.len() * width];
        match width {
            2 => out
                .iter_mut()
                .zip(bytes.as_chunks().0)
                .for_each(|(out, b)| *out = u16::from_le_bytes(*b).into()),
            _ => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, b)| *out = u32::from_le_bytes(*b)),
        }
    }

    /// The tokens of document `index`, counted in this shard.
    fn document(&self, index: u64) -> Range<u64> {
        let first = self.start(index).expect("document index within the shard");
        first..self.start(index + 1).unwrap_or(self.header.tokens)
    }
}

#[cfg(test)]
mod tests;
