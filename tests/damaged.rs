//! Damaged model folders given to the program: each is refused in one line that names file and tensor, with exit code 2.

use crate::support::{copy, run, smolter};
use serde_json::{Map, Value, json};
use smolter::tokenizer::{Role, Tokenizer};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama_grouped");
const TENSOR: &str = "model.layers.0.self_attn.q_proj.weight";

/// A copy of the fixture with a tokenizer, to be damaged.
struct Model(TempDir);

impl Model {
    fn new() -> Model {
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy(Path::new(FIXTURE), folder.path());
        let corpus = std::iter::repeat_n("a b c".to_string(), 3);
        let tokenizer = Tokenizer::train(corpus, 280, |_| ()).expect("a tokenizer");
        tokenizer.save(folder.path(), 64, Role::Base).expect("its files");
        Model(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Every command that loads the model must refuse it with these words, and leave nothing at its output.
    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let (model, out) = (self.0.path().to_string_lossy(), self.path("out"));
        let (out, input) = (out.to_string_lossy(), format!("{FIXTURE}/input.safetensors"));
        for command in [
            &["generate", &model, "--prompt", "a", "--device", "reference"] as &[&str],
            &["export", &model, "--out", &out],
            &[
                "debug",
                "forward",
                "--device",
                "reference",
                "--model",
                &model,
                "--input",
                &input,
                "--out",
                &out,
            ],
        ] {
            run(&mut smolter(command)).expect(2, words).is_one_line();
            assert!(!self.path("out").exists(), "{command:?} leaves an output");
        }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path("model.safetensors")).expect("weights")
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(self.path("model.safetensors"), bytes).expect("weights");
    }

    /// Changes the header of the weights; the data stay.
    fn change_header(&self, change: impl FnOnce(&mut Map<String, Value>)) {
        let bytes = self.bytes();
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let (header, data) = bytes[8..].split_at(length);
        let mut header = serde_json::from_slice(header).expect("a header");
        change(&mut header);
        let header = Value::Object(header).to_string();
        self.write(&[&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat());
    }

    fn change_json(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path(name);
        let mut json = serde_json::from_slice(&std::fs::read(&path).expect("JSON")).expect("JSON");
        change(&mut json);
        std::fs::write(path, json.to_string()).expect("JSON");
    }
}

#[test]
fn a_damaged_header_is_refused() {
    let whole = Model::new().bytes();
    let with_length = |length: u64| [&length.to_le_bytes(), &whole[8..]].concat();
    for (bytes, word) in [
        (with_length(u64::MAX), "18446744073709551615"),
        (with_length(0), "header"),
        (with_length(99), "header"),
        ([&whole[..8], b"[", &whole[9..]].concat(), "header"),
        ([&whole[..20], b"\xff", &whole[21..]].concat(), "header"),
        (whole[..7].to_vec(), "7 bytes"),
        (Vec::new(), "empty"),
        (whole[..whole.len() - 1].to_vec(), "tensor '"),
        ([&whole, b"!" as &[u8]].concat(), "1 bytes at its end"),
    ] {
        let model = Model::new();
        model.write(&bytes);
        model.refused(&["model.safetensors: damaged: ", word]);
    }
}

#[test]
fn a_lying_offset_is_refused_with_its_tensor() {
    for lie in [
        json!({"data_offsets": [0, 1u64 << 60]}),
        json!({"data_offsets": [8, 0]}),
        json!({"data_offsets": [0, 4096]}),
        json!({"data_offsets": [u64::MAX, u64::MAX]}),
        json!({"data_offsets": [-1, 4]}),
        json!({"data_offsets": 4}),
        json!({"shape": [1u64 << 40, 1u64 << 40]}),
        json!({"dtype": "F33"}),
    ] {
        let model = Model::new();
        model.change_header(|header| {
            let entry = header[TENSOR].as_object_mut().expect("an entry");
            entry.extend(lie.as_object().expect("fields").clone());
        });
        model.refused(&["model.safetensors: damaged: ", &format!("tensor '{TENSOR}'")]);
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let model = Model::new();
    model.change_header(|header| {
        let entry = header.remove(TENSOR).expect("an entry");
        header.insert("other".into(), entry);
    });
    model.refused(&[&format!("model.safetensors: tensor '{TENSOR}' is missing")]);
}

#[test]
fn a_tensor_of_another_shape_or_type_is_named() {
    for (key, value, words) in [
        ("shape", json!([16, 64]), ["has shape [16, 64]", "[32, 32] is needed"]),
        ("shape", json!([1024]), ["has shape [1024]", "[32, 32] is needed"]),
        ("dtype", json!("I32"), ["holds I32", "F32, F16 or BF16 is needed"]),
    ] {
        let model = Model::new();
        model.change_header(|header| header[TENSOR][key] = value);
        model.refused(&[&format!("model.safetensors: tensor '{TENSOR}'"), words[0], words[1]]);
    }
}

#[test]
fn a_configuration_of_another_model_is_refused() {
    for (key, value) in [
        ("rope_scaling", json!({"rope_type": "linear", "factor": 2.0})),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("hidden_act", json!("gelu")),
        ("model_type", json!("mistral")),
        ("quantization_config", json!({"bits": 4})),
        ("num_attention_heads", json!(0)),
        ("hidden_size", json!(1u64 << 63)),
        ("num_hidden_layers", json!("two")),
        ("rms_norm_eps", json!(1e300)),
    ] {
        let model = Model::new();
        model.change_json("config.json", |config| config[key] = value);
        model.refused(&["config.json: ", key]);
    }
    let model = Model::new();
    for text in [b"{" as &[u8], b"\xff\xfe", &b"[".repeat(1 << 20), b"[]", b""] {
        std::fs::write(model.path("config.json"), text).expect("a file");
        model.refused(&["config.json: not "]);
    }
}

#[test]
fn a_lying_index_is_refused() {
    let model = Model::new();
    std::fs::rename(model.path("model.safetensors"), model.path("one.safetensors")).expect("a shard");
    for (map, word) in [
        (json!({TENSOR: "two.safetensors"}), "two.safetensors"),
        (json!({TENSOR: "../one.safetensors"}), "../one.safetensors"),
        (json!({"other": "one.safetensors"}), "tensor 'other'"),
        (json!({TENSOR: 1}), "not a shard index"),
    ] {
        let index = json!({"weight_map": map}).to_string();
        std::fs::write(model.path("model.safetensors.index.json"), index).expect("an index");
        model.refused(&["model.safetensors.index.json: damaged: ", word]);
    }
}

#[test]
fn weights_that_are_not_finite_are_not_computed_with() {
    let model = Model::new();
    let mut bytes = model.bytes();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    model.write(&bytes);
    let path = model.0.path().to_string_lossy();
    let input = format!("{FIXTURE}/input.safetensors");
    let mut debug =
        smolter(&["debug", "forward", "--device", "reference", "--model", &path, "--input", &input]);
    run(debug.arg("--out").arg(model.path("out"))).expect(2, &["model.safetensors: tensor '", "holds NaN"]);
}

#[test]
fn a_damaged_tokenizer_is_refused() {
    let whole = std::fs::read_to_string(Model::new().path("tokenizer.json")).expect("a tokenizer");
    for (text, word) in [
        ("{".to_string(), "not JSON"),
        (whole[..whole.len() / 2].to_string(), "not JSON"),
        (whole.replace("\"merges\": [", "\"merges\": [\"zz yy\","), "not a Hugging Face tokenizer"),
        (whole.replace("\"BPE\"", "\"B\\nE\""), "not a Hugging Face tokenizer"),
        (whole, "another model's"),
    ] {
        let model = Model::new();
        std::fs::write(model.path("tokenizer.json"), text).expect("a tokenizer");
        let path = model.0.path().to_string_lossy();
        run(&mut smolter(&["generate", &path, "--prompt", "a", "--device", "reference"]))
            .expect(2, &["tokenizer.json: ", word])
            .is_one_line();
    }
}

#[test]
fn what_is_no_model_folder_is_refused() {
    let model = Model::new();
    let path = |name: &str| model.path(name).to_string_lossy().into_owned();
    std::fs::create_dir(model.path("empty")).expect("a folder");
    for (folder, word) in [
        (path("empty"), "config.json"),
        (path("nowhere"), "nowhere"),
        (path("config.json"), "is a file, but a folder"),
    ] {
        run(&mut smolter(&["generate", &folder, "--prompt", "a"])).expect(2, &[&folder, word]).is_one_line();
    }
}
