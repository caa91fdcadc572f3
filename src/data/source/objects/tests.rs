use std::sync::Arc;

use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::*;
use crate::data::source::{OnBroken, Report, Source};

/// A column in writing.
#[derive(Default)]
struct Leaf {
    defined: Vec<i16>,
    repeated: Vec<i16>,
    values: Vec<Value>,
}

/// Takes records apart as the format's paper has it, independently of the reader.
struct Shredder {
    leaves: Vec<Leaf>,
    next: usize,
}

impl Shredder {
    fn leaf(&mut self) -> &mut Leaf {
        if self.leaves.len() == self.next {
            self.leaves.push(Leaf::default());
        }
        self.next += 1;
        &mut self.leaves[self.next - 1]
    }

    /// `at` are the levels of what is here; `deep` is the repetition level of a list here.
    fn field(&mut self, field: &Type, value: &Value, (defined, repeated): (i16, i16), deep: i16) {
        let repetition = field.get_basic_info().repetition();
        match (repetition, value) {
            (Repetition::REQUIRED, value) => self.bare(field, value, (defined, repeated), deep),
            (Repetition::OPTIONAL, Value::Null) => self.nothing(field, (defined, repeated)),
            (Repetition::OPTIONAL, value) => self.bare(field, value, (defined + 1, repeated), deep),
            (Repetition::REPEATED, Value::Array(list)) if !list.is_empty() => {
                let next = self.next;
                for (i, item) in list.iter().enumerate() {
                    self.next = next;
                    self.bare(field, item, (defined + 1, if i == 0 { repeated } else { deep + 1 }), deep + 1);
                }
            }
            (Repetition::REPEATED, _) => self.nothing(field, (defined, repeated)),
        }
    }

    fn bare(&mut self, field: &Type, value: &Value, at: (i16, i16), deep: i16) {
        if field.is_primitive() {
            let leaf = self.leaf();
            leaf.defined.push(at.0);
            leaf.repeated.push(at.1);
            leaf.values.push(value.clone());
            return;
        }
        let is_list = field.get_basic_info().logical_type_ref() == Some(&LogicalType::List);
        for inner in field.get_fields() {
            match is_list && inner.name() == "list" {
                // { "list": [{ "element": item }, ...] }
                true => {
                    let items = value.as_array().unwrap().iter().map(|item| json!({"element": item}));
                    self.field(inner, &items.collect(), at, deep);
                }
                false if is_list => self.field(inner, value, at, deep),
                false => self.field(inner, &value[inner.name()], at, deep),
            }
        }
    }

    fn nothing(&mut self, field: &Type, at: (i16, i16)) {
        if field.is_primitive() {
            let leaf = self.leaf();
            leaf.defined.push(at.0);
            leaf.repeated.push(at.1);
        } else {
            field.get_fields().iter().for_each(|inner| self.nothing(inner, at));
        }
    }
}

/// Writes `records` in row groups of three.
fn write(path: &Path, schema: &str, records: &[Value]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_data_page_row_count_limit(2).build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema.clone(), Arc::new(properties)).unwrap();
    for records in records.chunks(3) {
        let mut shredder = Shredder { leaves: Vec::new(), next: 0 };
        for record in records {
            shredder.next = 0;
            schema.get_fields().iter().for_each(|it| shredder.field(it, &record[it.name()], (0, 0), 0));
        }
        let mut group = writer.next_row_group().unwrap();
        for Leaf { defined, repeated, values } in shredder.leaves {
            let mut column = group.next_column().unwrap().unwrap();
            let (d, r) = (Some(&defined[..]), Some(&repeated[..]));
            match column.untyped() {
                ColumnWriter::ByteArrayColumnWriter(writer) => {
                    // A number stands for a byte that is no UTF-8.
                    let bytes = |it: &Value| it.as_str().map_or(ByteArray::from(vec![0xff]), ByteArray::from);
                    writer.write_batch(&values.iter().map(bytes).collect::<Vec<_>>(), d, r).unwrap();
                }
                ColumnWriter::Int64ColumnWriter(writer) => {
                    let numbers: Vec<i64> = values.iter().map(|it| it.as_i64().unwrap()).collect();
                    writer.write_batch(&numbers, d, r).unwrap();
                }
                ColumnWriter::DoubleColumnWriter(writer) => {
                    let numbers: Vec<f64> = values.iter().map(|it| it.as_f64().unwrap()).collect();
                    writer.write_batch(&numbers, d, r).unwrap();
                }
                ColumnWriter::BoolColumnWriter(writer) => {
                    let flags: Vec<bool> = values.iter().map(|it| it.as_bool().unwrap()).collect();
                    writer.write_batch(&flags, d, r).unwrap();
                }
                _ => panic!("not written here"),
            };
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// Reads all, skipping broken records: objects, their numbers, and what was broken.
fn skimmed(source: Source) -> (Vec<(u64, Value)>, Report) {
    let mut objects = source.on_broken(OnBroken::Skip).objects().unwrap();
    let read = objects.by_ref().map(|it| it.unwrap()).map(|it| (it.number, it.value.into())).collect();
    (read, objects.report().clone())
}

/// A table with everything: lists in lists, structs that are null, lists as they were written of old.
const SCHEMA: &str = "message table {
    required binary id (STRING);
    optional group messages (LIST) { repeated group list { optional group element {
        required binary role (STRING);
        optional binary content (STRING);
        optional group calls (LIST) { repeated group list { optional group element {
            optional binary name (STRING);
            optional group sizes (LIST) { repeated group list { optional int64 element; } }
        } } }
    } } }
    optional group extra { optional double score; optional group deep { required boolean yes; } }
    repeated binary tags (STRING);
    optional group old (LIST) { repeated int64 item; }
    optional group pairs (LIST) { repeated group array { required int64 a; optional int64 b; } }
}";

fn random(rng: &mut ChaCha8Rng, i: usize) -> Value {
    fn maybe(rng: &mut ChaCha8Rng, make: impl FnOnce(&mut ChaCha8Rng) -> Value) -> Value {
        if rng.random_bool(0.3) { Value::Null } else { make(rng) }
    }
    fn list(rng: &mut ChaCha8Rng, mut make: impl FnMut(&mut ChaCha8Rng) -> Value) -> Value {
        (0..rng.random_range(0..4)).map(|_| make(rng)).collect()
    }
    let number = |rng: &mut ChaCha8Rng| json!(rng.random_range(-9i64..9));
    let text = |rng: &mut ChaCha8Rng| json!("\u{fc}".repeat(rng.random_range(0..3)));
    let sizes = |rng: &mut ChaCha8Rng| maybe(rng, |rng| list(rng, |rng| maybe(rng, number)));
    let call =
        |rng: &mut ChaCha8Rng| maybe(rng, |rng| json!({"name": maybe(rng, text), "sizes": sizes(rng)}));
    let message = |rng: &mut ChaCha8Rng| {
        let calls = maybe(rng, |rng| list(rng, call));
        maybe(rng, |rng| json!({"role": text(rng), "content": maybe(rng, text), "calls": calls}))
    };
    json!({
        "id": format!("record {i}"),
        "messages": maybe(rng, |rng| list(rng, message)),
        "extra": maybe(rng, |rng| json!({"score": maybe(rng, |_| json!(0.5)), "deep": maybe(rng, |_| json!({"yes": true}))})),
        "tags": list(rng, text),
        "old": maybe(rng, |rng| list(rng, number)),
        "pairs": maybe(rng, |rng| list(rng, |rng| json!({"a": number(rng), "b": maybe(rng, number)}))),
    })
}

/// Without what is null in structs.
fn dropped(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(dropped).collect(),
        Value::Object(fields) => {
            let there = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(there.map(|(name, value)| (name.clone(), dropped(value))).collect())
        }
        other => other.clone(),
    }
}

#[test]
fn nested_rows_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    for seed in 0..20 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let records: Vec<Value> = (0..11).map(|i| random(&mut rng, i)).collect();
        write(&path, SCHEMA, &records);
        let (read, report) = skimmed(Source::new([&path]));
        assert_eq!((read.len(), report.broken), (records.len(), 0), "{report:?}");
        for ((number, found), record) in read.iter().zip(&records) {
            // Columns of the table stay.
            assert_eq!(found.as_object().unwrap().len(), 6);
            assert_eq!(dropped(found), dropped(record), "seed {seed}, row {number}");
        }
        // Of columns that are not wanted, the names.
        let wanted = Source::new([&path]).parsed(|name| name == "tags", Ok).unwrap();
        for (found, record) in wanted.zip(&records) {
            let found = Value::from(found.unwrap().value);
            assert_eq!((&found["tags"], &found["messages"]), (&record["tags"], &Value::Null));
            assert_eq!(found.as_object().unwrap().len(), 6);
        }
    }
}

#[test]
fn broken_rows_are_counted_and_a_whole_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let schema = "message table { optional group talk (LIST) { repeated group list {
        required group element { optional binary role (STRING); optional binary content (STRING); } } } }";
    let turn = |content: Value| json!({"talk": [{"role": "user", "content": content}, {"role": "b", "content": "c"}]});
    let records = [
        turn(json!("fine")),
        turn(json!(0)),
        turn(json!("x".repeat(300))),
        json!({"talk": []}),
        turn(Value::Null),
    ];
    write(&path, schema, &records);
    let (read, report) = skimmed(Source::new([&path]).max_record_bytes(200));
    assert_eq!(read.iter().map(|it| it.0).collect::<Vec<_>>(), [1, 4, 5]);
    assert_eq!(read[1].1, json!({"talk": []}));
    let first: Vec<&str> =
        report.first_broken.iter().map(|it| it.split("a.parquet: ").nth(1).unwrap()).collect();
    assert_eq!(first, ["row 2: \"content\" is not UTF-8", "row 3: longer than max_record_bytes (200 bytes)"]);
    assert_eq!(report.remedy, "convert the file to UTF-8");

    let refused = Source::new([&path]).objects().unwrap().nth(1).unwrap().unwrap_err();
    assert!(refused.to_string().contains("a.parquet: row 2: ") && refused.exit_code() == 2, "{refused}");
    let unwanted = Source::new([&path]).parsed(|name| name == "messages", Ok).unwrap().next().unwrap();
    let unwanted = unwanted.unwrap_err().to_string();
    assert!(unwanted.contains("columns: talk; name what holds them"), "{unwanted}");

    // Whatever byte is wrong, it is an error or other text, and never a panic.
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(objects) = Source::new([&path]).on_broken(OnBroken::Skip).objects() {
            let error = objects.filter_map(|it| it.err()).next();
            assert!(error.is_none_or(|it| it.to_string().contains("a.parquet")));
        }
    }
}

/// A file of some KiB with rows that take any memory: one value, told a million times over in a run of its levels.
#[test]
fn small_files_with_rows_of_millions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let schema = "message table { repeated binary tags (STRING); }";
    let list = |count: usize| json!({"tags": vec!["x"; count]});
    write(&path, schema, &[list(MAX_VALUES + 1), list(2)]);
    let (read, report) = skimmed(Source::new([&path]));
    assert_eq!((read.len(), report.broken), (1, 1));
    assert!(report.first_broken[0].contains("row 1: more than 1048576 values"), "{report:?}");
}
