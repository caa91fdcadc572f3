//! Token sets that several runs use. A run tokenises into its own folder and [puts](SharedSets::put) the files into a
//! shared folder too; the next run that needs the same tokens [takes](SharedSets::take) them. Both are hard links: a
//! run folder stays complete in itself, and either side may be deleted.

use std::path::{Path, PathBuf};

use super::shard::{TokenSet, Verify, link};
use crate::error::{Error, Result};
use crate::files;

/// A folder of token sets, each group of sets in a folder named by its key.
#[derive(Debug, Clone)]
pub struct SharedSets {
    folder: PathBuf,
}

impl SharedSets {
    /// The sets in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Removes what processes that are no more have left half linked. One that still links, on another machine, would
    /// merely not share its sets.
    pub fn tidy(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = name.strip_prefix(TEMPORARY).and_then(|rest| rest.rsplit_once('-')?.1.parse().ok());
            if process.is_some_and(|process| !is_alive(process)) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Links the sets `names` of the group `key` into the folder `to`, if they are there, and returns them, checked
    /// in full, and the group's note. A group that is damaged or was made from something else than `fingerprint` is removed.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Io`] for a group that was removed, [`Error::Io`] if it cannot be linked. The
    /// first of the sets is not in `to` then, and all of them are to be made anew.
    pub fn take(
        &self,
        key: &str,
        names: &[String],
        fingerprint: u64,
        to: &Path,
    ) -> Result<Option<(Vec<TokenSet>, String)>> {
        let group = self.folder.join(key);
        if !group.is_dir() {
            return Ok(None);
        }
        let open = |name: &String| {
            let set = TokenSet::open(&group, name, Verify::Full)?;
            if set.fingerprint() == fingerprint {
                Ok(set)
            } else {
                Err(Error::damaged(&group, "made from something else than its name says"))
            }
        };
        let sets: Result<Vec<TokenSet>> = names.iter().map(open).collect();
        if sets.is_err() {
            std::fs::remove_dir_all(&group).map_err(Error::io(&group))?;
        }
        let sets = sets?;
        // The first set comes last, as when it is written: where it exists, so do the others.
        names.iter().rev().try_for_each(|name| link(&group, to, name))?;
        let note = files::read_text(&group.join(NOTE), files::SETTINGS).unwrap_or_default();
        Ok(Some((sets, note)))
    }

    /// Links the whole sets `names` of the folder `from` into the group `key`, which appears complete or not at all.
    /// A group that is there already stays. A note tells what there is to know of the group besides; it may be empty.
    ///
    /// # Errors
    /// [`Error::Io`] if there can be no hard links there: on another disk, or on one that has none.
    pub fn put(&self, key: &str, names: &[String], note: &str, from: &Path) -> Result<()> {
        let group = self.folder.join(key);
        if group.is_dir() {
            return Ok(());
        }
        // Each process has its own, so that two of them cannot mix their files.
        let temporary = self.folder.join(format!("{TEMPORARY}{key}-{}", std::process::id()));
        let put = names
            .iter()
            .try_for_each(|name| link(from, &temporary, name))
            .and_then(|()| match note {
                "" => Ok(()),
                note => std::fs::write(temporary.join(NOTE), note).map_err(Error::io(&temporary)),
            })
            .and_then(|()| std::fs::rename(&temporary, &group).map_err(Error::io(&group)));
        if put.is_err() {
            // The first error is the one to report.
            let _ = std::fs::remove_dir_all(&temporary);
        }
        // Another process may have been faster.
        if group.is_dir() { Ok(()) } else { put }
    }
}

/// File of a group's note.
const NOTE: &str = "note.txt";

/// What the name of a group that is being linked begins with; its key and the process follow.
const TEMPORARY: &str = ".tmp-";

/// Whether another process has this id.
#[cfg(unix)]
fn is_alive(id: i32) -> bool {
    use rustix::process::{Pid, test_kill_process};
    // Only that there is none is certain: another user's process may not be signalled.
    id != std::process::id() as i32
        && Pid::from_raw(id).is_some_and(|id| test_kill_process(id) != Err(rustix::io::Errno::SRCH))
}

/// Elsewhere nobody is asked.
#[cfg(not(unix))]
fn is_alive(_: i32) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::super::shard::{SetFormat, TokenSetWriter};
    use super::*;

    const FINGERPRINT: u64 = 9;

    fn names() -> Vec<String> {
        vec!["web".into(), "web.held-out".into()]
    }

    fn write(folder: &Path, documents: u32) {
        let format = SetFormat {
            vocab_size: 300,
            eos: 0,
            tokenizer_hash: 7,
            shard_bytes: 40,
            fingerprint: FINGERPRINT,
        };
        for name in names() {
            let mut writer = TokenSetWriter::create(folder, &name, format).unwrap();
            (0..documents).for_each(|i| writer.push(&[i, i + 1]).unwrap());
            writer.finish().unwrap();
        }
    }

    fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn what_one_run_puts_another_takes() {
        let place = tempfile::tempdir().unwrap();
        let [one, two, shared] = ["one", "two", "shared"].map(|name| place.path().join(name));
        let sets = SharedSets::new(&shared);
        assert!(sets.take("web-9", &names(), FINGERPRINT, &two).unwrap().is_none());
        write(&one, 30);
        sets.put("web-9", &names(), "", &one).unwrap();
        sets.put("web-9", &names(), "too late", &one).unwrap();
        assert_eq!(contents(&shared.join("web-9")), contents(&one));
        sets.put("web-8", &names(), "2 left out", &one).unwrap();
        assert_eq!(sets.take("web-8", &names(), FINGERPRINT, &two).unwrap().unwrap().1, "2 left out");
        std::fs::remove_dir_all(shared.join("web-8")).unwrap();
        // What was in the way goes, surplus shards included.
        write(&two, 90);
        let (taken, note) = sets.take("web-9", &names(), FINGERPRINT, &two).unwrap().unwrap();
        assert_eq!(note, "");
        assert_eq!(taken.iter().map(TokenSet::documents).collect::<Vec<_>>(), [30, 30]);
        assert_eq!(contents(&two), contents(&one));
        assert_eq!(std::fs::read_dir(&shared).unwrap().count(), 1, "nothing temporary is left");
        // Writing a set anew leaves those of others as they are.
        let before = contents(&two);
        write(&one, 5);
        assert_eq!(contents(&two), before);
    }

    #[cfg(unix)]
    #[test]
    fn what_dead_processes_left_goes() {
        let shared = tempfile::tempdir().unwrap();
        let names = [".tmp-web-9-999999999", ".tmp-web-9-1", ".tmp-mine", "web-9"];
        names.iter().for_each(|name| std::fs::create_dir(shared.path().join(name)).unwrap());
        std::fs::write(shared.path().join(names[0]).join("web.json"), "").unwrap();
        SharedSets::new(shared.path()).tidy();
        assert_eq!(names.map(|name| shared.path().join(name).exists()), [false, true, true, true]);
    }

    #[test]
    fn a_damaged_or_foreign_group_goes_and_is_not_taken() {
        let place = tempfile::tempdir().unwrap();
        let [one, two, shared] = ["one", "two", "shared"].map(|name| place.path().join(name));
        let sets = SharedSets::new(&shared);
        let group = shared.join("web-9");
        for damaged in ["web.json", "web-00001.tokens", "web.held-out-00000.tokens"] {
            for remove in [true, false] {
                write(&one, 30);
                sets.put("web-9", &names(), "", &one).unwrap();
                let path = group.join(damaged);
                let mut bytes = std::fs::read(&path).unwrap();
                std::fs::remove_file(&path).unwrap();
                if !remove {
                    let last = bytes.len() - 1;
                    bytes[last] ^= 1;
                    std::fs::write(&path, bytes).unwrap();
                }
                let error = sets.take("web-9", &names(), FINGERPRINT, &two).unwrap_err();
                assert!(error.to_string().contains(damaged), "{error}");
                assert!(!group.exists() && !two.exists(), "{damaged}");
            }
        }
        sets.put("web-9", &names(), "", &one).unwrap();
        assert!(sets.take("web-9", &names(), FINGERPRINT + 1, &two).is_err());
        assert!(!group.exists() && !two.exists());
    }

    #[test]
    fn where_nothing_can_be_linked_the_run_keeps_its_own() {
        let place = tempfile::tempdir().unwrap();
        let one = place.path().join("one");
        write(&one, 30);
        let before = contents(&one);
        // A file stands where the folder should be.
        std::fs::write(place.path().join("shared"), "").unwrap();
        SharedSets::new(place.path().join("shared")).put("web-9", &names(), "", &one).unwrap_err();
        assert_eq!(contents(&one), before);
    }
}
