//! A model as one GGUF file of llama.cpp's `llama` architecture.

use std::path::Path;

use super::conversion::Conversion;
use super::vocabulary;
use crate::checkpoint::gguf::{Tensor, Type, Value, write_pieces};
use crate::checkpoint::{Dtype, write_file};
use crate::error::Result;
use crate::nn::{Base, LlamaConfig};

/// Names inside a block, Hugging Face's and llama.cpp's (MODEL_TENSOR_NAMES of gguf-py).
const BLOCK: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Version of the quantised types' layout (GGML_QNT_VERSION of ggml.h).
const QUANTIZATION_VERSION: u32 = 2;

/// Writes the file; returns the number of tensors, and of files.
pub(super) fn write(weights: &mut Conversion, path: &Path, ty: Type, name: &str) -> Result<(usize, usize)> {
    let model = weights.model;
    let Base::Llama(config) = &model.architecture.base;
    let mut metadata = describe(config, ty, name);
    metadata.extend(vocabulary::read(&model.path, &model.architecture)?);
    let parameters = model.architecture.shapes();
    let tensors: Vec<Tensor> = parameters.iter().map(|(name, shape)| tensor(name, shape, ty)).collect();
    write_file(path, |file| {
        write_pieces(file, path, &metadata, &tensors, |i, put| {
            let (name, shape) = &parameters[i];
            let (from, bytes) = model.float(name, shape)?;
            let row = shape.last().expect("no weight is a scalar") * from.size();
            let heads = if is_rotated(name) { Some(config.head_dim) } else { None };
            for target in 0..bytes.len() / row {
                let start = row * heads.map_or(target, |head_dim| interleaved(target, head_dim));
                weights.put(name, from, &bytes[start..start + row], tensors[i].ty, put)?;
            }
            Ok(())
        })
    })?;
    Ok((tensors.len(), 1))
}

fn tensor(name: &str, shape: &[usize], ty: Type) -> Tensor {
    // llama.cpp keeps vectors, which are norms, in f32.
    let ty =
        if shape.len() == 1 { Type::Plain(Dtype::F32) } else { ty.for_rows(*shape.last().unwrap_or(&1)) };
    Tensor { name: llama_cpp_name(name), shape: shape.to_vec(), ty }
}

fn llama_cpp_name(name: &str) -> String {
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    let within = stem.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let translated = match (stem, within) {
        ("model.embed_tokens", _) => "token_embd".to_string(),
        ("model.norm", _) => "output_norm".to_string(),
        ("lm_head", _) => "output".to_string(),
        (_, Some((layer, part))) => {
            let found = BLOCK.iter().find(|(ours, _)| *ours == part);
            format!("blk.{layer}.{}", found.unwrap_or_else(|| panic!("'{name}' has no name in llama.cpp")).1)
        }
        _ => panic!("'{name}' has no name in llama.cpp"),
    };
    translated + ".weight"
}

/// Whether rotary positions act on the rows of this weight.
fn is_rotated(name: &str) -> bool {
    name.ends_with(".q_proj.weight") || name.ends_with(".k_proj.weight")
}

/// The row that becomes row `target`: llama.cpp turns the pairs (2j, 2j + 1) of a head, Hugging Face's weights are for
/// the pairs (j, j + head_dim / 2) (LlamaModel.permute of convert_hf_to_gguf.py).
fn interleaved(target: usize, head_dim: usize) -> usize {
    let (head, within) = (target / head_dim, target % head_dim);
    head * head_dim + (within % 2) * (head_dim / 2) + within / 2
}

/// What llama.cpp must know of the model besides its vocabulary.
fn describe(config: &LlamaConfig, ty: Type, name: &str) -> Vec<(String, Value)> {
    // `llama_ftype` of llama.h.
    let file_type = match ty {
        Type::Plain(Dtype::F32) => 0,
        Type::Plain(Dtype::F16) => 1,
        Type::Q8_0 => 7,
        Type::Plain(Dtype::Bf16) => 32,
    };
    let text = |text: &str| Value::Text(text.into());
    // `LlamaConfig::problem` keeps all sizes far below 2^32.
    let size = |size: usize| Value::U32(size as u32);
    let entries = [
        ("general.architecture", text("llama")),
        ("general.name", text(name)),
        ("general.file_type", Value::U32(file_type)),
        ("general.quantization_version", Value::U32(QUANTIZATION_VERSION)),
        ("llama.vocab_size", size(config.vocab_size)),
        ("llama.context_length", size(config.max_position_embeddings)),
        ("llama.embedding_length", size(config.hidden_size)),
        ("llama.block_count", size(config.num_hidden_layers)),
        ("llama.feed_forward_length", size(config.intermediate_size)),
        ("llama.attention.head_count", size(config.num_attention_heads)),
        ("llama.attention.head_count_kv", size(config.num_key_value_heads)),
        ("llama.attention.key_length", size(config.head_dim)),
        ("llama.attention.value_length", size(config.head_dim)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps as f32)),
        ("llama.rope.dimension_count", size(config.head_dim)),
        ("llama.rope.freq_base", Value::F32(config.rope_theta as f32)),
    ];
    entries.map(|(key, value)| (key.to_string(), value)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_a_name() {
        let mut config = LlamaConfig::smollm2_135m();
        config.tie_word_embeddings = false;
        let names: Vec<String> = config.parameters().iter().map(|spec| llama_cpp_name(&spec.name)).collect();
        assert_eq!(names[0], "token_embd.weight");
        assert_eq!(names[1], "blk.0.attn_norm.weight");
        assert_eq!(names[270], "blk.29.ffn_down.weight");
        assert_eq!(names[271..], ["output_norm.weight", "output.weight"]);
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn pairs_come_side_by_side() {
        let order: Vec<usize> = (0..16).map(|row| interleaved(row, 8)).collect();
        assert_eq!(order, [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]);
    }

    #[test]
    fn norms_and_odd_rows_have_their_own_types() {
        let ty = |name: &str, shape: &[usize], ty| tensor(name, shape, ty).ty;
        assert_eq!(ty("model.norm.weight", &[64], Type::Q8_0), Type::Plain(Dtype::F32));
        assert_eq!(ty("lm_head.weight", &[9, 64], Type::Q8_0), Type::Q8_0);
        assert_eq!(ty("lm_head.weight", &[64, 9], Type::Q8_0), Type::Plain(Dtype::F16));
        assert_eq!(ty("lm_head.weight", &[64, 9], Type::Plain(Dtype::Bf16)), Type::Plain(Dtype::Bf16));
    }
}
