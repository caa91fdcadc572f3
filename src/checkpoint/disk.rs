//! What a save does to the file system, so that tests can make any of it fail.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::files;

/// The operations of a save. Each is atomic or may be cut short by a crash, as on a real disk.
pub(super) trait Disk {
    /// An open, empty file.
    type File: Write;
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Forces a file's bytes to the medium.
    fn sync(&self, file: &mut Self::File) -> io::Result<()>;
    /// Forces a folder's entries to the medium.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's file system.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        files::create(path)
    }

    fn sync(&self, file: &mut File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Windows has no such call: it orders the entries of a folder by itself.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A disk that fails: a dead process does nothing more, a full disk only refuses to write, a fault passes.
    #[derive(Clone, Default)]
    pub struct FailingDisk {
        /// Operations before the process dies; the last one is done half.
        operations: Option<Rc<Cell<usize>>>,
        /// Bytes that still fit.
        bytes: Option<Rc<Cell<usize>>>,
        /// Operations before the one that fails.
        fault: Option<Rc<Cell<usize>>>,
    }

    pub struct FailingFile(File, FailingDisk);

    impl FailingDisk {
        pub fn dying_after(operations: usize) -> Self {
            FailingDisk { operations: Some(Rc::new(Cell::new(operations))), ..Self::default() }
        }

        pub fn with_room_for(bytes: usize) -> Self {
            FailingDisk { bytes: Some(Rc::new(Cell::new(bytes))), ..Self::default() }
        }

        pub fn failing_once_after(operations: usize) -> Self {
            FailingDisk { fault: Some(Rc::new(Cell::new(operations))), ..Self::default() }
        }

        pub fn is_dead(&self) -> bool {
            self.operations.as_ref().is_some_and(|left| left.get() == 0)
        }

        fn operate(&self) -> io::Result<()> {
            if self.is_dead() {
                return Err(io::Error::other("the process is dead"));
            }
            if let Some(left) = &self.operations {
                left.set(left.get() - 1);
            }
            if let Some(left) = &self.fault {
                let now = left.get();
                left.set(now.wrapping_sub(1));
                return if now == 0 { Err(io::Error::other("a passing fault")) } else { Ok(()) };
            }
            Ok(())
        }
    }

    impl Write for FailingFile {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.operate()?;
            let fits = self.1.bytes.as_ref().map_or(bytes.len(), |room| room.get().min(bytes.len()));
            if fits == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if let Some(room) = &self.1.bytes {
                room.set(room.get() - fits);
            }
            let cut = if self.1.is_dead() { fits / 2 } else { fits };
            self.0.write(&bytes[..cut])?;
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Disk for FailingDisk {
        type File = FailingFile;

        fn create(&self, path: &Path) -> io::Result<FailingFile> {
            self.operate()?;
            Ok(FailingFile(File::create(path)?, self.clone()))
        }

        fn sync(&self, _: &mut FailingFile) -> io::Result<()> {
            self.operate()
        }

        fn sync_dir(&self, _: &Path) -> io::Result<()> {
            self.operate()
        }

        fn create_dir_all(&self, path: &Path) -> io::Result<()> {
            self.operate()?;
            fs::create_dir_all(path)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.operate()?;
            fs::rename(from, to)
        }

        fn remove_file(&self, path: &Path) -> io::Result<()> {
            self.operate()?;
            fs::remove_file(path)
        }

        fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
            self.operate()?;
            if self.is_dead() {
                let first =
                    fs::read_dir(path)?.filter_map(io::Result::ok).find(|entry| entry.path().is_file());
                return first.map_or(Ok(()), |entry| fs::remove_file(entry.path()));
            }
            fs::remove_dir_all(path)
        }
    }
}
