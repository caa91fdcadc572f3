//! `[model] from`: the model that a run begins with.

use std::cell::OnceCell;
use std::path::Path;

use toml::Spanned;
use xxhash_rust::xxh3::Xxh3;

use super::document::Document;
use super::problem::{KeyPath, Problem, key_path, suggest};
use super::schema::{ModelSource, Recipe};
use crate::error::{Error, Result};
use crate::files;
use crate::model::{ModelFolder, hub};
use crate::nn::Architecture;
use crate::nn::config::{LlamaConfig, PRESETS};

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

/// Takes `from` out of `[model]`, and gives that table the shape of the model that it names. A resolved recipe has the
/// shape, and the hash of a model that need not be there any more.
///
/// Returns the source, with its own configuration if that was read. `shape` keeps the text of that.
///
/// # Errors
/// Those of `open` that are no mistakes in the recipe.
pub(super) fn take_source<'a>(
    document: &mut Document<'a>,
    folder: &Path,
    open: OpenModel,
    shape: &'a OnceCell<String>,
) -> Result<Option<(ModelSource, Option<LlamaConfig>)>> {
    let Some(from) = document.take_string("model", "from") else { return Ok(None) };
    let place = from.span();
    let named = !from.get_ref().is_empty();
    if !named && document.is_sound() {
        document
            .mistake(place.clone(), "model.from is empty, but must name a folder or hf://owner/name".into());
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
            let Architecture::Llama(config) = model.architecture;
            Some(config)
        }
        Some(Err(error @ (Error::Failure(_) | Error::Device(_)))) => return Err(error),
        Some(Err(mistake)) => {
            document.mistake(place.clone(), format!("model.from: {mistake}"));
            document.stands_in(key_path!["model"]);
            None
        }
    };
    let config = own.clone().unwrap_or_else(LlamaConfig::smollm2_135m);
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
    let hidden = document.number(&["model", "hidden_size"]);
    let heads = document.number(&["model", "num_attention_heads"]);
    let mut keys = String::from("rope_theta = 10_000.0\nrms_norm_eps = 1e-5\ntie_word_embeddings = true\n");
    let mut add = |key: &str, value: String| keys += &format!("{key} = {value}\n");
    if let Some(hidden) = hidden {
        // Four times the width in two matrices, shared out among three; a multiple of 32.
        add("intermediate_size", (hidden.saturating_mul(8) / 3).next_multiple_of(32).to_string());
        add("initializer_std", format!("{:?}", 1.0 / (hidden.max(1) as f64).sqrt()));
    }
    if let Some(heads) = heads {
        add("num_key_value_heads", heads.to_string());
    }
    if let (Some(hidden), Some(heads)) = (hidden, heads)
        && heads > 0
        && hidden.is_multiple_of(heads)
    {
        add("head_dim", (hidden / heads).to_string());
    }
    if let Some(size) = document.number(&["tokenizer", "train", "vocab_size"]) {
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
    let path = std::path::absolute(&path).map_err(Error::io(&path))?;
    let text = path.to_str().ok_or_else(|| Error::input(format!("{}: not Unicode", path.display())))?;
    Ok(text.to_string())
}

/// A configuration as the keys of `[model]`.
fn to_keys(config: &LlamaConfig) -> String {
    toml::to_string(config).unwrap_or_else(|e| unreachable!("a configuration is plain data: {e}"))
}

/// The first key of `[model]` that would make another model of the source.
pub(super) fn conflict(model: &LlamaConfig, source: &LlamaConfig) -> Option<Problem> {
    let fields = |config| serde_json::to_value(config).unwrap_or_default();
    let (given, own) = (fields(model), fields(source));
    let changed = given
        .as_object()?
        .iter()
        .find(|(key, value)| !FREE.contains(&key.as_str()) && own.get(key.as_str()) != Some(*value));
    let (key, value) = changed?;
    let own = own.get(key).map_or("none".into(), ToString::to_string);
    let path: KeyPath = key_path!["model", key].to_vec();
    let message = format!(
        "is {value}, but the model that model.from names has {own}: leave the key out; only {} may differ",
        FREE.join(" and ")
    );
    Some(Problem { path, message })
}

impl ModelSource {
    /// Hash of the weights, as they are stored, and of the tokenizer, 16 hexadecimal digits. Reads all of both.
    ///
    /// # Errors
    /// Those of reading them.
    pub fn content_hash(model: &ModelFolder) -> Result<String> {
        let mut hash = Xxh3::new();
        for (name, shape) in model.architecture.shapes() {
            let (dtype, bytes) = model.tensors.float(&name, &shape)?;
            hash.update(format!("{name} {shape:?} {dtype:?}").as_bytes());
            hash.update(bytes);
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
