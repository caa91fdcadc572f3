//! A recipe's text with its `--set` overrides as one tree that remembers where every key and value came from.
//!
//! All errors of a recipe are made here: `FILE:LINE:COLUMN: message`, or `--set TEXT: message`.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::complaint::{Complaint, any_value};
use super::count;
use super::overrides::{Changes, LENGTHS, Places, assign, changes, remove, respan};
use super::problem::{KeyPath, MOST, nearest};
use crate::error::Error;

/// A parsed recipe. Spans inside `text` are bytes; those that start at `text.len() + 1 + i` lie in override `i`.
pub(super) struct Document<'a> {
    label: &'a str,
    text: &'a str,
    overrides: &'a [String],
    root: Spanned<DeValue<'a>>,
    mistakes: Vec<(Range<usize>, String)>,
    stand_ins: Vec<KeyPath>,
    /// Lines that could not be parsed: what is wrong with their keys is confusion about that.
    garbled: Vec<usize>,
}

impl<'a> Document<'a> {
    /// Parses `text` and applies `overrides`, each `path.to.key=value`; `label` is what errors call the text.
    ///
    /// What cannot be parsed is a mistake, and the rest is there all the same.
    pub fn parse(label: &'a str, text: &'a str, overrides: &'a [String]) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let root = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        let mut document = Document {
            label,
            text,
            overrides,
            root,
            mistakes: Vec::new(),
            stand_ins: Vec::new(),
            garbled: Vec::new(),
        };
        for error in errors {
            let place = error.span().unwrap_or(0..0);
            let line = line_and_column(text, place.start).0;
            if !document.garbled.contains(&line) {
                document.mistake(place, error.message().to_string());
                document.garbled.push(line);
            }
        }
        for (i, assignment) in overrides.iter().enumerate() {
            let start = text.len() + 1 + i;
            if let Err(why) = document.apply(assignment, &mut (start..).map(|end| start..end)) {
                document.mistake(start..start, why);
            }
        }
        document
    }

    fn apply(&mut self, assignment: &'a str, places: Places) -> std::result::Result<(), String> {
        let (key, value) = assignment.split_once('=').ok_or("write it as path.to.key=value")?;
        if let Some(flag) = key.strip_prefix("--") {
            return self.apply_flag(flag, value, places);
        }
        // What is no TOML value is taken as a string, so that shells need no nested quotes.
        let value = match DeValue::parse(value.trim()) {
            Ok(value) => respan(value.into_inner(), places),
            Err(_) => DeValue::String(Cow::Borrowed(value.trim())),
        };
        let keys = keys(key);
        // A stage has one length.
        if let ["stages", stage, length] = keys[..]
            && LENGTHS.contains(&length)
        {
            LENGTHS.iter().for_each(|other| remove(&mut self.root, &["stages", stage, other]));
        }
        assign(&mut self.root, &keys, value, places)
    }

    fn apply_flag(&mut self, flag: &str, value: &'a str, places: Places) -> std::result::Result<(), String> {
        let Changes { remove: mut gone, forget, set } = changes(self.root.get_ref(), flag, value)?;
        let given = |path: &String| {
            let keys: KeyPath = keys(path).into_iter().map(String::from).collect();
            self.node(&keys).and_then(|node| self.override_at(&node.span()))
        };
        if let Some(other) = gone.iter().chain(&set).find_map(given) {
            return Err(format!("--set {other} gives it too: leave one of them out"));
        }
        gone.extend(forget.into_iter().filter(|path| given(path).is_none()));
        gone.iter().for_each(|path| remove(&mut self.root, &keys(path)));
        let own = DeValue::parse(value).map_err(|e| e.message().to_string())?.into_inner();
        for path in set {
            assign(&mut self.root, &keys(&path), own.clone(), places)?;
        }
        Ok(())
    }

    /// Notes a mistake at a place in the text.
    pub fn mistake(&mut self, place: Range<usize>, message: String) {
        let line = line_and_column(self.text, place.start.min(self.text.len())).0;
        if place.start > self.text.len() || !self.garbled.contains(&line) {
            self.mistakes.push((place, message));
        }
    }

    /// Notes a mistake about the value at `path`, or about what would hold it if it is not there.
    pub fn mistake_at(&mut self, path: &[String], message: String) {
        self.mistake(self.place_of(path), message);
    }

    /// Whether no mistake has been noted.
    pub fn is_sound(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Whether all of the text could be parsed.
    pub fn is_whole(&self) -> bool {
        self.garbled.is_empty()
    }

    /// Where values stand in for mistaken ones.
    pub fn stand_ins(&self) -> Vec<KeyPath> {
        self.stand_ins.clone()
    }

    /// Says that what is at `path` stands in for what a mistake hides.
    pub fn stands_in(&mut self, path: &[String]) {
        self.stand_ins.push(path.to_vec());
    }

    /// All mistakes, in the order of their places.
    pub fn into_error(mut self) -> Error {
        self.mistakes.sort_by_key(|(place, _)| place.start);
        let more = self.mistakes.len() > MOST;
        let told = self.mistakes.iter().take(MOST);
        let mut lines: Vec<String> = told.map(|(place, message)| self.line(place, message)).collect();
        if more {
            lines.push(format!("{}: and more mistakes", self.label));
        }
        match &lines[..] {
            [only] => Error::input(only),
            _ => Error::Mistakes(lines),
        }
    }

    /// Removes the string at `table.key` and returns it with its place; for keys that stand for others. What is no
    /// string is a mistake, and an empty one stands in for it.
    pub fn take_string(&mut self, table: &str, key: &str) -> Option<Spanned<String>> {
        let DeValue::Table(root) = self.root.get_mut() else { return None };
        let DeValue::Table(keys) = root.get_mut(table)?.get_mut() else { return None };
        let value = keys.remove(key)?;
        let place = value.span();
        match value.get_ref().as_str() {
            Some(text) => Some(Spanned::new(place, text.to_string())),
            None => {
                let found = value.get_ref().type_str();
                self.mistake(
                    place.clone(),
                    format!("{table}.{key} is of type {found}, but must be a string"),
                );
                Some(Spanned::new(place, String::new()))
            }
        }
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

    /// Adds an empty `table` if there is none, as if it stood at `place`.
    pub fn ensure_table(&mut self, table: &'static str, place: Range<usize>) {
        let DeValue::Table(root) = self.root.get_mut() else { return };
        let empty = Spanned::new(place.clone(), DeValue::Table(DeTable::new()));
        root.entry(Spanned::new(place, table.into())).or_insert(empty);
    }

    /// Reads the tree as a `T`. Where that fails, the mistake is noted and a value stands in, so that the others are
    /// found too; `None` if nothing could stand in.
    pub fn decode<T: Deserialize<'a>>(&mut self) -> Option<T> {
        // Each mistake takes a few attempts, and one too many is enough to see that there are more.
        for _ in 0..6 * MOST {
            let error = match T::deserialize(ValueDeserializer::from(self.root.clone())) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            if self.mistakes.len() > MOST || self.repair(&error).is_none() {
                break;
            }
        }
        None
    }

    /// Notes what the TOML reader found wrong, and mends it. `None` if it cannot be mended.
    fn repair(&mut self, error: &toml::de::Error) -> Option<()> {
        let place = error.span().unwrap_or(0..0);
        let root = || (place == (0..0) || place == self.root.span()).then(KeyPath::new);
        let Some(path) = self.path_at(&place).or_else(root) else {
            self.mistake(place, error.message().to_string());
            return None;
        };
        let told = self.stand_ins.iter().any(|it| path.starts_with(it));
        let complaint = Complaint::of(error.message());
        let missing = matches!(complaint, Complaint::Missing(_));
        // A key may be missing because its line could not be read.
        if !told && (!missing || self.is_whole()) {
            self.mistake(place, complaint.message(&path));
        }
        match complaint {
            Complaint::Unknown { key, known } => {
                let table = &path[..path.len().checked_sub(1)?];
                let DeValue::Table(table) = self.node_at(table)?.get_mut() else { return None };
                let (name, _) = table.get_key_value(&*key)?;
                let name = name.span();
                let value = table.remove(&*key)?;
                // Misspelt, it is there; its value may be wrong too.
                if let Some(meant) = nearest(&key, &known).filter(|meant| !table.contains_key(*meant)) {
                    table.insert(Spanned::new(name, Cow::Owned(meant.to_string())), value);
                }
            }
            Complaint::Missing(key) => {
                // A place of its own, behind those of the overrides, so that complaints lead back to its key.
                let place = self.text.len() + self.overrides.len() + 2 + self.stand_ins.len();
                let DeValue::Table(table) = self.node_at(&path)?.get_mut() else { return None };
                // Of no type that could be wanted, so that the next complaint tells the type.
                let nothing = DeValue::parse("1979-05-27").ok()?.into_inner();
                let name = Spanned::new(place..place, Cow::Owned(key.clone()));
                table.insert(name, Spanned::new(place..place, nothing));
                self.stand_ins.push([path, vec![key]].concat());
            }
            Complaint::Variant { known, .. } => {
                self.stand_in(path, DeValue::String(known.first()?.clone().into()))?
            }
            Complaint::Type { wanted, .. } => self.stand_in(path, any_value(&wanted)?)?,
            Complaint::Other(_) => return None,
        }
        Some(())
    }

    fn stand_in(&mut self, path: KeyPath, value: DeValue<'a>) -> Option<()> {
        *self.node_at(&path)?.get_mut() = value;
        self.stand_ins.push(path);
        Some(())
    }

    fn node_at(&mut self, path: &[String]) -> Option<&mut Spanned<DeValue<'a>>> {
        path.iter().try_fold(&mut self.root, |node, segment| match node.get_mut() {
            DeValue::Table(table) => table.get_mut(segment.as_str()),
            DeValue::Array(array) => array.as_mut().get_mut(segment.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Whether there is something at `path`.
    pub fn has(&self, path: &[String]) -> bool {
        self.node(path).is_some()
    }

    fn node(&self, path: &[String]) -> Option<&Spanned<DeValue<'a>>> {
        path.iter().try_fold(&self.root, |node, segment| match node.get_ref() {
            DeValue::Table(table) => table.get(segment.as_str()),
            DeValue::Array(array) => array.get(segment.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// The count at `path`, if there is one.
    pub fn number(&self, path: &[String]) -> Option<u64> {
        let node = self.node(path)?.get_ref();
        let number = node.as_integer().map(ToString::to_string);
        let number = number.or_else(|| node.as_float().map(ToString::to_string));
        count::parse(number.as_deref().or(node.as_str())?)
    }

    /// A mistake about the value at `path` in one line with its place, for one that is not refused.
    pub fn line_at(&self, path: &[String], message: &str) -> String {
        self.line(&self.place_of(path), message)
    }

    fn line(&self, place: &Range<usize>, message: &str) -> String {
        let line = match self.override_at(place) {
            Some(flag) if flag.starts_with("--") => format!("{}: {message}", flag.replacen('=', " ", 1)),
            Some(assignment) => format!("--set {assignment}: {message}"),
            None => {
                let (line, column) = line_and_column(self.text, place.start);
                format!("{}:{line}:{column}: {message}", self.label)
            }
        };
        // Quoted keys and values may hold line ends.
        line.replace(['\n', '\r'], " ")
    }

    /// Whether the value at `path` was given by `--set`.
    pub fn is_overridden(&self, path: &[String]) -> bool {
        self.is_override(&self.place_of(path))
    }

    /// Whether `place` lies in an override.
    pub fn is_override(&self, place: &Range<usize>) -> bool {
        self.override_at(place).is_some()
    }

    fn override_at(&self, place: &Range<usize>) -> Option<&'a String> {
        self.overrides.get(place.start.checked_sub(self.text.len() + 1)?)
    }

    /// The span of the deepest part of `path` that exists: its key if the file has it, else its value.
    pub fn place_of(&self, path: &[String]) -> Range<usize> {
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

/// The keys of a path with dots.
fn keys(path: &str) -> Vec<&str> {
    path.split('.').map(str::trim).collect()
}

/// Line and column of a byte, both from 1; columns count characters.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..byte.min(text.len())];
    let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
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
        let mut document = Document::parse("r.toml", text, &overrides);
        match document.decode() {
            Some(outer) if document.is_sound() => Ok(outer),
            _ => Err(document.into_error().to_string()),
        }
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
            assert!(
                error.lines().any(|line| line.starts_with(expected)),
                "{text:?}\n  {error}\n  {expected}"
            );
            assert!(error.lines().all(|line| line.starts_with("r.toml:")), "{error}");
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
        let place = |path: &[&str]| {
            let mut document = Document::parse("r.toml", FILE, &overrides);
            let path: KeyPath = path.iter().map(|s| s.to_string()).collect();
            document.mistake_at(&path, "!".into());
            document.into_error().to_string()
        };
        assert_eq!(place(&["schedule", "name"]), "r.toml:3:1: !");
        assert_eq!(place(&["schedule", "peak_lr"]), "r.toml:2:2: !");
        assert_eq!(place(&["stages", "1", "name"]), "r.toml:8:1: !");
        assert_eq!(place(&["nothing"]), "r.toml:1:1: !");
        assert_eq!(place(&["schedule", "steps"]), "--set schedule.steps=1: !");
    }
}
