//! Puts the value of a `--set` into a recipe's tree.

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

/// Puts `value` at the path `keys` below `node`, making the tables that lead there.
pub(super) fn assign<'a>(
    node: &mut Spanned<DeValue<'a>>,
    keys: &[&'a str],
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
            let key = place_next(DeString::Borrowed(key), places);
            let child =
                table.entry(key).or_insert_with(|| place_next(DeValue::Table(DeTable::new()), places));
            assign(child, rest, value, places)
        }
        DeValue::Array(array) => {
            let name =
                |item: &Spanned<DeValue>| item.get_ref().get("name")?.get_ref().as_str().map(String::from);
            let names: Vec<String> = array.iter().map(|item| name(item).unwrap_or_default()).collect();
            let index = key.parse().ok().or_else(|| names.iter().position(|name| name == key));
            match index.filter(|&i| i < array.len()) {
                Some(i) => assign(&mut array.as_mut()[i], rest, value, places),
                None => {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let hint = suggest(key, &names);
                    Err(format!("there is no '{key}' among the {} there; {hint}", array.len()))
                }
            }
        }
        other => Err(format!("what holds '{key}' is a {}, not a table", other.type_str())),
    }
}
