//! Mistakes in a recipe: the keys where they stand, and what to write there.

/// Keys and list indices from the root of a recipe to one of its values.
pub(super) type KeyPath = Vec<String>;

/// A mistake in a recipe, and the key where it stands. The message begins after that key.
#[derive(Debug)]
pub(super) struct Problem {
    pub path: KeyPath,
    pub message: String,
}

/// What may be the first mistake.
pub(super) type Check<T = ()> = std::result::Result<T, Problem>;

/// Mistakes that are told at once; whoever made more has the file upside down.
pub(super) const MOST: usize = 20;

/// The mistakes of a recipe, at most [`MOST`], in the order of the checks.
pub(super) struct Problems {
    /// Where values stand in for those that could not be read.
    stand_ins: Vec<KeyPath>,
    pub found: Vec<Problem>,
}

impl Problems {
    /// None so far. At `stand_ins` are mistakes that have been told already, and values in their place.
    pub fn new(stand_ins: Vec<KeyPath>) -> Self {
        Problems { stand_ins, found: Vec::new() }
    }

    /// Adds a mistake at `path` unless it `holds`, one at that very place is known, or what is there only stands in.
    pub fn require(&mut self, holds: bool, path: &[String], message: impl FnOnce() -> String) {
        let is_new = || self.is_read(path) && self.found.iter().all(|it| it.path != path);
        if !holds && self.found.len() < MOST && is_new() {
            self.found.push(Problem { path: path.to_vec(), message: message() });
        }
    }

    /// Adds what a check found.
    pub fn add(&mut self, problem: Problem) {
        self.require(false, &problem.path, || problem.message);
    }

    /// Whether the value at `path` is that of the recipe, as far as it does not depend on those below it.
    pub fn is_read(&self, path: &[String]) -> bool {
        !self.stand_ins.iter().any(|it| path.starts_with(it))
    }

    /// Whether no mistake is known at `path` or below: what depends on its value can be checked.
    pub fn are_none_at(&self, path: &[String]) -> bool {
        let below = |it: &KeyPath| it.starts_with(path);
        self.is_read(path) && !self.stand_ins.iter().chain(self.found.iter().map(|it| &it.path)).any(below)
    }
}

/// A [`KeyPath`] from its parts.
macro_rules! key_path {
    ($($part:expr),+) => { &[$($part.to_string()),+] };
}
pub(super) use key_path;

pub(super) fn require(holds: bool, path: &[String], message: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Problem { path: path.to_vec(), message: message() }) }
}

/// The one of `known` that `word` is close to.
pub(super) fn nearest<'k>(word: &str, known: &'k [impl AsRef<str>]) -> Option<&'k str> {
    let distance = |name: &&str| strsim::osa_distance(&word.to_lowercase(), name);
    let known = known.iter().map(AsRef::as_ref);
    known.filter(|name| distance(name) <= 1 + word.chars().count() / 4).min_by_key(distance)
}

/// Names that an answer lists.
const LISTED: usize = 40;

/// "did you mean ...?" if `word` is close to one of `known`, else all of `known`.
pub fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(name) => format!("did you mean '{name}'?"),
        None if known.is_empty() => "there is none".into(),
        None if known.len() > LISTED => format!("known: {}, ...", known[..LISTED].join(", ")),
        None => format!("known: {}", known.join(", ")),
    }
}
