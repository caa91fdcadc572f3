//! What differs between two recipes, key by key.

use super::Recipe;
use crate::error::{Error, Result};
use toml::{Table, Value};

/// Most characters of a value that is told: a list of files may be of any length.
const LONGEST: usize = 120;

impl Recipe {
    /// The keys whose values are not those of `before`, such as `stages.b.sequence_length = 36 (was 32)`; stages and
    /// datasets go by their names. How work is cut (`micro_batch`) and comments may differ.
    ///
    /// # Errors
    /// As [`Recipe::to_toml`].
    pub fn changes_since(&self, before: &Recipe) -> Result<Vec<String>> {
        let mut found = Vec::new();
        compare("", &before.values()?, &self.values()?, &mut found);
        Ok(found)
    }

    /// All values, with each stage's batch in the stage: a run writes it there.
    fn values(&self) -> Result<Table> {
        let mut whole = self.clone();
        for (i, stage) in whole.stages.iter_mut().enumerate() {
            stage.batch = Some(self.batch_of(i));
        }
        whole.to_toml()?.parse().map_err(|error| Error::failure(format!("recipe {}: {error}", self.name)))
    }
}

fn compare(place: &str, before: &Table, after: &Table, found: &mut Vec<String>) {
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    for key in after.keys().chain(gone).filter(|key| *key != "micro_batch") {
        let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        match (before.get(key), after.get(key)) {
            (Some(Value::Table(before)), Some(Value::Table(after))) => compare(&place, before, after, found),
            (Some(before), Some(after)) if before == after => {}
            (Some(before), Some(after)) => match (named(before), named(after)) {
                (Some(before), Some(after)) => compare_named(&place, &before, &after, found),
                _ => found.push(format!("{place} = {} (was {})", short(after), short(before))),
            },
            (None, Some(after)) => found.push(format!("{place} = {} (was not there)", short(after))),
            (Some(before), None) => found.push(format!("no longer {place} = {}", short(before))),
            (None, None) => unreachable!("each key is in one of them"),
        }
    }
}

/// The tables of a list under their names.
fn named(list: &Value) -> Option<Vec<(&str, &Table)>> {
    let all = list.as_array()?.iter().map(|item| Some((item.get("name")?.as_str()?, item.as_table()?)));
    all.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
}

fn compare_named(place: &str, before: &[(&str, &Table)], after: &[(&str, &Table)], found: &mut Vec<String>) {
    let names = |all: &[(&str, &Table)]| all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if names(before) != names(after) {
        found.push(format!("{place} are {} (were {})", names(after), names(before)));
    }
    for (name, after) in after {
        if let Some((_, before)) = before.iter().find(|(other, _)| other == name) {
            compare(&format!("{place}.{name}"), before, after, found);
        }
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}
