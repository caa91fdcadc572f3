//! JSON objects, and the text in them.

use serde_json::{Map, Value};

use super::{Entries, Entry};
use crate::error::Result;

type Object = Map<String, Value>;

/// Parses each raw record.
pub(super) fn objects(raw: Entries<Vec<u8>>) -> Result<Entries<Object>> {
    Ok(Box::new(raw.map(|entry| and_then(entry, |bytes| parse(&bytes)))))
}

/// Parses each raw record and joins its `fields`.
pub(super) fn texts(raw: Entries<Vec<u8>>, fields: &[String], joiner: &str) -> Result<Entries<String>> {
    let (fields, joiner) = (fields.to_vec(), joiner.to_string());
    Ok(Box::new(raw.map(move |entry| and_then(entry, |bytes| join(parse(&bytes)?, &fields, &joiner)))))
}

fn and_then<A, B>(entry: Entry<A>, f: impl FnOnce(A) -> std::result::Result<B, String>) -> Entry<B> {
    entry.map(|(number, value)| (number, value.and_then(f)))
}

fn parse(bytes: &[u8]) -> std::result::Result<Object, String> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(format!("{} instead of a JSON object", name(&other))),
        Err(_) if std::str::from_utf8(bytes).is_err() => Err("not UTF-8".into()),
        Err(e) => Err(format!("bad JSON: {}", e.to_string().replace(" at line 1 column ", " at byte "))),
    }
}

fn join(mut object: Object, fields: &[String], joiner: &str) -> std::result::Result<String, String> {
    let mut text = String::new();
    for (i, field) in fields.iter().enumerate() {
        match object.get_mut(field) {
            Some(Value::String(part)) if i == 0 => text = std::mem::take(part),
            Some(Value::String(part)) => {
                text.push_str(joiner);
                text.push_str(part);
            }
            Some(other) => return Err(format!("field \"{field}\" is {}, not a string", name(other))),
            None => return Err(format!("no field \"{field}\" among: {}", keys(&object))),
        }
    }
    Ok(text)
}

fn keys(object: &Object) -> String {
    let some: Vec<_> = object.keys().take(10).map(String::as_str).collect();
    some.join(", ")
}

fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
