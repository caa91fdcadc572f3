//! The one error type of the crate: every message names the place and the remedy, in one line.

use std::path::{Path, PathBuf};

/// Anything that stops smolter short of what was asked.
///
/// [`Error::exit_code`] tells mistakes in the input (2) from failures while running (1).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user gave something that cannot be used: a recipe key, a flag, a file's contents. Exit code 2.
    #[error("{}", one_line(.0))]
    Input(String),
    /// Several mistakes in one input, a line each. Exit code 2.
    #[error("{}", .0.iter().map(|it| one_line(it)).collect::<Vec<_>>().join("\n"))]
    Mistakes(Vec<String>),
    /// A file that smolter wrote (checkpoint, shard, model) is not what it was when it was written. Exit code 2.
    #[error("{}", one_line(&format!("{}: damaged: {what}", path.display())))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// The operating system refused a file. Exit code 2 if the file does not exist, else 1.
    #[error("{}", one_line(&format!("{}: {source}", path.display())))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The device cannot do what was asked: no adapter, lost, out of memory. Exit code 1.
    #[error("{}", one_line(.0))]
    Device(String),
    /// The run itself failed: loss not finite, a check did not pass. Exit code 1.
    #[error("{}", one_line(.0))]
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
            Error::Input(_) | Error::Mistakes(_) | Error::Damaged { .. } => 2,
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 2,
            Error::Io { .. } | Error::Device(_) | Error::Failure(_) => 1,
        }
    }
}

/// Most characters of a message. Values that a file holds may be of any length.
const LONGEST: usize = 4000;

/// Makes one readable line of what may quote damaged files: control characters escaped, the middle of a very long
/// text left out.
fn one_line(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if breaks(c) { line.extend(c.escape_debug()) } else { line.push(c) }
    }
    let cut = |at: usize| line.char_indices().nth(at).map(|(byte, _)| byte);
    match (cut(LONGEST), cut(LONGEST / 2)) {
        (Some(_), Some(middle)) => {
            let tail = line.char_indices().rev().nth(LONGEST / 2).map_or(line.len(), |(byte, _)| byte);
            format!("{} ... {}", &line[..middle], &line[tail..])
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let error = Error::damaged("a\nb", "\u{1b}[31m 'é'\r\u{2028}");
        assert_eq!(error.to_string(), "a\\nb: damaged: \\u{1b}[31m 'é'\\r\\u{2028}");
        let long = Error::input(format!("begin{}end", "é".repeat(1 << 20))).to_string();
        assert!(long.starts_with("begin") && long.ends_with("end") && long.chars().count() < 4100);
    }
}
