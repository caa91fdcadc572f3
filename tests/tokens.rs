//! Ids and text are those of the `tokenizers` package, and `smolter data encode|decode` gives them.

use crate::support::{Outcome, smolter};
use serde_json::{Value, json};
use smolter::tokenizer::{Special, Tokenizer};
use std::io::Write;
use std::process::Stdio;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer");

/// Strings, their ids with special tokens seen (`ids`) and as ordinary text, and the text without special tokens;
/// made by tests/tokens.py.
fn vectors() -> Vec<Value> {
    let text = std::fs::read_to_string(format!("{FOLDER}/vectors.json")).expect("the fixture");
    serde_json::from_str(&text).expect("the fixture is JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("ids")
}

/// Runs `smolter data` with these arguments on these lines.
fn data(arguments: &[&str], lines: &[u8]) -> Outcome {
    let mut command = smolter(&["data"]);
    command.args(arguments).args(["--tokenizer", FOLDER]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let lines = lines.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&lines); // the program may end at the first bad line
    });
    let output = child.wait_with_output().expect("its output");
    writer.join().expect("no panic");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn lines<'a>(values: impl Iterator<Item = &'a Value>) -> String {
    values.map(|value| format!("{value}\n")).collect()
}

#[test]
fn ids_and_text_are_those_of_the_tokenizers_package() {
    let tokenizer = Tokenizer::load(FOLDER).expect("the fixture");
    let vectors = vectors();
    assert!(vectors.len() > 150, "only {} vectors", vectors.len());
    for vector in vectors {
        let text = vector["text"].as_str().expect("a string");
        let encoded = tokenizer.encode(text).expect("ids");
        assert_eq!(encoded, ids(&vector["ids"]), "{text:?}");
        assert_eq!(tokenizer.encode_ordinary(text).expect("ids"), ids(&vector["ordinary"]), "{text:?}");
        // This tokenizer has all bytes, so nothing is lost.
        assert_eq!(tokenizer.decode(&encoded), text);
        assert_eq!(tokenizer.decode_with(&encoded, Special::Skip), vector["skipped"], "{text:?}");
    }
}

#[test]
fn data_encode_and_decode_answer_line_by_line() {
    let vectors = vectors();
    let column = |name: &'static str| lines(vectors.iter().map(move |vector| &vector[name]));
    let compact = |text: String| text.replace(", ", ",");
    let answer = |arguments: &[&str], input: String| data(arguments, input.as_bytes()).expect(0, &[]).stdout;
    assert_eq!(answer(&["encode"], column("text")), compact(column("ids")));
    assert_eq!(answer(&["encode", "--ordinary"], column("text")), compact(column("ordinary")));
    assert_eq!(answer(&["decode"], column("ids")), column("text"));
    assert_eq!(answer(&["decode"], column("ordinary")), column("text"));
    assert_eq!(answer(&["decode", "--skip-special"], column("ids")), column("skipped"));
    assert_eq!(answer(&["encode"], String::new()), "");
}

#[test]
fn a_bad_line_is_named() {
    let good = json!("text").to_string();
    for bad in ["text", "\"half", "17", "\"\\ud800\"", ""] {
        let outcome = data(&["encode"], format!("{good}\n{bad}\n{good}\n").as_bytes());
        outcome.expect(2, &["stdin, line 2: not a JSON string"]);
    }
    for bad in ["[1, -2]", "[1.5]", "\"a\"", "[4294967296]"] {
        data(&["decode"], format!("[1]\n{bad}\n").as_bytes()).expect(2, &["stdin, line 2: not a JSON array"]);
    }
    data(&["encode"], b"\"a\xff\"\n").expect(2, &["stdin, line 1: "]);
    assert_eq!(data(&["encode"], b"\"a\"\r\n\"a\"").expect(0, &[]).stdout.lines().count(), 2);
}

#[test]
fn what_is_no_token_or_too_long_is_named() {
    let vocabulary = Tokenizer::load(FOLDER).expect("the fixture").vocab_size();
    let unknown = data(&["decode"], format!("[1, 2]\n[3, {vocabulary}]\n").as_bytes());
    let words =
        [&format!("line 2: no token has the id {vocabulary}"), &format!("from 0 to {}", vocabulary - 1)];
    unknown.expect(2, &words.map(String::as_str)).is_one_line();
    data(&["encode", "--max-record-bytes", "9"], b"\"1234567\"\n\"12345678\"\n")
        .expect(2, &["line 2: longer than 9 bytes", "--max-record-bytes"])
        .is_one_line();
    let endless = [b"\"".to_vec(), vec![b'a'; 20 << 20]].concat();
    for command in ["encode", "decode"] {
        data(&[command], &endless).expect(2, &["stdin, line 1: longer than 16777216 bytes"]).is_one_line();
    }
    data(&["encode"], format!("\"{}\"\n", "a".repeat(5 << 20)).as_bytes())
        .expect(2, &["stdin, line 1", "without a place where this tokenizer may cut it"])
        .is_one_line();
}
