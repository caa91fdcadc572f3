//! The cache that all Hugging Face programs share. A model's folder there has `blobs`, files named by their contents,
//! `snapshots`, a folder of links to blobs for each commit, and `refs`, the commit of each branch.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::files;

/// Time between looks at what another process holds.
const LOOK: Duration = Duration::from_millis(100);

/// The folder of Hugging Face: `HF_HOME`, or where it is by their rules.
pub fn home() -> Result<PathBuf> {
    let shared = || {
        let folder = named_by("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
        Some(folder.join("huggingface"))
    };
    named_by("HF_HOME").or_else(shared).ok_or_else(|| {
        Error::input("there is no home folder for the Hugging Face cache: set HF_HOME to a folder")
    })
}

/// The folder that an environment variable names.
fn named_by(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The part of the cache that belongs to one model.
pub struct Cache {
    repo: PathBuf,
    locks: PathBuf,
}

impl Cache {
    /// That of `model`, `owner/name`, below the folder `home`, or in `HF_HUB_CACHE`.
    pub fn new(home: &Path, model: &str) -> Self {
        let hub = named_by("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub"));
        let name = format!("models--{}", model.replace('/', "--"));
        Cache { locks: hub.join(".locks").join(&name), repo: hub.join(name) }
    }

    /// The files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.join("snapshots").join(commit)
    }

    /// The commit of a branch when it was last fetched.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let text = files::read_text(&self.repo.join("refs").join(revision), files::SETTINGS).ok()?;
        Some(text.trim().to_string()).filter(|commit| super::is_plain(commit))
    }

    /// Notes the commit of a branch.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        let reference = self.repo.join("refs").join(revision);
        // Beside the folder of references, where every file is one.
        let new = self.repo.join(format!(".ref-{}", std::process::id()));
        create_parent(&reference)?;
        std::fs::write(&new, commit).map_err(Error::io(&new))?;
        std::fs::rename(&new, &reference).map_err(Error::io(&reference))
    }

    /// The file whose contents are called `key`.
    pub fn blob(&self, key: &str) -> PathBuf {
        self.repo.join("blobs").join(key)
    }

    /// What was received of that file so far.
    pub fn part(&self, key: &str) -> PathBuf {
        self.repo.join("blobs").join(format!("{key}.incomplete"))
    }

    /// Waits until no other process fetches `key`, and keeps others from it as long as the result lives. `None` if
    /// the other process gets no further within `timeout`.
    pub fn lock(&self, key: &str, timeout: Duration) -> Result<Option<File>> {
        let path = self.locks.join(format!("{key}.lock"));
        create_parent(&path)?;
        create_parent(&self.blob(key))?;
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).open(&path).map_err(Error::io(&path))?;
        let received = || self.part(key).metadata().ok().map(|metadata| metadata.len());
        let (mut seen, mut since) = (received(), Instant::now());
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::WouldBlock) => {}
                // Some network file systems have no locks. Checksums still tell when two processes collide.
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                    return Ok(Some(lock));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error)),
            }
            let now = received();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            if since.elapsed() > timeout {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Makes the blob `key` appear in a snapshot as `pointer`.
    pub fn link(&self, key: &str, pointer: &Path) -> Result<()> {
        create_parent(pointer)?;
        // A link to a file that somebody removed from the cache would stand in the way.
        let _ = std::fs::remove_file(pointer);
        let target = Path::new("../../blobs").join(key);
        #[cfg(unix)]
        let linked = std::os::unix::fs::symlink(target, pointer);
        #[cfg(windows)]
        let linked = std::os::windows::fs::symlink_file(target, pointer);
        #[cfg(not(any(unix, windows)))]
        let linked: std::io::Result<()> = Err(ErrorKind::Unsupported.into());
        // Where there are no links, the file itself lies there.
        linked.or_else(|_| std::fs::rename(self.blob(key), pointer)).map_err(Error::io(pointer))
    }
}

fn create_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))
}
