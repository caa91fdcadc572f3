//! Files of a set that is being written.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;

/// Bytes that are written or read at once.
const BUFFER: usize = 1 << 20;

/// A file that gets its name when it is complete and on disk; before that it is `NAME.tmp`, and goes if dropped.
pub(super) struct TemporaryFile {
    pub path: PathBuf,
    pub temporary: PathBuf,
    writer: BufWriter<File>,
    published: bool,
    /// Whether it stays as it is when it is dropped.
    kept: bool,
}

impl TemporaryFile {
    pub fn create(path: PathBuf) -> Result<Self> {
        let temporary = name(&path);
        let file = files::create(&temporary).map_err(Error::io(&temporary))?;
        Ok(Self {
            path,
            temporary,
            writer: BufWriter::with_capacity(BUFFER, file),
            published: false,
            kept: false,
        })
    }

    /// Opens a file that was kept, or that got its name since. It stays if it is dropped.
    pub fn reopen(path: PathBuf) -> Result<Self> {
        let temporary = name(&path);
        if !temporary.is_file() && path.is_file() {
            std::fs::rename(&path, &temporary).map_err(Error::io(&temporary))?;
        }
        if !temporary.is_file() {
            return Err(Error::damaged(temporary, "gone"));
        }
        let file = File::options().read(true).write(true).open(&temporary).map_err(Error::io(&temporary))?;
        Ok(Self {
            path,
            temporary,
            writer: BufWriter::with_capacity(BUFFER, file),
            published: false,
            kept: true,
        })
    }

    /// Hands the bytes in `range` over, piece by piece.
    pub fn read(&mut self, range: Range<u64>, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut file = self.writer.get_ref();
        file.seek(SeekFrom::Start(range.start)).map_err(Error::io(&self.temporary))?;
        let mut left = range.end - range.start;
        let mut piece = vec![0; BUFFER];
        while left > 0 {
            let wanted = left.min(BUFFER as u64) as usize;
            let read = file.read(&mut piece[..wanted]).map_err(Error::io(&self.temporary))?;
            if read == 0 {
                return Err(Error::damaged(&self.temporary, "shorter than it was"));
            }
            take(&piece[..read]);
            left -= read as u64;
        }
        Ok(())
    }

    /// Forgets what comes after the first `length` bytes, and goes on there.
    pub fn truncate(&mut self, length: u64) -> Result<()> {
        let mut file = self.writer.get_ref();
        let cut = file.set_len(length).and_then(|()| file.seek(SeekFrom::Start(length)));
        cut.map_err(Error::io(&self.temporary)).map(|_| ())
    }

    /// Brings what was written to the disk. The file stays if it is dropped.
    pub fn sync(&mut self) -> Result<()> {
        self.kept = true;
        let synced = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        synced.map_err(Error::io(&self.temporary))
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(Error::io(&self.path))
    }

    pub fn seek_to_start(&mut self) -> Result<()> {
        self.writer.seek(SeekFrom::Start(0)).map_err(Error::io(&self.path)).map(|_| ())
    }

    pub fn publish(mut self) -> Result<()> {
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
        if !self.published && !self.kept {
            // Nothing can be done about a failure here, and nothing reads the file.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// What the file `path` is called as long as it is not whole.
pub(super) fn name(path: &Path) -> PathBuf {
    let mut temporary = path.to_path_buf().into_os_string();
    temporary.push(".tmp");
    temporary.into()
}

/// Adds starts of documents to the file `path`, which has `before` of them, and brings it to the disk.
pub(super) fn append_starts(path: &Path, before: usize, starts: &[u64]) -> Result<()> {
    let mut options = File::options();
    let mut file = options.create(true).truncate(false).write(true).open(path).map_err(Error::io(path))?;
    let at = 8 * before as u64;
    let bytes: Vec<u8> = starts.iter().flat_map(|start| start.to_le_bytes()).collect();
    let written = file
        .set_len(at)
        .and_then(|()| file.seek(SeekFrom::Start(at)))
        .and_then(|_| file.write_all(&bytes))
        .and_then(|()| file.sync_all());
    written.map_err(Error::io(path))
}

/// The first `count` starts of documents in the file `path`.
pub(super) fn read_starts(path: &Path, count: usize) -> Result<Vec<u64>> {
    let damaged = || Error::damaged(path, "not what was written");
    let mut bytes = Vec::new();
    let file = files::open(path).map_err(|_| damaged())?;
    file.take(8 * count as u64).read_to_end(&mut bytes).map_err(Error::io(path))?;
    let starts: Vec<u64> = bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    if starts.len() == count { Ok(starts) } else { Err(damaged()) }
}
