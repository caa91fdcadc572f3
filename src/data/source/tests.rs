use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, LargeStringArray, RecordBatch, StringArray, StringViewArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use super::json::MAX_VALUES;
use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &TempDir, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, contents).unwrap();
    path
}

fn gzip(contents: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(contents).unwrap();
    encoder.finish().unwrap()
}

fn parquet(folder: &TempDir, name: &str, columns: Vec<(&str, ArrayRef)>) -> PathBuf {
    let path = folder.path().join(name);
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(300)).build();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

fn texts(path: &Path) -> Vec<String> {
    Source::new([path]).documents().unwrap().map(|document| document.unwrap().value).collect()
}

/// Reads all of `source`, skipping broken records.
fn skimmed(source: Source) -> (Vec<(String, u64)>, Report) {
    let mut documents = source.on_broken(OnBroken::Skip).documents().unwrap();
    let read = documents.by_ref().map(|d| d.unwrap()).map(|d| (d.value, d.number)).collect();
    (read, documents.report().clone())
}

fn error(path: &Path) -> Error {
    let mut documents = match Source::new([path]).on_broken(OnBroken::Skip).documents() {
        Ok(documents) => documents,
        Err(e) => return e,
    };
    let error = documents.find_map(|document| document.err()).expect("an error");
    assert!(documents.next().is_none(), "reading goes on after an error");
    error
}

const LINES: &str =
    "{\"text\": \"one\\nline\"}\r\n\n{\"id\": 2, \"text\": \"zwei \u{fc}\"}\n{\"text\":\"\\u4e2d\"}";

#[test]
fn plain_text_is_cut_into_documents_that_are_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    let cut = |text: &[u8], most: usize| {
        std::fs::write(&path, text).unwrap();
        let documents = Source::new([&path]).document_bytes(Some(most)).documents().unwrap();
        documents.map(|it| it.map(|it| it.value)).collect::<Result<Vec<_>>>()
    };
    let paragraphs = "é".repeat(45) + "\n\n" + &"b".repeat(30) + "\nc\n\n" + &"d".repeat(99);
    for text in [
        String::new(),
        "short".into(),
        paragraphs.clone(),
        "中".repeat(1000),
        "word ".repeat(300),
        "line\n".repeat(300),
        "\u{feff}x".repeat(200)[3..].to_string(),
    ] {
        for most in [64, 65, 66, 100, 128, 4096] {
            let pieces = cut(text.as_bytes(), most).unwrap();
            assert_eq!(pieces.concat(), text, "{most}");
            assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= most), "{most}");
        }
    }
    assert_eq!(cut(paragraphs.as_bytes(), 128).unwrap()[0].len(), 92 + 34, "behind the last paragraph");
    let error = cut(&[&b"a".repeat(200)[..], b"\xff"].concat(), 100).unwrap_err().to_string();
    assert!(error.contains("piece 3: not UTF-8 at byte 200") && error.contains("on_broken"), "{error}");
}

#[test]
fn lines_plain_and_compressed() {
    let folder = folder();
    let expected = ["one\nline", "zwei \u{fc}", "\u{4e2d}"];
    let mut members = gzip(&LINES.as_bytes()[..30]);
    members.extend(gzip(&LINES.as_bytes()[30..]));
    let mut frames = zstd::encode_all(&LINES.as_bytes()[..9], 1).unwrap();
    frames.extend(zstd::encode_all(&LINES.as_bytes()[9..], 1).unwrap());
    assert_eq!(texts(&write(&folder, "a.jsonl", LINES)), expected);
    assert_eq!(texts(&write(&folder, "b.ndjson", format!("\u{feff}{LINES}"))), expected);
    assert_eq!(texts(&write(&folder, "c.jsonl.gz", members)), expected);
    assert_eq!(texts(&write(&folder, "d.jsonl.zst", frames)), expected);
}

#[test]
fn whole_text_files() {
    let folder = folder();
    assert_eq!(texts(&write(&folder, "a.txt", "two\nlines\n")), ["two\nlines\n"]);
    assert_eq!(texts(&write(&folder, "b.txt.gz", gzip(b"packed"))), ["packed"]);
    let (read, report) = skimmed(Source::new([write(&folder, "c.txt", b"latin \xe9")]));
    assert_eq!((read.len(), report.broken), (0, 1));
    assert!(report.first_broken[0].ends_with("c.txt: not UTF-8 at byte 6"), "{report:?}");
}

#[test]
fn bad_bytes_have_their_place_in_the_file_and_other_encodings_a_remedy() {
    let folder = folder();
    let mut text = b"\xef\xbb\xbf".to_vec();
    text.extend(b"word ".repeat(100));
    text[300] = 0xe9;
    let path = write(&folder, "a.txt", &text);
    let pieces = Source::new([&path]).document_bytes(Some(64));
    let (read, report) = skimmed(pieces.clone());
    assert!(report.broken == 1 && read.len() == 8, "{report:?}");
    assert!(report.first_broken[0].ends_with("a.txt: piece 5: not UTF-8 at byte 300"), "{report:?}");
    assert_eq!(report.remedy, "convert the file to UTF-8");
    let whole = skimmed(Source::new([&path])).1;
    assert!(whole.first_broken[0].ends_with("a.txt: not UTF-8 at byte 300"), "{whole:?}");

    for bom in [b"\xff\xfe", b"\xfe\xff"] {
        for name in ["b.txt", "b.jsonl", "b.json"] {
            let path = write(&folder, name, [&bom[..], &b"a\0b\0".repeat(200)].concat());
            for source in [Source::new([&path]), Source::new([&path]).document_bytes(Some(64))] {
                let error = source.documents().unwrap().next().unwrap().unwrap_err().to_string();
                assert!(error.contains("UTF-16, not UTF-8; convert it to UTF-8: iconv -f UTF-16"), "{error}");
                assert_eq!(skimmed(source).1.broken, 1, "one for the file");
            }
        }
    }
    let refused = |given_by| {
        let lines = write(&folder, "c.jsonl", "{\"a\": 1}\n");
        let source = Source::new([lines]).given_by(given_by);
        source.documents().unwrap().next().unwrap().unwrap_err().to_string()
    };
    let (recipe, flags) = (refused(GivenBy::Recipe), refused(GivenBy::Flags));
    assert!(recipe.contains("fields = ") && recipe.contains("on_broken = "), "{recipe}");
    assert!(flags.contains("with --field") && flags.ends_with("with --skip-broken"), "{flags}");
    assert!(!flags.contains("recipe"), "{flags}");
}

#[test]
fn json_arrays_are_streamed() {
    let folder = folder();
    let array = r#" [ {"text": "a,]}\"\\"}, {"text": "b", "deep": [{"x": [1, "]"]}]},
        {"txt": 0}, 7, {"text": "c"} ] "#;
    let (read, report) = skimmed(Source::new([write(&folder, "a.json", array)]));
    assert_eq!(read, [("a,]}\"\\".into(), 1), ("b".into(), 2), ("c".into(), 5)]);
    assert_eq!(report.broken, 2);
    assert!(report.first_broken[0].ends_with("a.json: element 3: no field \"text\" among: txt"));
    assert!(report.first_broken[1].ends_with("element 4: a number instead of a JSON object"));
    assert_eq!(texts(&write(&folder, "empty.json", "[ ]")), [""; 0]);
    assert!(error(&write(&folder, "object.json", "{}")).to_string().contains("must be named .jsonl"));
    assert!(error(&write(&folder, "cut.json", "[{\"text\":\"a\"},")).to_string().contains("element 2"));
}

#[test]
fn every_parquet_string_type() {
    let folder = folder();
    let values: Vec<String> = (0..1000).map(|i| format!("row {i} \u{fc}")).collect();
    let arrays: [ArrayRef; 3] = [
        Arc::new(StringArray::from(values.clone())),
        Arc::new(LargeStringArray::from(values.clone())),
        Arc::new(StringViewArray::from_iter_values(&values)),
    ];
    for (i, array) in arrays.into_iter().enumerate() {
        let other: ArrayRef = Arc::new(StringArray::from_iter_values(values.iter().map(|_| "x")));
        let path = parquet(&folder, &format!("{i}.parquet"), vec![("other", other), ("text", array)]);
        assert_eq!(texts(&path), values);
        let both = Source::new([&path]).fields(["text", "other"], "|");
        assert_eq!(skimmed(both).0[999], (format!("{}|x", values[999]), 1000));
    }
}

#[test]
fn broken_parquet_rows_are_counted_by_row() {
    let folder = folder();
    let mut cells: Vec<Option<&[u8]>> = vec![Some(b"good"); 700];
    cells[299] = None;
    cells[650] = Some(b"\xff");
    let path = parquet(&folder, "a.parquet", vec![("text", Arc::new(BinaryArray::from(cells)) as ArrayRef)]);
    let (read, report) = skimmed(Source::new([&path]));
    assert_eq!((read.len(), report.documents, report.broken), (698, 698, 2));
    assert!(report.first_broken[0].ends_with("a.parquet: row 300: column \"text\" is null"));
    assert!(report.first_broken[1].ends_with("a.parquet: row 651: column \"text\" is not UTF-8"));

    let unknown = Source::new([&path]).fields(["body"], "").documents().unwrap().next().unwrap();
    assert!(unknown.unwrap_err().to_string().contains("no string column \"body\"; string columns: text"));
    let whole = std::fs::read(&path).unwrap();
    assert!(
        error(&write(&folder, "cut.parquet", &whole[..whole.len() - 9])).to_string().contains("cut.parquet")
    );
}

#[test]
fn broken_lines_are_counted_or_refused_by_line() {
    let folder = folder();
    let mut contents =
        b"{\"text\": \"ok\"}\n\n{\"text\": \"cut\n{\"txt\": 1, \"b\": 2}\n{\"text\": 3}\n".to_vec();
    contents.extend(b"{\"text\": \"\xff\"}\n{\"text\": \"\\ud800\"}\n[1]\n{\"text\": \"ok\", \"q\": null}\n");
    let path = write(&folder, "a.jsonl", contents);
    let (read, report) = skimmed(Source::new([&path]));
    assert_eq!(read, [("ok".into(), 1), ("ok".into(), 9)]);
    assert_eq!((report.documents, report.broken, report.first_broken.len()), (2, 6, 5));
    let places: Vec<_> = report.first_broken.iter().map(|b| b.split("a.jsonl: ").nth(1).unwrap()).collect();
    assert!(places[0].starts_with("line 3: bad JSON: EOF while parsing a string"), "{places:?}");
    assert_eq!(places[1], "line 4: no field \"text\" among: txt, b");
    assert_eq!(places[2], "line 5: field \"text\" is a number, not a string");
    assert_eq!(places[3], "line 6: not UTF-8");
    assert!(places[4].starts_with("line 7: bad JSON"), "{places:?}");

    let refused = Source::new([&path]).documents().unwrap().nth(1).unwrap().unwrap_err();
    assert!(refused.to_string().contains("a.jsonl: line 3") && refused.exit_code() == 2, "{refused}");
}

#[test]
fn an_endless_line_is_one_broken_record() {
    let folder = folder();
    let mut contents = vec![b' '; MAX_RECORD_BYTES + 100];
    contents.extend(b"\n{\"text\": \"after\"}\n");
    for (name, unit) in [("a.jsonl", "line 1: longer"), ("a.json", "element 1: longer")] {
        if name == "a.json" {
            contents[0] = b'[';
            *contents.iter_mut().find(|byte| **byte == b'\n').unwrap() = b',';
            contents.push(b']');
        }
        let (read, report) = skimmed(Source::new([write(&folder, name, &contents)]));
        assert_eq!(read, [("after".into(), 2)]);
        assert!(report.first_broken[0].contains(unit), "{report:?}");
    }
}

#[test]
fn records_are_as_long_as_allowed() {
    let folder = folder();
    let lines = "{\"text\": \"1234567\"}\n{\"text\": \"12345678\"}\n";
    let array = format!("[{}]", lines.trim().replace('\n', ","));
    let cells: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(19), "x".repeat(20)]));
    let files = [
        (write(&folder, "a.jsonl", lines), "line 2"),
        (write(&folder, "a.json", array), "element 2"),
        (parquet(&folder, "a.parquet", vec![("text", cells)]), "row 2"),
    ];
    for (path, place) in files {
        let (read, report) = skimmed(Source::new([&path]).max_record_bytes(19));
        assert_eq!((read.len(), report.broken), (1, 1), "{report:?}");
        let why = format!("{place}: longer than max_record_bytes (19 bytes)");
        assert!(report.first_broken[0].ends_with(&why), "{report:?}");
        assert_eq!(skimmed(Source::new([&path]).max_record_bytes(20)).0.len(), 2);
        let prints = [19, 20].map(|most| Source::new([&path]).max_record_bytes(most).fingerprint().unwrap());
        assert_ne!(prints[0], prints[1]);
    }
    let (read, report) = skimmed(Source::new([write(&folder, "a.txt", "12345")]).max_record_bytes(4));
    assert!(read.is_empty() && report.first_broken[0].contains("split it"), "{report:?}");
}

#[test]
fn what_is_not_wanted_of_a_record_takes_no_memory() {
    let folder = folder();
    let long = format!("{{\"a\": [{}0], \"text\": \"ok\"}}\n", "0,".repeat(MAX_VALUES));
    let path = write(&folder, "a.jsonl", long + "{\"text\": 1, \"text\": \"last\"}\n");
    assert_eq!(texts(&path), ["ok", "last"]);
    let objects = Source::new([&path]).objects().unwrap().next().unwrap().unwrap_err();
    assert!(objects.to_string().contains("more than 1048576 values"), "{objects}");
    let deep = write(&folder, "b.jsonl", format!("{{\"a\": {}", "[".repeat(1_000_000)));
    assert!(error_of_skimming(&deep).contains("line 1: bad JSON"));
}

fn error_of_skimming(path: &Path) -> String {
    skimmed(Source::new([path])).1.first_broken.join("; ")
}

/// A file of some KiB whose rows are of megabytes: as one entry of a dictionary, or packed.
#[test]
fn small_parquet_files_with_huge_rows_are_broken_records() {
    let folder = folder();
    for (name, dictionary, codec) in [
        ("dictionary.parquet", true, Compression::ZSTD(Default::default())),
        ("plain.parquet", false, Compression::ZSTD(Default::default())),
        ("gzip.parquet", false, Compression::GZIP(Default::default())),
    ] {
        let path = folder.path().join(name);
        let long = "a".repeat(3_000_000);
        let cells: ArrayRef = Arc::new(StringArray::from(vec![long.as_str(), "short", long.as_str()]));
        let batch = RecordBatch::try_from_iter([("text", cells)]).unwrap();
        let properties =
            WriterProperties::builder().set_dictionary_enabled(dictionary).set_compression(codec);
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let (read, report) = skimmed(Source::new([&path]).max_record_bytes(1 << 20));
        assert_eq!((read, report.broken), (vec![("short".into(), 2)], 2), "{name}");
        assert!(report.first_broken[0].contains("row 1: longer than max_record_bytes"), "{report:?}");
    }
}

#[test]
fn truncated_or_flipped_compression_is_refused_by_name() {
    let folder = folder();
    let lines = LINES.repeat(200);
    for (name, packed) in [
        ("a.jsonl.gz", gzip(lines.as_bytes())),
        ("a.jsonl.zst", zstd::encode_all(lines.as_bytes(), 1).unwrap()),
    ] {
        for cut in [0, 3, packed.len() / 2, packed.len() - 1] {
            if name.ends_with("zst") && cut == 0 {
                continue; // Nothing at all is a valid, empty zstd stream.
            }
            let message = error(&write(&folder, name, &packed[..cut])).to_string();
            assert!(message.contains(name) && message.contains("truncated or damaged"), "{cut}: {message}");
        }
    }
}

#[test]
fn fields_join_and_objects_can_be_rejected() {
    let folder = folder();
    let path =
        write(&folder, "a.jsonl", "{\"answer\": \"4\", \"question\": \"2+2?\"}\n{\"question\": \"x\"}\n");
    let source = Source::new([&path]).fields(["question", "answer"], "\n").on_broken(OnBroken::Skip);
    assert_eq!(skimmed(source.clone()).0, [("2+2?\n4".into(), 1)]);

    let mut objects = source.objects().unwrap();
    while let Some(object) = objects.next() {
        let object = object.unwrap();
        if object.value.get("answer").is_none() {
            objects.reject(&object, "no answer").unwrap();
        }
    }
    assert_eq!((objects.report().documents, objects.report().broken), (1, 1));
    assert!(objects.report().first_broken[0].ends_with("a.jsonl: line 2: no answer"));
    let text = Source::new([write(&folder, "a.txt", "")]).objects().unwrap().next().unwrap();
    assert!(text.unwrap_err().to_string().contains("convert it"));
}
