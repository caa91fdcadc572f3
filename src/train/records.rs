//! Small files of JSON lines in a run folder, with the step that each line belongs to. They are written whole, beside
//! themselves, so that what is there of a step is all of it, whenever the process is killed.

use crate::checkpoint::replace;
use crate::error::Result;
use crate::files;
use crate::report::out;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// A line.
pub trait OfStep: Serialize + DeserializeOwned {
    /// The run's step that it belongs to.
    fn step(&self) -> u64;
}

/// A file of records, open for appending.
pub struct Records<T> {
    path: PathBuf,
    /// Its lines, in order.
    pub lines: Vec<T>,
}

impl<T: OfStep> Records<T> {
    /// Opens `path` at the end of step `step`: lines of later steps, from a run that was cut off after its last
    /// checkpoint, will come again, and go with the next line that is appended. What is no file steps aside.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file that is in the way and cannot be moved.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        if path.symlink_metadata().is_ok() && !path.is_file() {
            let aside = files::set_aside(path)?;
            out::warn(format_args!("{}: not a regular file; it is now {}", path.display(), aside.display()));
        }
        let mut records: Records<T> = Records { path: path.into(), lines: read(path) };
        let before = records.lines.len();
        records.lines.retain(|line| line.step() <= step);
        if records.lines.len() < before {
            records.write()?;
        }
        Ok(records)
    }

    /// Whether there are lines of a step.
    pub fn has(&self, step: u64) -> bool {
        self.lines.iter().any(|line| line.step() == step)
    }

    /// Appends all lines of a step.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub fn append(&mut self, lines: Vec<T>) -> Result<()> {
        self.lines.extend(lines);
        self.write()
    }

    fn write(&self) -> Result<()> {
        let line = |line: &T| serde_json::to_string(line).expect("a record is plain data") + "\n";
        let text: String = self.lines.iter().map(line).collect();
        replace(&self.path, text.as_bytes())
    }
}

/// The sound lines of a file; none if there is no such file.
pub fn read<T: OfStep>(path: &Path) -> Vec<T> {
    let Ok(bytes) = files::read(path, files::LISTS) else { return Vec::new() };
    bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize)]
    struct Line {
        step: u64,
        what: String,
    }

    impl OfStep for Line {
        fn step(&self) -> u64 {
            self.step
        }
    }

    fn line(step: u64, what: &str) -> Line {
        Line { step, what: what.into() }
    }

    #[test]
    fn a_file_opened_again_is_cut_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let mut records = Records::open(&path, 0).unwrap();
        assert!(!path.exists());
        records.append(vec![line(3, "a"), line(3, "b")]).unwrap();
        records.append(vec![line(5, "c")]).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        assert_eq!(whole.lines().count(), 3);
        assert_eq!(Records::<Line>::open(&path, 5).unwrap().lines.len(), 3);
        let mut again = Records::open(&path, 4).unwrap();
        assert!(again.has(3) && !again.has(5));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        again.append(vec![line(5, "c")]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        // What is damaged is not believed.
        std::fs::write(&path, format!("{{\"step\": 3\n\n{whole}{{\"step\":5,\"what\"")).unwrap();
        assert_eq!(Records::<Line>::open(&path, 9).unwrap().lines.len(), 3);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        Records::open(&path, 9).unwrap().append(vec![line(1, "d")]).unwrap();
        assert_eq!(read::<Line>(&path).len(), 1);
    }
}
