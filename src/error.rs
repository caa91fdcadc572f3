//! The one error type of the crate: every message names the place and the remedy, in one line.

use std::path::{Path, PathBuf};

/// Anything that stops smolter short of what was asked.
///
/// [`Error::exit_code`] tells mistakes in the input (2) from failures while running (1).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user gave something that cannot be used: a recipe key, a flag, a file's contents. Exit code 2.
    #[error("{0}")]
    Input(String),
    /// A file that smolter wrote (checkpoint, shard, model) is not what it was when it was written. Exit code 2.
    #[error("{}: damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// The operating system refused a file. Exit code 2 if the file does not exist, else 1.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The device cannot do what was asked: no adapter, lost, out of memory. Exit code 1.
    #[error("{0}")]
    Device(String),
    /// The run itself failed: loss not finite, a check did not pass. Exit code 1.
    #[error("{0}")]
    Failure(String),
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Input`] from anything printable.
    pub fn input(message: impl Into<String>) -> Self {
        Error::Input(message.into())
    }

    /// An [`Error::Failure`] from anything printable.
    pub fn failure(message: impl Into<String>) -> Self {
        Error::Failure(message.into())
    }

    /// An [`Error::Damaged`] for `path`.
    pub fn damaged(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Error::Damaged { path: path.as_ref().into(), what: what.into() }
    }

    /// Turns an I/O error into one that names `path`; for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// The process exit code: 2 for a mistake in the input, 1 for a failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Input(_) | Error::Damaged { .. } => 2,
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 2,
            Error::Io { .. } | Error::Device(_) | Error::Failure(_) => 1,
        }
    }
}
