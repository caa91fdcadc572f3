//! `config.json` and `generation_config.json` as Hugging Face transformers reads and writes them.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::LlamaConfig;
use crate::error::{Error, Result};
use crate::files;

impl LlamaConfig {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Input`] naming the file and the first field that
    /// smolter's Llama does not have: a wrong value would train or answer silently wrong.
    pub fn from_hf_json(path: &Path) -> Result<Self> {
        let text = files::read_text(path, files::SETTINGS)?;
        Self::from_hf_str(&text).map_err(|why| Error::input(format!("{}: {why}", path.display())))
    }

    fn from_hf_str(text: &str) -> std::result::Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        let fields = json.as_object().ok_or("not a JSON object")?;
        refuse_unsupported(fields)?;

        let size = |key: &str| need(get_size(fields, key)?, key);
        let hidden_size = size("hidden_size")?;
        let num_attention_heads = size("num_attention_heads")?;
        let head_dim = match get_size(fields, "head_dim")? {
            Some(dim) => dim,
            None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
                hidden_size / num_attention_heads
            }
            None => {
                return Err(format!(
                    "hidden_size {hidden_size} is not a multiple of num_attention_heads {num_attention_heads}; \
                     give head_dim"
                ));
            }
        };
        // Version 5 of transformers keeps the base in `rope_parameters`, version 4 beside it.
        let nested = fields.get("rope_parameters").and_then(Value::as_object);
        let nested = nested.map_or(Ok(None), |rope| get_number(rope, "rope_theta"))?;
        let rope_theta = match (nested, get_number(fields, "rope_theta")?) {
            (Some(one), Some(other)) if one != other => {
                return Err(format!("rope_theta is {other}, but rope_parameters says {one}"));
            }
            (one, other) => one.or(other).unwrap_or(10_000.0),
        };
        // Defaults of optional fields are those of transformers' LlamaConfig.
        let config = LlamaConfig {
            vocab_size: size("vocab_size")?,
            hidden_size,
            intermediate_size: size("intermediate_size")?,
            num_hidden_layers: size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: get_size(fields, "num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim,
            max_position_embeddings: get_size(fields, "max_position_embeddings")?.unwrap_or(2048),
            rope_theta,
            rms_norm_eps: get_number(fields, "rms_norm_eps")?.unwrap_or(1e-6),
            tie_word_embeddings: match fields.get("tie_word_embeddings") {
                None | Some(Value::Null) => false,
                Some(Value::Bool(tied)) => *tied,
                Some(other) => {
                    return Err(format!("tie_word_embeddings is {other}, but must be true or false"));
                }
            },
            initializer_std: get_number(fields, "initializer_range")?.unwrap_or(0.02),
            bos_token_id: get_token_id(fields, "bos_token_id", 1)?,
            eos_token_id: get_token_id(fields, "eos_token_id", 2)?,
        };
        match config.problem() {
            Some((field, why)) => Err(format!("{field} {why}")),
            None => Ok(config),
        }
    }

    /// The `config.json` of a model folder; `dtype` is that of its weights, such as `float32` or `bfloat16`.
    ///
    /// Holds the field names of transformers 4; version 5 reads them as well.
    pub fn to_hf_json(&self, dtype: &str) -> String {
        pretty(&json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_std,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": null,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        }))
    }

    /// A `config.json` with all that it holds but for the weights' type, which becomes `dtype`, such as `bfloat16`.
    ///
    /// # Errors
    /// What is wrong, if `text` is not a JSON object.
    pub fn hf_json_with_dtype(text: &str, dtype: &str) -> std::result::Result<String, String> {
        let mut json: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        let fields = json.as_object_mut().ok_or("not a JSON object")?;
        // Version 5 of transformers writes `dtype`, version 4 `torch_dtype`.
        let keys = ["torch_dtype", "dtype"].into_iter().filter(|key| fields.contains_key(*key));
        let keys: Vec<&str> = keys.collect();
        for key in if keys.is_empty() { vec!["torch_dtype"] } else { keys } {
            fields.insert(key.into(), dtype.into());
        }
        Ok(pretty(&json))
    }

    /// The `generation_config.json` of a model folder.
    pub fn to_generation_json(&self) -> String {
        pretty(&json!({
            "_from_model_config": true,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
        }))
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Fields that change nothing about the forward or backward pass.
const METADATA: [&str; 14] = [
    "torch_dtype",
    "dtype",
    "transformers_version",
    "transformers.js_config",
    "use_cache",
    "pad_token_id",
    "is_llama_config",
    "attn_implementation",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "is_decoder",
    "name_or_path",
    "chunk_size_feed_forward",
];

/// Fields that [`LlamaConfig::from_hf_str`] reads.
const READ: [&str; 15] = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rope_theta",
    "rope_parameters",
    "rms_norm_eps",
    "tie_word_embeddings",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
];

/// Goes through all fields, so that one that smolter has never heard of is refused too.
fn refuse_unsupported(fields: &Map<String, Value>) -> std::result::Result<(), String> {
    match fields.get("model_type") {
        Some(Value::String(name)) if name == "llama" => {}
        Some(other) => return Err(format!("model_type is {other}, but only \"llama\" can be loaded")),
        None => return Err("model_type is missing, so this is not a Hugging Face model configuration".into()),
    }
    for (key, value) in fields {
        let fits = match key.as_str() {
            _ if value.is_null() => true,
            "model_type" => true,
            "architectures" => *value == json!(["LlamaForCausalLM"]),
            "hidden_act" => *value == json!("silu"),
            "attention_bias" | "mlp_bias" | "rope_interleaved" => *value == json!(false),
            "pretraining_tp" => *value == json!(1),
            "attention_dropout" => value.as_f64() == Some(0.0),
            "rope_parameters" => is_plain_rope(value, true),
            "rope_scaling" => is_plain_rope(value, false),
            name => name.starts_with('_') || METADATA.contains(&name) || READ.contains(&name),
        };
        if !fits {
            return Err(format!("'{key}' is {value}, which smolter's Llama does not have"));
        }
    }
    Ok(())
}

/// Whether an object about rotary positions asks for no scaling; a base may stand in it where it is read.
fn is_plain_rope(value: &Value, with_base: bool) -> bool {
    let plain = |(key, value): (&String, &Value)| match key.as_str() {
        "rope_theta" => with_base,
        "rope_type" | "type" => *value == json!("default"),
        _ => false,
    };
    value.as_object().is_some_and(|fields| fields.iter().all(plain))
}

fn need<T>(value: Option<T>, key: &str) -> std::result::Result<T, String> {
    value.ok_or_else(|| format!("'{key}' is missing"))
}

fn get_size(fields: &Map<String, Value>, key: &str) -> std::result::Result<Option<usize>, String> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => Err(format!("{key} is {value}, but must be a whole number")),
        },
    }
}

fn get_number(fields: &Map<String, Value>, key: &str) -> std::result::Result<Option<f64>, String> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(x) => Ok(Some(x)),
            None => Err(format!("{key} is {value}, but must be a number")),
        },
    }
}

fn get_token_id(
    fields: &Map<String, Value>,
    key: &str,
    default: u32,
) -> std::result::Result<Option<u32>, String> {
    match fields.get(key) {
        None => Ok(Some(default)),
        Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(format!("{key} is {value}, but must be one token id")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `config.json` of SmolLM2-135M with one field changed, or added.
    fn with(key: &str, value: Value) -> std::result::Result<LlamaConfig, String> {
        let mut json: Value =
            serde_json::from_str(&LlamaConfig::smollm2_135m().to_hf_json("bfloat16")).unwrap();
        json[key] = value;
        LlamaConfig::from_hf_str(&json.to_string())
    }

    #[test]
    fn config_json_round_trips() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let mut config = LlamaConfig::smollm2_360m();
        config.bos_token_id = None;
        std::fs::write(&path, config.to_hf_json("float32")).unwrap();
        assert_eq!(LlamaConfig::from_hf_json(&path).unwrap(), config);
    }

    #[test]
    fn released_config_with_its_metadata_loads() {
        // Field names as in the released SmolLM2 folders, values shortened.
        let text = r#"{"_name_or_path": "x", "architectures": ["LlamaForCausalLM"], "attention_bias": false,
            "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
            "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 160,
            "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
            "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "pretraining_tp": 1,
            "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null, "rope_theta": 130000,
            "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.42.3",
            "transformers.js_config": {"dtype": "q4"}, "use_cache": true, "vocab_size": 100}"#;
        let config = LlamaConfig::from_hf_str(text).unwrap();
        assert_eq!((config.head_dim, config.rope_theta), (16, 130_000.0));
        assert_eq!((config.bos_token_id, config.eos_token_id), (Some(1), Some(2)));
    }

    #[test]
    fn rope_base_may_be_nested() {
        let nested = json!({"rope_type": "default", "rope_theta": 1e4});
        assert_eq!(with("rope_parameters", nested).unwrap().rope_theta, 1e4);
        let mut json: Value =
            serde_json::from_str(&LlamaConfig::smollm2_135m().to_hf_json("bfloat16")).unwrap();
        json.as_object_mut().unwrap().remove("rope_theta");
        json["rope_parameters"] = json!({"rope_theta": 5e4});
        assert_eq!(LlamaConfig::from_hf_str(&json.to_string()).unwrap().rope_theta, 5e4);
    }

    #[test]
    fn only_the_type_changes_with_the_type() {
        let typed = |text: &str| LlamaConfig::hf_json_with_dtype(text, "float16").unwrap();
        assert_eq!(typed(r#"{"a": [1], "torch_dtype": "x"}"#), typed(r#"{"a": [1]}"#));
        assert_eq!(typed(r#"{"dtype": 1, "b": null}"#), "{\n  \"dtype\": \"float16\",\n  \"b\": null\n}\n");
        assert!(LlamaConfig::hf_json_with_dtype("[]", "float16").is_err());
    }

    #[test]
    fn unsupported_fields_are_refused_by_name() {
        for (key, value) in [
            ("model_type", json!("mistral")),
            ("architectures", json!(["LlamaForSequenceClassification"])),
            ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})),
            ("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4})),
            ("rope_parameters", json!({"rope_theta": 5e4})),
            ("rope_scaling", json!({"rope_type": "default", "rope_theta": 5e4})),
            ("attention_bias", json!(true)),
            ("mlp_bias", json!(true)),
            ("hidden_act", json!("gelu")),
            ("quantization_config", json!({"bits": 4})),
            ("pretraining_tp", json!(2)),
            ("rope_interleaved", json!(true)),
            ("attention_dropout", json!(0.1)),
            ("sliding_window", json!(4096)),
            ("vocab_size", json!("many")),
            ("vocab_size", json!(-1)),
            ("hidden_size", json!(null)),
            ("head_dim", json!(63)),
            ("num_key_value_heads", json!(4)),
            ("eos_token_id", json!([0, 2])),
            ("bos_token_id", json!(49_152)),
            ("rms_norm_eps", json!(0.0)),
            ("tie_word_embeddings", json!(1)),
        ] {
            let why = with(key, value.clone()).expect_err(&format!("{key} = {value}"));
            assert!(why.contains(key) && !why.contains('\n'), "{key}: {why}");
        }
    }

    #[test]
    fn a_file_that_is_no_configuration_is_an_input_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for text in ["", "[1]", "{}", "{\"model_type\": "] {
            std::fs::write(&path, text).unwrap();
            let error = LlamaConfig::from_hf_json(&path).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("config.json: "), "{error}");
        }
    }
}
