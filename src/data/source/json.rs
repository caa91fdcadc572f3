//! JSON objects, and the text in them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::score::{self, Scored};
use super::{Entries, Entry};
use crate::error::Result;

type Object = Map<String, Value>;

/// Most values of an object that is parsed whole: each takes up to a hundred bytes, whatever its text takes.
pub(super) const MAX_VALUES: usize = 1 << 20;

/// Each raw record as an object.
pub(super) fn objects(raw: Entries<Vec<u8>>) -> Entries<Object> {
    Box::new(raw.map(|entry| and_then(entry, |bytes| whole(&bytes))))
}

/// Joins the `fields` of each raw record, and takes its `score`; nothing else of it is kept in memory.
pub(super) fn texts(
    raw: Entries<Vec<u8>>,
    fields: &[String],
    joiner: &str,
    score: Option<&str>,
) -> Result<Entries<Scored>> {
    let picked: Vec<String> = fields.iter().cloned().chain(score.map(String::from)).collect();
    let (count, joiner) = (fields.len(), joiner.to_string());
    Ok(Box::new(raw.map(move |entry| and_then(entry, |bytes| join(&bytes, &picked, count, &joiner)))))
}

fn and_then<A, B>(entry: Entry<A>, f: impl FnOnce(A) -> std::result::Result<B, String>) -> Entry<B> {
    entry.map(|(number, value)| (number, value.and_then(f)))
}

fn whole(bytes: &[u8]) -> std::result::Result<Object, String> {
    if values(bytes) > MAX_VALUES {
        return Err(too_many_values());
    }
    match parse(bytes, PhantomData::<Value>)? {
        Value::Object(object) => Ok(object),
        other => Err(format!("{} instead of a JSON object", name(&other))),
    }
}

/// What is broken about an object of more than [`MAX_VALUES`].
pub(super) fn too_many_values() -> String {
    format!("more than {MAX_VALUES} values")
}

/// The number of values in a JSON text, or a few more.
fn values(bytes: &[u8]) -> usize {
    let (mut in_string, mut escaped, mut count) = (false, false, 1);
    for &byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

fn parse<'a, S: DeserializeSeed<'a>>(bytes: &'a [u8], seed: S) -> std::result::Result<S::Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = seed.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    parsed.map_err(|e| format!("bad JSON: {}", e.to_string().replace(" at line 1 column ", " at byte ")))
}

/// Joins the first `count` of the `picked` fields; one more is the score.
fn join(bytes: &[u8], picked: &[String], count: usize, joiner: &str) -> std::result::Result<Scored, String> {
    let (mut parts, keys) = match parse(bytes, Picked { fields: picked })? {
        Outline::Object { parts, keys } => (parts, keys),
        Outline::Other(name) => return Err(format!("{name} instead of a JSON object")),
    };
    let absent = |what: &str, field: &str| format!("no {what} \"{field}\" among: {}", keys.join(", "));
    let mut text = String::new();
    for (i, field) in picked[..count].iter().enumerate() {
        match parts[i].take() {
            Some(Part::Text(part)) if i == 0 => text = part,
            Some(Part::Text(part)) => {
                text.push_str(joiner);
                text.push_str(&part);
            }
            Some(other) => return Err(format!("field \"{field}\" is {}, not a string", other.name())),
            None => return Err(absent("field", field)),
        }
    }
    let number = |field: &String| match &parts[count] {
        Some(Part::Number(number)) => score::parse(field, Some(*number)),
        Some(Part::Text(text)) => score::parse(field, text.trim().parse().ok()),
        Some(_) => score::parse(field, None),
        None => Err(absent("score", field)),
    };
    Ok(Scored { text, score: picked.get(count).map(number).transpose()? })
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

/// How many keys a message names.
const NAMED: usize = 10;

/// What is wanted of a record.
enum Outline {
    /// The wanted fields, where they are, and the first keys, wanted or not.
    Object { parts: Vec<Option<Part>>, keys: Vec<String> },
    /// It is no object but this.
    Other(&'static str),
}

/// A field's value.
#[derive(Clone)]
enum Part {
    Text(String),
    Number(f64),
    /// It is neither but this.
    Other(&'static str),
}

impl Part {
    fn name(&self) -> &'static str {
        match self {
            Part::Text(_) => "a string",
            Part::Number(_) => "a number",
            Part::Other(name) => name,
        }
    }
}

/// Picks `fields` out of an object; the last counts where a key occurs again.
struct Picked<'a> {
    fields: &'a [String],
}

/// Takes strings and numbers, and leaves everything else out.
struct Scalars;

/// What either makes of numbers, and of the kinds of value that it does not want.
macro_rules! others {
    ($lifetime:lifetime, $made:expr, $number:expr) => {
        fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
            Ok($made("null"))
        }
        fn visit_bool<E>(self, _: bool) -> std::result::Result<Self::Value, E> {
            Ok($made("a boolean"))
        }
        fn visit_u64<E>(self, number: u64) -> std::result::Result<Self::Value, E> {
            Ok($number(number as f64))
        }
        fn visit_i64<E>(self, number: i64) -> std::result::Result<Self::Value, E> {
            Ok($number(number as f64))
        }
        fn visit_f64<E>(self, number: f64) -> std::result::Result<Self::Value, E> {
            Ok($number(number as f64))
        }
        fn visit_seq<A: SeqAccess<$lifetime>>(
            self,
            mut seq: A,
        ) -> std::result::Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok($made("an array"))
        }
    };
}

impl<'de> DeserializeSeed<'de> for Picked<'_> {
    type Value = Outline;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Outline, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Picked<'_> {
    type Value = Outline;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    others!('de, Outline::Other, |_| Outline::Other("a number"));

    fn visit_str<E>(self, _: &str) -> std::result::Result<Outline, E> {
        Ok(Outline::Other("a string"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Outline, A::Error> {
        let mut parts: Vec<Option<Part>> = self.fields.iter().map(|_| None).collect();
        let mut keys = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            // The same field may be wanted twice.
            let mut wanted = (0..parts.len()).filter(|&i| self.fields[i] == key);
            match wanted.next() {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(first) => {
                    let part = map.next_value_seed(Scalars)?;
                    wanted.for_each(|i| parts[i] = Some(part.clone()));
                    parts[first] = Some(part);
                }
            }
            if keys.len() < NAMED && !keys.contains(&key) {
                keys.push(key);
            }
        }
        Ok(Outline::Object { parts, keys })
    }
}

impl<'de> DeserializeSeed<'de> for Scalars {
    type Value = Part;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Part, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalars {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string or a number")
    }

    others!('de, Part::Other, Part::Number);

    fn visit_str<E>(self, text: &str) -> std::result::Result<Part, E> {
        Ok(Part::Text(text.into()))
    }

    fn visit_string<E>(self, text: String) -> std::result::Result<Part, E> {
        Ok(Part::Text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Part, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Part::Other("an object"))
    }
}
