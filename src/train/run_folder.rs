//! A run's folder: made for one run alone, and locked while a process trains in it.

use super::saved::RECIPE_FILE;
use crate::error::{Error, Result};
use crate::files;
use crate::report::out;
use std::cell::Cell;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// File that is locked while a process trains in the folder; it names the process.
const LOCK_FILE: &str = "lock";

/// What a start that was killed before its recipe was on disk may have left.
const LEFT_BY_A_START: [&str; 2] = [LOCK_FILE, ".tmp-recipe.toml"];

/// A run folder that no other process trains in as long as this value lives. The system lets go of the lock when the
/// process ends, however it ends.
///
/// What a start has put there goes with this value, unless [`keep`](RunFolder::keep) was called: a start that came to
/// nothing must not take the run's name.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Whether the folder itself was made by this start.
    made: bool,
    kept: Cell<bool>,
    _lock: File,
}

impl RunFolder {
    /// Makes the first of `runs/NAME`, `runs/NAME-2`, ... that is free.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be made.
    pub fn create(name: &str) -> Result<RunFolder> {
        for i in 1.. {
            let name = if i == 1 { name.to_string() } else { format!("{name}-{i}") };
            match Self::claim(&Path::new("runs").join(name)) {
                Err(Error::Input(_)) => {}
                claimed => return claimed,
            }
        }
        unreachable!("numbers are endless")
    }

    /// Makes the folder `path`, which must be new or empty.
    ///
    /// # Errors
    /// [`Error::Input`] if something is in it or another process trains there, [`Error::Io`] if it cannot be made.
    pub fn claim(path: &Path) -> Result<RunFolder> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        let made = match std::fs::create_dir(path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(Error::io(path)(error)),
        };
        if !made {
            // Before the lock, which writes a file.
            refuse_used(path)?;
        }
        let folder = RunFolder { path: path.into(), made, kept: Cell::new(true), _lock: lock(path)? };
        // Another start may have been faster in between.
        refuse_used(path)?;
        folder.kept.set(false);
        Ok(folder)
    }

    /// Takes the folder `path` of an earlier run.
    ///
    /// # Errors
    /// [`Error::Input`] if it holds no run, or another process trains there.
    pub fn open(path: &Path) -> Result<RunFolder> {
        if !is_run(path) {
            let why = format!("no run to resume here (neither {RECIPE_FILE} nor checkpoints)");
            return Err(Error::input(format!("{}: {why}", path.display())));
        }
        Ok(RunFolder { path: path.into(), made: false, kept: Cell::new(true), _lock: lock(path)? })
    }

    /// Says that something in the folder is worth keeping.
    pub fn keep(&self) {
        self.kept.set(true);
    }
}

impl Deref for RunFolder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.kept.get() {
            return;
        }
        // The folder was empty, so all of it is the start's. An error that ended the start is the one to report.
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
        if self.made {
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

fn is_run(path: &Path) -> bool {
    path.join(RECIPE_FILE).symlink_metadata().is_ok() || path.join("checkpoints").is_dir()
}

fn refuse_used(path: &Path) -> Result<()> {
    let refuse = |why: &str| Err(Error::input(format!("{}: {why}", path.display())));
    if is_run(path) {
        return match lock(path) {
            Err(held @ Error::Input(_)) => Err(held),
            _ => refuse(&format!(
                "holds a run already; continue it with --resume {}, or give another --out",
                path.display()
            )),
        };
    }
    let mut entries = std::fs::read_dir(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotADirectory => {
            Error::input(format!("{}: is no folder; give another --out", path.display()))
        }
        _ => Error::io(path)(error),
    })?;
    let foreign = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| !LEFT_BY_A_START.iter().any(|name| entry.file_name() == *name))
    };
    if entries.any(foreign) { refuse("is not empty; give another --out") } else { Ok(()) }
}

/// Locks the folder for this process.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK_FILE);
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        files::set_aside(&path)?;
    }
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Where a lock also keeps others from reading, nobody is named.
            let _ = file.take(200).read_to_string(&mut holder);
            let holder = if holder.is_empty() { "another process" } else { holder.trim_end() };
            let why = format!("in use by {holder}; stop that or wait for its end");
            return Err(Error::input(format!("{}: {why}", folder.display())));
        }
        Err(TryLockError::Error(error)) => {
            let why = format!("cannot be locked ({error}); see to it that no other process trains here");
            out::warn(format_args!("{}: {why}", path.display()));
        }
    }
    // Only for the message above, so a full disk does not matter.
    let _ = file.set_len(0).and_then(|()| file.write_all(this_process().as_bytes()));
    Ok(file)
}

/// Process, host and time, as others are told.
fn this_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok()));
    let host = host.map_or(String::new(), |host| format!(" on {}", host.trim()));
    let now = chrono::Local::now().format("%Y-%m-%d %H:%M:%S");
    format!("process {}{host} since {now}\n", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_starts_each_gets_a_folder_or_a_refusal() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run");
        let start = || RunFolder::claim(&path);
        let claims: Vec<Result<RunFolder>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut held = None;
        for claim in claims {
            match claim {
                Ok(folder) => assert!(held.replace(folder).is_none(), "two have the folder"),
                Err(error) => assert!(error.exit_code() == 2, "{error}"),
            }
        }
        let held = held.expect("one has it");
        std::fs::write(path.join(RECIPE_FILE), "").unwrap();
        for refused in [RunFolder::open(&path), RunFolder::claim(&path)] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        }
        held.keep();
        drop(held);
        RunFolder::open(&path).unwrap();
    }

    #[test]
    fn only_new_or_empty_folders_are_claimed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new/run");
        drop(RunFolder::claim(&path).unwrap());
        assert!(!path.exists(), "a start that came to nothing leaves a folder");
        RunFolder::claim(&path).unwrap().keep();
        // As a start that is killed at once leaves it.
        std::fs::write(path.join(".tmp-recipe.toml"), "name").unwrap();
        let folder = RunFolder::claim(&path).unwrap();
        std::fs::create_dir_all(folder.join("data/tokenizer")).unwrap();
        drop(folder);
        assert!(path.exists(), "the folder was there before the start");
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);

        for (name, word) in [("mine.txt", "is not empty"), (RECIPE_FILE, "holds a run already")] {
            let path = place.path().join(format!("with {name}"));
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(name), "mine").unwrap();
            let error = RunFolder::claim(&path).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(word), "{error}");
            assert_eq!(std::fs::read(path.join(name)).unwrap(), b"mine");
            assert!(name == RECIPE_FILE || !path.join(LOCK_FILE).exists());
        }
        assert_eq!(
            RunFolder::claim(&place.path().join("with mine.txt/mine.txt")).unwrap_err().exit_code(),
            2
        );
        assert!(RunFolder::open(&place.path().join("nowhere")).unwrap_err().to_string().contains("no run"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_steps_aside_for_the_lock() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(RECIPE_FILE), "").unwrap();
        assert!(
            std::process::Command::new("mkfifo")
                .arg(place.path().join(LOCK_FILE))
                .status()
                .unwrap()
                .success()
        );
        RunFolder::open(place.path()).unwrap();
        assert!(place.path().join("lock.damaged").exists());
    }
}
