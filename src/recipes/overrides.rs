//! Puts the value of a `--set` into a recipe's tree.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::problem::suggest;

/// Spans for the keys and values of one override, all different, so that an error leads back to its key.
pub(super) type Places<'p> = &'p mut dyn Iterator<Item = Range<usize>>;

fn place_next<T>(value: T, places: Places) -> Spanned<T> {
    Spanned::new(places.next().unwrap_or_default(), value)
}

/// Gives all that a value holds places of its own.
pub(super) fn respan<'a>(value: DeValue<'a>, places: Places) -> DeValue<'a> {
    let mut again = |value: Spanned<DeValue<'a>>| {
        let value = respan(value.into_inner(), places);
        place_next(value, places)
    };
    match value {
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(again).collect::<DeArray>()),
        DeValue::Table(table) => DeValue::Table(
            table
                .into_iter()
                .map(|(key, value)| {
                    let value = again(value);
                    (Spanned::new(value.span(), key.into_inner()), value)
                })
                .collect(),
        ),
        leaf => leaf,
    }
}

/// The string that the last override of `path` gives.
pub(super) fn given_string(overrides: &[String], path: &str) -> Option<String> {
    let value =
        |it: &String| Some(it.split_once('=').filter(|(key, _)| key.trim() == path)?.1.trim().to_string());
    let value = overrides.iter().rev().find_map(value)?;
    // What is no TOML value is taken as a string.
    match DeValue::parse(&value) {
        Ok(parsed) => parsed.get_ref().as_str().map(String::from),
        Err(_) => Some(value),
    }
}

/// Keys that say how long a stage is; a recipe has one of them.
pub(super) const LENGTHS: [&str; 3] = ["tokens", "steps", "epochs"];

/// What a flag of the command line changes in a recipe.
pub(super) struct Changes {
    /// Keys that go, before others come.
    pub remove: Vec<String>,
    /// Keys that go unless they were given as well: they may not suit the new value.
    pub forget: Vec<String>,
    /// Keys that get the flag's value.
    pub set: Vec<String>,
}

/// What `--steps`, `--epochs`, `--lr`, `--seq-len` and `--batch` stand for.
pub(super) fn changes(root: &DeValue, flag: &str, value: &str) -> std::result::Result<Changes, String> {
    let names = |list: &str, key: &str| -> Vec<String> {
        let items = root.get(list).and_then(|it| it.get_ref().as_array());
        let has = |item: &&Spanned<DeValue>| key.is_empty() || item.get_ref().get(key).is_some();
        let index = |(i, item): (usize, &Spanned<DeValue>)| has(&item).then(|| i.to_string());
        items.map_or(Vec::new(), |items| items.iter().enumerate().filter_map(index).collect())
    };
    let stages = names("stages", "");
    let mut changes = Changes { remove: Vec::new(), forget: Vec::new(), set: Vec::new() };
    let mut set = |path: String| changes.set.push(path);
    match flag {
        "steps" | "epochs" => {
            if stages.len() != 1 {
                return Err(format!(
                    "the recipe has {} stages: say which one with --set stages.NAME.{flag}={value}",
                    stages.len()
                ));
            }
            set(format!("stages.0.{flag}"));
            changes.remove.extend(LENGTHS.map(|key| format!("stages.0.{key}")));
        }
        "lr" => match &schedules(root)[..] {
            [schedule] => set(format!("{schedule}.peak_lr")),
            many => {
                return Err(format!(
                    "the recipe has {} schedules: say which one with --set schedules.NAME.peak_lr={value}",
                    many.len()
                ));
            }
        },
        "seq-len" => {
            stages.iter().for_each(|stage| set(format!("stages.{stage}.sequence_length")));
            let longest = number(root, &["model", "max_position_embeddings"]);
            if longest.is_some_and(|longest| value.parse().is_ok_and(|wanted: f64| wanted > longest)) {
                set("model.max_position_embeddings".into());
            }
        }
        "batch" => {
            let own = names("stages", "batch").into_iter().map(|stage| format!("stages.{stage}.batch"));
            for batch in own.chain(["batch".to_string()]) {
                set(format!("{batch}.sequences"));
                // It need not divide the new number; the largest that fits is taken.
                changes.forget.push(format!("{batch}.micro_batch"));
            }
        }
        _ => return Err("write it as path.to.key=value".into()),
    }
    Ok(changes)
}

/// Paths of all schedules.
fn schedules(root: &DeValue) -> Vec<String> {
    let named = root.get("schedules").and_then(|it| it.get_ref().as_table());
    let named = named.into_iter().flatten().map(|(name, _)| format!("schedules.{}", name.get_ref()));
    root.get("schedule").map(|_| "schedule".to_string()).into_iter().chain(named).collect()
}

fn number(root: &DeValue, path: &[&str]) -> Option<f64> {
    let node = path.iter().try_fold(root, |node, key| Some(node.get(*key)?.get_ref()))?;
    let text = node.as_integer().map(ToString::to_string).or(node.as_float().map(ToString::to_string))?;
    text.replace('_', "").parse().ok()
}

/// Removes the key at the path `keys` below `node`, if it is there.
pub(super) fn remove(node: &mut Spanned<DeValue>, keys: &[&str]) {
    let Some((&key, rest)) = keys.split_first() else { return };
    let child = match node.get_mut() {
        DeValue::Table(table) if rest.is_empty() => return drop(table.remove(key)),
        DeValue::Table(table) => table.get_mut(key),
        DeValue::Array(array) => index(array, key).and_then(|i| array.as_mut().get_mut(i)),
        _ => None,
    };
    if let Some(child) = child {
        remove(child, rest);
    }
}

fn name<'a>(item: &'a Spanned<DeValue>) -> &'a str {
    item.get_ref().get("name").and_then(|name| name.get_ref().as_str()).unwrap_or_default()
}

/// Which element of a list a key means, by number or by name.
fn index(array: &DeArray, key: &str) -> Option<usize> {
    key.parse().ok().or_else(|| array.iter().position(|item| name(item) == key))
}

/// Puts `value` at the path `keys` below `node`, making the tables that lead there.
pub(super) fn assign<'a>(
    node: &mut Spanned<DeValue<'a>>,
    keys: &[&str],
    value: DeValue<'a>,
    places: Places,
) -> std::result::Result<(), String> {
    let Some((&key, rest)) = keys.split_first() else {
        *node = place_next(value, places);
        return Ok(());
    };
    if key.is_empty() {
        return Err("write it as path.to.key=value".into());
    }
    match node.get_mut() {
        DeValue::Table(table) => {
            let key = place_next(DeString::Owned(key.to_string()), places);
            let child =
                table.entry(key).or_insert_with(|| place_next(DeValue::Table(DeTable::new()), places));
            assign(child, rest, value, places)
        }
        DeValue::Array(array) => match index(array, key).filter(|&i| i < array.len()) {
            Some(i) => assign(&mut array.as_mut()[i], rest, value, places),
            // A table under a new name is one more.
            None if rest.is_empty() && value.is_table() => {
                let name = place_next(DeValue::String(Cow::Owned(key.to_string())), places);
                let mut added = place_next(value, places);
                if let DeValue::Table(table) = added.get_mut() {
                    let key = place_next(DeString::Owned("name".to_string()), places);
                    table.entry(key).or_insert(name);
                }
                array.push(added);
                Ok(())
            }
            None => {
                let names: Vec<&str> = array.iter().map(name).collect();
                let hint = suggest(key, &names);
                Err(format!("there is no '{key}' among the {} there; {hint}", array.len()))
            }
        },
        other => Err(format!("what holds '{key}' is a {}, not a table", other.type_str())),
    }
}
