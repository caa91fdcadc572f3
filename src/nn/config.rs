//! The shape of a Llama model.

mod hf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::{Initial, ParameterSpec};

/// A Llama-style decoder: pre-norm RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.
///
/// Fields carry their Hugging Face `config.json` names, except [`initializer_std`](Self::initializer_std).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaConfig {
    /// Number of token ids, V.
    pub vocab_size: usize,
    /// Width of the residual stream, C.
    pub hidden_size: usize,
    /// Width of the SwiGLU gate and up projections.
    pub intermediate_size: usize,
    /// Number of decoder blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; query head h reads kv head h / (heads / kv heads).
    pub num_key_value_heads: usize,
    /// Width of one head, in elements.
    pub head_dim: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Epsilon inside the root of RMSNorm.
    pub rms_norm_eps: f64,
    /// Whether the output head is the embedding matrix itself.
    pub tie_word_embeddings: bool,
    /// Standard deviation of the initial weights; `initializer_range` in `config.json`.
    ///
    /// Output projections (`o_proj`, `down_proj`) start at this over sqrt(2 * layers).
    pub initializer_std: f64,
    /// Id that begins a document, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// Id that ends a document, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
}

/// Names that [`LlamaConfig::preset`] knows.
pub const PRESETS: [&str; 3] = ["smollm2-135m", "smollm2-360m", "smollm2-1.7b"];

impl LlamaConfig {
    /// SmolLM2-135M as it is pretrained: 2048 positions, RoPE base 10,000 (arXiv 2502.02737, table 6, and
    /// config_smollm2_135M.yaml of huggingface/smollm).
    pub fn smollm2_135m() -> Self {
        Self::smollm2(576, 1536, 30, 9, 3, 0.041_666_7)
    }

    /// SmolLM2-360M as it is pretrained; see [`Self::smollm2_135m`].
    pub fn smollm2_360m() -> Self {
        Self::smollm2(960, 2560, 32, 15, 5, 0.03227)
    }

    /// SmolLM2-1.7B as it is pretrained; see [`Self::smollm2_135m`].
    pub fn smollm2_1_7b() -> Self {
        Self::smollm2(2048, 8192, 24, 32, 32, 0.02)
    }

    /// The preset of that name, one of [`PRESETS`].
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "smollm2-135m" => Some(Self::smollm2_135m()),
            "smollm2-360m" => Some(Self::smollm2_360m()),
            "smollm2-1.7b" => Some(Self::smollm2_1_7b()),
            _ => None,
        }
    }

    fn smollm2(hidden: usize, ffn: usize, layers: usize, heads: usize, kv_heads: usize, std: f64) -> Self {
        LlamaConfig {
            vocab_size: 49_152,
            hidden_size: hidden,
            intermediate_size: ffn,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: 64,
            max_position_embeddings: 2048,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            initializer_std: std,
            bos_token_id: Some(0),
            eos_token_id: Some(0),
        }
    }

    /// The first field that no model can have, and why.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        self.problems().into_iter().next()
    }

    /// The fields that no model can have, and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        // The largest values keep every product of sizes below 2^63.
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 10),
            ("head_dim", self.head_dim, 1 << 10),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 30),
        ];
        for (name, size, largest) in sizes {
            if !(1..=largest).contains(&size) {
                found.push((name, format!("is {size}, but must be from 1 to {largest}")));
            }
        }
        for (name, value) in [
            ("rope_theta", self.rope_theta),
            ("rms_norm_eps", self.rms_norm_eps),
            ("initializer_std", self.initializer_std),
        ] {
            // Kernels take it as f32.
            if !(value as f32).is_finite() || value as f32 <= 0.0 {
                found.push((name, format!("is {value}, but must be a positive number of single precision")));
            }
        }
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if kv_heads > 0 && !heads.is_multiple_of(kv_heads) {
            found.push(("num_key_value_heads", format!("is {kv_heads}, but must divide the {heads} heads")));
        }
        if !self.head_dim.is_multiple_of(2) {
            let why = format!("is {}, but must be even: RoPE turns pairs of elements", self.head_dim);
            found.push(("head_dim", why));
        }
        for (name, id) in [("bos_token_id", self.bos_token_id), ("eos_token_id", self.eos_token_id)] {
            if let Some(id) = id.filter(|&id| id as usize >= self.vocab_size) {
                found.push((name, format!("is {id}, but must be below vocab_size {}", self.vocab_size)));
            }
        }
        found
    }

    /// Checks that the fields fit together.
    ///
    /// # Errors
    /// [`Error::Input`] naming the first field that does not.
    pub fn validate(&self) -> Result<()> {
        match self.problem() {
            Some((field, why)) => Err(Error::input(format!("model: {field} {why}"))),
            None => Ok(()),
        }
    }

    /// Every parameter, in the order of the forward pass: embedding; per block input norm, q, k, v, o,
    /// post-attention norm, gate, up, down; final norm; `lm_head` unless tied.
    ///
    /// Matrices are `[out, in]`, row-major. They begin as nanotron draws them (its scaling/parametrization.py):
    /// Normal(0, std), but those that write to the residual stream with std / sqrt(2 layers); norms with 1. All are
    /// trained and decay, as SmolLM2's do.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        let q = self.num_attention_heads * self.head_dim;
        let kv = self.num_key_value_heads * self.head_dim;
        let parameter = |name: String, shape: Vec<usize>, initial: Initial| ParameterSpec {
            name,
            shape,
            initial,
            trained: true,
            decayed: true,
        };
        let std = self.initializer_std;
        let matrix = Initial::Normal(std);
        let residual = Initial::Normal(std / (2.0 * self.num_hidden_layers as f64).sqrt());
        let vocabulary = vec![self.vocab_size, hidden];
        let mut all = vec![parameter("model.embed_tokens.weight".into(), vocabulary.clone(), matrix)];
        for layer in 0..self.num_hidden_layers {
            let mut add = |name: &str, shape: Vec<usize>, initial: Initial| {
                all.push(parameter(format!("model.layers.{layer}.{name}.weight"), shape, initial));
            };
            add("input_layernorm", vec![hidden], Initial::Ones);
            add("self_attn.q_proj", vec![q, hidden], matrix);
            add("self_attn.k_proj", vec![kv, hidden], matrix);
            add("self_attn.v_proj", vec![kv, hidden], matrix);
            add("self_attn.o_proj", vec![hidden, q], residual);
            add("post_attention_layernorm", vec![hidden], Initial::Ones);
            add("mlp.gate_proj", vec![ffn, hidden], matrix);
            add("mlp.up_proj", vec![ffn, hidden], matrix);
            add("mlp.down_proj", vec![hidden, ffn], residual);
        }
        all.push(parameter("model.norm.weight".into(), vec![hidden], Initial::Ones));
        if !self.tie_word_embeddings {
            all.push(parameter("lm_head.weight".into(), vocabulary, matrix));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Architecture;

    #[test]
    fn presets_have_the_published_sizes() {
        let sizes = [(134_515_008, 272), (361_821_120, 290), (1_711_376_384, 218)];
        for (name, (parameters, tensors)) in PRESETS.iter().zip(sizes) {
            let config = LlamaConfig::preset(name).unwrap();
            config.validate().unwrap();
            assert_eq!(config.parameters().len(), tensors, "{name}");
            assert_eq!(Architecture::from(config).num_parameters(), parameters, "{name}");
        }
    }

    #[test]
    fn parameters_follow_the_forward_pass() {
        let mut config = LlamaConfig::smollm2_135m();
        config.tie_word_embeddings = false;
        let all = Architecture::from(config).shapes();
        assert_eq!(all[0], ("model.embed_tokens.weight".into(), vec![49_152, 576]));
        assert_eq!(all[3], ("model.layers.0.self_attn.k_proj.weight".into(), vec![192, 576]));
        assert_eq!(all[9], ("model.layers.0.mlp.down_proj.weight".into(), vec![576, 1536]));
        assert_eq!(all[10].0, "model.layers.1.input_layernorm.weight");
        assert_eq!(all[271], ("model.norm.weight".into(), vec![576]));
        assert_eq!(all[272], ("lm_head.weight".into(), vec![49_152, 576]));
    }
}
