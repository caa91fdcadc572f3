//! Candidates: datasets, or mixtures of some.

use crate::error::{Error, Result};
use crate::recipes::{Recipe, suggest};
use std::collections::BTreeMap;

/// The candidate that adds nothing.
pub const NONE: &str = "none";

/// What is tried: shares of datasets in a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// As it was given.
    pub name: String,
    /// Datasets and their shares, which sum to 1; none for [`NONE`].
    pub parts: BTreeMap<String, f64>,
}

impl Candidate {
    /// Reads `DATASET`, `DATASET+DATASET` (the same of each), `DATASET:3+DATASET:2` (shares), or [`NONE`]. The datasets must be
    /// in `recipe`.
    ///
    /// # Errors
    /// [`Error::Input`] that says what to write.
    pub fn parse(text: &str, recipe: &Recipe) -> Result<Candidate> {
        let known: Vec<&str> = recipe.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
        let refuse = |why: String| Error::input(format!("candidate {text}: {why}"));
        let mut parts = BTreeMap::new();
        if text == NONE && !known.contains(&NONE) {
            return Ok(Candidate { name: text.into(), parts });
        }
        for part in text.split('+') {
            let (name, share) = part.split_once(':').unwrap_or((part, "1"));
            if !known.contains(&name) {
                return Err(refuse(format!("the recipe has no dataset '{name}'; {}", suggest(name, &known))));
            }
            let share = share.parse().ok().filter(|share: &f64| share.is_finite() && *share > 0.0);
            let share =
                share.ok_or_else(|| refuse(format!("'{part}' needs a number above 0 behind the ':'")))?;
            if parts.insert(name.to_string(), share).is_some() {
                return Err(refuse(format!("'{name}' is there twice: add up its shares")));
            }
        }
        let all: f64 = parts.values().sum();
        parts.values_mut().for_each(|share| *share /= all);
        Ok(Candidate { name: text.into(), parts })
    }

    /// Whether it takes the same of each dataset.
    pub fn is_uniform(&self) -> bool {
        self.parts.values().all(|share| (share * self.parts.len() as f64 - 1.0).abs() < 1e-9)
    }

    /// Its name as a part of names of runs and folders.
    pub fn file_name(&self) -> String {
        self.name.replace(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)), "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_datasets_or_mixtures_of_them() {
        let recipe = Recipe::load("microcosm", &[]).unwrap();
        let [a, b] = [0, 1].map(|i| recipe.datasets[i].name.clone());
        let parse = |text: &str| Candidate::parse(text, &recipe);
        let parts = |text: &str| parse(text).unwrap().parts.into_values().collect::<Vec<_>>();
        assert_eq!(parts(&a), [1.0]);
        assert_eq!(parts(&format!("{a}+{b}")), [0.5, 0.5]);
        assert!(parse(&format!("{a}:2+{b}:2")).unwrap().is_uniform());
        let mixed = parse(&format!("{a}:3+{b}:1")).unwrap();
        assert!(!mixed.is_uniform() && mixed.parts[&a] == 0.75 && mixed.parts[&b] == 0.25);
        assert_eq!(mixed.file_name(), format!("{a}-3-{b}-1"));
        assert_eq!(parse(NONE).unwrap().parts.len(), 0);
        let typo = format!("{a}x");
        for (text, why) in [
            (typo.clone(), format!("no dataset '{typo}'; did you mean '{a}'?")),
            (format!("{a}+{a}"), "there twice".into()),
            (format!("{a}:0"), "a number above 0".into()),
            (format!("{a}:x"), "a number above 0".into()),
            (String::new(), "no dataset ''".into()),
            (format!("{a}+"), "no dataset ''".into()),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.to_string().contains(&why) && error.exit_code() == 2, "{text}: {error}");
        }
    }
}
