//! Files of the Hub's datasets to token sets. One file at a time is fetched, tokenised and removed, as many as are
//! needed, so that the disk holds tokens and one file. After each file everything is on disk: a run that is cut off goes
//! on behind it, and in the middle of a download where that broke. The sets are those of the same files read from a
//! folder in this order, however often the work was cut off.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::contents::Contents;
use super::shard::TokenSetWriter;
use super::source::{Report, Source, is_readable};
use super::tokenize::{Counts, PausedSides, Sides, TokenizeOptions, held_out_name, judged_name};
use crate::checkpoint::replace;
use crate::error::{Error, Result};
use crate::files;
use crate::hub::datasets::{Datasets, Name, RemoteFile};

/// Longest end of a file's name that its copy has.
const NAME_BYTES: usize = 100;

/// The same `names` with the commits that their revisions are at now.
///
/// # Errors
/// [`Error::Input`] for what is no name of files of a dataset, and those of the Hub.
pub fn pin(names: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let names = parse(names)?;
    if names.iter().all(Name::is_pinned) {
        return Ok(names.iter().map(|name| name.at(&name.revision).into()).collect());
    }
    let hub = Datasets::open()?;
    // Names of one repository must not be at different commits.
    let mut commits = BTreeMap::new();
    let pin = |name: Name| {
        let key = (name.repo.clone(), name.revision.clone());
        if !commits.contains_key(&key) {
            commits.insert(key.clone(), hub.commit(&name)?);
        }
        Ok(name.at(&commits[&key]).into())
    };
    names.into_iter().map(pin).collect()
}

fn parse(names: &[PathBuf]) -> Result<Vec<Name>> {
    let parse = |name: &PathBuf| Name::parse(&name.to_string_lossy());
    names
        .iter()
        .map(|name| parse(name).map_err(|why| Error::input(format!("the name of a dataset {why}"))))
        .collect()
}

/// The files that a dataset consists of, as a file beside its sets keeps them: once listed, no network is needed.
#[derive(Serialize, Deserialize)]
struct Listing {
    names: Vec<PathBuf>,
    files: Vec<RemoteFile>,
}

/// The work on a dataset so far, as a file beside its sets keeps it.
#[derive(Serialize, Deserialize)]
struct Journal {
    fingerprint: String,
    /// Files that are tokenised.
    files: usize,
    sets: PausedSides,
    report: Report,
}

/// How far the work on a dataset is.
pub struct At<'a> {
    /// Number of the file that is fetched or tokenised, from 1.
    pub file: usize,
    /// Files that there are; more than are needed, maybe.
    pub files: usize,
    /// What has been tokenised.
    pub counts: &'a Counts,
}

/// A dataset of files of the Hub, at one commit.
pub struct Stream<'a> {
    folder: &'a Path,
    name: &'a str,
    source: Source,
    files: Vec<RemoteFile>,
    needed: Option<u64>,
}

impl<'a> Stream<'a> {
    /// The files that the pinned `names` mean, in an order that `seed` decides, for sets called `name` in `folder`.
    /// `source` says how to read them, and `needed` how many tokens there should be; all that there are if `None`.
    ///
    /// They are listed once: after that, the list is in the folder.
    ///
    /// # Errors
    /// As [`pin`]; [`Error::Io`] if the list cannot be written.
    pub fn open(
        folder: &'a Path,
        name: &'a str,
        names: &[PathBuf],
        seed: u64,
        source: Source,
        needed: Option<u64>,
    ) -> Result<Self> {
        let path = folder.join(format!("{name}.files.json"));
        let kept = read(&path).filter(|listing: &Listing| listing.names == names);
        let mut files = match kept {
            Some(listing) => listing.files,
            None => {
                let listing = Listing { names: names.to_vec(), files: list(&parse(names)?)? };
                write(&path, &listing)?;
                listing.files
            }
        };
        let place = |file: &RemoteFile| format!("{}/{}", file.repo, file.path);
        files.sort_by_cached_key(|file| (xxh3_64_with_seed(place(file).as_bytes(), seed), place(file)));
        Ok(Self { folder, name, source, files, needed })
    }

    /// How many tokens there should be, if not all that there are.
    pub fn needed(&self) -> Option<u64> {
        self.needed
    }

    /// Identifies the sets that [`Stream::tokenize`] makes.
    pub fn fingerprint(&self, contents: &Contents, options: TokenizeOptions) -> u64 {
        let mut records = Xxh3::new();
        records.update(format!("{} {:?}", self.source.settings(), self.needed).as_bytes());
        for file in &self.files {
            records.update(format!("\n{}/{} {}", file.repo, file.path, file.checksum).as_bytes());
        }
        contents.fingerprint_of(records.digest(), options)
    }

    /// Makes the set and its held-out set, or goes on making them. `progress` is called before every file and after every
    /// batch of documents, `warn` with what is lost.
    ///
    /// # Errors
    /// Those of the Hub and of reading and tokenising the files. What is done stays for the next call.
    pub fn tokenize(
        &self,
        contents: &Contents,
        options: TokenizeOptions,
        mut progress: impl FnMut(&At),
        warn: impl FnOnce(&Error),
    ) -> Result<(Counts, Report)> {
        let options = TokenizeOptions { fingerprint: self.fingerprint(contents, options), ..options };
        let (mut sets, mut done, mut report) = self.begin(contents, options, warn)?;
        let downloads = self.downloads();
        let files = self.files.len();
        let mut hub = None;
        while let Some(file) = self.files.get(done)
            && self.needed.is_none_or(|needed| sets.counts.train_tokens() < needed)
        {
            progress(&At { file: done + 1, files, counts: &sets.counts });
            let copy = downloads.join(copy_name(done, file));
            self.keep_only(&copy)?;
            let hub = match &hub {
                Some(hub) => hub,
                None => hub.insert(Datasets::open()?),
            };
            hub.fetch(file, &copy)?;
            let found = contents.extend(&mut sets, &self.source.at([&copy]), |counts| {
                progress(&At { file: done + 1, files, counts });
            })?;
            add(&mut report, &found);
            done += 1;
            let journal = Journal {
                fingerprint: hex(options.fingerprint),
                files: done,
                sets: sets.pause()?,
                report: report.clone(),
            };
            write(&self.journal(), &journal)?;
        }
        let counts = sets.finish()?;
        self.clean()?;
        Ok((counts, report))
    }

    /// The sets as an earlier call left them: with the files that are done and what was reported of these.
    fn begin(
        &self,
        contents: &Contents,
        options: TokenizeOptions,
        warn: impl FnOnce(&Error),
    ) -> Result<(Sides, usize, Report)> {
        let (tokenizer, judged) = (contents.tokenizer(), contents.has_judged());
        let journal: Option<Journal> = read(&self.journal());
        if let Some(journal) = journal.filter(|it| it.fingerprint == hex(options.fingerprint)) {
            match Sides::resume(tokenizer, self.folder, self.name, options, &journal.sets, judged) {
                Ok(sets) => return Ok((sets, journal.files, journal.report)),
                Err(error @ Error::Damaged { .. }) => warn(&error),
                Err(error) => return Err(error),
            }
        }
        self.clean()?;
        self.sets().iter().try_for_each(|name| TokenSetWriter::discard(self.folder, name))?;
        let sets = Sides::create(tokenizer, self.folder, self.name, options, judged)?;
        Ok((sets, 0, Report::default()))
    }

    /// Removes what was only needed as long as the sets were not whole.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn clean(&self) -> Result<()> {
        let journal = self.journal();
        if journal.symlink_metadata().is_ok() {
            std::fs::remove_file(&journal).map_err(Error::io(&journal))?;
        }
        let downloads = self.downloads();
        if downloads.is_dir() {
            std::fs::remove_dir_all(&downloads).map_err(Error::io(&downloads))?;
        }
        self.sets().iter().try_for_each(|name| TokenSetWriter::forget(self.folder, name))
    }

    /// The names that its sets may have.
    fn sets(&self) -> [String; 4] {
        let (train, held_out) = (self.name.to_string(), held_out_name(self.name));
        [judged_name(&train), judged_name(&held_out), train, held_out]
    }

    /// Makes the folder of downloads, and removes from it what is not on the way to `copy`.
    fn keep_only(&self, copy: &Path) -> Result<()> {
        let downloads = self.downloads();
        std::fs::create_dir_all(&downloads).map_err(Error::io(&downloads))?;
        let name = copy.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for entry in std::fs::read_dir(&downloads).map_err(Error::io(&downloads))? {
            let entry = entry.map_err(Error::io(&downloads))?;
            if !entry.file_name().to_string_lossy().starts_with(&name) {
                std::fs::remove_file(entry.path()).map_err(Error::io(entry.path()))?;
            }
        }
        Ok(())
    }

    fn downloads(&self) -> PathBuf {
        self.folder.join(format!("{}.downloads", self.name))
    }

    fn journal(&self) -> PathBuf {
        self.folder.join(format!("{}.partial.json", self.name))
    }
}

/// Removes what only streams keep beside their sets in `folder`.
pub fn remove(folder: &Path) {
    let is_copy = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.split_once('-')
            .is_some_and(|(i, _)| i.len() >= 5 && i.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let is_called =
        |path: &Path, end: &str| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(end));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_called(&entry.path(), ".downloads") {
            files::remove_some(&entry.path(), is_copy);
        }
    }
    files::remove_some(folder, |path| {
        is_called(path, ".files.json") && read::<Listing>(path).is_some()
            || is_called(path, ".partial.json") && read::<Journal>(path).is_some()
    });
}

/// Whether something of the dataset `name` of the Hub has been fetched for sets in `folder`.
pub fn has_begun(folder: &Path, name: &str) -> bool {
    let is_there = |name: String| folder.join(name).exists();
    let received = || {
        let files =
            std::fs::read_dir(folder.join(format!("{name}.downloads"))).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).any(|file| file.len() > 0)
    };
    is_there(format!("{name}.partial.json")) || is_there(format!("{name}.json")) || received()
}

/// All files that the names mean, each once, in order.
fn list(names: &[Name]) -> Result<Vec<RemoteFile>> {
    let hub = Datasets::open()?;
    let mut found = BTreeMap::new();
    for name in names {
        let files = hub.list(name, &name.revision, &is_readable)?;
        found.extend(files.into_iter().map(|file| ((file.repo.clone(), file.path.clone()), file)));
    }
    Ok(found.into_values().collect())
}

/// What the copy of a file is called here: other systems allow other letters than the Hub.
fn copy_name(index: usize, file: &RemoteFile) -> String {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    format!("{index:05}-{}", &name[name.len().saturating_sub(NAME_BYTES)..])
}

fn add(report: &mut Report, more: &Report) {
    report.documents += more.documents;
    if report.broken == 0 {
        report.remedy.clone_from(&more.remedy);
    }
    report.broken += more.broken;
    report.unwanted += more.unwanted;
    let room = Report::DESCRIBED.saturating_sub(report.first_broken.len());
    report.first_broken.extend(more.first_broken.iter().take(room).cloned());
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// A file of ours; none if it is not there or not whole.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&files::read(path, files::LISTS).ok()?).ok()
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_vec(value).map_err(|error| Error::failure(error.to_string()))?;
    replace(path, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_streams_keep_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let (train, report) = (super::super::shard::Paused::default(), Report::default());
        let sets = serde_json::json!({ "counts": Counts::default(), "train": train, "held_out": null });
        let journal = serde_json::json!({ "fingerprint": "0", "files": 1, "sets": sets, "report": report });
        put("web.partial.json", &serde_json::to_vec(&journal).unwrap());
        put("web.files.json", b"{\"names\": [], \"files\": []}");
        put("web.downloads/00012-a.parquet", b"a");
        put("web.downloads/00012-a.parquet.part", b"a");
        let others = ["mine.files.json", "mine.partial.json", "mine.downloads/notes.txt", "00012-a.parquet"];
        others.iter().for_each(|name| put(name, b"{}"));
        remove(folder.path());
        assert!(others.iter().all(|name| folder.path().join(name).is_file()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), others.len());
        others.iter().for_each(|name| std::fs::remove_file(folder.path().join(name)).unwrap());
        remove(folder.path());
        assert!(!folder.path().exists());
    }
}
