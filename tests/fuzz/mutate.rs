//! Damage to the bytes of a file: what disks, networks, editors and other programs do to it, and what nobody does.

use rand::{Rng, RngExt};
use serde_json::{Value, json};

/// Damages `bytes` by one to three mutations; `name` tells what the file is.
pub fn mutate(name: &str, bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    for _ in 0..rng.random_range(1..=3) {
        let structured = rng.random_bool(0.6);
        match name.rsplit('.').next() {
            Some("safetensors") if structured => header(bytes, rng),
            Some("json") if structured => json_text(bytes, rng),
            Some("toml" | "jinja" | "jsonl" | "json") if rng.random_bool(0.5) => text(bytes, rng),
            _ => binary(bytes, rng),
        }
    }
}

/// A place in `0..length`; headers and footers are where the lies are, so more often near an end.
fn place(length: usize, rng: &mut impl Rng) -> usize {
    let near = rng.random_range(0..length.clamp(1, 200));
    match rng.random_range(0..4) {
        0 => near,
        1 => length.saturating_sub(1 + near),
        _ => rng.random_range(0..length.max(1)),
    }
}

/// A range of at most `longest` bytes.
fn range(length: usize, longest: usize, rng: &mut impl Rng) -> std::ops::Range<usize> {
    let start = place(length, rng).min(length);
    start..(start + rng.random_range(0..=longest)).min(length)
}

/// Damage that knows nothing of the format.
fn binary(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    let length = bytes.len();
    let at = place(length, rng).min(length);
    match rng.random_range(0..8) {
        0 | 1 if at < length => bytes[at] ^= 1 << rng.random_range(0..8),
        2 if at < length => bytes[at] = rng.random(),
        3 => {
            let limits = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, i64::MAX as u64, u64::MAX];
            let limits = limits.into_iter().chain([length as u64, length as u64 + 1, 1 << 63]);
            let limit = limits.collect::<Vec<_>>()[rng.random_range(0..12)].to_le_bytes();
            let width = [1, 2, 4, 8][rng.random_range(0..4)];
            let end = (at + width).min(length);
            bytes[at..end].copy_from_slice(&limit[..end - at]);
        }
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(range(length, 64, rng))),
        6 => {
            let copied = bytes[range(length, 64, rng)].to_vec();
            bytes.splice(at..at, copied);
        }
        _ => {
            let noise: Vec<u8> = (0..rng.random_range(1..16)).map(|_| rng.random()).collect();
            bytes.splice(at..at, noise);
        }
    }
}

/// What a number or a word may become.
const WORDS: [&str; 24] = [
    "0",
    "1",
    "-1",
    "255",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "1e400",
    "-1e308",
    "0.5",
    "NaN",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"../../x\"",
    "\"a\\nb\"",
    "\"\\u0000\"",
    "\"\u{1b}[2J\"",
    "\"\u{2028}\"",
];

/// Damage to words, numbers and lines.
fn text(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    let Ok(text) = std::str::from_utf8(bytes) else { return binary(bytes, rng) };
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let words: Vec<&str> = text.split(|c| !is_part(c)).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return binary(bytes, rng);
    }
    let word = words[rng.random_range(0..words.len())];
    let start = word.as_ptr() as usize - text.as_ptr() as usize;
    let other = words[rng.random_range(0..words.len())];
    let new = match rng.random_range(0..5) {
        0 => String::new(),
        1 => other.to_string(),
        2 => format!("{word}{word}"),
        3 => ["[", "(", "{", "{{", "{%", "\"", "a."][rng.random_range(0..7)]
            .repeat(1 << rng.random_range(0..14)),
        _ => WORDS[rng.random_range(0..WORDS.len())].to_string(),
    };
    let range = start..start + word.len();
    bytes.splice(range, new.into_bytes());
}

/// Damage inside the JSON header of a safetensors file, whose length stays true.
fn header(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    let Some(header) = bytes.get(8..).and_then(|rest| rest.get(..length)) else { return binary(bytes, rng) };
    let mut header = header.to_vec();
    json_text(&mut header, rng);
    let mut damaged = (header.len() as u64).to_le_bytes().to_vec();
    damaged.extend(header);
    damaged.extend_from_slice(&bytes[8 + length..]);
    *bytes = damaged;
}

/// Damage to one value or key of a JSON document.
fn json_text(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    let Ok(mut root) = serde_json::from_slice::<Value>(bytes) else { return text(bytes, rng) };
    let count = nodes(&root);
    let other = nth(&mut root, &mut rng.random_range(0..count)).clone();
    // A duplicate key exists in text only.
    let mut twin = None;
    let node = nth(&mut root, &mut rng.random_range(0..count));
    match node {
        Value::Object(entries) if !entries.is_empty() && rng.random_bool(0.6) => {
            let key = entries.keys().nth(rng.random_range(0..entries.len())).expect("one of them").clone();
            match rng.random_range(0..4) {
                0 => drop(entries.remove(&key)),
                1 => drop(entries.insert(key + "\n", other)),
                2 => twin = Some((key.clone(), entries[&key].clone())),
                _ => {
                    let value = entries.remove(&key).expect("it is there");
                    entries.insert(format!("x{key}"), value);
                }
            }
        }
        Value::Array(items) if !items.is_empty() && rng.random_bool(0.6) => {
            let i = rng.random_range(0..items.len());
            match rng.random_range(0..3) {
                0 => drop(items.remove(i)),
                1 => items.insert(i, other),
                _ => items.push(items[i].clone()),
            }
        }
        Value::Number(number) if rng.random_bool(0.3) => {
            let near = number.as_i64().unwrap_or(0).wrapping_add(rng.random_range(-9..=9));
            *node = json!(near);
        }
        node => {
            *node = match rng.random_range(0..3) {
                0 => other,
                1 => (0..1 << rng.random_range(0..8)).fold(json!(1), |inner, _| json!([inner])),
                _ => serde_json::from_str(WORDS[rng.random_range(0..WORDS.len())]).unwrap_or(json!("NaN")),
            }
        }
    }
    *bytes = root.to_string().into_bytes();
    if let Some((key, value)) = twin {
        let entry = format!("{}:{},", json!(key), value);
        bytes.splice(1..1, if bytes.starts_with(b"{") { entry.into_bytes() } else { Vec::new() });
    }
}

fn children(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(entries) => entries.values_mut().collect(),
        _ => Vec::new(),
    }
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(entries) => entries.values().map(nodes).sum(),
        _ => 0,
    }
}

/// The node of that number, counted from the root.
fn nth<'a>(value: &'a mut Value, number: &mut usize) -> &'a mut Value {
    if *number == 0 {
        return value;
    }
    *number -= 1;
    for child in children(value) {
        let size = nodes(child);
        if *number < size {
            return nth(child, number);
        }
        *number -= size;
    }
    unreachable!("a node's number is below the number of nodes")
}
