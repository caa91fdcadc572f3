//! What differs between two recipes, key by key.

use super::Recipe;
use crate::error::{Error, Result};
use std::fmt;
use toml::{Table, Value};

/// Most characters of a value that is told: a list of files may be of any length.
const LONGEST: usize = 120;

/// A key whose value differs between two recipes.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its path; stages and datasets go by their names.
    pub key: String,
    /// Its value before, as TOML has it, if it was there.
    pub before: Option<String>,
    /// Its value now, if it is there.
    pub after: Option<String>,
    /// Whether the values are the names of a list's elements.
    names: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Change { key, before, after, .. } = self;
        match (before.as_deref(), after.as_deref()) {
            (Some(before), Some(after)) if self.names => write!(f, "{key} are {after} (were {before})"),
            (Some(before), Some(after)) => write!(f, "{key} = {} (was {})", short(after), short(before)),
            (None, Some(after)) => write!(f, "{key} = {} (was not there)", short(after)),
            (before, None) => write!(f, "no longer {key} = {}", short(before.unwrap_or_default())),
        }
    }
}

impl Recipe {
    /// The keys whose values are not those of `before`. How work is cut (`micro_batch`) and comments may differ.
    ///
    /// # Errors
    /// As [`Recipe::to_toml`].
    pub fn changes_since(&self, before: &Recipe) -> Result<Vec<Change>> {
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

fn compare(place: &str, before: &Table, after: &Table, found: &mut Vec<Change>) {
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    for key in after.keys().chain(gone).filter(|key| *key != "micro_batch") {
        let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        match (before.get(key), after.get(key)) {
            // The weights of a mixture are one value: they sum to 1.
            (Some(Value::Table(before)), Some(Value::Table(after))) if key != "mixture" => {
                compare(&place, before, after, found);
            }
            (before, after) if before == after => {}
            (before, after) => match (before.and_then(named), after.and_then(named)) {
                (Some(before), Some(after)) => compare_named(&place, &before, &after, found),
                _ => {
                    let [before, after] = [before, after].map(|it| it.map(Value::to_string));
                    found.push(Change { key: place, before, after, names: false });
                }
            },
        }
    }
}

/// The tables of a list under their names.
fn named(list: &Value) -> Option<Vec<(&str, &Table)>> {
    let all = list.as_array()?.iter().map(|item| Some((item.get("name")?.as_str()?, item.as_table()?)));
    all.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
}

fn compare_named(place: &str, before: &[(&str, &Table)], after: &[(&str, &Table)], found: &mut Vec<Change>) {
    let names = |all: &[(&str, &Table)]| all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let [were, are] = [before, after].map(names);
    if were != are {
        found.push(Change { key: place.into(), before: Some(were), after: Some(are), names: true });
    }
    for (name, after) in after {
        let place = format!("{place}.{name}");
        match before.iter().find(|(other, _)| other == name) {
            Some((_, before)) => compare(&place, before, after, found),
            None => {
                let after = Some(Value::Table((*after).clone()).to_string());
                found.push(Change { key: place, before: None, after, names: false });
            }
        }
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.into(),
    }
}
