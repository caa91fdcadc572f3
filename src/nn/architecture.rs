//! What the rest of smolter needs to know of a model, whatever its architecture.

use super::llama::Llama;
use super::{LlamaConfig, Lora};
use crate::error::Result;
use crate::graph::{Graph, ParameterSpec};
use std::path::Path;

/// An architecture with its sizes.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// A Llama-style decoder.
    Llama(LlamaConfig),
}

/// A model's shape: an architecture, and the adapters on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// What the adapters are on, or all there is.
    pub base: Base,
    /// The adapters; with them, only they are trained.
    pub lora: Option<Lora>,
}

impl From<LlamaConfig> for Architecture {
    fn from(config: LlamaConfig) -> Self {
        Architecture { base: Base::Llama(config), lora: None }
    }
}

impl Architecture {
    /// The preset of that name, one of [`PRESETS`](super::config::PRESETS).
    pub fn preset(name: &str) -> Option<Self> {
        LlamaConfig::preset(name).map(Self::from)
    }

    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Input`](crate::Error::Input) naming the
    /// file and the first field that smolter does not have.
    pub fn from_hf_json(path: &Path) -> Result<Self> {
        LlamaConfig::from_hf_json(path).map(Self::from)
    }

    /// The `config.json` of a model folder; `dtype` is that of its weights, such as `float32` or `bfloat16`.
    pub fn to_hf_json(&self, dtype: &str) -> String {
        let Base::Llama(config) = &self.base;
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
        let Base::Llama(config) = &self.base;
        config.to_generation_json()
    }

    /// The same with other adapters, or without.
    pub fn with_lora(self, lora: Option<Lora>) -> Self {
        Architecture { lora, ..self }
    }

    /// Every parameter: those of the base in the order of the forward pass, then the adapters. All are trained and decay,
    /// as SmolLM2's, but where there are adapters, only these.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let mut all = self.base_parameters();
        let adapters = self.lora.as_ref().map(|lora| lora.parameters(&all));
        all.extend(adapters.into_iter().flatten());
        all
    }

    fn base_parameters(&self) -> Vec<ParameterSpec> {
        let Base::Llama(config) = &self.base;
        let mut all = config.parameters();
        all.iter_mut().for_each(|spec| spec.trained = self.lora.is_none());
        all
    }

    /// Hugging Face key and shape of every parameter of the base, in the same order.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.base_parameters().into_iter().map(|spec| (spec.name, spec.shape)).collect()
    }

    /// Name and shape of every parameter that is trained, in the same order.
    pub fn trained_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let trained = self.parameters().into_iter().filter(|spec| spec.trained);
        trained.map(|spec| (spec.name, spec.shape)).collect()
    }

    /// Number of values in all parameters of the base; a tied embedding counts once.
    pub fn num_parameters(&self) -> u64 {
        count(&self.shapes())
    }

    /// Number of values that are trained.
    pub fn num_trained(&self) -> u64 {
        count(&self.trained_shapes())
    }

    /// V, the number of token ids.
    pub fn vocab_size(&self) -> usize {
        let Base::Llama(config) = &self.base;
        config.vocab_size
    }

    /// Longest sequence, in tokens.
    pub fn positions(&self) -> usize {
        let Base::Llama(config) = &self.base;
        config.max_position_embeddings
    }

    /// Bytes that a token's keys and values take in a cache.
    pub fn cache_bytes(&self) -> u64 {
        let Base::Llama(config) = &self.base;
        let LlamaConfig { num_hidden_layers, num_key_value_heads, head_dim, .. } = *config;
        (4 * 2 * num_hidden_layers * num_key_value_heads * head_dim) as u64
    }

    /// Id that begins a document, if any.
    pub fn bos_token_id(&self) -> Option<u32> {
        let Base::Llama(config) = &self.base;
        config.bos_token_id
    }

    /// Id that ends a document, if any.
    pub fn eos_token_id(&self) -> Option<u32> {
        let Base::Llama(config) = &self.base;
        config.eos_token_id
    }

    /// Adds the decoder with all its parameters to a graph.
    pub fn decoder(&self, graph: &mut Graph) -> Llama {
        let Base::Llama(config) = &self.base;
        let mut decoder = Llama::new(graph, config, self.base_parameters());
        if let Some(lora) = &self.lora {
            decoder.adapt(graph, lora);
        }
        decoder
    }
}

fn count(shapes: &[(String, Vec<usize>)]) -> u64 {
    shapes.iter().map(|(_, shape)| shape.iter().map(|&d| d as u64).product::<u64>()).sum()
}
