//! Writing of token sets: streamed, and under their final names only when whole.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::manifest::{Manifest, SetFormat, ShardEntry, manifest_path, shard_path};
use super::{HEADER_BYTES, Header, token_bytes};
use crate::error::{Error, Result};
use crate::files;

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
        Ok(Self { file, header, hasher: Xxh3::new(), starts: Vec::new(), bytes: Vec::new() })
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

/// A file that gets its name when it is complete and on disk; before that it is `NAME.tmp`, and goes if dropped.
struct TemporaryFile {
    path: PathBuf,
    temporary: PathBuf,
    writer: BufWriter<File>,
    published: bool,
}

impl TemporaryFile {
    fn create(path: PathBuf) -> Result<Self> {
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = files::create(&temporary).map_err(Error::io(&temporary))?;
        Ok(Self { path, temporary, writer: BufWriter::with_capacity(1 << 20, file), published: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(Error::io(&self.path))
    }

    fn seek_to_start(&mut self) -> Result<()> {
        self.writer.seek(SeekFrom::Start(0)).map_err(Error::io(&self.path)).map(|_| ())
    }

    fn publish(mut self) -> Result<()> {
        let flushed = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        flushed.and_then(|()| std::fs::rename(&self.temporary, &self.path)).map_err(Error::io(&self.path))?;
        self.published = true;
        // The new name itself must survive a power cut; only Unix lets a folder be flushed.
        #[cfg(unix)]
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
        }
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.published {
            // Nothing can be done about a failure here, and nothing reads the file.
            let _ = std::fs::remove_file(&self.temporary);
        }
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
    File::open(to).and_then(|folder| folder.sync_all()).map_err(Error::io(to))?;
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
