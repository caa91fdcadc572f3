//! What a run began with. Until its first checkpoint nothing else tells whether recipe, tokenizer or text have changed.

use super::corpus::{Corpus, Known, KnownTokenizer, hex};
use crate::checkpoint::replace;
use crate::error::Result;
use crate::files;
use crate::recipes::{Dataset, OnExhausted, Recipe};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// File in a run folder.
pub const BEGUN_FILE: &str = "begun.json";

/// Recipe, tokenizer and tokens as they were when the run began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The recipe as it was given and, once its text is tokenised, as it was resolved. A run that was cut off between
    /// the two has either in its own file.
    recipes: Vec<String>,
    /// Hash of the tokenizer, once it is there.
    tokenizer: Option<String>,
    /// Hashes of the token sets, as [`Corpus::hashes`] gives them.
    sets: BTreeMap<String, String>,
}

/// With the checksum of all the rest: what is damaged must not accuse others.
#[derive(Serialize, Deserialize)]
struct Sealed {
    begun: Begun,
    checksum: String,
}

impl Begun {
    /// The beginning of a run of `recipe`, whose data is `known` if it begins again.
    ///
    /// # Errors
    /// As [`Recipe::to_toml`].
    pub fn new(recipe: &Recipe, known: Option<&Known>) -> Result<Begun> {
        let tokenizer = known.and_then(|known| known.tokenizer.hash());
        let sets = known.map_or_else(BTreeMap::new, |known| known.sets.clone());
        Ok(Begun { recipes: vec![recipe.to_toml()?], tokenizer, sets })
    }

    /// Adds what has become of the recipe, and of its text.
    ///
    /// # Errors
    /// As [`Recipe::to_toml`].
    pub fn resolve(&mut self, recipe: &Recipe, corpus: &Corpus) -> Result<()> {
        self.recipes.push(recipe.to_toml()?);
        self.recipes.dedup();
        self.tokenizer = Some(hex(corpus.tokenizer.hash()));
        self.sets = corpus.hashes(recipe);
        Ok(())
    }

    /// Writes it into the run folder, unless it is there already.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub fn write(&self, run: &Path) -> Result<()> {
        if Self::read(run).as_ref() == Some(self) {
            return Ok(());
        }
        let sealed = Sealed { begun: self.clone(), checksum: self.checksum() };
        let json = serde_json::to_string_pretty(&sealed).expect("it is plain data") + "\n";
        replace(&run.join(BEGUN_FILE), json.as_bytes())
    }

    /// That of the run folder; `None` if there is none, or it is damaged.
    pub fn read(run: &Path) -> Option<Begun> {
        let bytes = files::read(&run.join(BEGUN_FILE), files::SETTINGS).ok()?;
        let Sealed { begun, checksum } = serde_json::from_slice(&bytes).ok()?;
        (begun.checksum() == checksum).then_some(begun)
    }

    fn checksum(&self) -> String {
        hex(xxh3_64(&serde_json::to_vec(self).expect("it is plain data")))
    }

    /// Hashes of the data: of the tokenizer, once it is there, and of the token sets by name.
    pub fn hashes(&self) -> (Option<&str>, &BTreeMap<String, String>) {
        (self.tokenizer.as_deref(), &self.sets)
    }

    /// The recipes that the run may have in its file, the newest last.
    pub fn recipes(&self) -> Vec<Recipe> {
        let parsed = self.recipes.iter().map(|text| Recipe::from_toml(BEGUN_FILE, text));
        parsed.filter_map(Result::ok).collect()
    }

    /// What is known of the data of a run of `recipe`: nothing where the recipe now names other data.
    pub fn known(&self, recipe: &Recipe) -> Option<Known> {
        let before = self.recipes().pop()?;
        let tokenizer = self.tokenizer.clone()?;
        let same = |dataset: &Dataset| before.datasets.iter().any(|it| origin(it) == origin(dataset));
        // A tokenizer is trained on its datasets, in their order.
        let learns = |recipe: &Recipe, dataset: &Dataset| {
            recipe.tokenizer.train.as_ref().is_some_and(|train| train.learns_from(&dataset.name))
        };
        let origins = |recipe: &Recipe| {
            recipe.datasets.iter().filter(|it| learns(recipe, it)).map(origin).collect::<Vec<_>>()
        };
        let hash = |recipe: &Recipe| recipe.source.as_ref().and_then(|source| source.hash.clone());
        if before.tokenizer != recipe.tokenizer
            || (before.data_seed, before.world_seed()) != (recipe.data_seed, recipe.world_seed())
            || hash(&before) != hash(recipe)
            || recipe.tokenizer.train.is_some() && origins(&before) != origins(recipe)
        {
            return None;
        }
        let mut known =
            Known { tokenizer: KnownTokenizer::Hash(tokenizer), template: None, sets: self.sets.clone() };
        for dataset in &recipe.datasets {
            if before.held_out.fraction != recipe.held_out.fraction || !same(dataset) {
                known.forget(dataset);
            }
        }
        Some(known)
    }
}

/// What the tokens of a dataset are made from.
fn origin(dataset: &Dataset) -> Dataset {
    let on_exhausted = OnExhausted::default();
    Dataset { max_epochs: None, tokens: None, on_exhausted, ..dataset.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(overrides: &[&str]) -> Recipe {
        let overrides: Vec<String> = overrides.iter().map(|it| it.to_string()).collect();
        Recipe::load("microcosm", &overrides).unwrap()
    }

    #[test]
    fn what_is_damaged_is_not_believed() {
        let place = tempfile::tempdir().unwrap();
        let begun = Begun::new(&recipe(&[]), None).unwrap();
        begun.write(place.path()).unwrap();
        assert_eq!(Begun::read(place.path()), Some(begun));
        let path = place.path().join(BEGUN_FILE);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 50) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            if let Some(read) = Begun::read(place.path()) {
                assert_eq!(Begun::new(&recipe(&[]), None).unwrap(), read, "byte {at}");
            }
        }
        std::fs::remove_file(path).unwrap();
        assert_eq!(Begun::read(place.path()), None);
    }

    #[test]
    fn data_is_known_until_the_recipe_names_other_data() {
        let before = recipe(&[]);
        let name = before.datasets[0].name.clone();
        let mut begun = Begun::new(&before, None).unwrap();
        assert!(begun.known(&before).is_none(), "there were no tokens yet");
        begun.tokenizer = Some("1".into());
        begun.sets = before.datasets.iter().map(|dataset| (dataset.name.clone(), "2".into())).collect();
        let sets = |overrides: &[&str]| begun.known(&recipe(overrides)).map(|known| known.sets.len());
        let all = before.datasets.len();
        assert_eq!(sets(&[]), Some(all));
        assert_eq!(sets(&["seed=77"]), Some(all));
        assert_eq!(sets(&["held_out.fraction=0.3"]), Some(0));
        assert_eq!(sets(&["data_seed=77"]), None);
        assert_eq!(sets(&[&format!("datasets.{name}.documents=77")]), None);
    }
}
