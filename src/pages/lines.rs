//! Files of JSON lines in a run folder, read leniently: what is damaged is left out and counted.

use crate::error::{Error, Result};
use crate::files::{self, Line};
use serde::de::DeserializeOwned;
use std::io::BufReader;
use std::path::Path;

/// Longest line, and how many lines and bytes of a file are read at most.
const LONGEST: usize = 1 << 20;
const MOST: usize = 20_000;
const MOST_BYTES: usize = 64 << 20;

/// What was read of a file.
pub struct Lines<T> {
    /// The sound lines.
    pub lines: Vec<T>,
    /// What is to be said of the others, or of the file.
    pub note: Option<String>,
}

/// The lines of the file `name` in the folder `run`. `what` says what is in it.
pub fn read<T: DeserializeOwned>(run: &Path, name: &str, what: &str) -> Lines<T> {
    match sound_lines(&run.join(name)) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Lines { lines: Vec::new(), note: Some(format!("no {what}: the run folder has no {name}")) }
        }
        Err(error) => Lines { lines: Vec::new(), note: Some(format!("no {what}: {error}")) },
        Ok(Found { lines, damaged, is_all }) => {
            let many = if damaged == 1 { "1 line".to_string() } else { format!("{damaged} lines") };
            let note = match (lines.len(), damaged) {
                (read, _) if !is_all => Some(format!("{name}: only its first {read} sound lines were read")),
                (0, 0) => Some(format!("no {what}: {name} is empty")),
                (_, 0) => None,
                (0, _) => Some(format!("no {what}: {many} of {name}, all damaged")),
                _ => Some(format!("{name}: {many} damaged and left out")),
            };
            Lines { lines, note }
        }
    }
}

struct Found<T> {
    lines: Vec<T>,
    /// How many others there are.
    damaged: u64,
    /// Whether that is the whole file.
    is_all: bool,
}

fn sound_lines<T: DeserializeOwned>(path: &Path) -> Result<Found<T>> {
    let mut file = BufReader::new(files::open(path)?);
    let (mut found, mut bytes) = (Found { lines: Vec::new(), damaged: 0, is_all: false }, 0);
    while found.lines.len() < MOST && bytes < MOST_BYTES {
        match files::line(&mut file, LONGEST).map_err(Error::io(path))? {
            Line::End => {
                found.is_all = true;
                break;
            }
            Line::TooLong => {
                bytes += LONGEST;
                found.damaged += 1;
            }
            Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => bytes += line.len() + 1,
            Line::Whole(line) => {
                bytes += line.len() + 1;
                match serde_json::from_slice(&line) {
                    Ok(line) => found.lines.push(line),
                    Err(_) => found.damaged += 1,
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &[u8]| {
            std::fs::write(folder.path().join("a.jsonl"), text).unwrap();
            let Lines { lines, note } = read::<u32>(folder.path(), "a.jsonl", "numbers");
            (lines, note.unwrap_or_default())
        };
        assert_eq!(read(b"1\n2\n\n3"), (vec![1, 2, 3], String::new()));
        assert_eq!(read(b"1\n{\n\xff\n4\n"), (vec![1, 4], "a.jsonl: 2 lines damaged and left out".into()));
        assert_eq!(read(b""), (vec![], "no numbers: a.jsonl is empty".into()));
        assert_eq!(read(b"{").1, "no numbers: 1 line of a.jsonl, all damaged");
        let (lines, note) = read(&b"7\n".repeat(MOST + 5));
        assert!(lines.len() == MOST && note.contains("first 20000"), "{note}");
        let none = super::read::<u32>(folder.path(), "b.jsonl", "numbers");
        assert_eq!(none.note.unwrap(), "no numbers: the run folder has no b.jsonl");
        std::fs::create_dir(folder.path().join("c.jsonl")).unwrap();
        assert!(
            super::read::<u32>(folder.path(), "c.jsonl", "numbers").note.unwrap().contains("not a regular")
        );
    }
}
