//! A mistake in a recipe: the key where it stands, and what to write there.

/// Keys and list indices from the root of a recipe to one of its values.
pub(super) type KeyPath = Vec<String>;

/// A mistake in a recipe, and the key where it stands. The message begins after that key.
#[derive(Debug)]
pub(super) struct Problem {
    pub path: KeyPath,
    pub message: String,
}

/// What a check finds out: a `T`, or the first mistake.
pub(super) type Check<T = ()> = std::result::Result<T, Problem>;

/// A [`KeyPath`] from its parts.
macro_rules! key_path {
    ($($part:expr),+) => { &[$($part.to_string()),+] };
}
pub(super) use key_path;

pub(super) fn require(holds: bool, path: &[String], message: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Problem { path: path.to_vec(), message: message() }) }
}

/// "did you mean ...?" if `word` is close to one of `known`, else all of `known`.
pub(super) fn suggest(word: &str, known: &[&str]) -> String {
    let close =
        |name: &&&str| strsim::osa_distance(&word.to_lowercase(), name) <= 1 + word.chars().count() / 4;
    match known.iter().filter(close).min_by_key(|name| strsim::osa_distance(word, name)) {
        Some(name) => format!("did you mean '{name}'?"),
        None if known.is_empty() => "there is none".into(),
        None => format!("known: {}", known.join(", ")),
    }
}
