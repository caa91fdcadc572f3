//! Rows of a Parquet file as JSON objects, with lists and structs of any depth, a row in memory at a time.
//!
//! A column of a file holds the leaves of a tree: values, each with two levels. The definition level tells how far down
//! the path to the leaf something is there, the repetition level which list of the path goes on with it. What is null in
//! a struct is left out of it, since a table gives each of its structs the fields of all; null columns stay, so that
//! messages can name them.

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::bytes::too_long;
use super::json::{MAX_VALUES, too_many_values};
use super::rows::{damage, guarded};
use super::{Entries, Entry, pages};
use crate::error::{Error, Result};
use crate::files;

/// The rows of `path`, of at most `most` bytes each. Columns of which `is_wanted` says no are null.
pub(super) fn objects(
    path: &Path,
    most: usize,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Entries<Map<String, Value>>> {
    let file = files::open(path)?;
    let raw = file.try_clone().map_err(Error::io(path))?;
    let file = guarded(|| SerializedFileReader::new(file)).map_err(|e| damage(path, &e))?;
    let schema = file.metadata().file_metadata().schema_descr();
    let mut tree = Builder { next: 0, leaves: Vec::new(), deepest: 0 };
    let columns = schema.root_schema().get_fields().iter().map(|field| {
        let name = field.name();
        (name.to_string(), tree.field(field, 0, 0, is_wanted(name)))
    });
    let columns: Vec<_> = columns.collect();
    if tree.deepest > MAX_DEPTH {
        let why = format!("columns of {} levels, more than {MAX_DEPTH}", tree.deepest);
        return Err(damage(path, &ParquetError::General(why)));
    }
    let leaves = tree.leaves;
    if leaves.is_empty() {
        let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).take(10).collect();
        return Err(Error::input(format!(
            "{}: no column of the names that conversations and pairs have; columns: {}; name what holds them (in a \
             recipe: columns = {{ messages = \"...\" }})",
            path.display(),
            names.join(", ")
        )));
    }
    let path = path.to_path_buf();
    Ok(Box::new(Rows {
        path,
        file,
        raw,
        most,
        columns,
        leaves,
        group: 0,
        rows: 0,
        readers: vec![],
        number: 0,
    }))
}

/// Deepest nesting of a column.
const MAX_DEPTH: usize = 64;

/// What a part of a schema is. Columns are given by their number among those that are read.
enum Node {
    /// A value, defined at a level.
    Leaf { column: usize, defined: i16 },
    /// Fields by name, defined at a level.
    Struct { fields: Vec<(String, Node)>, defined: i16 },
    /// Elements, of a list that is there at a level; at the next one it has an element. Further ones repeat at a level.
    List { element: Box<Node>, defined: i16, repeated: i16 },
}

impl Node {
    /// A column below.
    fn first(&self) -> usize {
        match self {
            Node::Leaf { column, .. } => *column,
            Node::Struct { fields, .. } => fields[0].1.first(),
            Node::List { element, .. } => element.first(),
        }
    }
}

/// Makes a tree of a schema.
struct Builder {
    /// Number of the next column in the file.
    next: usize,
    /// Columns in the file that are read.
    leaves: Vec<usize>,
    deepest: usize,
}

impl Builder {
    /// A field below `defined` and `repeated`; none if nothing of it is read.
    fn field(&mut self, field: &Type, defined: i16, repeated: i16, wanted: bool) -> Option<Node> {
        self.below(field, defined, repeated, wanted, 1)
    }

    fn below(
        &mut self,
        field: &Type,
        defined: i16,
        repeated: i16,
        wanted: bool,
        depth: usize,
    ) -> Option<Node> {
        self.deepest = self.deepest.max(depth);
        let info = field.get_basic_info();
        let repetition = if info.has_repetition() { info.repetition() } else { Repetition::REQUIRED };
        match repetition {
            // A list of values that are there.
            Repetition::REPEATED => {
                let element = self.bare(field, defined + 1, repeated + 1, wanted, depth)?;
                Some(Node::List { element: element.into(), defined, repeated: repeated + 1 })
            }
            Repetition::OPTIONAL => self.bare(field, defined + 1, repeated, wanted, depth),
            Repetition::REQUIRED => self.bare(field, defined, repeated, wanted, depth),
        }
    }

    /// A field whatever its repetition, which is in the levels.
    fn bare(
        &mut self,
        field: &Type,
        defined: i16,
        repeated: i16,
        wanted: bool,
        depth: usize,
    ) -> Option<Node> {
        if field.is_primitive() {
            let index = self.next;
            self.next += 1;
            let is_known = !matches!(
                field.get_physical_type(),
                PhysicalType::INT96 | PhysicalType::FIXED_LEN_BYTE_ARRAY
            );
            return (wanted && is_known).then(|| {
                self.leaves.push(index);
                Node::Leaf { column: self.leaves.len() - 1, defined }
            });
        }
        // Deeper ones are refused.
        if depth > MAX_DEPTH {
            return None;
        }
        if let Some(middle) = list_within(field) {
            let (defined_within, repeated_within) = (defined + 1, repeated + 1);
            let element = match element_of(field, middle) {
                Some(element) => self.below(element, defined_within, repeated_within, wanted, depth + 1),
                None => self.bare(middle, defined_within, repeated_within, wanted, depth + 1),
            };
            return element.map(|element| Node::List {
                element: element.into(),
                defined,
                repeated: repeated_within,
            });
        }
        let fields = field.get_fields().iter();
        let fields = fields.filter_map(|it| {
            Some((it.name().to_string(), self.below(it, defined, repeated, wanted, depth + 1)?))
        });
        let fields: Vec<_> = fields.collect();
        (!fields.is_empty()).then_some(Node::Struct { fields, defined })
    }
}

/// The repeated field of a group that is marked as a list.
fn list_within(group: &Type) -> Option<&Type> {
    let info = group.get_basic_info();
    let is_list =
        info.logical_type_ref() == Some(&LogicalType::List) || info.converted_type() == ConvertedType::LIST;
    let middle = group.get_fields().first().filter(|_| is_list && group.get_fields().len() == 1)?;
    let info = middle.get_basic_info();
    (info.has_repetition() && info.repetition() == Repetition::REPEATED).then_some(middle.as_ref())
}

/// The element of a list, if it is not the repeated field itself, as writers of old had it.
fn element_of<'a>(list: &Type, middle: &'a Type) -> Option<&'a Type> {
    let [only] = (if middle.is_group() { middle.get_fields() } else { &[] }) else { return None };
    let is_itself = middle.name() == "array" || middle.name() == format!("{}_tuple", list.name());
    (!is_itself).then_some(only.as_ref())
}

/// A value as it is in a file.
enum Cell {
    Text(ByteArray),
    Other(Value),
}

/// What a row has in one column.
struct Column {
    defined: Vec<i16>,
    repeated: Vec<i16>,
    cells: std::vec::IntoIter<Cell>,
    /// Entries, with those that are null; and how many of them are used.
    entries: usize,
    used: usize,
}

impl Column {
    /// Reads the next row; whether there was one.
    fn read(reader: &mut ColumnReader) -> parquet::errors::Result<Option<Column>> {
        use ColumnReader::*;
        match reader {
            BoolColumnReader(reader) => Self::typed(reader, |it| Cell::Other(it.into())),
            Int32ColumnReader(reader) => Self::typed(reader, |it| Cell::Other(it.into())),
            Int64ColumnReader(reader) => Self::typed(reader, |it| Cell::Other(it.into())),
            FloatColumnReader(reader) => Self::typed(reader, |it| Cell::Other(it.into())),
            DoubleColumnReader(reader) => Self::typed(reader, |it| Cell::Other(it.into())),
            ByteArrayColumnReader(reader) => Self::typed(reader, Cell::Text),
            Int96ColumnReader(_) | FixedLenByteArrayColumnReader(_) => {
                Err(ParquetError::General("a column of a type that is not read".into()))
            }
        }
    }

    fn typed<T: DataType>(
        reader: &mut ColumnReaderImpl<T>,
        cell: impl Fn(T::T) -> Cell,
    ) -> parquet::errors::Result<Option<Column>> {
        let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (records, ..) = reader.read_records(1, Some(&mut defined), Some(&mut repeated), &mut values)?;
        let entries = defined.len().max(values.len());
        let cells = values.into_iter().map(cell).collect::<Vec<_>>().into_iter();
        Ok((records > 0).then_some(Column { defined, repeated, cells, entries, used: 0 }))
    }

    /// Bytes of its texts.
    fn bytes(&self) -> usize {
        let length = |cell: &Cell| if let Cell::Text(text) = cell { text.data().len() } else { 0 };
        self.cells.as_slice().iter().map(length).sum()
    }

    /// The definition level of the next entry.
    fn level(&self) -> Outcome<i16> {
        match self.used < self.entries {
            // Where everything is required, there are no levels.
            true => Ok(self.defined.get(self.used).copied().unwrap_or(0)),
            false => Err(Wrong::Row),
        }
    }

    /// Whether the next entry goes on with the list that repeats at a level.
    fn goes_on(&self, repeated: i16) -> bool {
        self.repeated.get(self.used) == Some(&repeated)
    }
}

/// Why a row is no object.
enum Wrong {
    /// The levels of its columns do not fit.
    Row,
    /// It is broken for this reason.
    Record(String),
}

type Outcome<T> = std::result::Result<T, Wrong>;

/// Takes the value of a part of the schema from the columns of a row; `name` is what the part is called.
fn take(node: &Node, name: &str, columns: &mut [Column]) -> Outcome<Value> {
    match node {
        Node::Leaf { column, defined } => {
            let column = &mut columns[*column];
            let level = column.level()?;
            column.used += 1;
            match (level == *defined).then(|| column.cells.next().ok_or(Wrong::Row)).transpose()? {
                None => Ok(Value::Null),
                Some(Cell::Other(value)) => Ok(value),
                Some(Cell::Text(bytes)) => match std::str::from_utf8(bytes.data()) {
                    Ok(text) => Ok(text.into()),
                    Err(_) => Err(Wrong::Record(format!("\"{name}\" is not UTF-8"))),
                },
            }
        }
        Node::Struct { fields, defined } => {
            let is_there = columns[node.first()].level()? >= *defined;
            let mut object = Map::new();
            for (name, field) in fields {
                let value = take(field, name, columns)?;
                if !value.is_null() {
                    object.insert(name.clone(), value);
                }
            }
            Ok(if is_there { object.into() } else { Value::Null })
        }
        Node::List { element, defined, repeated } => {
            let first = node.first();
            let level = columns[first].level()?;
            let mut list = vec![take(element, name, columns)?];
            while columns[first].goes_on(*repeated) {
                list.push(take(element, name, columns)?);
            }
            match level - defined {
                ..0 => Ok(Value::Null),
                0 => Ok(Value::Array(Vec::new())),
                _ => Ok(list.into()),
            }
        }
    }
}

struct Rows {
    path: PathBuf,
    file: SerializedFileReader<File>,
    /// The same file, for a look at its pages.
    raw: File,
    /// Longest row, in bytes.
    most: usize,
    /// The columns of the table, with those that are not read.
    columns: Vec<(String, Option<Node>)>,
    /// The columns in the file that are read.
    leaves: Vec<usize>,
    /// The row group that comes next, and the rows that are left of the one before.
    group: usize,
    rows: i64,
    readers: Vec<ColumnReader>,
    number: u64,
}

impl Rows {
    fn next_row(&mut self) -> parquet::errors::Result<Option<Vec<Column>>> {
        loop {
            let row = self.readers.iter_mut().map(Column::read);
            let row = row.collect::<parquet::errors::Result<Vec<_>>>()?;
            let there = row.iter().flatten().count();
            if there > 0 && there < row.len() {
                return Err(ParquetError::General("columns of different lengths".into()));
            }
            if there > 0 {
                self.rows -= 1;
                return Ok(Some(row.into_iter().flatten().collect()));
            }
            if self.rows != 0 {
                return Err(ParquetError::General("other rows than its metadata tells".into()));
            }
            if self.group == self.file.num_row_groups() {
                return Ok(None);
            }
            let group = self.file.get_row_group(self.group)?;
            let readers = self.leaves.iter().map(|&column| {
                pages::check(&self.raw, group.metadata().column(column))?;
                group.get_column_reader(column)
            });
            self.readers = readers.collect::<parquet::errors::Result<_>>()?;
            self.rows = group.metadata().num_rows();
            self.group += 1;
        }
    }

    fn object(&self, row: &mut [Column]) -> Outcome<Map<String, Value>> {
        if row.iter().map(Column::bytes).fold(0, usize::saturating_add) > self.most {
            return Err(Wrong::Record(too_long(self.most)));
        }
        if row.iter().map(|column| column.entries).sum::<usize>() > MAX_VALUES {
            return Err(Wrong::Record(too_many_values()));
        }
        let value = |(name, node): &(String, Option<Node>)| {
            let value = node.as_ref().map_or(Ok(Value::Null), |node| take(node, name, row))?;
            Ok((name.clone(), value))
        };
        let object = self.columns.iter().map(value).collect::<Outcome<_>>()?;
        match row.iter().all(|column| column.used == column.entries) {
            true => Ok(object),
            false => Err(Wrong::Row),
        }
    }
}

impl Iterator for Rows {
    type Item = Entry<Map<String, Value>>;

    fn next(&mut self) -> Option<Self::Item> {
        match guarded(|| self.next_row()) {
            Ok(None) => None,
            Ok(Some(mut row)) => {
                self.number += 1;
                match self.object(&mut row) {
                    Ok(object) => Some(Ok((self.number, Ok(object)))),
                    Err(Wrong::Record(what)) => Some(Ok((self.number, Err(what)))),
                    Err(Wrong::Row) => {
                        let what = format!("the columns of row {} do not fit one another", self.number);
                        Some(Err(damage(&self.path, &ParquetError::General(what))))
                    }
                }
            }
            Err(e) => Some(Err(damage(&self.path, &e))),
        }
    }
}

#[cfg(test)]
mod tests;
