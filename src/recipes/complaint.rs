//! What serde finds wrong with a recipe, in the words of a recipe.

use toml::de::DeValue;

use super::problem::suggest;

/// An error of serde or of a visitor of ours, taken apart.
pub(super) enum Complaint {
    /// A key that the table does not have.
    Unknown { key: String, known: Vec<String> },
    /// A key that the table must have.
    Missing(String),
    /// A word that is none of those that are allowed.
    Variant { value: String, known: Vec<String> },
    /// A value of a wrong type.
    Type { found: String, wanted: String },
    /// Anything else.
    Other(String),
}

impl Complaint {
    pub fn of(text: &str) -> Self {
        let mut quoted = text.split('`').skip(1).step_by(2).map(String::from);
        let mut first = || quoted.next().unwrap_or_default();
        if text.starts_with("unknown field") {
            Complaint::Unknown { key: first(), known: quoted.collect() }
        } else if text.starts_with("unknown variant") {
            Complaint::Variant { value: first(), known: quoted.collect() }
        } else if text.starts_with("missing field") {
            Complaint::Missing(first())
        } else if let Some((found, wanted)) =
            text.strip_prefix("invalid ").and_then(|rest| rest.split_once(", expected "))
        {
            let found = found.split_once(": ").map_or(found, |(_, what)| what);
            Complaint::Type { found: found.replace('`', ""), wanted: wanted.to_string() }
        } else {
            Complaint::Other(text.to_string())
        }
    }

    /// The mistake in one line, about the key or value at `path`.
    pub fn message(&self, path: &[String]) -> String {
        fn names(known: &[String]) -> Vec<&str> {
            known.iter().map(String::as_str).collect()
        }
        match self {
            Complaint::Unknown { key, known } => {
                let section = &path[..path.len().saturating_sub(1)];
                let mut known = names(known);
                if section == ["model"] {
                    known.extend(["preset", "from"]);
                }
                format!("unknown key '{key}' in {}; {}", section_name(section), suggest(key, &known))
            }
            Complaint::Missing(key) => format!("missing key '{key}' in {}", section_name(path)),
            Complaint::Variant { value, known } => {
                format!("{} is '{value}'; {}", path.join("."), suggest(value, &names(known)))
            }
            Complaint::Type { found, wanted } => {
                format!("{} is {found}, but must be {}", path.join("."), plain_type(wanted))
            }
            Complaint::Other(text) => text.clone(),
        }
    }
}

/// Some value of the type that serde wants.
pub(super) fn any_value(wanted: &str) -> Option<DeValue<'static>> {
    let text = match plain_type(wanted) {
        "a number" => "1.0",
        "true or false" => "true",
        "a list" => "[]",
        "a table" => "{}",
        "an array of length 2" => "[0.5, 0.5]",
        wanted if wanted.starts_with("a whole number") => "1",
        wanted if wanted.contains("string") => "'a'",
        _ => return None,
    };
    DeValue::parse(text).ok().map(|value| value.into_inner())
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
