//! What the rest of smolter needs to know of a model, whatever its architecture.

use super::LlamaConfig;
use super::llama::Llama;
use crate::error::Result;
use crate::graph::{Graph, ParameterSpec};
use std::path::Path;

/// An architecture with its sizes.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// A Llama-style decoder.
    Llama(LlamaConfig),
}

impl From<LlamaConfig> for Architecture {
    fn from(config: LlamaConfig) -> Self {
        Architecture::Llama(config)
    }
}

impl Architecture {
    /// The preset of that name, one of [`PRESETS`](super::config::PRESETS).
    pub fn preset(name: &str) -> Option<Self> {
        LlamaConfig::preset(name).map(Architecture::Llama)
    }

    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Input`](crate::Error::Input) naming the
    /// file and the first field that smolter does not have.
    pub fn from_hf_json(path: &Path) -> Result<Self> {
        LlamaConfig::from_hf_json(path).map(Architecture::Llama)
    }

    /// The `config.json` of a model folder; `dtype` is that of its weights, such as `float32` or `bfloat16`.
    pub fn to_hf_json(&self, dtype: &str) -> String {
        let Architecture::Llama(config) = self;
        config.to_hf_json(dtype)
    }

    /// A `config.json` with all that it holds but for the weights' type, which becomes `dtype`.
    ///
    /// # Errors
    /// What is wrong, if `text` is not a JSON object.
    pub fn hf_json_with_dtype(text: &str, dtype: &str) -> std::result::Result<String, String> {
        LlamaConfig::hf_json_with_dtype(text, dtype)
    }

    /// The `generation_config.json` of a model folder.
    pub fn to_generation_json(&self) -> String {
        let Architecture::Llama(config) = self;
        config.to_generation_json()
    }

    /// Every parameter, in the order of the forward pass; all are trained and decay, as SmolLM2's.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let Architecture::Llama(config) = self;
        config.parameters()
    }

    /// Hugging Face key and shape of every parameter, in the same order.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.parameters().into_iter().map(|spec| (spec.name, spec.shape)).collect()
    }

    /// Number of values in all parameters; a tied embedding counts once.
    pub fn num_parameters(&self) -> u64 {
        self.shapes().iter().map(|(_, shape)| shape.iter().map(|&d| d as u64).product::<u64>()).sum()
    }

    /// V, the number of token ids.
    pub fn vocab_size(&self) -> usize {
        let Architecture::Llama(config) = self;
        config.vocab_size
    }

    /// Longest sequence, in tokens.
    pub fn positions(&self) -> usize {
        let Architecture::Llama(config) = self;
        config.max_position_embeddings
    }

    /// Id that begins a document, if any.
    pub fn bos_token_id(&self) -> Option<u32> {
        let Architecture::Llama(config) = self;
        config.bos_token_id
    }

    /// Id that ends a document, if any.
    pub fn eos_token_id(&self) -> Option<u32> {
        let Architecture::Llama(config) = self;
        config.eos_token_id
    }

    /// Adds the decoder with all its parameters to a graph.
    pub fn decoder(&self, graph: &mut Graph) -> Llama {
        let Architecture::Llama(config) = self;
        Llama::new(graph, config, config.parameters())
    }
}
