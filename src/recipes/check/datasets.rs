//! What the types cannot say about `[[datasets]]`.

use std::collections::HashSet;

use super::super::problem::{Problems, key_path, suggest};
use super::super::schema::{Dataset, Recipe};
use super::{at_least_one, is_part, name_rule, positive};
use crate::data::microcosm::Register;
use crate::data::microcosm::village::Answers;
use crate::data::mixture::MOST_DATASETS;
use crate::data::source::MIN_DOCUMENT_BYTES;
use crate::hub;

/// Adds the mistakes in `[[datasets]]`.
pub(super) fn check(problems: &mut Problems, recipe: &Recipe) {
    let given = !recipe.datasets.is_empty();
    problems.require(given, key_path!["datasets"], || "is empty: give at least one".into());
    let count = recipe.datasets.len();
    problems.require(count <= MOST_DATASETS, key_path!["datasets"], || {
        format!("has {count} datasets, but may have {MOST_DATASETS}: let one have the paths of several")
    });
    let mut names = HashSet::new();
    for (i, dataset) in recipe.datasets.iter().enumerate() {
        check_dataset(problems, i, dataset);
        problems.require(names.insert(dataset.name.as_str()), key_path!["datasets", i, "name"], || {
            format!("is '{}', but an earlier dataset has that name", dataset.name)
        });
    }
}

fn check_dataset(problems: &mut Problems, i: usize, dataset: &Dataset) {
    let name = &dataset.name;
    problems.require(is_part(name), key_path!["datasets", i, "name"], || name_rule(name));
    let is_either = dataset.microcosm.is_some() == dataset.paths.is_empty()
        || !problems.is_read(key_path!["datasets", i, "paths"]);
    problems.require(is_either, key_path!["datasets", i], || {
        format!("('{name}') needs one of microcosm (text to generate) and paths (files to read)")
    });
    if let Some(register) = &dataset.microcosm {
        let answers = Answers::all().map(Answers::name);
        let known: Vec<&str> = Register::ALL.into_iter().map(Register::name).chain(answers).collect();
        problems.require(known.contains(&register.as_str()), key_path!["datasets", i, "microcosm"], || {
            format!("is '{register}'; {}", suggest(register, &known))
        });
    }
    let go_together = dataset.microcosm.is_some() == dataset.documents.is_some();
    problems.require(!is_either || go_together, key_path!["datasets", i, "documents"], || {
        "goes with microcosm: it is the number of documents to generate".into()
    });
    if let Some(documents) = dataset.documents {
        at_least_one(problems, documents as u64, key_path!["datasets", i, "documents"]);
    }
    check_paths(problems, i, dataset);
    check_selection(problems, i, dataset);
    problems.require(!dataset.fields.is_empty(), key_path!["datasets", i, "fields"], || {
        "is empty, but must name the column that holds the text".into()
    });
    at_least_one(problems, dataset.max_record_bytes as u64, key_path!["datasets", i, "max_record_bytes"]);
    if let Some(bytes) = dataset.document_bytes {
        problems.require(bytes >= MIN_DOCUMENT_BYTES, key_path!["datasets", i, "document_bytes"], || {
            format!("is {bytes}, but must be at least {MIN_DOCUMENT_BYTES}")
        });
    }
    if let Some(epochs) = dataset.max_epochs {
        positive(problems, epochs, key_path!["datasets", i, "max_epochs"]);
    }
}

fn check_paths(problems: &mut Problems, i: usize, dataset: &Dataset) {
    for (j, path) in dataset.paths.iter().enumerate() {
        let place = key_path!["datasets", i, "paths", j];
        problems.require(!path.as_os_str().is_empty(), place, || {
            format!(
                "is empty, but must name a file or a folder: give --set datasets.{}.paths=...",
                dataset.name
            )
        });
        if hub::is_remote(path)
            && let Err(why) = hub::datasets::Name::parse(&path.to_string_lossy())
        {
            problems.require(false, place, || why);
        }
    }
    let remote = dataset.paths.iter().filter(|path| hub::is_remote(path)).count();
    problems.require(remote == 0 || remote == dataset.paths.len(), key_path!["datasets", i, "paths"], || {
        "has files of the Hub beside files here: make two datasets of them".into()
    });
}

/// What of the documents is taken.
fn check_selection(problems: &mut Problems, i: usize, dataset: &Dataset) {
    for (rate, share) in dataset.score.iter().flat_map(|score| score.keep.iter().enumerate()) {
        problems.require(
            (0.0..=1.0).contains(share),
            key_path!["datasets", i, "score", "keep", rate],
            || format!("is {share}, but must be from 0 to 1: the share of documents that is kept"),
        );
    }
    if dataset.microcosm.is_some() {
        problems.require(dataset.score.is_none(), key_path!["datasets", i, "score"], || {
            "is for documents that are read: generated ones have no score".into()
        });
    }
    if let Some(tokens) = dataset.tokens {
        at_least_one(problems, tokens, key_path!["datasets", i, "tokens"]);
    }
}
