//! Writing of token sets: streamed, under their final names only when whole, and resumable where it was paused.

mod temporary;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::manifest::{Manifest, SetFormat, ShardEntry, hex, manifest_path, shard_path, starts_path};
use super::{HEADER_BYTES, Header, token_bytes};
use crate::error::{Error, Result};
use temporary::TemporaryFile;

/// Documents in a shard at most, so that their starts stay under 128 MiB of memory.
const MAX_DOCUMENTS: usize = 1 << 24;

/// Writes a token set, document by document. Without [`TokenSetWriter::finish`] there is no set.
pub struct TokenSetWriter {
    folder: PathBuf,
    name: String,
    format: SetFormat,
    current: Option<ShardWriter>,
    shards: Vec<ShardEntry>,
}

/// How far a set has been written and is on disk; see [`TokenSetWriter::pause`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    shards: Vec<ShardEntry>,
    /// Of the shard that is not whole; none if nothing has been written since the last one.
    current: Option<ShardEntry>,
}

impl TokenSetWriter {
    /// Begins the set `name` in `folder`, which is made if missing. A set of that name stops existing now.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path; [`Error::Input`] if `name` cannot be part of a file name.
    pub fn create(folder: impl AsRef<Path>, name: &str, format: SetFormat) -> Result<Self> {
        let folder = folder.as_ref();
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', ':', '\0']) {
            return Err(Error::input(format!(
                "dataset name \"{name}\" cannot be a file name: choose another"
            )));
        }
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        remove(&manifest_path(folder, name))?;
        Ok(Self { folder: folder.into(), name: name.into(), format, current: None, shards: Vec::new() })
    }

    /// Removes what a paused writer has left of the set `name`, whole shards included.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn discard(folder: &Path, name: &str) -> Result<()> {
        remove(&manifest_path(folder, name))?;
        remove_parts(folder, name, &["tokens", "tokens.tmp", "starts.tmp"])
    }

    /// Removes what only [`TokenSetWriter::resume`] needs: nobody will call it any more for the set `name`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn forget(folder: &Path, name: &str) -> Result<()> {
        remove_parts(folder, name, &["starts.tmp"])
    }

    /// Goes on with a set where it was paused, in whatever state a kill has left it since. What was written afterwards is
    /// forgotten.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the file that is not what was written: the set must be written anew.
    pub fn resume(folder: impl AsRef<Path>, name: &str, format: SetFormat, paused: &Paused) -> Result<Self> {
        let mut writer = Self::create(folder, name, format)?;
        let path = |index| shard_path(&writer.folder, name, index);
        if let Some(missing) = (0..paused.shards.len()).map(path).find(|path| !path.is_file()) {
            return Err(Error::damaged(missing, "gone"));
        }
        if let Some(entry) = &paused.current {
            let index = paused.shards.len();
            let starts = starts_path(&writer.folder, name, index);
            writer.current = Some(ShardWriter::resume(path(index), starts, &format, entry)?);
        }
        writer.shards.clone_from(&paused.shards);
        Ok(writer)
    }

    /// Brings everything that was written to the disk, such that [`TokenSetWriter::resume`] can go on from here, after a
    /// kill at any later moment too. Files that are not whole then stay when the writer is dropped, and what resuming
    /// needs stays until [`TokenSetWriter::forget`].
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn pause(&mut self) -> Result<Paused> {
        let starts = starts_path(&self.folder, &self.name, self.shards.len());
        let current = self.current.as_mut().map(|shard| shard.pause(&starts)).transpose()?;
        Ok(Paused { shards: self.shards.clone(), current })
    }

    /// Appends a document and the end-of-text token.
    ///
    /// # Errors
    /// [`Error::Io`] naming the shard; [`Error::Input`] for an id outside the vocabulary.
    pub fn push(&mut self, document: &[u32]) -> Result<()> {
        let full = |shard: &ShardWriter| {
            shard.bytes() >= self.format.shard_bytes || shard.starts.len() >= MAX_DOCUMENTS
        };
        if self.current.as_ref().is_some_and(full) {
            self.finish_shard()?;
        }
        let shard = match &mut self.current {
            Some(shard) => shard,
            none => none.insert(ShardWriter::create(
                shard_path(&self.folder, &self.name, self.shards.len()),
                &self.format,
            )?),
        };
        shard.push(document, self.format.eos)
    }

    /// Makes the set whole.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path.
    pub fn finish(mut self) -> Result<()> {
        self.finish_shard()?;
        remove_shards(&self.folder, &self.name, self.shards.len())?;
        let manifest = Manifest::new(&self.format, std::mem::take(&mut self.shards));
        let path = manifest_path(&self.folder, &self.name);
        let mut file = TemporaryFile::create(path)?;
        file.write(manifest.to_json().as_bytes())?;
        file.publish()
    }

    fn finish_shard(&mut self) -> Result<()> {
        if let Some(shard) = self.current.take() {
            let path = shard_path(&self.folder, &self.name, self.shards.len());
            let header = shard.finish()?;
            self.shards.push(ShardEntry::new(&path, &header));
        }
        Ok(())
    }
}

struct ShardWriter {
    file: TemporaryFile,
    header: Header,
    hasher: Xxh3,
    starts: Vec<u64>,
    /// How many of the starts are on disk.
    kept_starts: usize,
    /// Scratch for one document.
    bytes: Vec<u8>,
}

impl ShardWriter {
    fn create(path: PathBuf, format: &SetFormat) -> Result<Self> {
        let header = Header {
            vocab_size: format.vocab_size as u64,
            tokens: 0,
            documents: 0,
            tokenizer_hash: format.tokenizer_hash,
            payload_hash: 0,
        };
        let mut file = TemporaryFile::create(path)?;
        file.write(&[0; HEADER_BYTES])?;
        Ok(Self { file, header, hasher: Xxh3::new(), starts: Vec::new(), kept_starts: 0, bytes: Vec::new() })
    }

    /// Goes on with a shard of which `entry` was written, and whose documents begin as the file `starts` says.
    fn resume(path: PathBuf, starts: PathBuf, format: &SetFormat, entry: &ShardEntry) -> Result<Self> {
        let header = Header {
            vocab_size: format.vocab_size as u64,
            tokens: entry.tokens,
            documents: entry.documents,
            tokenizer_hash: format.tokenizer_hash,
            payload_hash: 0,
        };
        let hasher = Xxh3::new();
        let mut shard = ShardWriter {
            file: TemporaryFile::reopen(path)?,
            header,
            hasher,
            starts: temporary::read_starts(&starts, entry.documents as usize)?,
            kept_starts: entry.documents as usize,
            bytes: Vec::new(),
        };
        let length = HEADER_BYTES as u64 + shard.bytes();
        shard.file.read(HEADER_BYTES as u64..length, |bytes| shard.hasher.update(bytes))?;
        if entry.payload_hash != hex(shard.digest()) {
            return Err(Error::damaged(&shard.file.temporary, "not what was written"));
        }
        shard.file.truncate(length)?;
        Ok(shard)
    }

    /// Identifies what has been written.
    fn digest(&self) -> u64 {
        let mut hasher = self.hasher.clone();
        self.starts.iter().for_each(|start| hasher.update(&start.to_le_bytes()));
        hasher.digest()
    }

    /// Brings the tokens to the disk, and the starts of documents into the file `starts`.
    fn pause(&mut self, starts: &Path) -> Result<ShardEntry> {
        self.file.sync()?;
        temporary::append_starts(starts, self.kept_starts, &self.starts[self.kept_starts..])?;
        self.kept_starts = self.starts.len();
        let header = Header { payload_hash: self.digest(), ..self.header };
        Ok(ShardEntry::new(&self.file.path, &header))
    }

    fn bytes(&self) -> u64 {
        self.header.tokens * token_bytes(self.header.vocab_size) as u64
    }

    fn push(&mut self, document: &[u32], eos: u32) -> Result<()> {
        let ids = || document.iter().chain([&eos]);
        if let Some(id) = ids().find(|&&id| u64::from(id) >= self.header.vocab_size) {
            return Err(Error::input(format!(
                "{}: token id {id} is outside the vocabulary of {}: the tokenizer is another than declared",
                self.file.path.display(),
                self.header.vocab_size
            )));
        }
        self.bytes.clear();
        match token_bytes(self.header.vocab_size) {
            2 => ids().for_each(|&id| self.bytes.extend((id as u16).to_le_bytes())),
            _ => ids().for_each(|&id| self.bytes.extend(id.to_le_bytes())),
        }
        self.starts.push(self.header.tokens);
        self.header.tokens += document.len() as u64 + 1;
        self.header.documents += 1;
        self.hasher.update(&self.bytes);
        self.file.write(&self.bytes)
    }

    fn finish(mut self) -> Result<Header> {
        let padding = self.bytes().next_multiple_of(8) - self.bytes();
        let mut tail = vec![0; padding as usize];
        tail.extend(self.starts.iter().flat_map(|start| start.to_le_bytes()));
        self.hasher.update(&tail);
        self.file.write(&tail)?;
        self.header.payload_hash = self.hasher.digest();
        self.file.seek_to_start()?;
        self.file.write(&self.header.to_bytes())?;
        self.file.publish()?;
        Ok(self.header)
    }
}

/// Gives the files of the whole set `name` in the folder `from` a second name in the folder `to`, which is made if
/// missing. A set of that name there stops existing.
///
/// # Errors
/// [`Error::Io`] naming the path, also where there can be no hard link. There is no set of this name in `to` then.
pub fn link(from: &Path, to: &Path, name: &str) -> Result<()> {
    std::fs::create_dir_all(to).map_err(Error::io(to))?;
    let link = |old: &Path, new: &Path| std::fs::hard_link(old, new).map_err(Error::io(new));
    remove(&manifest_path(to, name))?;
    remove_shards(to, name, 0)?;
    let shards = (0..).map(|i| (shard_path(from, name, i), shard_path(to, name, i)));
    shards.take_while(|(old, _)| old.is_file()).try_for_each(|(old, new)| link(&old, &new))?;
    link(&manifest_path(from, name), &manifest_path(to, name))?;
    #[cfg(unix)]
    std::fs::File::open(to).and_then(|folder| folder.sync_all()).map_err(Error::io(to))?;
    Ok(())
}

/// Removes files of shards of the set `name` that end in one of these.
fn remove_parts(folder: &Path, name: &str, endings: &[&str]) -> Result<()> {
    let is_one = |file: &str| {
        let rest = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|rest| rest.split_once('.')).is_some_and(|(index, ending)| {
            index.len() == 5 && index.bytes().all(|byte| byte.is_ascii_digit()) && endings.contains(&ending)
        })
    };
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        if is_one(&entry.file_name().to_string_lossy()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes shards of the set `name` from the one of this index on; an earlier set of that name may have had more.
fn remove_shards(folder: &Path, name: &str, first: usize) -> Result<()> {
    for index in first.. {
        if !remove(&shard_path(folder, name, index))? {
            break;
        }
    }
    Ok(())
}

/// Removes a file if it is there; tells whether it was.
fn remove(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(path)(e)),
    }
}
