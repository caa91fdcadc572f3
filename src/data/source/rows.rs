//! Texts from the string columns of a Parquet file, and a score from another, a page and a row in memory at a time.
//!
//! Arrow's three string types (Utf8, LargeUtf8, Utf8View) are one byte-array column in the file. It is read as
//! bytes, so that one row that is not UTF-8 is one broken record.

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::score::{self, Scored};
use super::{Entries, Entry, GivenBy, pages};
use crate::error::{Error, Result};
use crate::files;
use crate::panics::caught;

/// The text of each row of `path`: its `columns`, joined by `joiner`, of at most `most` bytes; and the `score`.
pub(super) fn texts(
    path: &Path,
    columns: &[String],
    joiner: &str,
    score: Option<&str>,
    most: usize,
    given_by: GivenBy,
) -> Result<Entries<Scored>> {
    let file = files::open(path)?;
    let raw = file.try_clone().map_err(Error::io(path))?;
    let file = guarded(|| SerializedFileReader::new(file)).map_err(|e| damage(path, &e))?;
    let indices =
        columns.iter().map(|name| column_index(path, &file, name, given_by)).collect::<Result<Vec<_>>>()?;
    let schema = file.metadata().file_metadata().schema_descr();
    let present = indices.iter().map(|&i| schema.column(i).max_def_level()).collect();
    let score = score.map(|name| score_column(path, &file, name)).transpose()?;
    Ok(Box::new(Rows {
        path: path.to_path_buf(),
        present,
        file,
        raw,
        most,
        names: columns.to_vec(),
        indices,
        joiner: joiner.to_string(),
        group: 0,
        readers: Vec::new(),
        score,
        scores: None,
        number: 0,
    }))
}

pub(super) fn damage(path: &Path, e: &ParquetError) -> Error {
    if let Some((_, codec)) = e.to_string().split_once("Disabled feature at compile time: ") {
        return Error::input(format!(
            "{}: compressed by {codec}, which cannot be read: write it again with zstd or snappy",
            path.display()
        ));
    }
    Error::input(format!(
        "{}: not a whole Parquet file that can be read ({e}): fetch or make it again",
        path.display()
    ))
}

/// The decoder panics on some damaged files instead of returning an error.
pub(super) fn guarded<T>(read: impl FnOnce() -> parquet::errors::Result<T>) -> parquet::errors::Result<T> {
    // After any error the reader is dropped, not used again.
    caught(read).unwrap_or_else(|why| Err(ParquetError::General(why)))
}

fn column_index(
    path: &Path,
    file: &SerializedFileReader<File>,
    name: &str,
    given_by: GivenBy,
) -> Result<usize> {
    let columns = file.metadata().file_metadata().schema_descr().columns();
    let usable = |i: &usize| {
        columns[*i].physical_type() == PhysicalType::BYTE_ARRAY && columns[*i].max_rep_level() == 0
    };
    let strings: Vec<_> = (0..columns.len()).filter(usable).collect();
    strings.iter().copied().find(|&i| columns[i].path().string() == name).ok_or_else(|| {
        let names: Vec<_> = strings.iter().map(|&i| columns[i].path().string()).collect();
        Error::input(format!(
            "{}: no string column \"{name}\"; string columns: {}; {}",
            path.display(),
            if names.is_empty() { "none".into() } else { names.join(", ") },
            given_by.naming_fields()
        ))
    })
}

/// The column of scores: its name, its index, and the definition level of a value that is there.
fn score_column(path: &Path, file: &SerializedFileReader<File>, name: &str) -> Result<(String, usize, i16)> {
    let columns = file.metadata().file_metadata().schema_descr().columns();
    let numbers = [PhysicalType::INT32, PhysicalType::INT64, PhysicalType::FLOAT, PhysicalType::DOUBLE];
    let usable =
        |i: &usize| numbers.contains(&columns[*i].physical_type()) && columns[*i].max_rep_level() == 0;
    let usable: Vec<_> = (0..columns.len()).filter(usable).collect();
    let found = usable.iter().copied().find(|&i| columns[i].path().string() == name);
    let found = found.map(|i| (name.to_string(), i, columns[i].max_def_level()));
    found.ok_or_else(|| {
        let names: Vec<_> = usable.iter().map(|&i| columns[i].path().string()).collect();
        Error::input(format!(
            "{}: no column of numbers \"{name}\"; columns of numbers: {}; name what holds the score (in a recipe: \
             score.field = \"...\")",
            path.display(),
            if names.is_empty() { "none".into() } else { names.join(", ") }
        ))
    })
}

/// The cells of one row; none where null.
type Cells = Vec<Option<ByteArray>>;

struct Rows {
    path: PathBuf,
    file: SerializedFileReader<File>,
    /// The same file, for a look at its pages.
    raw: File,
    /// Longest text, in bytes.
    most: usize,
    names: Vec<String>,
    indices: Vec<usize>,
    /// Definition level of a value that is there, per column: anything less is null.
    present: Vec<i16>,
    joiner: String,
    /// The row group that comes next.
    group: usize,
    readers: Vec<ColumnReaderImpl<ByteArrayType>>,
    /// Name, index and level of the column of scores.
    score: Option<(String, usize, i16)>,
    scores: Option<ColumnReader>,
    number: u64,
}

impl Rows {
    /// The next row, and its score if there is one. One at a time: each may be as large as a page, whatever the file's
    /// size.
    fn next_cells(&mut self) -> parquet::errors::Result<Option<(Cells, Option<f64>)>> {
        loop {
            let row =
                self.readers.iter_mut().zip(&self.present).map(|(reader, &present)| cell(reader, present));
            let row = row.collect::<parquet::errors::Result<Vec<_>>>()?;
            let cells = row.iter().filter(|cell| cell.is_some()).count();
            if cells > 0 && cells < row.len() {
                return Err(ParquetError::General("columns of different lengths".into()));
            }
            if cells > 0 {
                let score = match (&mut self.scores, &self.score) {
                    (Some(reader), &Some((_, _, present))) => number(reader, present)?,
                    _ => None,
                };
                return Ok(Some((row.into_iter().flatten().collect(), score)));
            }
            if self.group == self.file.num_row_groups() {
                return Ok(None);
            }
            let group = self.file.get_row_group(self.group)?;
            let readers = self.indices.iter().map(|&column| {
                pages::check(&self.raw, group.metadata().column(column))?;
                group.get_column_reader(column).map(get_typed_column_reader)
            });
            self.readers = readers.collect::<parquet::errors::Result<_>>()?;
            if let Some((_, column, _)) = self.score {
                pages::check(&self.raw, group.metadata().column(column))?;
                self.scores = Some(group.get_column_reader(column)?);
            }
            self.group += 1;
        }
    }

    fn scored(&self, cells: &Cells, score: Option<f64>) -> std::result::Result<Scored, String> {
        let text = self.text(cells)?;
        let score = self.score.as_ref().map(|(name, ..)| score::parse(name, score)).transpose()?;
        Ok(Scored { text, score })
    }

    fn text(&self, cells: &Cells) -> std::result::Result<String, String> {
        let mut text = String::new();
        for (i, (cell, name)) in cells.iter().zip(&self.names).enumerate() {
            let cell = cell.as_ref().ok_or_else(|| format!("column \"{name}\" is null"))?;
            let part =
                std::str::from_utf8(cell.data()).map_err(|_| format!("column \"{name}\" is not UTF-8"))?;
            if i > 0 {
                text.push_str(&self.joiner);
            }
            if text.len() + part.len() > self.most {
                return Err(super::bytes::too_long(self.most));
            }
            text.push_str(part);
        }
        Ok(text)
    }
}

/// The next cell of one column; none at the end of the row group.
fn cell<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    present: i16,
) -> parquet::errors::Result<Option<Option<T::T>>> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (records, ..) = reader.read_records(1, Some(&mut levels), None, &mut values)?;
    Ok((records > 0).then(|| values.pop()).map(|value| value.filter(|_| present == 0 || levels == [present])))
}

/// The next number of a column of numbers; none where null.
fn number(reader: &mut ColumnReader, present: i16) -> parquet::errors::Result<Option<f64>> {
    let number = match reader {
        ColumnReader::Int32ColumnReader(reader) => cell(reader, present)?.map(|it| it.map(f64::from)),
        ColumnReader::Int64ColumnReader(reader) => cell(reader, present)?.map(|it| it.map(|x| x as f64)),
        ColumnReader::FloatColumnReader(reader) => cell(reader, present)?.map(|it| it.map(f64::from)),
        ColumnReader::DoubleColumnReader(reader) => cell(reader, present)?,
        _ => None,
    };
    number.ok_or_else(|| ParquetError::General("columns of different lengths".into()))
}

impl Iterator for Rows {
    type Item = Entry<Scored>;

    fn next(&mut self) -> Option<Self::Item> {
        match guarded(|| self.next_cells()) {
            Ok(None) => None,
            Ok(Some((cells, score))) => {
                self.number += 1;
                Some(Ok((self.number, self.scored(&cells, score))))
            }
            Err(e) => Some(Err(damage(&self.path, &e))),
        }
    }
}
