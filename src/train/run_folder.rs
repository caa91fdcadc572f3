//! A run's folder: made for one run alone, and locked while a process trains in it.

use super::begun::BEGUN_FILE;
use super::made::{self, CHECKPOINTS_FOLDER, DATA_FOLDER, LOCK_FILE};
use super::saved::RECIPE_FILE;
use crate::error::{Error, Result};
use crate::files;
use crate::report::{out, quoted};
use std::cell::Cell;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a start that was killed before its recipe was on disk may have left.
const LEFT_BY_A_START: [&str; 2] = [LOCK_FILE, ".tmp-recipe.toml"];

/// A run folder that no other process trains in as long as this value lives. The system lets go of the lock when the
/// process ends, however it ends.
///
/// What a start has [made](made::remove) there goes with this value, unless [`keep`](RunFolder::keep) was called: a start
/// that came to nothing must not take the run's name.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Whether the folder itself was made by this start.
    made: bool,
    kept: Cell<bool>,
    _lock: Lock,
}

/// The locks of a run folder, released when dropped.
#[derive(Debug)]
struct Lock {
    _file: File,
    /// The folder itself, where the system locks folders: its file alone may be deleted.
    _folder: Option<File>,
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
        if !can_be_resumed(path) {
            let why = format!("no run to resume here (neither {RECIPE_FILE} nor checkpoints)");
            return Err(Error::input(format!("{}: {why}", path.display())));
        }
        for folder in [CHECKPOINTS_FOLDER, DATA_FOLDER].map(|name| path.join(name)) {
            if folder.symlink_metadata().is_ok() && !folder.is_dir() {
                let why =
                    "is no folder that can be reached; put the run's folder of that name back, or remove it";
                return Err(Error::input(format!("{}: {why}", folder.display())));
            }
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
        // Others may have put something there meanwhile. An error that ended the start is the one to report.
        made::remove(&self.path);
        if self.made {
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

/// Whether the folder is that of a run.
pub fn can_be_resumed(path: &Path) -> bool {
    let files = [RECIPE_FILE, BEGUN_FILE].map(|name| path.join(name));
    files.iter().any(|file| file.symlink_metadata().is_ok()) || path.join(CHECKPOINTS_FOLDER).is_dir()
}

/// The run folder that a checkpoint, or the run folder itself, lies in, if it lies in one.
pub fn run_of(checkpoint: &Path) -> Option<PathBuf> {
    let folder = checkpoint.canonicalize().ok()?;
    folder.ancestors().take(3).find(|it| it.join(RECIPE_FILE).is_file()).map(PathBuf::from)
}

fn refuse_used(path: &Path) -> Result<()> {
    let refuse = |why: &str| Err(Error::input(format!("{}: {why}", path.display())));
    if can_be_resumed(path) {
        return match lock(path) {
            Err(held @ Error::Input(_)) => Err(held),
            _ => refuse(&format!(
                "holds a run already; continue it with --resume {}, or give another --out",
                quoted(path)
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

/// Whether a process trains in the folder.
pub fn is_locked(folder: &Path) -> bool {
    let is_held = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    files::open(&folder.join(LOCK_FILE)).is_ok_and(is_held) || open_folder(folder).is_some_and(is_held)
}

/// The folder as something to lock; only Unix has that, and not on every disk.
fn open_folder(folder: &Path) -> Option<File> {
    if cfg!(unix) { File::open(folder).ok() } else { None }
}

/// How often to try to lock, and the time between.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Locks the folder for this process.
fn lock(folder: &Path) -> Result<Lock> {
    let path = folder.join(LOCK_FILE);
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        files::set_aside(&path)?;
    }
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).map_err(Error::io(&path))?;
    let directory = open_folder(folder);
    // Where folders cannot be locked, the file must do.
    let other = directory.as_ref().is_some_and(|it| matches!(try_lock(it), Err(TryLockError::WouldBlock)));
    match if other { Err(TryLockError::WouldBlock) } else { try_lock(&file) } {
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
    Ok(Lock { _file: file, _folder: directory })
}

fn try_lock(file: &File) -> std::result::Result<(), TryLockError> {
    // Who only looks whether a process trains holds the lock too, for a moment.
    for _ in 1..ATTEMPTS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            locked => return locked,
        }
    }
    file.try_lock()
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
        assert!(is_locked(&path) && !is_locked(place.path()));
        std::fs::write(path.join(RECIPE_FILE), "").unwrap();
        for refused in [RunFolder::open(&path), RunFolder::claim(&path)] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        }
        #[cfg(unix)]
        {
            std::fs::remove_file(path.join(LOCK_FILE)).unwrap();
            assert!(is_locked(&path));
            let error = RunFolder::open(&path).unwrap_err().to_string();
            assert!(error.contains("in use by another process"), "{error}");
        }
        held.keep();
        drop(held);
        assert!(!is_locked(&path));
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
        // What others put there while it starts is theirs.
        let folder = RunFolder::claim(&path).unwrap();
        let ours = [RECIPE_FILE, "begun.json", "data/tokenizer/tokenizer.json", "data/a-00000.tokens"];
        let mine = ["mine.txt", "data/mine.json", "data/tokenizer/mine", "checkpoints/mine/a", "events/mine"];
        for name in ours.iter().chain(&mine) {
            std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.join(name), "").unwrap();
        }
        drop(folder);
        assert!(ours.iter().all(|name| !path.join(name).exists()) && !path.join(LOCK_FILE).exists());
        assert!(mine.iter().all(|name| path.join(name).exists()), "a file of the user is gone");

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
