//! What the models of a run are given, in training and by `smolter eval` alike: tasks about the village that its text is
//! about, and its held-out text.

use super::loss::{Held, HeldOutText, Loss, held_out_text, losses};
use super::runner::Examinee;
use super::task::Task;
use super::village;
use crate::data::microcosm::Register;
use crate::data::microcosm::village::{Village, count_statements};
use crate::data::shard::{TokenSet, Verify};
use crate::data::tokenize::held_out_name;
use crate::error::Result;
use crate::recipes::Recipe;
use crate::tokenizer::Tokenizer;
use std::path::Path;

/// About how many held-out tokens of each dataset are scored, and the most of a document.
const TOKENS: usize = 3_000;
const LONGEST: usize = 256;

/// Tasks and texts; what is costly is made when it is first asked for.
pub struct Suite {
    village: Village,
    /// Training text about the village.
    about: Vec<TokenSet>,
    /// How often that states each fact, once it is known.
    stated: Option<Vec<usize>>,
    held: Vec<Held>,
    /// The held-out text that is scored, once it is known.
    texts: Option<Vec<HeldOutText>>,
}

impl Suite {
    /// Of the village that `seed` makes, with no text.
    pub fn of_world(seed: u64) -> Suite {
        Suite { village: Village::new(seed), about: Vec::new(), stated: None, held: Vec::new(), texts: None }
    }

    /// That of a run whose token sets are in the folder `data`. It is about the village that `world` makes, or else that
    /// of the recipe.
    ///
    /// # Errors
    /// As [`TokenSet::open`].
    pub fn of_run(recipe: &Recipe, data: &Path, world: Option<u64>) -> Result<Suite> {
        let mut suite = Suite::of_world(world.unwrap_or_else(|| recipe.world_seed()));
        let open = |name: &str| TokenSet::open(data, name, Verify::Header);
        let is_about = |kind: &String| kind.parse::<Register>().is_ok();
        for (i, dataset) in recipe.datasets.iter().enumerate() {
            let name = &dataset.name;
            if dataset.microcosm.as_ref().is_some_and(is_about) {
                suite.about.push(open(name)?);
            }
            let is_text = !recipe.is_chat(i) && !recipe.is_of_pairs(i);
            if is_text && recipe.held_out.fraction > 0.0 {
                let (trained, held_out) = (open(name)?, open(&held_out_name(name))?);
                suite.held.push(Held { name: name.clone(), trained, held_out });
            }
        }
        Ok(suite)
    }

    /// Whether there is held-out text.
    pub fn holds_out(&self) -> bool {
        !self.held.is_empty()
    }

    /// A task about the village, with `limit` items drawn by `seed`. Where text about it is trained on, only facts that
    /// this states are asked.
    ///
    /// # Panics
    /// As [`village::task`].
    pub fn task(&mut self, name: &str, tokenizer: &Tokenizer, limit: usize, seed: u64) -> Task {
        if !self.about.is_empty() && self.stated.is_none() {
            self.stated = Some(self.statements(tokenizer));
        }
        village::task(&self.village, name, self.stated.as_deref(), limit, seed)
    }

    /// How often the training text states each fact.
    fn statements(&self, tokenizer: &Tokenizer) -> Vec<usize> {
        let mut counts = vec![0; self.village.facts.len()];
        for set in &self.about {
            let texts: Vec<String> =
                (0..set.documents()).map(|i| tokenizer.decode(&set.tokens(set.document(i)))).collect();
            let more = count_statements(&self.village.facts, texts.iter().map(String::as_str));
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
        counts
    }

    /// The losses of a model on the held-out text.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    pub fn losses(&mut self, examinee: &Examinee) -> Result<Vec<Loss>> {
        let architecture = examinee.architecture();
        let length = LONGEST.min(architecture.positions());
        let texts = self
            .texts
            .get_or_insert_with(|| held_out_text(&self.held, architecture.vocab_size(), length, TOKENS));
        losses(examinee, texts)
    }
}
