//! Reading files that others wrote: only regular ones, and no more of them than is sensible.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// Most bytes of a file of settings, such as `config.json` or a recipe; parsed they take some 20 times as much.
pub const SETTINGS: u64 = 16 << 20;

/// Most bytes of a file with a line per token or tensor, such as `tokenizer.json`.
pub const LISTS: u64 = 256 << 20;

/// Opens the regular file `path`. A pipe or a device has no end, and may not even have a beginning.
///
/// # Errors
/// [`Error::Io`] if there is no such file, [`Error::Input`] if it is of another kind or may not be read.
pub fn open(path: &Path) -> Result<File> {
    let refuse = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Error::io(path)(e),
        _ => Error::input(format!("{}: {e}", path.display())),
    };
    // Before it is opened: opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(refuse)?.is_file() {
        return Err(Error::input(format!("{}: not a regular file", path.display())));
    }
    File::open(path).map_err(refuse)
}

/// The bytes of the regular file `path`, which may have `limit` of them.
///
/// # Errors
/// As [`open`], [`Error::Input`] if it is longer, [`Error::Io`] if reading fails.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit {
        let why = format!("longer than {} MiB, so it is not what its name says", limit >> 20);
        return Err(Error::input(format!("{}: {why}", path.display())));
    }
    Ok(bytes)
}

/// As [`read`], as text.
///
/// # Errors
/// As [`read`], [`Error::Input`] if it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|e| {
        let byte = e.utf8_error().valid_up_to();
        Error::input(format!("{}: not text: byte {byte} is not UTF-8", path.display()))
    })
}

/// A line of bounded length.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Its bytes, without the newline.
    Whole(Vec<u8>),
    /// It is longer than allowed, and what is left of it comes next.
    TooLong,
    /// There are no more.
    End,
}

/// The next line, of at most `most` bytes: what is read may have no end.
///
/// # Errors
/// Those of `reader`.
pub fn line(reader: &mut impl BufRead, most: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    if reader.take(most as u64 + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(Line::End);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(if line.len() > most { Line::TooLong } else { Line::Whole(line) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(matches!(open(&path), Err(Error::Io { .. })));
        std::fs::write(&path, b"ab\xff").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"ab\xff");
        for (path, result) in [
            (path.as_path(), read(&path, 2).map(|_| ())),
            (path.as_path(), read_text(&path, 3).map(|_| ())),
            (folder.path(), open(folder.path()).map(|_| ())),
        ] {
            let error = result.unwrap_err();
            assert!(
                error.exit_code() == 2 && error.to_string().contains(&*path.to_string_lossy()),
                "{error}"
            );
        }
    }

    #[test]
    fn lines_are_bounded() {
        let mut reader: &[u8] = b"abc\n\nabcd\nab";
        let mut next = || line(&mut reader, 3).unwrap();
        assert_eq!(next(), Line::Whole(b"abc".into()));
        assert_eq!(next(), Line::Whole(b"".into()));
        assert_eq!(next(), Line::TooLong);
        assert_eq!([next(), next(), next()], [Line::Whole(b"".into()), Line::Whole(b"ab".into()), Line::End]);
        assert_eq!(line(&mut io::BufReader::new(io::repeat(b'a')), 1000).unwrap(), Line::TooLong);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_loops_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::os::unix::fs::symlink(&link, &link).unwrap();
        for path in [pipe.as_path(), link.as_path(), Path::new("/dev/zero")] {
            assert!(matches!(read(path, SETTINGS), Err(Error::Input(_))), "{path:?}");
        }
    }
}
