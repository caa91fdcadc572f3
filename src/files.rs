//! Files where others may have put something else: only regular ones are read, and no more of them than is sensible;
//! what is in the way of writing is never waited for, and nothing that is not ours is deleted.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

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
    let found = std::fs::metadata(path).map_err(refuse)?;
    if !found.is_file() || found.len() == 0 && is_of_the_kernel(path) {
        return Err(Error::input(format!("{}: not a regular file", path.display())));
    }
    File::open(path).map_err(refuse)
}

/// Files like `/proc/kmsg` call themselves regular and empty, and keep their readers waiting.
fn is_of_the_kernel(path: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path.starts_with("/proc") || path.starts_with("/sys"))
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

/// Whether the regular file `path` begins with these bytes.
///
/// # Errors
/// As [`open`], [`Error::Io`] if reading fails.
pub fn begins_with(path: &Path, bytes: &[u8]) -> Result<bool> {
    let mut begin = Vec::new();
    open(path)?.take(bytes.len() as u64).read_to_end(&mut begin).map_err(Error::io(path))?;
    Ok(begin == bytes)
}

/// Creates the file `path`, or empties it. A pipe of that name, which would wait for its reader, goes first; a folder
/// steps aside.
///
/// # Errors
/// What the system says.
pub fn create(path: &Path) -> std::io::Result<File> {
    if path.is_dir() {
        step_aside(path)?;
    }
    #[cfg(unix)]
    if std::fs::metadata(path).is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_fifo(&found.file_type()))
    {
        std::fs::remove_file(path)?;
    }
    File::create(path)
}

/// Whether it is a device: what is written there must not take its place.
pub fn is_device(path: &Path) -> bool {
    #[cfg(unix)]
    return std::fs::metadata(path)
        .is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_char_device(&found.file_type()));
    #[cfg(not(unix))]
    false
}

/// Renames whatever is at `path` to the first free one of `NAME.damaged`, `NAME.damaged-2`, ..., and returns that.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn set_aside(path: &Path) -> Result<PathBuf> {
    step_aside(path).map_err(Error::io(path))
}

fn step_aside(path: &Path) -> std::io::Result<PathBuf> {
    let candidate = |i: u32| {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(if i == 1 { ".damaged".to_string() } else { format!(".damaged-{i}") });
        path.with_file_name(name)
    };
    let free = |path: &PathBuf| path.symlink_metadata().is_err();
    let aside = (1..).map(candidate).find(free).expect("numbers are endless");
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

/// Removes the files of a folder that are `ours`, as far as that is possible, and the folder if it is then empty.
pub fn remove_some(folder: &Path, ours: impl Fn(&Path) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|found| found.is_file()) && ours(&path) {
            let _ = std::fs::remove_file(path);
        }
    }
    let _ = std::fs::remove_dir(folder);
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
    fn what_is_set_aside_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for (text, name) in [("1", "a.damaged"), ("2", "a.damaged-2")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(set_aside(&path).unwrap(), folder.path().join(name));
        }
        assert_eq!(std::fs::read(folder.path().join("a.damaged")).unwrap(), b"1");
        assert!(!path.exists());
    }

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
        for path in [pipe.as_path(), link.as_path(), Path::new("/dev/zero"), Path::new("/proc/kmsg")] {
            assert!(matches!(read(path, SETTINGS), Err(Error::Input(_))), "{path:?}");
        }
        drop(create(&pipe).unwrap());
        assert_eq!(read(&pipe, 0).unwrap(), b"");
    }
}
