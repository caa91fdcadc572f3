//! JSON as Python's `json.dumps` writes it.

use serde_json::Value;

/// The arguments of `json.dumps`.
#[derive(Default)]
pub(super) struct Style {
    /// Writes what is not ASCII as `\uXXXX`.
    pub ensure_ascii: bool,
    /// Blanks per level, each item on its own line; without it all on one line.
    pub indent: Option<usize>,
    /// What stands between items, and between key and value.
    pub separators: Option<Vec<String>>,
    /// Orders maps by key.
    pub sort_keys: bool,
}

/// `value` as text.
pub(super) fn dumps(value: &Value, style: &Style) -> String {
    let (item, key) = match style.separators.as_deref() {
        Some([item, key]) => (item.as_str(), key.as_str()),
        _ if style.indent.is_some() => (",", ": "),
        _ => (", ", ": "),
    };
    let mut text = String::new();
    Writer { style, item, key }.write(value, 0, &mut text);
    text
}

struct Writer<'a> {
    style: &'a Style,
    item: &'a str,
    key: &'a str,
}

impl Writer<'_> {
    fn write(&self, value: &Value, level: usize, text: &mut String) {
        match value {
            Value::Array(items) if items.is_empty() => text.push_str("[]"),
            Value::Object(entries) if entries.is_empty() => text.push_str("{}"),
            Value::Array(items) => {
                text.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.begin_item(i, level + 1, text);
                    self.write(item, level + 1, text);
                }
                self.new_line(level, text);
                text.push(']');
            }
            Value::Object(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                if self.style.sort_keys {
                    entries.sort_by_key(|(key, _)| *key);
                }
                text.push('{');
                for (i, (key, value)) in entries.into_iter().enumerate() {
                    self.begin_item(i, level + 1, text);
                    self.string(key, text);
                    text.push_str(self.key);
                    self.write(value, level + 1, text);
                }
                self.new_line(level, text);
                text.push('}');
            }
            Value::String(string) => self.string(string, text),
            Value::Number(number) if number.is_f64() => {
                text.push_str(&float(number.as_f64().unwrap_or_default()));
            }
            other => text.push_str(&other.to_string()),
        }
    }

    fn begin_item(&self, i: usize, level: usize, text: &mut String) {
        if i > 0 {
            text.push_str(self.item);
        }
        self.new_line(level, text);
    }

    fn new_line(&self, level: usize, text: &mut String) {
        if let Some(indent) = self.style.indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * level));
        }
    }

    fn string(&self, string: &str, text: &mut String) {
        let quoted = Value::from(string).to_string();
        if !self.style.ensure_ascii {
            return text.push_str(&quoted);
        }
        for c in quoted.chars() {
            // Python counts DEL as ASCII, and writes characters beyond U+FFFF as surrogate pairs.
            if c.is_ascii() {
                text.push(c);
            } else {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
            }
        }
    }
}

/// Python's `repr` of a float: the shortest digits, with an exponent below 1e-4 and from 1e16.
fn float(number: f64) -> String {
    if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Expected texts are those of Python 3.11's json.dumps.
    #[test]
    fn writes_as_python_does() {
        let value = json!({"b": [1, 2.0, -1e20, 1e-5, 1.5e-7, 123456789.125, 1e16, 1e15], "a": {}, "é<>&'": ["\u{7f}\u{1}\n\"\\", null, true, "😀"]});
        let plain = "{\"b\": [1, 2.0, -1e+20, 1e-05, 1.5e-07, 123456789.125, 1e+16, 1000000000000000.0], \"a\": {}, \"é<>&'\": [\"\u{7f}\\u0001\\n\\\"\\\\\", null, true, \"😀\"]}";
        assert_eq!(dumps(&value, &Style::default()), plain);
        let value = json!({"b": [1, []], "a": "é😀"});
        let style = Style { ensure_ascii: true, indent: Some(2), sort_keys: true, separators: None };
        let expected = "{\n  \"a\": \"\\u00e9\\ud83d\\ude00\",\n  \"b\": [\n    1,\n    []\n  ]\n}";
        assert_eq!(dumps(&value, &style), expected);
        let style = Style { separators: Some(vec![",".into(), ":".into()]), ..Style::default() };
        assert_eq!(dumps(&value, &style), "{\"b\":[1,[]],\"a\":\"é😀\"}");
    }
}
