//! `[model] from`: the model that a run begins with.

use std::cell::OnceCell;
use std::path::{Component, Path, PathBuf};

use toml::Spanned;
use xxhash_rust::xxh3::Xxh3;

use super::document::Document;
use super::problem::{Problem, key_path, suggest};
use super::schema::{ModelSource, Recipe};
use crate::error::{Error, Result};
use crate::files;
use crate::hub;
use crate::model::ModelFolder;
use crate::nn::config::{LlamaConfig, PRESETS};
use crate::nn::{Architecture, Base};
use crate::tokenizer::Tokenizer;

/// Keys of `[model]` that may differ from the source's: they change no shape.
const FREE: [&str; 2] = ["rope_theta", "max_position_embeddings"];

/// Gives the model that a name or path means.
pub type OpenModel<'a> = &'a dyn Fn(&str) -> Result<ModelFolder>;

/// Opens models on this machine, for [`Recipe::load`].
pub(super) fn open_local(name: &str) -> Result<ModelFolder> {
    if name.starts_with(hub::PREFIX) {
        let why = "is fetched by 'smolter train' and 'smolter plan' only: give a folder here";
        return Err(Error::input(format!("{name} {why}")));
    }
    open_model(name)
}

/// Opens a folder, or a model of the Hub, which is fetched unless the cache has it; for [`Recipe::load_with`].
///
/// # Errors
/// As [`hub::folder`] and [`ModelFolder::open`].
pub fn open_model(name: &str) -> Result<ModelFolder> {
    ModelFolder::open(&hub::folder(name)?)
}

/// What is known of a source that was opened.
pub(super) struct Own {
    config: LlamaConfig,
    /// Its folder, or that of the checkpoint.
    path: PathBuf,
}

/// Takes `from` out of `[model]`, and gives that table the shape of the model that it names. A resolved recipe has the
/// shape, and the hash of a model that need not be there any more.
///
/// Returns the source, and what was read of it. `shape` keeps the text of its configuration.
///
/// # Errors
/// Those of `open` that are no mistakes in the recipe.
pub(super) fn take_source<'a>(
    document: &mut Document<'a>,
    folder: &Path,
    open: OpenModel,
    shape: &'a OnceCell<String>,
) -> Result<Option<(ModelSource, Option<Own>)>> {
    let Some(from) = document.take_string("model", "from") else { return Ok(None) };
    let place = from.span();
    let named = !from.get_ref().is_empty();
    if !named && document.is_sound() {
        document.mistake(
            place.clone(),
            "model.from is empty, but must name a folder or hf://owner/name: give --set model.from=..."
                .into(),
        );
    }
    let from = if named { absolute(document, from, folder)? } else { String::new() };
    if let Some(hash) = document.take_string("model", "from_hash") {
        return Ok(Some((ModelSource { from, hash: Some(hash.into_inner()) }, None)));
    }
    if let Some(preset) = document.take_string("model", "preset") {
        let why = "model.preset stands beside model.from, which gives the shape: leave one of them out";
        document.mistake(preset.span(), why.into());
    }
    document.ensure_table("tokenizer", place.clone());
    let own = match named.then(|| open(&from)) {
        None => {
            document.stands_in(key_path!["model"]);
            None
        }
        Some(Ok(model)) => {
            let Base::Llama(config) = model.architecture.base;
            Some(Own { config, path: model.path })
        }
        Some(Err(error @ (Error::Failure(_) | Error::Device(_)))) => return Err(error),
        Some(Err(mistake)) => {
            document.mistake(place.clone(), format!("model.from: {mistake}"));
            document.stands_in(key_path!["model"]);
            None
        }
    };
    let config = own.as_ref().map_or_else(LlamaConfig::smollm2_135m, |own| own.config.clone());
    document.add_defaults("model", shape.get_or_init(|| to_keys(&config)), place);
    Ok(Some((ModelSource { from, hash: None }, own)))
}

/// Takes `preset` out of `[model]`, and gives that table its keys.
pub(super) fn take_preset<'a>(document: &mut Document<'a>, shape: &'a OnceCell<String>) {
    let Some(preset) = document.take_string("model", "preset") else { return };
    let (place, name) = (preset.span(), preset.into_inner());
    let config = LlamaConfig::preset(&name).unwrap_or_else(|| {
        document.mistake(place.clone(), format!("model.preset is '{name}'; {}", suggest(&name, &PRESETS)));
        document.stands_in(key_path!["model"]);
        LlamaConfig::smollm2_135m()
    });
    document.add_defaults("model", shape.get_or_init(|| to_keys(&config)), place);
}

/// Adds the keys of `[model]` that follow from others and are not there: SmolLM2's proportions and constants.
pub(super) fn derive_keys<'a>(document: &mut Document<'a>, derived: &'a OnceCell<String>) {
    let hidden = document.number(key_path!["model", "hidden_size"]);
    let heads = document.number(key_path!["model", "num_attention_heads"]);
    let mut keys = String::from("rope_theta = 10_000.0\nrms_norm_eps = 1e-5\ntie_word_embeddings = true\n");
    let mut add = |key: &str, value: String| keys += &format!("{key} = {value}\n");
    // Where the keys that others follow from cannot be read, that is told, and what follows is not missed.
    let width = hidden.unwrap_or(64);
    // Four times the width in two matrices, shared out among three; a multiple of 32.
    add("intermediate_size", (width.saturating_mul(8) / 3).next_multiple_of(32).to_string());
    add("initializer_std", format!("{:?}", 1.0 / (width.max(1) as f64).sqrt()));
    add("num_key_value_heads", heads.unwrap_or(1).to_string());
    match (hidden, heads) {
        (Some(hidden), Some(heads)) if heads > 0 && hidden.is_multiple_of(heads) => {
            add("head_dim", (hidden / heads).to_string());
        }
        (Some(hidden), Some(heads)) if heads > 0 && !document.has(key_path!["model", "head_dim"]) => {
            let place = key_path!["model", "num_attention_heads"];
            let why = format!(
                "model.num_attention_heads is {heads}, but must divide hidden_size {hidden}: change one of them, or \
                 give head_dim"
            );
            document.mistake_at(place, why);
            document.stands_in(place);
            document.stands_in(key_path!["model", "head_dim"]);
            add("head_dim", "64".into());
        }
        _ => add("head_dim", "64".into()),
    }
    if let Some(size) = document.number(key_path!["tokenizer", "train", "vocab_size"]) {
        add("vocab_size", size.to_string());
    }
    let text = derived.get_or_init(|| keys);
    document.add_defaults("model", text, document.place_of(key_path!["model"]));
}

/// A path in the file is relative to its folder, that of an override to the current one.
fn absolute(document: &Document, from: Spanned<String>, folder: &Path) -> Result<String> {
    if from.get_ref().starts_with(hub::PREFIX) {
        return Ok(from.into_inner());
    }
    let folder = if document.is_override(&from.span()) { Path::new("") } else { folder };
    let path = folder.join(from.get_ref());
    let mut path = std::path::absolute(&path).map_err(Error::io(&path))?;
    // What `..` leads to is the system's to say, where there are links.
    if path.components().any(|it| it == Component::ParentDir) {
        path = path.canonicalize().unwrap_or(path);
    }
    let text = path.to_str().ok_or_else(|| Error::input(format!("{}: not Unicode", path.display())))?;
    Ok(text.to_string())
}

/// A configuration as the keys of `[model]`.
fn to_keys(config: &LlamaConfig) -> String {
    toml::to_string(config).unwrap_or_else(|e| unreachable!("a configuration is plain data: {e}"))
}

/// What in a recipe would make another model of its source, `own`.
pub(super) fn conflicts(recipe: &Recipe, own: &Own) -> Vec<Problem> {
    let fields = |config| match serde_json::to_value(config) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => unreachable!("a configuration is a table"),
    };
    let theirs = fields(&own.config);
    let mut found = Vec::new();
    for (key, value) in fields(&recipe.model) {
        let own = theirs.get(&key);
        if FREE.contains(&key.as_str()) || own == Some(&value) {
            continue;
        }
        let own = own.map_or("none".into(), ToString::to_string);
        let message = format!(
            "is {value}, but the model that model.from names has {own}: leave the key out; only {} may differ",
            FREE.join(" and ")
        );
        found.push(Problem { path: key_path!["model", key].to_vec(), message });
    }
    found.extend(tokenizer_conflict(recipe, &own.path));
    found
}

/// A tokenizer that gives the ids of the model in the folder `source` to other tokens. One that adds some is welcome.
fn tokenizer_conflict(recipe: &Recipe, source: &Path) -> Option<Problem> {
    let remedy = "a model's weights go with its own tokenizer: leave [tokenizer] out";
    if recipe.tokenizer.train.is_some() {
        let path = key_path!["tokenizer", "train"].to_vec();
        return Some(Problem { path, message: format!("stands beside model.from, but {remedy}") });
    }
    let given = recipe.tokenizer.path.as_ref().filter(|path| path.exists())?;
    let own = source.join("tokenizer.json");
    if !own.exists() {
        return None;
    }
    let problem = |message: String| Problem { path: key_path!["tokenizer", "path"].to_vec(), message };
    let (given, own) = match (Tokenizer::load(given), Tokenizer::load(&own)) {
        (Ok(given), Ok(own)) => (given, own),
        (Err(error), _) => return Some(problem(format!("cannot be used: {error}"))),
        // Told when it is needed.
        (_, Err(_)) => return None,
    };
    let ids = 0..u32::try_from(own.vocab_size()).unwrap_or(u32::MAX);
    let (id, token) = ids
        .filter_map(|id| Some((id, own.id_to_token(id)?)))
        .find(|(id, token)| given.id_to_token(*id).as_ref() != Some(token))?;
    let other = given.id_to_token(id).map_or("none".into(), |other| format!("{other:?}"));
    Some(problem(format!(
        "has {other} as token {id}, but the model that model.from names {token:?}: {remedy}"
    )))
}

impl ModelSource {
    /// Hash of the weights, as they are stored, and of the tokenizer, 16 hexadecimal digits. Reads all of both.
    ///
    /// # Errors
    /// Those of reading them.
    pub fn content_hash(model: &ModelFolder) -> Result<String> {
        let mut hash = Xxh3::new();
        for (name, shape) in model.architecture.shapes() {
            let (dtype, bytes) = model.float(&name, &shape)?;
            hash.update(format!("{name} {shape:?} {dtype:?}").as_bytes());
            hash.update(&bytes);
        }
        let tokenizer = model.path.join("tokenizer.json");
        if tokenizer.is_file() {
            hash.update(&files::read(&tokenizer, files::LISTS)?);
        }
        Ok(format!("{:016x}", hash.digest()))
    }
}

impl Recipe {
    /// The model that a run of the recipe begins with, if it does not begin with noise. Its hash becomes part of the
    /// recipe, or must be the one that it has.
    ///
    /// # Errors
    /// Those of opening it; [`Error::Input`] if it is not the model that the run began with.
    pub fn open_source(&mut self) -> Result<Option<ModelFolder>> {
        let Some(source) = &mut self.source else { return Ok(None) };
        let model = open_model(&source.from)?;
        model.tensors.expect(&Architecture::from(self.model.clone()).shapes())?;
        let hash = ModelSource::content_hash(&model)?;
        match &source.hash {
            Some(known) if *known != hash => Err(Error::input(format!(
                "model.from: {} has changed since this run began with it: put it back as it was, or start anew",
                source.from
            ))),
            _ => {
                source.hash = Some(hash);
                Ok(Some(model))
            }
        }
    }
}
