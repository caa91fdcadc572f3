//! A recipe's text with its `--set` overrides as one tree that remembers where every key and value came from.
//!
//! All errors of a recipe are made here: `FILE:LINE:COLUMN: message`, or `--set TEXT: message`.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::overrides::{assign, respan};
use super::problem::{KeyPath, suggest};
use crate::error::{Error, Result};

/// A parsed recipe. Spans inside `text` are bytes; those that start at `text.len() + 1 + i` lie in override `i`.
pub(super) struct Document<'a> {
    label: &'a str,
    text: &'a str,
    overrides: &'a [String],
    root: Spanned<DeValue<'a>>,
}

impl<'a> Document<'a> {
    /// Parses `text` and applies `overrides`, each `path.to.key=value`; `label` is what errors call the text.
    pub fn parse(label: &'a str, text: &'a str, overrides: &'a [String]) -> Result<Self> {
        let empty = Spanned::new(0..0, DeValue::Table(DeTable::new()));
        let mut document = Document { label, text, overrides, root: empty };
        let table = DeTable::parse(text)
            .map_err(|error| document.error_at(&error.span().unwrap_or(0..0), error.message()))?;
        document.root = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        for (i, assignment) in overrides.iter().enumerate() {
            let start = text.len() + 1 + i;
            let mut places = (start..).map(|end| start..end);
            let fail = |why: &str| Error::input(format!("--set {assignment}: {why}"));
            let (key, value) =
                assignment.split_once('=').ok_or_else(|| fail("write it as path.to.key=value"))?;
            let keys: Vec<&str> = key.split('.').map(str::trim).collect();
            // What is no TOML value is taken as a string, so that shells need no nested quotes.
            let value = match DeValue::parse(value.trim()) {
                Ok(value) => respan(value.into_inner(), &mut places),
                Err(_) => DeValue::String(Cow::Borrowed(value.trim())),
            };
            assign(&mut document.root, &keys, value, &mut places).map_err(|why| fail(&why))?;
        }
        Ok(document)
    }

    /// Removes the string at `table.key` and returns it with its place; for keys that stand for others.
    pub fn take_string(&mut self, table: &str, key: &str) -> Option<Spanned<String>> {
        let DeValue::Table(root) = self.root.get_mut() else { return None };
        let DeValue::Table(table) = root.get_mut(table)?.get_mut() else { return None };
        let text = table.get(key)?.get_ref().as_str()?.to_string();
        table.remove(key).map(|value| Spanned::new(value.span(), text))
    }

    /// Adds to `table` the keys of `defaults` that it does not have, as if they stood at `place`.
    pub fn add_defaults(&mut self, table: &str, defaults: &'a str, place: Range<usize>) {
        let DeValue::Table(root) = self.root.get_mut() else { return };
        let Some(DeValue::Table(table)) = root.get_mut(table).map(Spanned::get_mut) else { return };
        let defaults = DeTable::parse(defaults).map(Spanned::into_inner).unwrap_or_default();
        for (key, value) in defaults {
            if !table.contains_key(key.get_ref().as_ref()) {
                let (key, value) = (key.into_inner(), value.into_inner());
                table.insert(Spanned::new(place.clone(), key), Spanned::new(place.clone(), value));
            }
        }
    }

    /// Reads the tree as a `T`.
    pub fn decode<T: Deserialize<'a>>(&self) -> Result<T> {
        T::deserialize(ValueDeserializer::from(self.root.clone())).map_err(|error| self.translate(&error))
    }

    /// An error about the value at `path`, or about what would hold it if it is not there.
    pub fn error(&self, path: &[String], message: &str) -> Error {
        self.error_at(&self.place_of(path), message)
    }

    /// An error about a place in the text.
    pub fn error_at(&self, place: &Range<usize>, message: &str) -> Error {
        let line = match self.override_at(place) {
            Some(assignment) => format!("--set {assignment}: {message}"),
            None => {
                let (line, column) = line_and_column(self.text, place.start);
                format!("{}:{line}:{column}: {message}", self.label)
            }
        };
        // Quoted keys and values may hold line ends.
        Error::input(line.replace(['\n', '\r'], " "))
    }

    /// Whether the value at `path` was given by `--set`.
    pub fn is_overridden(&self, path: &[String]) -> bool {
        self.override_at(&self.place_of(path)).is_some()
    }

    fn override_at(&self, place: &Range<usize>) -> Option<&'a String> {
        self.overrides.get(place.start.checked_sub(self.text.len() + 1)?)
    }

    /// The span of the deepest part of `path` that exists: its key if the file has it, else its value.
    fn place_of(&self, path: &[String]) -> Range<usize> {
        let (mut node, mut place) = (&self.root, 0..0);
        for segment in path {
            match node.get_ref() {
                DeValue::Table(table) => {
                    let Some((key, value)) = table.get_key_value(segment.as_str()) else { break };
                    place = if self.override_at(&value.span()).is_some() { value.span() } else { key.span() };
                    node = value;
                }
                DeValue::Array(array) => {
                    let Some(value) = segment.parse().ok().and_then(|i: usize| array.get(i)) else { break };
                    place = value.span();
                    node = value;
                }
                _ => break,
            }
        }
        place
    }

    /// Says in the words of a recipe what the TOML reader found wrong.
    fn translate(&self, error: &toml::de::Error) -> Error {
        let place = error.span().unwrap_or(0..0);
        let text = error.message();
        let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
        let message = if text.starts_with("unknown field") {
            let key = quoted.first().copied().unwrap_or_default();
            let mut section = self.path_at(&place).unwrap_or_default();
            section.pop();
            let mut known = quoted.get(1..).unwrap_or_default().to_vec();
            if section == ["model"] {
                known.push("preset");
            }
            format!("unknown key '{key}' in {}; {}", section_name(&section), suggest(key, &known))
        } else if text.starts_with("unknown variant") {
            let value = quoted.first().copied().unwrap_or_default();
            let path = self.path_at(&place).unwrap_or_default().join(".");
            format!("{path} is '{value}'; {}", suggest(value, quoted.get(1..).unwrap_or_default()))
        } else if text.starts_with("missing field") {
            let section = self.path_at(&place).unwrap_or_default();
            format!("missing key '{}' in {}", quoted.first().unwrap_or(&""), section_name(&section))
        } else if let Some((found, wanted)) =
            text.strip_prefix("invalid ").and_then(|rest| rest.split_once(", expected "))
        {
            let found = found.split_once(": ").map_or(found, |(_, what)| what);
            let path = self.path_at(&place).unwrap_or_default().join(".");
            format!("{path} is {}, but must be {}", found.replace('`', ""), plain_type(wanted))
        } else {
            text.to_string()
        };
        self.error_at(&place, &message)
    }

    /// The path of the key or value whose span is `place`.
    fn path_at(&self, place: &Range<usize>) -> Option<KeyPath> {
        fn search(node: &Spanned<DeValue>, place: &Range<usize>, path: &mut KeyPath) -> bool {
            let mut visit = |segment: String, key: Range<usize>, value: &Spanned<DeValue>| {
                path.push(segment);
                let found = key == *place || value.span() == *place || search(value, place, path);
                if !found {
                    path.pop();
                }
                found
            };
            match node.get_ref() {
                DeValue::Table(table) => {
                    table.iter().any(|(key, value)| visit(key.get_ref().to_string(), key.span(), value))
                }
                DeValue::Array(array) => {
                    array.iter().enumerate().any(|(i, value)| visit(i.to_string(), value.span(), value))
                }
                _ => false,
            }
        }
        let mut path = KeyPath::new();
        search(&self.root, place, &mut path).then_some(path)
    }
}

/// Line and column of a byte, both from 1; columns count characters.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..byte.min(text.len())];
    let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
}

fn section_name(path: &[String]) -> String {
    match path {
        [] => "the recipe".to_string(),
        [list, index] if index.parse::<usize>().is_ok() => format!("[[{list}]]"),
        _ => format!("[{}]", path.join(".")),
    }
}

/// The words of serde's types for people.
fn plain_type(wanted: &str) -> &str {
    match wanted {
        "f64" => "a number",
        "u32" | "u64" | "usize" => "a whole number from 0",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a map" => "a table",
        struct_name if struct_name.starts_with("struct ") => "a table",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the errors matter")]
    struct Outer {
        schedule: Inner,
        #[serde(default)]
        stages: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the errors matter")]
    struct Inner {
        #[serde(default)]
        name: String,
        #[serde(default)]
        peak_lr: f64,
        #[serde(default)]
        betas: Vec<f64>,
        #[serde(default)]
        steps: u64,
    }

    fn read(text: &str, overrides: &[&str]) -> std::result::Result<Outer, String> {
        let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
        Document::parse("r.toml", text, &overrides).and_then(|d| d.decode()).map_err(|e| e.to_string())
    }

    const FILE: &str =
        "# é\n[schedule]\nname = \"a\"\n\n[[stages]]\nname = \"stable\"\n[[stages]]\nname = \"decay\"\n";

    #[test]
    fn mistakes_in_the_file_have_line_column_and_remedy() {
        for (text, expected) in [
            (
                "[schedule]\n  peek_lr = 1\n",
                "r.toml:2:3: unknown key 'peek_lr' in [schedule]; did you mean 'peak_lr'?",
            ),
            (
                "[schedule]\nzzz = 1\n",
                "r.toml:2:1: unknown key 'zzz' in [schedule]; known: name, peak_lr, betas, steps",
            ),
            (
                "[schedule]\n[shedule]\n",
                "r.toml:2:2: unknown key 'shedule' in the recipe; did you mean 'schedule'?",
            ),
            ("é = 1\n[schedule]\n", "r.toml:1:1: invalid unquoted key"),
            (
                "[schedule]\npeak_lr = \"x\"",
                "r.toml:2:11: schedule.peak_lr is string \"x\", but must be a number",
            ),
            (
                "[schedule]\nbetas = [1, true]",
                "r.toml:2:13: schedule.betas.1 is boolean true, but must be a number",
            ),
            (
                "[schedule]\nsteps = -1",
                "r.toml:2:9: schedule.steps is integer -1, but must be a whole number from 0",
            ),
            (
                "[schedule]\nsteps = 1.5",
                "r.toml:2:9: schedule.steps is floating point 1.5, but must be a whole number from 0",
            ),
            ("[schedule]\nbetas = 1", "r.toml:2:9: schedule.betas is integer 1, but must be a list"),
            ("schedule = 3", "r.toml:1:12: schedule is integer 3, but must be a table"),
            ("x = 1\nschedule = {}", "r.toml:1:1: unknown key 'x' in the recipe; known: schedule, stages"),
            (
                "[schedule]\n[[stages]]\nnme = \"\"",
                "r.toml:3:1: unknown key 'nme' in [[stages]]; did you mean 'name'?",
            ),
            ("stages = []", "r.toml:1:1: missing key 'schedule' in the recipe"),
            ("[schedule]\nsteps = 1\nsteps = 2\n", "r.toml:3:1: duplicate key"),
            ("[schedule]\n\"é\" = 1\npeak_lr = \n", "r.toml:3:11: string values must be quoted"),
            ("[schedule]\n\"a\\nb\" = 1", "r.toml:2:1: unknown key 'a b' in [schedule]; known: "),
            ("[schedule\n", "r.toml:1:10: unclosed table, expected `]`"),
        ] {
            let error = read(text, &[]).expect_err(text);
            assert!(error.starts_with(expected), "{text:?}\n  {error}\n  {expected}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn overrides_reach_tables_lists_and_new_keys() {
        let set =
            ["schedule.peak_lr=2", "stages.1.steps = 7", "stages.stable.name=x y", "schedule.betas=[0.5,1]"];
        let outer = read(FILE, &set).unwrap();
        assert_eq!((outer.schedule.peak_lr, outer.stages[1].steps), (2.0, 7));
        assert_eq!(
            (outer.stages[0].name.as_str(), outer.schedule.betas.as_slice()),
            ("x y", [0.5, 1.0].as_slice())
        );
        assert_eq!(read("", &["schedule.steps=3"]).unwrap().schedule.steps, 3);
        assert_eq!(read(FILE, &["stages.0={steps=3}", "stages.0.steps=4"]).unwrap().stages[0].steps, 4);
        assert_eq!(read(FILE, &["schedule.name==a="]).unwrap().schedule.name, "=a=");
    }

    #[test]
    fn mistakes_in_overrides_name_the_override() {
        for (set, expected) in [
            ("schedule.peek_lr=1", "unknown key 'peek_lr' in [schedule]; did you mean 'peak_lr'?"),
            ("shedule.peak_lr=1", "unknown key 'shedule' in the recipe; did you mean 'schedule'?"),
            ("stages.1.nam=3", "unknown key 'nam' in [[stages]]; did you mean 'name'?"),
            ("stages.decai.name=3", "there is no 'decai' among the 2 there; did you mean 'decay'?"),
            ("stages.2.name=3", "there is no '2' among the 2 there; known: stable, decay"),
            ("schedule.name.x=3", "what holds 'x' is a string, not a table"),
            ("schedule.betas=[1,", "schedule.betas is string \"[1,\", but must be a list"),
            ("schedule.betas=[1,{}]", "schedule.betas.1 is map, but must be a number"),
            ("schedule.peak_lr", "write it as path.to.key=value"),
            ("schedule..x=3", "write it as path.to.key=value"),
            ("=3", "write it as path.to.key=value"),
        ] {
            let error = read(FILE, &["schedule.steps=1", set]).expect_err(set);
            assert_eq!(error, format!("--set {set}: {expected}"));
        }
    }

    #[test]
    fn places_of_present_absent_and_overridden_values() {
        let overrides = ["schedule.steps=1".to_string()];
        let document = Document::parse("r.toml", FILE, &overrides).unwrap();
        let place = |path: &[&str]| {
            let path: KeyPath = path.iter().map(|s| s.to_string()).collect();
            document.error(&path, "!").to_string()
        };
        assert_eq!(place(&["schedule", "name"]), "r.toml:3:1: !");
        assert_eq!(place(&["schedule", "peak_lr"]), "r.toml:2:2: !");
        assert_eq!(place(&["stages", "1", "name"]), "r.toml:8:1: !");
        assert_eq!(place(&["nothing"]), "r.toml:1:1: !");
        assert_eq!(place(&["schedule", "steps"]), "--set schedule.steps=1: !");
    }
}
