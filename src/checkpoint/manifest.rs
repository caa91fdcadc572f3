//! The list of a checkpoint's files with their sizes and checksums.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::files;

/// Where the manifest lies inside a checkpoint.
pub(super) const PATH: &str = "trainer/manifest.json";

/// Every file of a checkpoint except the manifest itself, by path inside the folder with `/` separators.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub version: u32,
    pub files: BTreeMap<String, Entry>,
}

/// What one file must be.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Length in bytes.
    pub size: u64,
    /// XXH3 (64 bits) of the bytes, 16 hexadecimal digits.
    pub xxh3: String,
}

/// Counts and hashes what passes through to `inner`.
pub(super) struct Hashing<W> {
    pub inner: W,
    hash: Xxh3,
    size: u64,
}

impl<W> Hashing<W> {
    pub fn new(inner: W) -> Self {
        Hashing { inner, hash: Xxh3::new(), size: 0 }
    }

    pub fn entry(&self) -> Entry {
        Entry { size: self.size, xxh3: format!("{:016x}", self.hash.digest()) }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads every file of the checkpoint `folder` and compares it with the manifest.
///
/// # Errors
/// [`Error::Damaged`] naming the first file that is missing, cannot be read, or is not what was written.
pub fn verify(folder: &Path) -> Result<()> {
    verify_those(folder, |_| true)
}

/// As [`verify`], for the model alone: the optimizer's moments are neither needed nor read.
///
/// # Errors
/// As [`verify`].
pub fn verify_model(folder: &Path) -> Result<()> {
    verify_those(folder, |name| !name.starts_with("trainer/"))
}

fn verify_those(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let path = folder.join(PATH);
    let text = files::read_text(&path, files::SETTINGS).map_err(as_damage)?;
    let manifest: Manifest = serde_json::from_str(&text)
        .map_err(|e| Error::damaged(&path, format!("not a list of checksums ({e})")))?;
    if manifest.version != 1 {
        let why = format!("has version {}, but this smolter reads 1: use a newer one", manifest.version);
        return Err(Error::input(format!("{}: {why}", path.display())));
    }
    for (name, expected) in manifest.files.iter().filter(|(name, _)| wanted(name)) {
        let path = folder.join(name);
        let found = entry_of(&path).map_err(as_damage)?;
        if found.size != expected.size {
            let why = format!("has {} bytes, but {} were written", found.size, expected.size);
            return Err(Error::damaged(&path, why));
        }
        if found.xxh3 != expected.xxh3 {
            return Err(Error::damaged(&path, "its checksum is not that of the bytes that were written"));
        }
    }
    Ok(())
}

/// A file of the list that cannot be read is damage of the checkpoint, not a mistake of whoever named it.
fn as_damage(error: Error) -> Error {
    match error {
        Error::Io { path, source } => Error::damaged(path, format!("cannot be read ({source})")),
        other => other,
    }
}

fn entry_of(path: &Path) -> Result<Entry> {
    let mut file = files::open(path)?;
    let mut hashing = Hashing::new(io::sink());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::io(path))? {
            0 => return Ok(hashing.entry()),
            length => hashing.write_all(&buffer[..length]).map_err(Error::io(path))?,
        }
    }
}
