//! Documents and records from files: JSON Lines, JSON arrays, Parquet and plain text, compressed or not, read
//! as a stream in bounded memory.
//!
//! | file name | a record is | numbered by |
//! |---|---|---|
//! | `.jsonl` `.ndjson` (+ `.gz` `.zst`) | a line | line |
//! | `.json` (+ `.gz` `.zst`) | an element of the array | element |
//! | `.txt` (+ `.gz` `.zst`), and others that are named themselves | the whole file, or a piece of it | piece |
//! | `.parquet` | a row | row |
//!
//! A broken record (bad JSON, a missing field, a wrong type, bytes that are not UTF-8, too long) is skipped
//! and counted, or refused, as [`OnBroken`] says. Damage to a whole file is always refused: what was lost
//! cannot be counted.

mod bytes;
mod files;
mod json;
mod objects;
mod pages;
mod rows;
mod score;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::microcosm::village::{Answers, Village};
use crate::error::{Error, Result};
use files::Kind;
pub use files::is_readable;
pub use score::Score;
use score::Scored;

/// Longest record, in bytes, unless a source says otherwise: longer ones are broken. A file with its line ends lost
/// must not be read into memory whole.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

/// Least that [`Source::document_bytes`] cuts to.
pub const MIN_DOCUMENT_BYTES: usize = 64;

/// What to do with a record that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBroken {
    /// Stop with an error that names file and record.
    #[default]
    Refuse,
    /// Go on; the [`Report`] counts it.
    Skip,
}

/// Who gives a source its settings: what a remedy tells to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GivenBy {
    /// The keys of a recipe.
    #[default]
    Recipe,
    /// The flags of `smolter data tokenizer`.
    Flags,
}

impl GivenBy {
    /// What to do about a record that is broken because of `what`.
    fn mend(self, what: &str) -> &'static str {
        if what.starts_with("no conversation") {
            "name what holds it (in a recipe: columns = { messages = \"...\" })"
        } else if what.contains("score") {
            "name what holds the score (in a recipe: score.field = \"...\")"
        } else if what.contains("field") || what.contains("column") {
            self.naming_fields()
        } else if what.contains("UTF-16") {
            "convert it to UTF-8: iconv -f UTF-16 -t UTF-8"
        } else if what.contains("UTF-8") {
            "convert the file to UTF-8"
        } else if what.starts_with("longer than") {
            match self {
                GivenBy::Recipe => "divide it, or allow more with max_record_bytes",
                GivenBy::Flags => "divide it, or allow more with --max-record-bytes",
            }
        } else {
            "mend it"
        }
    }

    fn naming_fields(self) -> &'static str {
        match self {
            GivenBy::Recipe => "name what holds the text (in a recipe: fields = [\"...\"])",
            GivenBy::Flags => "name what holds the text with --field",
        }
    }

    /// How to have broken records skipped.
    fn skipping(self) -> &'static str {
        match self {
            GivenBy::Recipe => "let broken records be skipped (in a recipe: on_broken = \"skip\")",
            GivenBy::Flags => "leave broken records out with --skip-broken",
        }
    }
}

/// What has been read so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Records yielded.
    pub documents: u64,
    /// Broken records skipped.
    pub broken: u64,
    /// The first five broken records: file, record and what is wrong.
    pub first_broken: Vec<String>,
    /// What to do about the first one.
    #[serde(default)]
    pub remedy: String,
    /// Records left out for their score.
    #[serde(default)]
    pub unwanted: u64,
}

impl Report {
    /// How many broken records it describes.
    pub const DESCRIBED: usize = 5;
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<T> {
    /// The text, or the JSON object.
    pub value: T,
    /// The file.
    pub path: Arc<Path>,
    /// Line, element or row in the file, counted from 1.
    pub number: u64,
}

/// A text and where it came from.
pub type Document = Record<String>;

/// Documents as they stream from a [`Source`].
pub type Documents = Records<String>;

/// One record as a file reader gives it: its number, and its value or what is broken about it. The outer
/// error is damage to the whole file.
type Entry<T> = Result<(u64, std::result::Result<T, String>)>;
type Entries<T> = Box<dyn Iterator<Item = Entry<T>> + Send>;

/// Where documents come from and how to read them.
#[derive(Debug, Clone)]
pub struct Source {
    paths: Vec<PathBuf>,
    fields: Vec<String>,
    joiner: String,
    on_broken: OnBroken,
    given_by: GivenBy,
    max_record_bytes: usize,
    document_bytes: Option<usize>,
    score: Option<Score>,
    generated: Option<Generated>,
}

/// Records that are made up instead of read.
#[derive(Debug, Clone)]
pub struct Generated {
    /// What they are.
    pub answers: Answers,
    /// Seed of the village that they are about.
    pub seed: u64,
    /// How many there are.
    pub count: u64,
}

impl Generated {
    /// What stands for a file's name.
    fn path(&self) -> PathBuf {
        format!("microcosm {}.jsonl", self.answers.name()).into()
    }
}

impl Source {
    /// Reads `paths`: files, or folders searched recursively for files of a known kind, in order of name.
    /// The text is the field `text`; broken records are refused.
    pub fn new(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self {
            paths: paths.into_iter().map(Into::into).collect(),
            fields: vec!["text".into()],
            joiner: "\n".into(),
            on_broken: OnBroken::Refuse,
            given_by: GivenBy::Recipe,
            max_record_bytes: MAX_RECORD_BYTES,
            document_bytes: None,
            score: None,
            generated: None,
        }
    }

    /// The same settings for other files.
    #[must_use]
    pub fn at(&self, paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { paths: paths.into_iter().map(Into::into).collect(), ..self.clone() }
    }

    /// The fields (Parquet: columns) that make a document, joined by `joiner` in this order.
    ///
    /// # Panics
    /// If there are no fields.
    #[must_use]
    pub fn fields(
        mut self,
        fields: impl IntoIterator<Item = impl Into<String>>,
        joiner: impl Into<String>,
    ) -> Self {
        self.fields = fields.into_iter().map(Into::into).collect();
        self.joiner = joiner.into();
        assert!(!self.fields.is_empty(), "a document needs at least one field");
        self
    }

    /// What to do with broken records.
    #[must_use]
    pub fn on_broken(mut self, on_broken: OnBroken) -> Self {
        self.on_broken = on_broken;
        self
    }

    /// Who gives these settings; a recipe, if not called.
    #[must_use]
    pub fn given_by(mut self, given_by: GivenBy) -> Self {
        self.given_by = given_by;
        self
    }

    /// Longest record, in bytes of its line, element, file or text; [`MAX_RECORD_BYTES`] if not called.
    #[must_use]
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// Cuts plain text into documents of at most so many bytes, at least [`MIN_DOCUMENT_BYTES`], behind a paragraph or
    /// else a line; without, a file is one document.
    #[must_use]
    pub fn document_bytes(mut self, bytes: Option<usize>) -> Self {
        self.document_bytes = bytes.map(|bytes| bytes.max(MIN_DOCUMENT_BYTES));
        self
    }

    /// Leaves documents out by their score; plain text has none. Records that are [objects](Source::objects) stay.
    #[must_use]
    pub fn score(mut self, score: Option<Score>) -> Self {
        self.score = score;
        self
    }

    /// Gives these records instead of files'; they have no documents.
    #[must_use]
    pub fn generated(mut self, records: Option<Generated>) -> Self {
        self.generated = records;
        self
    }

    /// The files, in reading order.
    ///
    /// # Errors
    /// [`Error::Io`] for a path that does not exist; [`Error::Input`] for a file that is no text or a folder
    /// without a known one.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        match &self.generated {
            Some(generated) => Ok(vec![generated.path()]),
            None => files::expand(&self.paths),
        }
    }

    /// The settings, as text: how files are read, whichever they are.
    pub fn settings(&self) -> String {
        let mut description = format!("{:?}{:?}{:?}", self.fields, self.joiner, self.on_broken);
        if self.max_record_bytes != MAX_RECORD_BYTES {
            description += &self.max_record_bytes.to_string();
        }
        if let Some(bytes) = self.document_bytes {
            description += &format!("pieces of {bytes}");
        }
        if let Some(score) = &self.score {
            description += &format!("{score:?}");
        }
        description
    }

    /// Identifies what will be read: the files' names, sizes and times of change, and the settings.
    ///
    /// # Errors
    /// As [`Source::files`].
    pub fn fingerprint(&self) -> Result<u64> {
        let mut description = self.settings();
        if let Some(generated) = &self.generated {
            return Ok(xxh3_64(format!("{description}{generated:?}").as_bytes()));
        }
        for path in self.files()? {
            let metadata = std::fs::metadata(&path).map_err(Error::io(&path))?;
            let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            description += &format!("{:?}{}{changed:?}", path.file_name(), metadata.len());
        }
        Ok(xxh3_64(description.as_bytes()))
    }

    /// Streams documents.
    ///
    /// # Errors
    /// As [`Source::files`]. The iterator yields [`Error::Input`] for a broken record that is refused and for a
    /// damaged file, and ends there.
    pub fn documents(&self) -> Result<Documents> {
        let source = self.clone();
        Records::new(self, move |path| source.open_documents(path))
    }

    fn open_documents(&self, path: &Path) -> Result<Entries<Option<String>>> {
        let Source { fields, joiner, max_record_bytes: most, .. } = self;
        let scored = self.score.as_ref().map(|score| score.field.as_str());
        let texts: Entries<Scored> = match (Kind::of(path)?, self.document_bytes) {
            (Kind::JsonLines, _) => json::texts(bytes::lines(path, *most)?, fields, joiner, scored)?,
            (Kind::JsonArray, _) => json::texts(bytes::elements(path, *most)?, fields, joiner, scored)?,
            (Kind::Parquet, _) => rows::texts(path, fields, joiner, scored, *most, self.given_by)?,
            (Kind::Text, _) if scored.is_some() => {
                return Err(Error::input(format!(
                    "{}: plain text has no score: leave the score out, or make it a .jsonl of documents",
                    path.display()
                )));
            }
            (Kind::Text, None) => score::without(bytes::whole_text(path, *most)?),
            (Kind::Text, Some(bytes)) => score::without(bytes::pieces(path, bytes)?),
        };
        Ok(score::wanted(texts, self.score.clone()))
    }

    /// Streams whole records as JSON objects, for those that are more than a text (chats, preference pairs). Plain text
    /// has none; the fields of this source play no part.
    ///
    /// # Errors
    /// As [`Source::documents`], and for plain text.
    pub fn objects(&self) -> Result<Records<Map<String, Value>>> {
        self.parsed(|_| true, Ok)
    }

    /// As [`Source::objects`], with what `parse` makes of each object. One of which it makes nothing is broken, for the
    /// reason that it gives. Of tables, columns of which `is_wanted` says no are null.
    ///
    /// # Errors
    /// As [`Source::objects`].
    pub fn parsed<T: 'static>(
        &self,
        is_wanted: impl Fn(&str) -> bool + Send + 'static,
        parse: impl Fn(Map<String, Value>) -> std::result::Result<T, String> + Clone + Send + 'static,
    ) -> Result<Records<T>> {
        let most = self.max_record_bytes;
        if let Some(Generated { answers, seed, count }) = self.generated.clone() {
            return Records::new(self, move |_| {
                let (village, parse) = (Village::new(seed), parse.clone());
                let record = move |index| Ok((index + 1, parse(answers.record(&village, index)).map(Some)));
                Ok(Box::new((0..count).map(record)))
            });
        }
        Records::new(self, move |path| {
            let objects = match Kind::of(path)? {
                Kind::JsonLines => json::objects(bytes::lines(path, most)?),
                Kind::JsonArray => json::objects(bytes::elements(path, most)?),
                Kind::Parquet => objects::objects(path, most, &is_wanted)?,
                Kind::Text => {
                    return Err(Error::input(format!(
                        "{}: structured records are read from .jsonl, .json and .parquet files: convert it",
                        path.display()
                    )));
                }
            };
            let parse = parse.clone();
            let parsed = objects
                .map(move |entry| entry.map(|(number, object)| (number, object.and_then(&parse).map(Some))));
            Ok(Box::new(parsed))
        })
    }
}

/// Changes each value that is there.
fn map<A: 'static, B: 'static>(entries: Entries<A>, f: impl Fn(A) -> B + Send + 'static) -> Entries<B> {
    Box::new(entries.map(move |entry| entry.map(|(number, value)| (number, value.map(&f)))))
}

/// Opens a file; what is not wanted of it comes as `None`.
type Open<T> = Box<dyn Fn(&Path) -> Result<Entries<Option<T>>> + Send>;

/// Records as they stream from a [`Source`], one file after the other. Ends after the first error.
pub struct Records<T> {
    files: std::vec::IntoIter<PathBuf>,
    open: Open<T>,
    current: Option<(Arc<Path>, Entries<Option<T>>)>,
    on_broken: OnBroken,
    given_by: GivenBy,
    /// Whether plain text is cut into pieces.
    cuts: bool,
    report: Report,
}

impl<T> Records<T> {
    fn new(
        source: &Source,
        open: impl Fn(&Path) -> Result<Entries<Option<T>>> + Send + 'static,
    ) -> Result<Self> {
        Ok(Self {
            files: source.files()?.into_iter(),
            open: Box::new(open),
            current: None,
            on_broken: source.on_broken,
            given_by: source.given_by,
            cuts: source.document_bytes.is_some(),
            report: Report::default(),
        })
    }

    /// What has been read so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Takes back a record that was yielded but proves unusable: it counts as broken, for the reason `what`.
    ///
    /// # Errors
    /// [`Error::Input`] naming the record, if broken records are refused.
    pub fn reject<U>(&mut self, record: &Record<U>, what: &str) -> Result<()> {
        self.report.documents -= 1;
        self.broken(&record.path, record.number, what)
    }

    fn broken(&mut self, path: &Path, number: u64, what: &str) -> Result<()> {
        let place = match Kind::of(path)? {
            // It is the whole file.
            Kind::Text if !self.cuts => path.display().to_string(),
            kind => format!("{}: {} {number}", path.display(), kind.unit()),
        };
        let (description, remedy) = (format!("{place}: {what}"), self.given_by.mend(what));
        match self.on_broken {
            OnBroken::Refuse => {
                Err(Error::input(format!("{description}; {remedy}, or {}", self.given_by.skipping())))
            }
            OnBroken::Skip => {
                self.report.broken += 1;
                if self.report.broken == 1 {
                    self.report.remedy = remedy.into();
                }
                if self.report.first_broken.len() < Report::DESCRIBED {
                    self.report.first_broken.push(description);
                }
                Ok(())
            }
        }
    }

    fn advance(&mut self) -> Result<Option<Record<T>>> {
        loop {
            let Some((path, entries)) = &mut self.current else {
                let Some(path) = self.files.next() else { return Ok(None) };
                let entries = (self.open)(&path)?;
                self.current = Some((path.into(), entries));
                continue;
            };
            match entries.next().transpose()? {
                None => self.current = None,
                Some((_, Ok(None))) => self.report.unwanted += 1,
                Some((number, Ok(Some(value)))) => {
                    self.report.documents += 1;
                    return Ok(Some(Record { value, path: path.clone(), number }));
                }
                Some((number, Err(what))) => {
                    let path = path.clone();
                    self.broken(&path, number, &what)?;
                }
            }
        }
    }
}

impl<T> Iterator for Records<T> {
    type Item = Result<Record<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.current = None;
            self.files = Vec::new().into_iter();
        }
        next.transpose()
    }
}

#[cfg(test)]
mod tests;
