//! T2: `smolter export` keeps every weight's bytes, refuses what it cannot write, and leaves what is there alone.

use crate::support::{Outcome, copy, fixtures, run, smolter};
use smolter::checkpoint::{Dtype, TensorFile};
use smolter::model::ModelFolder;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const TOKENIZER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer/tokenizer.json");

fn export(model: &Path, out: &Path, flags: &[&str]) -> Outcome {
    run(smolter(&["export"]).arg(model).arg("--out").arg(out).args(flags))
}

/// Every tensor of a model folder: shape, type and bytes.
fn tensors(folder: &Path) -> BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)> {
    let file = TensorFile::open(folder).expect("a tensor file");
    let names: Vec<String> = file.names().map(str::to_string).collect();
    let read = |name: String| {
        let shape = file.shape(&name).expect("its shape").to_vec();
        let (dtype, bytes) = file.float(&name, &shape).expect("its bytes");
        let bytes = bytes.to_vec();
        (name, (shape, dtype, bytes))
    };
    names.into_iter().map(read).collect()
}

fn place() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let root = place.path().to_path_buf();
    (place, move |name: &str| root.join(name))
}

/// A model of the fixtures with room for the tokens of the tokenizer, which lies beside it.
fn model_with_tokenizer(folder: &Path) {
    copy(&fixtures()[0], folder);
    let config = std::fs::read_to_string(folder.join("config.json")).expect("the fixture");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["vocab_size"] = 416.into();
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    std::fs::copy(TOKENIZER, folder.join("tokenizer.json")).expect("a copy");
    let old = tensors(folder);
    let parameters = {
        let path = folder.join("config.json");
        smolter::nn::Architecture::from_hf_json(&path).expect("a shape").shapes()
    };
    smolter::checkpoint::safetensors::write(
        &folder.join("model.safetensors"),
        Dtype::F32,
        &parameters,
        |name| {
            let mut values = Vec::new();
            Dtype::F32.decode(&old[name].2, &mut values);
            let (_, shape) = parameters.iter().find(|(other, _)| other == name).expect("a parameter");
            values.resize(shape.iter().product(), 0.25);
            Ok(values)
        },
    )
    .expect("the weights are written");
}

#[test]
fn a_round_trip_keeps_every_byte() {
    for fixture in fixtures() {
        for dtype in ["f32", "f16", "bf16"] {
            let (_place, path) = place();
            export(&fixture, &path("first"), &["--dtype", dtype]).expect(0, &[]);
            let first = tensors(&path("first"));
            assert!(first.values().all(|(_, stored, _)| stored.name() == dtype));
            if dtype == "f32" {
                assert_eq!(first, tensors(&fixture), "{}", fixture.display());
            }
            let all: usize = first.values().map(|(_, _, bytes)| bytes.len()).sum();
            let most = (all / 3).to_string();
            export(&path("first"), &path("shards"), &["--max-shard-size", &most]).expect(0, &[]);
            assert!(path("shards/model.safetensors.index.json").exists());
            assert!(!path("shards/model.safetensors").exists());
            export(&path("shards"), &path("joined"), &[]).expect(0, &[]);
            for name in ["shards", "joined"] {
                assert_eq!(tensors(&path(name)), first, "{} as {dtype}: {name}", fixture.display());
            }
            let files = |name: &str| std::fs::read(path(name).join("model.safetensors")).expect("a file");
            assert_eq!(files("joined"), files("first"), "the files as well");
            let (one, other) = (ModelFolder::open(&path("joined")), ModelFolder::open(&fixture));
            assert_eq!(one.unwrap().architecture, other.unwrap().architecture);
        }
    }
}

#[test]
fn what_is_there_is_left_alone() {
    let (_place, path) = place();
    std::fs::create_dir(path("folder")).unwrap();
    std::fs::write(path("folder/mine"), "precious").unwrap();
    std::fs::write(path("file.gguf"), "precious").unwrap();
    model_with_tokenizer(&path("model"));
    for (out, kept) in [("folder", "folder/mine"), ("file.gguf", "file.gguf")] {
        export(&path("model"), &path(out), &[]).expect(2, &[out, "there already"]);
        assert_eq!(std::fs::read_to_string(path(kept)).unwrap(), "precious");
    }
    assert_eq!(std::fs::read_dir(path("folder")).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let (place, path) = place();
    let fixture = &fixtures()[0];
    export(fixture, &path("out"), &["--dtype", "q8_0"]).expect(2, &["--dtype q8_0 needs --format gguf"]);
    export(fixture, &path("out.gguf"), &[]).expect(2, &["tokenizer.json: is missing"]);
    export(&path("nowhere"), &path("out"), &[]).expect(2, &["nowhere: no such folder"]);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left");
}

/// Magic, version and tensor count, and that all but the header grows with the type.
#[test]
fn a_gguf_file_begins_as_it_must() {
    let (_place, path) = place();
    model_with_tokenizer(&path("model"));
    let count = tensors(&path("model")).len() as u64;
    let sizes = ["f32", "f16", "bf16", "q8_0"].map(|dtype| {
        let out = path(&format!("{dtype}.gguf"));
        export(&path("model"), &out, &["--dtype", dtype]).expect(0, &[]);
        let bytes = std::fs::read(out).expect("the file");
        assert_eq!(&bytes[..4], b"GGUF");
        assert_eq!(bytes[4..8], 3u32.to_le_bytes());
        assert_eq!(bytes[8..16], count.to_le_bytes());
        bytes.len()
    });
    assert!(sizes[0] > sizes[1] && sizes[1] == sizes[2] && sizes[2] > sizes[3], "{sizes:?}");
}
