//! Recipes: one TOML file holds everything that affects the result of a training run.

mod changes;
mod chat;
mod check;
mod complaint;
mod consumption;
mod count;
mod document;
mod draft;
pub mod evaluation;
mod hash;
mod list;
mod overrides;
mod problem;
mod reading;
mod schedules;
mod schema;
mod source;
mod timeline;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

pub use count::parse as parse_count;
pub use draft::{Draft, draft};
pub use reading::Reading;
pub use schema::{
    Batch, ChatFormat, Dataset, Evaluation, HeldOutText, LearningRate, ModelSource, OnExhausted, Optimizer,
    Preference, PreferenceKind, Recipe, Sample, Saving, ScheduleKind, Stage, StageKind, TokenizerChoice,
    TokenizerTraining,
};
pub use source::{OpenModel, open_model};
pub use timeline::{Origin, Span};

use crate::data::source::Source;
use crate::error::{Error, Result};
use crate::files;
use crate::hub;
use crate::nn::Architecture;
use document::Document;
pub use problem::suggest;
use problem::{KeyPath, Problem, Problems, key_path};

/// The recipes inside the program as (name, TOML text); the first is the default.
pub const EMBEDDED: [(&str, &str); 4] = [
    ("microcosm", include_str!("microcosm.toml")),
    ("smollm2-135m", include_str!("smollm2-135m.toml")),
    ("smollm2-360m", include_str!("smollm2-360m.toml")),
    ("smollm2-1.7b", include_str!("smollm2-1.7b.toml")),
];

impl Recipe {
    /// Loads an embedded recipe by name, or a TOML file by path, with `overrides` of the form `path.to.key=value`.
    ///
    /// In an override a list's element goes by index or by `name`: `stages.0.tokens=...`, `stages.stable.tokens=...`.
    /// A value that is not TOML is taken as a string. Also `--steps=N`, `--epochs=N`, `--lr=X`, `--seq-len=N` and
    /// `--batch=N`, which stand for what these flags mean in a recipe of one stage.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, else [`Error::Input`] with one line that names file, line and
    /// column, or the override, and the nearest known key or name.
    ///
    /// A model that `[model] from` names must be a folder; [`Recipe::read`] can fetch others.
    pub fn load(name_or_path: &str, overrides: &[String]) -> Result<Recipe> {
        Self::read(name_or_path, overrides, &source::open_local).map(|reading| reading.recipe)
    }

    /// [`Recipe::load`], with the model that `[model] from` names, if any, given by `open`. Files that are missing are
    /// told among other mistakes; alone, they do not keep a recipe from being read.
    ///
    /// # Errors
    /// As [`Recipe::load`], and those of `open`.
    pub fn read(name_or_path: &str, overrides: &[String], open: OpenModel) -> Result<Reading> {
        if let Some((name, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(&format!("recipe {name}"), text, Path::new(""), overrides, open);
        }
        let path = Path::new(name_or_path);
        if !path.is_file() && path.extension().is_none_or(|e| e != "toml") {
            let names = EMBEDDED.map(|(name, _)| name);
            let hint = suggest(name_or_path, &names);
            return Err(Error::input(format!(
                "{name_or_path}: neither a recipe's name nor a .toml file, nor text that exists; {hint}"
            )));
        }
        let text = files::read_text(path, files::SETTINGS)?;
        Self::parse(name_or_path, &text, path.parent().unwrap_or(Path::new("")), overrides, open)
    }

    /// Reads a recipe from `text`; `label` is what errors call it, and its relative paths start at `folder`.
    fn parse(
        label: &str,
        text: &str,
        folder: &Path,
        overrides: &[String],
        open: OpenModel,
    ) -> Result<Reading> {
        // Text of keys that are added; it must be there as long as the document.
        let (shape, derived) = (OnceCell::new(), OnceCell::new());
        let mut document = Document::parse(label, text, overrides);
        let source = source::take_source(&mut document, folder, open, &shape)?;
        if source.is_none() {
            source::take_preset(&mut document, &shape);
            source::derive_keys(&mut document, &derived);
        }
        let Some(mut recipe) = document.decode::<Recipe>() else { return Err(document.into_error()) };
        let (source, own) = source.unzip();
        recipe.source = source;
        recipe.comment = leading_comment(text);
        recipe.make_paths_absolute(&document, folder)?;
        let mut problems = Problems::new(document.stand_ins());
        if let Some(own) = own.flatten() {
            source::conflicts(&recipe, &own).into_iter().for_each(|it| problems.add(it));
        }
        // What the values mean is not asked where some of them could not be read.
        if document.is_whole() {
            check::check(&mut problems, &recipe);
            schedules::fit_and_check(&mut problems, &mut recipe, |path| document.is_overridden(path));
        }
        let is_sound = |problems: &Problems| document.is_sound() && problems.found.is_empty();
        if is_sound(&problems) {
            let estimate = recipe.estimate_tokens();
            let tokens = |_, dataset: usize| estimate[dataset];
            match timeline::settle_lengths(&mut recipe, tokens, false) {
                Ok(()) => check::timeline::check(&mut problems, &recipe),
                Err(problem) => problems.add(problem),
            }
        }
        let missing = recipe.missing_files().map(|(path, file)| {
            let message =
                format!("is {}, which does not exist: put it there, or name another", file.display());
            Problem { path, message }
        });
        let told = |it: &Problem| format!("{} {}", it.path.join("."), it.message);
        if is_sound(&problems) {
            let missing = missing.map(|it| document.line_at(&it.path, &told(&it))).collect();
            return Ok(Reading { recipe, missing, left_out: None });
        }
        missing.for_each(|it| problems.add(it));
        problems.found.iter().for_each(|it| document.mistake_at(&it.path, told(it)));
        Err(document.into_error())
    }

    /// Reads a recipe that [`Recipe::to_toml`] wrote; `label` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Input`] with the line and column of what cannot be read.
    pub fn from_toml(label: &str, text: &str) -> Result<Recipe> {
        Ok(Self::parse(label, text, Path::new(""), &[], &source::open_local)?.recipe)
    }

    /// The seed of generated text.
    pub fn world_seed(&self) -> u64 {
        self.world_seed.unwrap_or(self.data_seed)
    }

    /// About how many tokens each dataset has, where a stage's length is given in epochs.
    fn estimate_tokens(&self) -> Vec<u64> {
        if self.stages.iter().all(|stage| stage.epochs.is_none()) {
            return Vec::new();
        }
        let bytes_per_token = draft::bytes_per_token(self.model.vocab_size);
        let bytes =
            |dataset: &Dataset| draft::text_bytes(&Source::new(&dataset.paths).files().unwrap_or_default());
        let tokens = |dataset: &Dataset| match (dataset.tokens, dataset.documents) {
            (Some(tokens), _) => tokens,
            // Of the generated world.
            (None, Some(documents)) => documents as u64 * 200,
            (None, None) => (bytes(dataset) as f64 / bytes_per_token) as u64,
        };
        self.datasets.iter().map(tokens).collect()
    }

    /// Replaces lengths in epochs by tokens, now that it is known how many a dataset has in a stage, both given by their
    /// indices. Schedules that were meant for more steps are fitted; returns a line for each that was.
    ///
    /// # Errors
    /// [`Error::Input`] naming the key that does not fit that length.
    pub fn settle_epochs(&mut self, tokens: impl Fn(usize, usize) -> u64) -> Result<Vec<String>> {
        if self.stages.iter().all(|stage| stage.epochs.is_none()) {
            return Ok(Vec::new());
        }
        let mut problems = Problems::new(Vec::new());
        if let Err(problem) = timeline::settle_lengths(self, tokens, true) {
            problems.add(problem);
        }
        check::check(&mut problems, self);
        let changes = schedules::fit_to_epochs(&mut problems, self);
        check::timeline::check(&mut problems, self);
        let told = |Problem { path, message }| format!("recipe {}: {} {message}", self.name, path.join("."));
        match problems.found.into_iter().next() {
            Some(problem) => Err(Error::input(told(problem))),
            None => Ok(changes),
        }
    }

    /// Paths in the file are relative to its folder, those of overrides to the current one.
    fn make_paths_absolute(&mut self, document: &Document, folder: &Path) -> Result<()> {
        let absolute = |path: &mut PathBuf, keys: &[&str]| {
            // What is empty is a mistake, which is told.
            if path.as_os_str().is_empty() || hub::is_remote(path) {
                return Ok(());
            }
            let keys: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
            let folder = if document.is_overridden(&keys) { Path::new("") } else { folder };
            *path = std::path::absolute(folder.join(&*path)).map_err(Error::io(&*path))?;
            Ok(())
        };
        if let Some(path) = &mut self.tokenizer.path {
            absolute(path, &["tokenizer", "path"])?;
        }
        for (i, dataset) in self.datasets.iter_mut().enumerate() {
            for (key, paths) in [("paths", &mut dataset.paths), ("decontaminate", &mut dataset.decontaminate)]
            {
                for (j, path) in paths.iter_mut().enumerate() {
                    absolute(path, &["datasets", &i.to_string(), key, &j.to_string()])?;
                }
            }
        }
        Ok(())
    }

    /// Checks that the files that the recipe names are there. `kept_in` is the recipe's file in the folder of a run that
    /// goes on, which takes no overrides.
    ///
    /// # Errors
    /// A line for each that is not, with the key to change.
    pub fn check_files(&self, kept_in: Option<&Path>) -> Result<()> {
        let lines = self.missing_files().map(|(key, path)| {
            let (name, path) = (&self.name, path.display());
            // As people change it.
            let dataset = key.get(1).and_then(|i| self.datasets.get(i.parse::<usize>().ok()?));
            let key = dataset.map_or(key.join("."), |dataset| format!("datasets.{}.paths", dataset.name));
            let another = match kept_in {
                Some(file) => format!("change {key} in {}", file.display()),
                None => format!("give --set {key}=..."),
            };
            format!("recipe {name}: {key}: {path} does not exist; put it there or {another}")
        });
        match &lines.collect::<Vec<_>>()[..] {
            [] => Ok(()),
            [only] => Err(Error::input(only)),
            lines => Err(Error::Mistakes(lines.to_vec())),
        }
    }

    /// The keys whose files are not there, and these.
    fn missing_files(&self) -> impl Iterator<Item = (KeyPath, &Path)> {
        let tokenizer =
            self.tokenizer.path.iter().map(|path| (key_path!["tokenizer", "path"].to_vec(), path, true));
        let datasets = self.datasets.iter().enumerate().flat_map(|(i, dataset)| {
            // Whether it may be something on the Hub as well.
            let paths = [("paths", &dataset.paths, true)];
            let benchmarks =
                Some(("decontaminate", &dataset.decontaminate, false)).filter(|_| self.is_chat(i));
            paths.into_iter().chain(benchmarks).flat_map(move |(name, paths, remote)| {
                let key = move |j: usize| key_path!["datasets", i, name, j].to_vec();
                paths.iter().enumerate().map(move |(j, path)| (key(j), path, remote))
            })
        });
        let named = tokenizer.chain(datasets).filter(|(_, path, _)| !path.as_os_str().is_empty());
        let here = named.filter(|(_, path, remote)| !(*remote && hub::is_remote(path)));
        here.filter(|(_, path, _)| !path.exists()).map(|(key, path, _)| (key, path.as_path()))
    }

    /// The recipe as a TOML file that [`Recipe::load`] reads back as the same recipe.
    ///
    /// # Errors
    /// [`Error::Input`] if a path is not Unicode.
    pub fn to_toml(&self) -> Result<String> {
        let mut written = self.clone();
        // What tokens these are is a guess as yet.
        written
            .stages
            .iter_mut()
            .filter(|stage| stage.epochs.is_some())
            .for_each(|stage| stage.tokens = None);
        let mut text =
            toml::to_string(&written).map_err(|e| Error::input(format!("recipe {}: {e}", self.name)))?;
        if let Some(ModelSource { from, hash }) = &self.source {
            let quoted = |text: &str| toml::Value::from(text).to_string();
            let hash = hash.iter().map(|hash| format!("from_hash = {}\n", quoted(hash)));
            let keys = format!("from = {}\n{}", quoted(from), hash.collect::<String>());
            let header = "\n[model]\n";
            let at = text.find(header).map_or(text.len(), |at| at + header.len());
            text.insert_str(at, &keys);
        }
        Ok(format!("{}{text}", self.comment))
    }

    /// One line for a list of recipes: name, parameters, tokens and steps of all stages, and their names.
    pub fn describe(&self) -> String {
        let trained = |tokens: u64, span: Span| {
            tokens.saturating_add(span.steps().saturating_mul(span.tokens_per_step))
        };
        let stages: Vec<&str> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
        let about = if self.stages.iter().any(|stage| stage.epochs.is_some()) { "about " } else { "" };
        format!(
            "{}: {} parameters, {about}{} tokens in {about}{} steps, {} stage{} ({})",
            self.name,
            short(Architecture::from(self.model.clone()).num_parameters()),
            short(self.spans().into_iter().fold(0, trained)),
            self.total_steps(),
            stages.len(),
            if stages.len() == 1 { "" } else { "s" },
            stages.join(", ")
        )
    }
}

/// The comment that a recipe begins with, and the blank line behind it.
fn leading_comment(text: &str) -> String {
    let lines: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
    if lines.is_empty() { String::new() } else { lines.join("\n") + "\n\n" }
}

/// Three or four digits and a unit: 134.5M, 11.0T.
fn short(count: u64) -> String {
    let x = count as f64;
    match x {
        _ if x >= 1e12 => format!("{:.2}T", x / 1e12),
        _ if x >= 1e9 => format!("{:.2}B", x / 1e9),
        _ if x >= 1e6 => format!("{:.1}M", x / 1e6),
        _ if x >= 1e3 => format!("{:.1}K", x / 1e3),
        _ => format!("{count}"),
    }
}

#[cfg(test)]
mod tests;
