//! From a recipe's datasets to token sets on disk, and from those to sequences.

mod preparation;
mod rows;
mod template;
mod tokenizer;

pub use rows::Rows;

use crate::data::microcosm::village::Answers;
use crate::data::microcosm::{Register, Village};
use crate::data::mixture::Mixture;
use crate::data::pairs::{pair_count, pair_lengths};
use crate::data::shard::{TokenSet, Verify, is_part};
use crate::data::shared::SharedSets;
use crate::data::source::{Generated, Source};
use crate::data::stream;
use crate::data::tokenize::{TokenizeOptions, held_out_name, judged_name};
use crate::error::{Error, Result};
use crate::files;
use crate::hub;
use crate::infer::scorer::Row;
use crate::recipes::{Dataset, Recipe, StageKind};
use crate::tokenizer::{ChatTemplate, Judged, Tokenizer};
use preparation::{Preparation, SHARED};
pub(super) use preparation::{hex, shared_folder};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The tokenised datasets of a recipe, in its order.
pub struct Corpus {
    /// The tokenizer, loaded or trained.
    pub tokenizer: Tokenizer,
    /// How conversations are written, if a stage learns from some.
    pub template: Option<ChatTemplate>,
    /// Training tokens per dataset.
    pub sets: Vec<TokenSet>,
    /// Held-out tokens per dataset.
    pub held_out: Vec<Option<TokenSet>>,
    /// Which of the training tokens are the assistant's, where that is asked for: 1, or else 0.
    pub judged: Vec<Option<TokenSet>>,
    /// The same of held-out tokens.
    pub held_out_judged: Vec<Option<TokenSet>>,
    /// Rows of conversations by dataset and sequence length, made when first asked for.
    rows: Mutex<HashMap<(usize, usize), Arc<Rows>>>,
    /// Reads all sets in the background while the device is made ready.
    verification: Mutex<Option<JoinHandle<Result<()>>>>,
}

/// What a run was trained on so far, as its checkpoint knows it.
pub struct Known {
    /// The tokenizer.
    pub tokenizer: KnownTokenizer,
    /// The chat template, if it is a chat model.
    pub template: Option<ChatTemplate>,
    /// Hashes of token sets, as [`Corpus::hashes`] gives them; an older version knew none.
    pub sets: BTreeMap<String, String>,
}

/// A run's tokenizer, as far as it is known.
pub enum KnownTokenizer {
    /// As a checkpoint has it.
    Whole(Box<Tokenizer>),
    /// Its hash, before there is a checkpoint.
    Hash(String),
}

impl KnownTokenizer {
    /// The hash, if that is all.
    pub fn hash(&self) -> Option<String> {
        match self {
            KnownTokenizer::Whole(_) => None,
            KnownTokenizer::Hash(hash) => Some(hash.clone()),
        }
    }
}

impl Known {
    /// Whether the tokens of all datasets are known.
    pub fn has_all(&self, recipe: &Recipe) -> bool {
        recipe.datasets.iter().all(|dataset| self.sets.contains_key(&dataset.name))
    }

    /// Leaves a dataset out, which is another by now.
    pub fn forget(&mut self, dataset: &Dataset) {
        self.sets.remove(&dataset.name);
        self.sets.remove(&held_out_name(&dataset.name));
    }
}

fn source(dataset: &Dataset, seed: u64) -> Source {
    Source::new(&dataset.paths)
        .fields(&dataset.fields, "\n")
        .on_broken(dataset.on_broken)
        .max_record_bytes(dataset.max_record_bytes)
        .document_bytes(dataset.document_bytes)
        .score(dataset.score.clone())
        .generated(answers(dataset).map(|answers| Generated { answers, seed, count: documents(dataset) }))
}

/// Whether a dataset's files are on the Hub.
fn is_remote(dataset: &Dataset) -> bool {
    dataset.paths.iter().any(|path| hub::is_remote(path))
}

/// Writes into the recipe of which commits its datasets of the Hub are, so that they stay the same as long as the run
/// lives.
///
/// # Errors
/// As [`stream::pin`].
pub fn pin(recipe: &mut Recipe) -> Result<()> {
    for dataset in recipe.datasets.iter_mut().filter(|dataset| is_remote(dataset)) {
        dataset.paths = stream::pin(&dataset.paths)?;
    }
    Ok(())
}

/// Whether something has been fetched from the Hub for the data folder of a run.
pub fn has_fetched(recipe: &Recipe, folder: &Path) -> bool {
    let mut remote = recipe.datasets.iter().filter(|dataset| is_remote(dataset));
    remote.any(|dataset| stream::has_begun(folder, &dataset.name))
}

/// What a generated dataset consists of that stages learn answers from; none if it is text, or read from files.
fn answers(dataset: &Dataset) -> Option<Answers> {
    Answers::named(dataset.microcosm.as_ref()?)
}

fn documents(dataset: &Dataset) -> u64 {
    dataset.documents.unwrap_or(0) as u64
}

/// What a generated dataset of text consists of, and the number of its documents; none if it is something else.
fn register(dataset: &Dataset) -> Result<Option<(Register, u64)>> {
    let Some(register) = dataset.microcosm.as_ref().filter(|_| answers(dataset).is_none()) else {
        return Ok(None);
    };
    Ok(Some((register.parse()?, documents(dataset))))
}

impl Corpus {
    /// Opens the token sets in a run's data folder, and makes those first that are missing or out of date. Sets that
    /// another run beside this one made are linked instead. [`Corpus::verified`] tells whether all are sound.
    ///
    /// A run that goes on gives what it is `known`: tokenizer and tokens are then these, or the run is refused. Text
    /// is read only for sets that are not in the folder.
    ///
    /// # Errors
    /// Those of reading the sources, [`Error::Damaged`] for a shard whose header is not what was written, and
    /// [`Error::Input`] naming a dataset whose tokens are not those that are known.
    pub fn prepare(recipe: &Recipe, folder: &Path, known: Option<Known>) -> Result<Corpus> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let village = &Village::new(recipe.world_seed());
        let template_of = |tokenizer: &Tokenizer| template::prepare(recipe, tokenizer, folder);
        let (tokenizer, template, known) = match known {
            None => {
                let tokenizer = tokenizer::prepare(recipe, village, folder, None)?;
                let template = template_of(&tokenizer)?;
                (tokenizer, template, None)
            }
            Some(Known { tokenizer: KnownTokenizer::Hash(hash), sets, .. }) => {
                let tokenizer = tokenizer::prepare(recipe, village, folder, Some(&hash))?;
                let template = template_of(&tokenizer)?;
                (tokenizer, template, Some(sets))
            }
            Some(Known { tokenizer: KnownTokenizer::Whole(tokenizer), template, sets }) => {
                tokenizer::restore(&tokenizer, recipe, folder)?;
                let template = template::restore(template, recipe, &tokenizer, folder)?;
                (*tokenizer, template, Some(sets))
            }
        };
        if tokenizer.vocab_size() > recipe.model.vocab_size {
            return Err(Error::input(format!(
                "recipe {}: the tokenizer has {} tokens, but model.vocab_size is {}",
                recipe.name,
                tokenizer.vocab_size(),
                recipe.model.vocab_size
            )));
        }
        let options = TokenizeOptions { held_out_fraction: recipe.held_out.fraction, ..Default::default() };
        let shared = shared_folder(folder).map(SharedSets::new).inspect(SharedSets::tidy);
        let (tokenizer_of, template_of) = (&tokenizer, template.as_ref());
        let preparation = Preparation {
            recipe,
            village,
            tokenizer: tokenizer_of,
            template: template_of,
            folder,
            options,
            shared,
            known,
            needs: recipe.needs(),
        };
        let (mut sets, mut unverified) = (Vec::new(), Vec::new());
        let (mut judged, mut held_out, mut held_out_judged) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..recipe.datasets.len() {
            let (names, verified) = preparation.prepare(index)?;
            // Each with those that are judged behind it, if there are any.
            let mut opened = names.iter().map(|name| TokenSet::open(folder, name, Verify::Header)).peekable();
            let judged_of = |set: &Option<TokenSet>, opened: &mut dyn Iterator<Item = Result<TokenSet>>| {
                let wanted = set.is_some() && recipe.needs_judged(index);
                if wanted { opened.next().transpose() } else { Ok(None) }
            };
            let set = opened.next().transpose()?;
            judged.push(judged_of(&set, &mut opened)?);
            sets.extend(set);
            let set = opened.next().transpose()?;
            held_out_judged.push(judged_of(&set, &mut opened)?);
            held_out.push(set);
            if !verified {
                unverified.extend(names);
            }
        }
        let folder = folder.to_path_buf();
        let verify = move |name: &String| TokenSet::open(&folder, name, Verify::Full).map(|_| ());
        let verification = std::thread::spawn(move || unverified.iter().try_for_each(verify));
        let verification = Mutex::new(Some(verification));
        let rows = Mutex::default();
        Ok(Corpus { tokenizer, template, sets, held_out, judged, held_out_judged, rows, verification })
    }

    /// Waits until everything has been compared with its checksums; to be called before tokens are used.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the shard that is not what was written.
    pub fn verified(&self) -> Result<()> {
        let running = self.verification.lock().expect("no thread panics while it waits").take();
        let Some(verification) = running else { return Ok(()) };
        verification.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Hashes of the sets, by the names of datasets, and by [`held_out_name`] and [`judged_name`] of them.
    pub fn hashes(&self, recipe: &Recipe) -> BTreeMap<String, String> {
        let named = |i: usize, dataset: &Dataset| {
            let (train, held_out) = (dataset.name.clone(), held_out_name(&dataset.name));
            let optional = [
                (judged_name(&train), self.judged[i].as_ref()),
                (judged_name(&held_out), self.held_out_judged[i].as_ref()),
                (held_out, self.held_out[i].as_ref()),
            ];
            let there = optional.into_iter().filter_map(|(name, set)| Some((name, hex(set?.hash()))));
            there.chain([(train, hex(self.sets[i].hash()))]).collect::<Vec<_>>()
        };
        recipe.datasets.iter().enumerate().flat_map(|(i, dataset)| named(i, dataset)).collect()
    }

    /// The conversations of a dataset as rows of `length` tokens.
    ///
    /// # Errors
    /// As [`Corpus::verified`].
    ///
    /// # Panics
    /// If it is not known which of its tokens are the assistant's.
    pub fn rows(&self, dataset: usize, length: usize) -> Result<Arc<Rows>> {
        self.verified()?;
        let mut rows = self.rows.lock().expect("no thread panics while it makes rows");
        let made = rows.entry((dataset, length)).or_insert_with(|| {
            let judged = self.judged[dataset].as_ref().expect("a stage without packing asks for it");
            Arc::new(Rows::of(&self.sets[dataset], judged, length))
        });
        Ok(made.clone())
    }

    /// The tokens that a dataset has in a stage: those of its set, or of its rows or pairs, which are all as long.
    ///
    /// # Errors
    /// As [`Corpus::rows`].
    pub fn tokens_in(&self, recipe: &Recipe, stage: usize, dataset: usize) -> Result<u64> {
        let stage = &recipe.stages[stage];
        let Dataset { name, replay, .. } = &recipe.datasets[dataset];
        if stage.kind == StageKind::Dpo && stage.mixture.contains_key(name) {
            let pairs = pair_count(&self.sets[dataset]);
            if pairs == 0 {
                let (recipe, stage) = (&recipe.name, &stage.name);
                let what = format!("dataset {name} has no pair to train on: give more, or hold out less");
                return Err(Error::input(format!("recipe {recipe}: stage {stage}: {what}")));
            }
            // The last window has a label behind it.
            return Ok(pairs * stage.window() + 1);
        }
        if stage.packs() || *replay || !stage.mixture.contains_key(name) {
            return Ok(self.sets[dataset].len());
        }
        let length = stage.sequence_length;
        let rows = self.rows(dataset, length)?.rows.len() as u64;
        if rows == 0 {
            return Err(Error::input(format!(
                "recipe {}: stage {}: no conversation of dataset {name} has an answer within {length} tokens: raise its \
                 sequence_length",
                recipe.name, stage.name
            )));
        }
        // The last window has a label behind it.
        Ok(rows * length as u64 + 1)
    }

    /// Makes the sequences of stages that fit their length to the data no longer than these need.
    ///
    /// # Errors
    /// As [`Corpus::tokens_in`].
    fn settle_lengths(&self, recipe: &mut Recipe) -> Result<()> {
        for stage in 0..recipe.stages.len() {
            let it = &recipe.stages[stage];
            if !it.fit_length || it.packs() {
                recipe.stages[stage].fit_length = false;
                continue;
            }
            let mixed = (0..self.sets.len()).filter(|&i| it.mixture.contains_key(&recipe.datasets[i].name));
            let longest = match it.kind {
                StageKind::Dpo => {
                    let cut = it.cut();
                    let pairs = mixed.flat_map(|i| (0..pair_count(&self.sets[i])).map(move |pair| (i, pair)));
                    pairs
                        .map(|(i, index)| {
                            pair_lengths(&self.sets[i], index, cut)[..].iter().copied().max().unwrap_or(0)
                        })
                        .max()
                        .unwrap_or(0)
                }
                _ => {
                    let rows = mixed.map(|i| self.rows(i, it.sequence_length)).collect::<Result<Vec<_>>>()?;
                    let tokens = rows.iter().flat_map(|rows| &rows.rows).map(|row| row.end - row.start);
                    // The last token is only predicted.
                    tokens.max().unwrap_or(0).saturating_sub(1) as usize
                }
            };
            let it = &mut recipe.stages[stage];
            it.fit_length = false;
            // Without any, that is told where they are counted.
            if longest > 1 {
                let prompt = it.cut().prompt.min(longest - 1);
                if it.kind == StageKind::Dpo {
                    it.dpo.get_or_insert_default().max_prompt_length = Some(prompt);
                }
                it.sequence_length = longest;
            }
        }
        Ok(())
    }

    /// Fits the lengths of sequences to the data, and replaces lengths in epochs by tokens, which have been counted now;
    /// returns what the user should know.
    ///
    /// # Errors
    /// As [`Corpus::tokens_in`] and [`Recipe::settle_epochs`].
    pub fn settle_epochs(&self, recipe: &mut Recipe) -> Result<Vec<String>> {
        self.settle_lengths(recipe)?;
        let of_stage = |stage| (0..self.sets.len()).map(move |dataset| (stage, dataset));
        let mut counts = HashMap::new();
        for (stage, dataset) in (0..recipe.stages.len()).flat_map(of_stage) {
            counts.insert((stage, dataset), self.tokens_in(recipe, stage, dataset)?);
        }
        recipe.settle_epochs(|stage, dataset| counts[&(stage, dataset)])
    }

    /// The mixture of a stage, given what earlier stages took from each dataset.
    ///
    /// # Errors
    /// As [`Mixture::new`] and [`Corpus::tokens_in`].
    pub fn mixture(&self, recipe: &Recipe, stage: usize, consumed: &[u64]) -> Result<Mixture> {
        recipe.mixture(stage, &self.sizes(recipe, stage)?, consumed)
    }

    /// The tokens that each dataset has in a stage.
    ///
    /// # Errors
    /// As [`Corpus::tokens_in`].
    pub fn sizes(&self, recipe: &Recipe, stage: usize) -> Result<Vec<u64>> {
        (0..self.sets.len()).map(|dataset| self.tokens_in(recipe, stage, dataset)).collect()
    }

    /// Whether anything is held out for a stage.
    pub fn holds_out(&self, recipe: &Recipe, stage: usize) -> bool {
        let pairs =
            |i: usize| recipe.is_of_pairs(i) && self.held_out[i].as_ref().is_some_and(|set| !set.is_empty());
        match recipe.stages[stage].kind {
            StageKind::Dpo => (0..self.held_out.len()).any(pairs),
            _ => !self.held_out_rows(recipe, stage, 1).is_empty(),
        }
    }

    /// What is held out for a stage, as rows of at most `length` + 1 tokens, at most `limit` of each dataset: of
    /// conversations, and of text that is replayed, for a stage that learns from some, else of text. Windows, or documents if these do not see each other.
    pub fn held_out_rows(&self, recipe: &Recipe, stage: usize, limit: usize) -> Vec<(usize, Row)> {
        let stage = &recipe.stages[stage];
        let longest = stage.sequence_length as u64 + 1;
        let mut rows = Vec::new();
        for (dataset, set) in self.held_out.iter().enumerate() {
            let Dataset { name, replay, .. } = &recipe.datasets[dataset];
            let replayed = *replay && stage.kind.is_chat() && stage.mixture.contains_key(name);
            let fits = replayed || recipe.is_chat(dataset) == stage.kind.is_chat();
            let Some(set) = set.as_ref().filter(|_| fits && !recipe.is_of_pairs(dataset)) else { continue };
            let judged =
                self.held_out_judged[dataset].as_ref().filter(|_| stage.judged() == Judged::Assistant);
            let window = |w: u64| w * (longest - 1)..(w + 1) * (longest - 1) + 1;
            let document = |i: u64| {
                let Range { start, end } = set.document(i);
                // Alone in its sequence, a conversation has no end-of-text token.
                let end = if stage.packs() { end } else { end - 1 };
                start..end.min(start + longest)
            };
            let row = |range: Range<u64>| {
                let mut row = Row::whole(set.tokens(range.clone()));
                if let Some(judged) = judged {
                    let said = judged.tokens(range);
                    row.scored.iter_mut().zip(said).for_each(|(scored, said)| *scored &= said == 1);
                }
                row
            };
            let is_scored = |row: &Row| row.scored.contains(&true);
            let windows = set.len().saturating_sub(1) / (longest - 1);
            let all: Box<dyn Iterator<Item = Range<u64>>> = match stage.packs() && !stage.document_mask {
                true => Box::new((0..windows).map(window)),
                false => Box::new((0..set.documents()).map(document)),
            };
            rows.extend(all.map(row).filter(is_scored).take(limit).map(|row| (dataset, row)));
        }
        rows
    }
}

/// Ending of the files with what first models say of pairs.
pub const REFERENCE: &str = "reference";

/// Removes what [`Corpus::prepare`] has made in a run's data folder, and the folder if nothing else is in it.
pub fn remove(data: &Path) {
    tokenizer::remove(data);
    template::remove(data);
    stream::remove(data);
    files::remove_some(data, |path| is_part(path) || path.extension().is_some_and(|it| it == REFERENCE));
}

/// Removes the folder that the runs in `folder` share their sets in.
pub fn remove_shared(folder: &Path) {
    let shared = folder.join(SHARED);
    for group in std::fs::read_dir(&shared).into_iter().flatten().flatten() {
        files::remove_some(&group.path(), is_part);
    }
    let _ = std::fs::remove_dir(shared);
}
