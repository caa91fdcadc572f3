//! From a recipe's datasets to token sets on disk, and from those to sequences.

use crate::data::microcosm::{Microcosm, Register};
use crate::data::mixture::{Mixture, MixtureDataset};
use crate::data::shard::{TokenSet, Verify, exists};
use crate::data::source::Source;
use crate::data::tokenize::{Counts, TokenizeOptions, fingerprint, held_out_name, tokenize, tokenize_source};
use crate::error::{Error, Result};
use crate::recipes::{Dataset, Recipe};
use crate::report::progress::Progress;
use crate::tokenizer::Tokenizer;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// The tokenised datasets of a recipe, in its order.
pub struct Corpus {
    /// The tokenizer, loaded or trained.
    pub tokenizer: Tokenizer,
    /// Training tokens per dataset.
    pub sets: Vec<TokenSet>,
    /// Held-out tokens per dataset.
    pub held_out: Vec<Option<TokenSet>>,
}

fn source(dataset: &Dataset) -> Source {
    Source::new(&dataset.paths).fields(&dataset.fields, "\n").on_broken(dataset.on_broken)
}

/// The generated documents of a dataset, if it is generated.
fn generated<'a>(
    world: &'a Microcosm,
    dataset: &Dataset,
) -> Result<Option<impl Iterator<Item = String> + Send + use<'a>>> {
    let Some(register) = &dataset.microcosm else { return Ok(None) };
    let register: Register = register.parse()?;
    let count = dataset.documents.unwrap_or(0) as u64;
    Ok(Some((0..count).map(move |index| world.document(register, index))))
}

/// The first `share` documents of a dataset, for training the tokenizer.
fn sample(world: &Microcosm, dataset: &Dataset, share: usize) -> Result<Vec<String>> {
    match generated(world, dataset)? {
        Some(documents) => Ok(documents.take(share).collect()),
        None => source(dataset).documents()?.take(share).map(|document| document.map(|d| d.value)).collect(),
    }
}

impl Corpus {
    /// Makes what is missing in `folder` and opens it. Sets made from other settings are made again.
    ///
    /// # Errors
    /// Those of reading the sources, and [`Error::Damaged`] for a shard that is not what was written.
    pub fn prepare(recipe: &Recipe, folder: &Path) -> Result<Corpus> {
        recipe.check_files()?;
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let world = Microcosm::new(recipe.data_seed);
        let tokenizer = prepare_tokenizer(recipe, &world, folder)?;
        if tokenizer.vocab_size() > recipe.model.vocab_size {
            return Err(Error::input(format!(
                "recipe {}: the tokenizer has {} tokens, but model.vocab_size is {}",
                recipe.name,
                tokenizer.vocab_size(),
                recipe.model.vocab_size
            )));
        }
        let options = TokenizeOptions { held_out_fraction: recipe.held_out.fraction, ..Default::default() };
        for dataset in &recipe.datasets {
            prepare_set(recipe, dataset, &world, &tokenizer, folder, options)?;
        }
        let open = |name: &str| TokenSet::open(folder, name, Verify::Full);
        let sets = recipe.datasets.iter().map(|d| open(&d.name)).collect::<Result<Vec<_>>>()?;
        let held_out = recipe
            .datasets
            .iter()
            .map(|d| (options.held_out_fraction > 0.0).then(|| open(&held_out_name(&d.name))).transpose())
            .collect::<Result<Vec<_>>>()?;
        Ok(Corpus { tokenizer, sets, held_out })
    }

    /// The mixture of a stage, given what earlier stages took from each dataset.
    pub fn mixture(&self, recipe: &Recipe, stage: usize, consumed: &[u64]) -> Result<Mixture> {
        let datasets = recipe
            .datasets
            .iter()
            .zip(recipe.weights_at(stage))
            .enumerate()
            .map(|(i, (dataset, weight))| MixtureDataset {
                name: dataset.name.clone(),
                weight,
                max_epochs: dataset.max_epochs,
                tokens: self.sets[i].len(),
                consumed: consumed[i],
            })
            .collect();
        Mixture::new(datasets, recipe.stages[stage].sequence_length as u64, recipe.data_seed)
    }

    /// Held-out windows of `length` + 1 tokens: (dataset, tokens), at most `limit` per dataset.
    pub fn held_out_windows(&self, length: usize, limit: usize) -> Vec<(usize, Vec<u32>)> {
        let mut windows = Vec::new();
        for (dataset, set) in self.held_out.iter().enumerate() {
            let Some(set) = set else { continue };
            let count = (set.len().saturating_sub(1) / length as u64).min(limit as u64);
            for w in 0..count {
                let start = w * length as u64;
                windows.push((dataset, set.tokens(start..start + length as u64 + 1)));
            }
        }
        windows
    }
}

fn prepare_tokenizer(recipe: &Recipe, world: &Microcosm, folder: &Path) -> Result<Tokenizer> {
    let Some(training) = &recipe.tokenizer.train else {
        return Tokenizer::load(recipe.tokenizer.path.as_ref().expect("a checked recipe has a tokenizer"));
    };
    let kept = folder.join("tokenizer");
    let key = xxh3_64(format!("{training:?} {:?} {}", recipe.datasets, recipe.data_seed).as_bytes());
    let note = kept.join("made-from");
    if std::fs::read_to_string(&note).is_ok_and(|text| text == key.to_string()) {
        return Tokenizer::load(&kept);
    }
    let share = training.sample_documents.div_ceil(recipe.datasets.len());
    let mut documents = Vec::new();
    for dataset in &recipe.datasets {
        documents.extend(sample(world, dataset, share)?);
    }
    let mut progress = Progress::new("training the tokenizer", documents.len() as u64, 0);
    let tokenizer =
        Tokenizer::train(documents.into_iter(), training.vocab_size, |at| progress.set(at.documents, ""))?;
    progress.finish();
    tokenizer.save(&kept, recipe.model.max_position_embeddings, crate::tokenizer::Role::Base)?;
    std::fs::write(&note, key.to_string()).map_err(Error::io(&note))?;
    Ok(tokenizer)
}

fn prepare_set(
    recipe: &Recipe,
    dataset: &Dataset,
    world: &Microcosm,
    tokenizer: &Tokenizer,
    folder: &Path,
    options: TokenizeOptions,
) -> Result<()> {
    let name = &dataset.name;
    let print = match &dataset.microcosm {
        None => fingerprint(tokenizer, &source(dataset), options)?,
        Some(register) => {
            let made = format!("{register} {:?} {} {options:?}", dataset.documents, recipe.data_seed);
            xxh3_64(format!("{made} {}", tokenizer.hash()).as_bytes())
        }
    };
    if exists(folder, name) && TokenSet::open(folder, name, Verify::Header)?.fingerprint() == print {
        return Ok(());
    }
    let mut progress = Progress::new(&format!("tokenising {name}"), dataset.documents.unwrap_or(0) as u64, 0);
    let mut show = |counts: &Counts| progress.set(counts.documents, &format!("{} tokens", counts.tokens));
    let (counts, broken) = match generated(world, dataset)? {
        Some(documents) => {
            let options = TokenizeOptions { fingerprint: print, ..options };
            (tokenize(tokenizer, documents.map(Ok), folder, name, options, &mut show)?, None)
        }
        None => {
            let (counts, report) =
                tokenize_source(tokenizer, &source(dataset), folder, name, options, &mut show)?;
            (counts, Some(report))
        }
    };
    progress.finish();
    println!(
        "{name}: {} documents, {} tokens ({} held out)",
        counts.documents, counts.tokens, counts.held_out_tokens
    );
    if let Some(report) = broken.filter(|report| report.broken > 0) {
        eprintln!(
            "warning: {name}: {} broken records skipped, first: {}",
            report.broken,
            report.first_broken.join("; ")
        );
    }
    Ok(())
}
