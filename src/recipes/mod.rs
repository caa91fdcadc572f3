//! Recipes: one TOML file holds everything that affects the result of a training run.

mod check;
mod document;
mod hash;
mod overrides;
mod problem;
mod schema;
mod timeline;

use std::path::{Path, PathBuf};

pub use schema::{
    Batch, Dataset, HeldOutText, LearningRate, Optimizer, Recipe, Sample, Saving, ScheduleKind, Stage,
    StageKind, TokenizerChoice, TokenizerTraining,
};
pub use timeline::{Origin, Span};

use crate::error::{Error, Result};
use crate::files;
use crate::nn::Architecture;
use crate::nn::config::{LlamaConfig, PRESETS};
use document::Document;
use problem::suggest;

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
    /// A value that is not TOML is taken as a string.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, else [`Error::Input`] with one line that names file, line and
    /// column, or the override, and the nearest known key or name.
    pub fn load(name_or_path: &str, overrides: &[String]) -> Result<Recipe> {
        if let Some((name, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(&format!("recipe {name}"), text, Path::new(""), overrides);
        }
        let path = Path::new(name_or_path);
        if !path.is_file() && path.extension().is_none_or(|e| e != "toml") {
            let names = EMBEDDED.map(|(name, _)| name);
            let hint = suggest(name_or_path, &names);
            return Err(Error::input(format!(
                "{name_or_path}: neither a recipe's name nor a .toml file; {hint}"
            )));
        }
        let text = files::read_text(path, files::SETTINGS)?;
        Self::parse(name_or_path, &text, path.parent().unwrap_or(Path::new("")), overrides)
    }

    /// Reads a recipe from `text`; `label` is what errors call it, and its relative paths start at `folder`.
    fn parse(label: &str, text: &str, folder: &Path, overrides: &[String]) -> Result<Recipe> {
        let presets = PRESETS.map(preset_text);
        let mut document = Document::parse(label, text, overrides)?;
        if let Some(preset) = document.take_string("model", "preset") {
            let place = preset.span();
            let Some(i) = PRESETS.iter().position(|name| name == preset.get_ref()) else {
                let hint = suggest(preset.get_ref(), &PRESETS);
                return Err(
                    document.error_at(&place, &format!("model.preset is '{}'; {hint}", preset.get_ref()))
                );
            };
            document.add_defaults("model", &presets[i], place);
        }
        let mut recipe: Recipe = document.decode()?;
        if let Err(problem) = check::check(&recipe) {
            let message = format!("{} {}", problem.path.join("."), problem.message);
            return Err(document.error(&problem.path, &message));
        }
        recipe.make_paths_absolute(&document, folder)?;
        Ok(recipe)
    }

    /// Paths in the file are relative to its folder, those of overrides to the current one.
    fn make_paths_absolute(&mut self, document: &Document, folder: &Path) -> Result<()> {
        let absolute = |path: &mut PathBuf, keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
            let folder = if document.is_overridden(&keys) { Path::new("") } else { folder };
            *path = std::path::absolute(folder.join(&*path)).map_err(Error::io(&*path))?;
            Ok(())
        };
        if let Some(path) = &mut self.tokenizer.path {
            absolute(path, &["tokenizer", "path"])?;
        }
        for (i, dataset) in self.datasets.iter_mut().enumerate() {
            for (j, path) in dataset.paths.iter_mut().enumerate() {
                absolute(path, &["datasets", &i.to_string(), "paths", &j.to_string()])?;
            }
        }
        Ok(())
    }

    /// Checks that the files that the recipe names are there.
    ///
    /// # Errors
    /// [`Error::Input`] naming the first that is not, and the keys to change.
    pub fn check_files(&self) -> Result<()> {
        let missing = |key: &str, path: &PathBuf| {
            let (name, path) = (&self.name, path.display());
            let why = format!("{path} does not exist; put it there or give --set {key}=...");
            Error::input(format!("recipe {name}: {key}: {why}"))
        };
        if let Some(path) = self.tokenizer.path.as_ref().filter(|path| !path.exists()) {
            return Err(missing("tokenizer.path", path));
        }
        for dataset in &self.datasets {
            if let Some(path) = dataset.paths.iter().find(|path| !path.exists()) {
                return Err(missing(&format!("datasets.{}.paths", dataset.name), path));
            }
        }
        Ok(())
    }

    /// The recipe as a TOML file that [`Recipe::load`] reads back as the same recipe.
    ///
    /// # Errors
    /// [`Error::Input`] if a path is not Unicode.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::input(format!("recipe {}: {e}", self.name)))
    }

    /// One line for a list of recipes: name, parameters, tokens and steps of all stages, and their names.
    pub fn describe(&self) -> String {
        let trained = |tokens: u64, span: Span| {
            tokens.saturating_add(span.steps().saturating_mul(span.tokens_per_step))
        };
        let stages: Vec<&str> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
        format!(
            "{}: {} parameters, {} tokens in {} steps, {} stage{} ({})",
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

/// A preset as the keys of `[model]`.
fn preset_text(name: &str) -> String {
    let text = LlamaConfig::preset(name).and_then(|config| toml::to_string(&config).ok());
    text.unwrap_or_else(|| unreachable!("preset {name} is plain data"))
}

#[cfg(test)]
mod tests;
