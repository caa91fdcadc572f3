//! Model folders, as Hugging Face lays them out: fetched, opened and checked, and written in several formats.
//!
//! A folder holds `config.json`, `model.safetensors` (or shards with `model.safetensors.index.json`) and the tokenizer's
//! files; every checkpoint of smolter is one. Where it has an adapter, the model is the weights with that merged.

pub mod adapter;
mod conversion;
pub mod export;
mod generation;
mod gguf;
mod hf;
mod run_folder;
mod vocabulary;

use std::path::{Path, PathBuf};

use crate::checkpoint::{TensorFile, folder, verify_model};
use crate::error::{Error, Result};
use crate::nn::Architecture;
use crate::tokenizer::Tokenizer;
use adapter::Adapter;

/// An open model folder: its shape, and exactly the tensors that this shape has.
pub struct ModelFolder {
    /// The folder: the one that was named, or a checkpoint in the run folder that was named.
    pub path: PathBuf,
    /// Architecture and sizes, from `config.json`.
    pub architecture: Architecture,
    /// The weights without the adapter; each of the architecture's parameters is there in its shape.
    pub tensors: TensorFile,
    /// The adapter on it, such as that of a checkpoint of a stage with LoRA.
    pub adapter: Option<Adapter>,
    /// Tokens that end a text, from `generation_config.json` or else `config.json`.
    pub end_tokens: Vec<u32>,
    /// What the user should know, such as a checkpoint that was skipped because it is damaged.
    pub warnings: Vec<String>,
}

impl ModelFolder {
    /// Opens a model folder, or the newest whole checkpoint of a run folder.
    ///
    /// The files of a checkpoint are read once, and compared with what was written. Of other folders no weight is read
    /// yet, except to compare `lm_head.weight` with the embedding where the configuration ties them.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file and the field, or the tensor that is missing, of another shape, or unknown to
    /// the model; [`Error::Damaged`] naming a file that is not whole; [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let (path, warnings) = locate(path)?;
        let architecture = Architecture::from_hf_json(&path.join("config.json"))?;
        let tensors = TensorFile::open(&path)?;
        tensors.expect(&architecture.shapes())?;
        refuse_unknown(&architecture, &tensors, &path)?;
        let end_tokens = match generation::end_tokens(&path, architecture.vocab_size())? {
            Some(ids) => ids,
            None => architecture.eos_token_id().into_iter().collect(),
        };
        let own = path.join(adapter::FOLDER);
        let adapter =
            if adapter::is_adapter(&own) { Some(Adapter::open(&own, &architecture)?) } else { None };
        Ok(ModelFolder { path, architecture, tensors, adapter, end_tokens, warnings })
    }

    /// Requires that the model has an embedding for every token that the tokenizer makes.
    ///
    /// # Errors
    /// [`Error::Input`] naming the folder.
    pub fn expect_vocabulary(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (ids, vocab) = (tokenizer.vocab_size(), self.architecture.vocab_size());
        if ids <= vocab {
            return Ok(());
        }
        Err(Error::input(format!(
            "{}: it has token ids up to {}, but config.json a vocab_size of {vocab}: it is another model's",
            self.path.join("tokenizer.json").display(),
            ids - 1
        )))
    }
}

/// The model folder that `path` means: itself, or the newest whole checkpoint of its run; and warnings about newer
/// checkpoints that are damaged.
///
/// # Errors
/// [`Error::Input`] if it is a file, no model, or a run without a checkpoint; [`Error::Damaged`] naming a file of a checkpoint
/// that is not whole.
pub fn locate(path: &Path) -> Result<(PathBuf, Vec<String>)> {
    if path.is_file() {
        let why = "is a file, but a folder with config.json and model.safetensors is needed";
        return Err(Error::input(format!("{}: {why}", path.display())));
    }
    if path.join("config.json").exists() {
        if path.join("trainer").is_dir() {
            verify_model(path).map_err(|error| match error {
                Error::Damaged { path: file, what } => {
                    let way = "to use the model as it is, copy its folder without trainer/";
                    Error::Damaged { path: file, what: format!("{what}; take another checkpoint, or {way}") }
                }
                other => other,
            })?;
        }
        return Ok((path.into(), Vec::new()));
    }
    if adapter::is_adapter(path) {
        let why = "is an adapter: give the folder of its model, and this one with --adapter";
        return Err(Error::input(format!("{}: {why}", path.display())));
    }
    let Some(run) = run_folder::of(path) else {
        let needed = "no model: that is a folder with config.json, model.safetensors and tokenizer.json, a run folder, or \
                      a checkpoint";
        return Err(Error::input(format!("{}: {needed}", path.display())));
    };
    match folder::newest_whole(&run)? {
        Some((checkpoint, warnings)) => Ok((checkpoint.path, warnings)),
        None => Err(run_folder::no_checkpoint(&run)),
    }
}

/// A tensor that the model does not use, such as a bias, means that the weights are another model's.
fn refuse_unknown(architecture: &Architecture, tensors: &TensorFile, path: &Path) -> Result<()> {
    let parameters = architecture.shapes();
    let known: std::collections::HashSet<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    for name in tensors.names().filter(|name| !known.contains(name)) {
        if name == HEAD {
            // Some tools save a tied head a second time.
            let (embedding, shape) = &parameters[0];
            if tensors.float(HEAD, shape)? != tensors.float(embedding, shape)? {
                let why = "differs from the embedding, though config.json ties them; \
                           set tie_word_embeddings to false if it is a head of its own";
                return Err(Error::input(format!("{}: tensor '{HEAD}' {why}", path.display())));
            }
        } else if !name.ends_with(".rotary_emb.inv_freq") {
            // The frequencies that old versions of transformers saved follow from rope_theta.
            let name = name.escape_debug();
            let why = "is not part of the model that config.json describes, so the result would be wrong";
            return Err(Error::input(format!("{}: tensor '{name}' {why}", path.display())));
        }
    }
    Ok(())
}

/// The output head's name.
const HEAD: &str = "lm_head.weight";
