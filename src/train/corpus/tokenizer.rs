//! The recipe's tokenizer: loaded, or trained on documents spread over all datasets.

use super::{hex, register, source};
use crate::checkpoint::replace;
use crate::data::conversation::{Conversation, conversations};
use crate::data::microcosm::Village;
use crate::error::{Error, Result};
use crate::files;
use crate::hub;
use crate::recipes::{Dataset, Recipe, open_model};
use crate::report::out;
use crate::report::progress::Progress;
use crate::tokenizer::{ChatTemplate, IM_END, IM_START, Role, Tokenizer, VocabSize};
use std::collections::BinaryHeap;
use std::path::Path;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Loads the tokenizer, or trains it and keeps it in `folder`. Its hash must be `known`, if the run began with one.
pub(super) fn prepare(
    recipe: &Recipe,
    village: &Village,
    folder: &Path,
    known: Option<&str>,
) -> Result<Tokenizer> {
    let is_known = |tokenizer: &Tokenizer| known.is_none_or(|known| known == hex(tokenizer.hash()));
    let remote = remote(recipe);
    if let Some(path) = recipe.tokenizer.path.as_ref().filter(|_| remote.is_none()) {
        let tokenizer = Tokenizer::load(path)?;
        if !is_known(&tokenizer) {
            let why = "not the tokenizer that the run began with; put that back, or start a new run";
            return Err(Error::input(format!("{}: {why}", path.display())));
        }
        return Ok(tokenizer);
    }
    let kept = folder.join(KEPT);
    let keep = |tokenizer: &Tokenizer| {
        if !is_known(tokenizer) {
            let why = "the tokenizer that the run began with is missing or damaged, and made again it is another; put \
                       what it was made from back as it was, or start a new run";
            return Err(Error::input(format!("{}: {why}", kept.display())));
        }
        keep(tokenizer, recipe, &kept)
    };
    let note = note(recipe);
    // The note comes last, and knows the tokenizer: without it, or with another, there is none.
    if let Ok(written) = files::read_text(&kept.join(NOTE), files::SETTINGS)
        && let Some(hash) = written.strip_prefix(&note)
    {
        match Tokenizer::load(&kept) {
            Ok(tokenizer) if hash == hex(tokenizer.hash()) && is_known(&tokenizer) => return Ok(tokenizer),
            _ => out::warn(format_args!("{}: damaged; it is made again", kept.display())),
        }
    }
    if let Some(name) = remote {
        let tokenizer = Tokenizer::load(hub::tokenizer_folder(name)?)?;
        keep(&tokenizer)?;
        return Ok(tokenizer);
    }
    let Some(training) = &recipe.tokenizer.train else {
        // The tokenizer of the model that the run begins with. It is kept, so that the run goes on without that model.
        let source = recipe.source.as_ref().expect("a checked recipe has a tokenizer");
        let tokenizer = Tokenizer::load(open_model(&source.from)?.path)?;
        keep(&tokenizer)?;
        return Ok(tokenizer);
    };
    // Pairs are no documents.
    let learnt =
        |(i, dataset): &(usize, &Dataset)| !recipe.is_of_pairs(*i) && training.learns_from(&dataset.name);
    let texts = recipe.datasets.iter().enumerate().filter(learnt);
    let texts: Vec<_> = texts.collect();
    let share = training.sample_documents.div_ceil(texts.len().max(1));
    let samples = texts.iter().map(|&(i, dataset)| {
        Sample::of(village, dataset, recipe.is_chat(i).then_some(recipe.world_seed()), share)
    });
    let samples = samples.collect::<Result<Vec<_>>>()?;
    let total: u64 = samples.iter().map(|sample| sample.count).sum();
    let mut progress = Progress::new("training the tokenizer", total, 0);
    let mut failed = None;
    let documents = samples.into_iter().flat_map(|sample| sample.documents);
    let documents = documents.map_while(|document| document.map_err(|error| failed = Some(error)).ok());
    let kept = training.vocab_size;
    let size = VocabSize { kept, trained: training.prune_from.unwrap_or(kept) };
    let trained = Tokenizer::train(documents, size, |at| progress.set(at.documents, ""));
    progress.finish();
    if let Some(error) = failed {
        return Err(error);
    }
    let tokenizer = trained?;
    keep(&tokenizer)?;
    Ok(tokenizer)
}

/// The tokenizer's name if it is one of the Hub.
fn remote(recipe: &Recipe) -> Option<&str> {
    recipe.tokenizer.path.as_deref().filter(|path| hub::is_remote(path))?.to_str()
}

/// The folder of a trained or fetched tokenizer among a run's data.
const KEPT: &str = "tokenizer";

/// File that says what the tokenizer beside it was trained on, and which it is.
const NOTE: &str = "made-from";

/// What [`NOTE`] says of where a tokenizer comes from; its hash follows.
fn note(recipe: &Recipe) -> String {
    let source = recipe.source.as_ref().map(|source| &source.hash);
    let made =
        format!("{:?} {:?} {} {source:?}", recipe.tokenizer.train, recipe.datasets, recipe.world_seed());
    let made = made + remote(recipe).unwrap_or_default();
    format!("{} ", xxh3_64(made.as_bytes()))
}

fn keep(tokenizer: &Tokenizer, recipe: &Recipe, kept: &Path) -> Result<()> {
    if kept.symlink_metadata().is_ok() && !kept.is_dir() {
        files::set_aside(kept)?;
    }
    std::fs::create_dir_all(kept).map_err(Error::io(kept))?;
    for (name, bytes) in tokenizer.files(recipe.model.max_position_embeddings, Role::Base)? {
        replace(&kept.join(name), &bytes)?;
    }
    replace(&kept.join(NOTE), format!("{}{}", note(recipe), hex(tokenizer.hash())).as_bytes())
}

/// Removes the tokenizer that was kept in a run's data folder.
pub(super) fn remove(data: &Path) {
    let names = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", NOTE];
    let is_ours = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        names.contains(&name.trim_start_matches(".tmp-"))
    };
    files::remove_some(&data.join(KEPT), is_ours);
}

/// Compares what the recipe or the folder has with `tokenizer`, which the run was trained with. That stays the run's;
/// a difference is told, and mended in the folder.
pub(super) fn restore(tokenizer: &Tokenizer, recipe: &Recipe, folder: &Path) -> Result<()> {
    let (place, is_own) = match &recipe.tokenizer.path {
        Some(path) if remote(recipe).is_none() => (path.clone(), false),
        _ => (folder.join(KEPT), true),
    };
    if Tokenizer::load(&place).is_ok_and(|found| found.hash() == tokenizer.hash()) {
        return Ok(());
    }
    let what = "missing, damaged or another one; the run goes on with its checkpoint's tokenizer";
    out::warn(format_args!("{}: {what}", place.display()));
    if is_own { keep(tokenizer, recipe, &place) } else { Ok(()) }
}

/// The documents of a dataset that a tokenizer is trained on, as they stream.
struct Sample<'a> {
    count: u64,
    documents: Box<dyn Iterator<Item = Result<String>> + Send + 'a>,
}

impl<'a> Sample<'a> {
    /// At most `share` documents, spread over the dataset; all of them, in order, if there are no more. Of conversations,
    /// made up with the seed `chat` if they are, what is said and the roles beside it.
    fn of(village: &'a Village, dataset: &Dataset, chat: Option<u64>, share: usize) -> Result<Self> {
        if let Some((register, all)) = register(dataset)? {
            let count = all.min(share as u64);
            let document = move |i| Ok(village.document(register, spread(i, count, all)));
            return Ok(Sample { count, documents: Box::new((0..count).map(document)) });
        }
        let texts = || chat.map_or_else(|| texts_of(dataset), |seed| said_in(dataset, seed));
        // How many documents files hold is known only when they have been read, so they are read twice.
        let mut reading = Progress::new(&format!("sampling {}", dataset.name), None, 0);
        let counted = texts()?.zip(1..).map(|(text, number)| {
            reading.set(number, "documents");
            text
        });
        let (count, highest) = lowest_hashes(counted, share)?;
        reading.finish();
        let chosen = move |text: &Result<String>| text.as_ref().map_or(true, |text| hash(text) <= highest);
        // Equal texts have equal hashes: the last of them may be one too many.
        let documents = texts()?.filter(chosen).take(count);
        Ok(Sample { count: count as u64, documents: Box::new(documents) })
    }
}

type Texts = Box<dyn Iterator<Item = Result<String>> + Send>;

fn texts_of(dataset: &Dataset) -> Result<Texts> {
    Ok(Box::new(source(dataset, 0).documents()?.map(|document| document.map(|it| it.value))))
}

fn said_in(dataset: &Dataset, seed: u64) -> Result<Texts> {
    let template = ChatTemplate::smollm2();
    let said = move |it: Conversation| match template.render(&it.messages, false) {
        // Special tokens are no text, but what stands between them is: roles, and the system message that is added.
        Ok(text) => text.replace(IM_START, "").replace(IM_END, ""),
        Err(_) => it.messages.into_iter().map(|message| message.content).collect::<Vec<_>>().join("\n"),
    };
    let all = conversations(&source(dataset, seed), &dataset.columns)?;
    Ok(Box::new(all.map(move |record| record.map(|it| said(it.value)))))
}

/// The `i`-th of `count` indices spread evenly over `0..all`.
fn spread(i: u64, count: u64, all: u64) -> u64 {
    (u128::from(i) * u128::from(all) / u128::from(count)) as u64
}

/// Not the hash that chooses held-out documents, or the sample would be made of these.
fn hash(text: &str) -> u64 {
    xxh3_64_with_seed(text.as_bytes(), 1)
}

/// How many texts there are, at most `limit`, and the highest among as many lowest hashes.
fn lowest_hashes(texts: impl Iterator<Item = Result<String>>, limit: usize) -> Result<(usize, u64)> {
    let mut lowest = BinaryHeap::new();
    for text in texts {
        let hash = hash(&text?);
        if lowest.len() < limit {
            lowest.push(hash);
        } else if let Some(mut highest) = lowest.peek_mut()
            && hash < *highest
        {
            *highest = hash;
        }
    }
    Ok((lowest.len(), lowest.peek().copied().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::microcosm::Register;

    fn dataset(fields: serde_json::Value) -> Dataset {
        serde_json::from_value(fields).unwrap()
    }

    fn texts(village: &Village, dataset: &Dataset, share: usize) -> (u64, Vec<String>) {
        let sample = Sample::of(village, dataset, None, share).unwrap();
        (sample.count, sample.documents.collect::<Result<_>>().unwrap())
    }

    #[test]
    fn generated_documents_are_taken_from_all_over() {
        let village = Village::new(3);
        let stories = dataset(serde_json::json!({"name": "a", "microcosm": "tales", "documents": 10}));
        let expected = |indices: &[u64]| {
            indices.iter().map(|&i| village.document(Register::Tales, i)).collect::<Vec<_>>()
        };
        let all: Vec<u64> = (0..10).collect();
        for share in [10, 11, usize::MAX] {
            assert_eq!(texts(&village, &stories, share), (10, expected(&all)));
        }
        assert_eq!(texts(&village, &stories, 4), (4, expected(&[0, 2, 5, 7])));
        assert_eq!(texts(&village, &stories, 1), (1, expected(&[0])));
        assert_eq!(spread(u64::MAX - 2, u64::MAX - 1, u64::MAX), u64::MAX - 2);
    }

    #[test]
    fn documents_of_files_are_taken_by_their_text_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.jsonl");
        // Every tenth line is the same.
        let text = |i: usize| if i.is_multiple_of(10) { "again".into() } else { format!("line {i}") };
        let line = |i| format!("{{\"text\": \"{}\"}}\n", text(i));
        std::fs::write(&path, (0..1000).map(line).collect::<String>()).unwrap();
        let village = Village::new(3);
        let lines = dataset(serde_json::json!({"name": "a", "paths": [path]}));
        let all: Vec<String> = (0..1000).map(text).collect();
        for share in [1000, 2000] {
            assert_eq!(texts(&village, &lines, share), (1000, all.clone()));
        }
        for share in [1, 7, 100, 999] {
            let (count, sample) = texts(&village, &lines, share);
            assert_eq!((count, sample.len()), (share as u64, share));
            let mut rest = all.iter();
            assert!(sample.iter().all(|text| rest.any(|other| other == text)), "{share}: not in order");
        }
        let (_, sample) = texts(&village, &lines, 100);
        let late = sample.iter().filter(|text| all[500..].contains(text)).count();
        assert!((25..=75).contains(&late), "{late} of 100 from the second half");

        std::fs::write(&path, "{").unwrap();
        assert!(Sample::of(&village, &lines, None, 5).is_err());
    }
}
