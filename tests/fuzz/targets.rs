//! What is fuzzed: a small whole folder for each loader of files that others write.

use super::{Target, write};
use crate::support::RECIPE;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use smolter::checkpoint::safetensors::write as write_tensors;
use smolter::checkpoint::{Contents, Dtype, Part, TensorFile, TrainerState, folder};
use smolter::data::shard::{SetFormat, TokenSet, TokenSetWriter, Verify};
use smolter::data::source::{OnBroken, Source};
use smolter::model::export::{Format, Options, export};
use smolter::model::{ModelFolder, adapter};
use smolter::nn::{Architecture, Base, LlamaConfig, Lora};
use smolter::recipes::Recipe;
use smolter::tokenizer::{ChatTemplate, Message, Role, Special, Tokenizer};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Every file that `make` writes, by path in its folder.
fn files(make: impl FnOnce(&Path)) -> Vec<(String, Vec<u8>)> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).expect("within the root").to_string_lossy().into_owned();
                found.push((name, std::fs::read(&path).expect("a file")));
            }
        }
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    make(folder.path());
    let mut found = Vec::new();
    walk(folder.path(), folder.path(), &mut found);
    found.sort();
    found
}

fn tensors_of_all_types(folder: &Path) {
    use safetensors::tensor::{Dtype, TensorView};
    let bytes: Vec<u8> = (0..96).collect();
    let view =
        |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).expect("a tensor");
    let tensors = [
        ("single", view(Dtype::F32, &[2, 3], &bytes[..24])),
        ("half", view(Dtype::F16, &[4], &bytes[..8])),
        ("brain", view(Dtype::BF16, &[1, 2, 1], &bytes[..4])),
        ("double", view(Dtype::F64, &[2], &bytes[..16])),
        ("long", view(Dtype::I64, &[3, 1], &bytes[..24])),
        ("int", view(Dtype::I32, &[], &bytes[..4])),
        ("none", view(Dtype::F32, &[0, 7], &[])),
    ];
    let metadata = [("format".to_string(), "pt".to_string())].into();
    let bytes = safetensors::serialize(tensors, Some(metadata)).expect("safetensors");
    write(&folder.join("a.safetensors"), &bytes);
}

/// Every tensor must have as many values as its shape says, and none be refused without its name.
fn read_all(file: &TensorFile) {
    for name in file.names() {
        let shape = file.shape(name).expect("a tensor that is named");
        let count: usize = shape.iter().product();
        match (file.read_f32(name, shape), file.read_i64(name)) {
            (Ok(values), Err(_)) => assert_eq!(values.len(), count, "{name}"),
            (Err(_), Ok((given, values))) => {
                assert_eq!((given.as_slice(), values.len()), (shape, count), "{name}")
            }
            (Ok(_), Ok(_)) => panic!("'{name}' holds floats and integers at once"),
            (Err(error), Err(_)) => {
                let named = error.to_string().contains(&name.escape_debug().to_string()) || name.len() > 1000;
                assert!(named, "{error} does not name the tensor {name}");
            }
        }
    }
}

#[test]
fn tensor_files() {
    let load = |folder: &Path, name: &str| TensorFile::open(&folder.join(name)).map(|file| read_all(&file));
    Target { name: "tensor_files", files: files(tensors_of_all_types), load }.fuzz(4000);
}

/// A model of one block, in two shards with an index, and its tokenizer.
fn small_model(folder: &Path) {
    let corpus = std::iter::repeat_n("the cat sat on the mat, 12 times".to_string(), 9);
    let tokenizer = Tokenizer::train(corpus, 290, |_| ()).expect("a tokenizer");
    tokenizer.save(folder, 64, Role::Chat(&ChatTemplate::smollm2())).expect("its files");
    let config = LlamaConfig {
        vocab_size: 290,
        hidden_size: 4,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 2,
        max_position_embeddings: 64,
        ..LlamaConfig::smollm2_135m()
    };
    write(&folder.join("config.json"), config.to_hf_json("float32").as_bytes());
    write(&folder.join("generation_config.json"), config.to_generation_json().as_bytes());
    let parameters = Architecture::from(config).shapes();
    let (first, second) = parameters.split_at(5);
    let mut weight_map = serde_json::Map::new();
    for (shard, name) in [(first, "model-1.safetensors"), (second, "model-2.safetensors")] {
        let values = |tensor: &str| {
            let (_, shape) = parameters.iter().find(|(name, _)| name == tensor).expect("a parameter");
            Ok(vec![0.5; shape.iter().product()])
        };
        write_tensors(&folder.join(name), Dtype::F32, shard, values).expect("a shard");
        weight_map.extend(shard.iter().map(|(tensor, _)| (tensor.clone(), name.into())));
    }
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": weight_map});
    write(&folder.join("model.safetensors.index.json"), index.to_string().as_bytes());
}

fn load_model(folder: &Path, _: &str) -> smolter::Result<()> {
    let model = ModelFolder::open(folder)?;
    let Base::Llama(config) = &model.architecture.base;
    assert!(config.problem().is_none());
    for (name, shape) in model.architecture.shapes() {
        let values = model.tensors.read_f32(&name, &shape)?;
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
    }
    Ok(())
}

#[test]
fn model_folders() {
    Target { name: "model_folders", files: files(small_model), load: load_model }.fuzz(3000);
}

/// [`small_model`] with an adapter beside its weights, as a checkpoint has it.
fn adapted_model(folder: &Path) {
    small_model(folder);
    let lora = Lora { rank: 2, ..Lora::default() };
    let model = Architecture::from_hf_json(&folder.join("config.json")).expect("its shape");
    let parameters = model.with_lora(Some(lora.clone())).trained_shapes();
    let values = |tensor: &str| {
        let (_, shape) = parameters.iter().find(|(name, _)| name == tensor).expect("a parameter");
        Ok(vec![0.5; shape.iter().product()])
    };
    let files = adapter::encode(&lora, &parameters, None, Dtype::F32, values).expect("its files");
    std::fs::create_dir(folder.join(adapter::FOLDER)).expect("a folder");
    for (name, bytes) in files {
        write(&folder.join(adapter::FOLDER).join(name), &bytes);
    }
}

#[test]
fn adapters() {
    let load = |folder: &Path, _: &str| {
        let model = ModelFolder::open(folder)?;
        for (name, shape) in model.architecture.shapes() {
            let values = model.read_f32(&name, &shape)?;
            assert!(values.len() == shape.iter().product::<usize>() && values.iter().all(|x| x.is_finite()));
        }
        Ok(())
    };
    Target { name: "adapters", files: files(adapted_model), load }.fuzz(1500);
}

/// An exported model must load again, and hold what it was made from.
#[test]
fn exports() {
    let load = |folder: &Path, _: &str| {
        let model = ModelFolder::open(folder)?;
        let out = tempfile::tempdir_in(folder).expect("a temporary folder");
        for (format, name) in [(Format::Hf, "hf"), (Format::Gguf, "a.gguf")] {
            let options = Options { format, ty: None, max_shard: 4000, name: "fuzz".into() };
            export(&model, &out.path().join(name), &options, &mut |_, _| ())?;
        }
        let again = ModelFolder::open(&out.path().join("hf"))?;
        assert_eq!(again.architecture, model.architecture);
        for (name, shape) in model.architecture.shapes() {
            assert_eq!(again.tensors.float(&name, &shape)?, model.tensors.float(&name, &shape)?, "{name}");
        }
        Ok(())
    };
    Target { name: "exports", files: files(small_model), load }.fuzz(150);
}

#[test]
fn checkpoints() {
    let make = |run: &Path| {
        let config = LlamaConfig {
            vocab_size: 8,
            hidden_size: 4,
            intermediate_size: 4,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 2,
            ..LlamaConfig::smollm2_135m()
        };
        let parameters = Architecture::from(config.clone()).shapes();
        let mut read = |_: Part, tensor: &str| {
            let (_, shape) = parameters.iter().find(|(name, _)| name == tensor).expect("a parameter");
            Ok(vec![0.5; shape.iter().product()])
        };
        let small = [("config.json".to_string(), config.to_hf_json("float32").into_bytes())];
        let state = TrainerState::new("hash", "stage");
        let contents = Contents {
            files: &small,
            parameters: &parameters,
            trained: &parameters,
            states: &["exp_avg", "exp_avg_sq"],
            read: &mut read,
            state: &state,
        };
        folder::save(run, contents, 1, &[]).expect("a checkpoint");
    };
    let load = |run: &Path, _: &str| load_model(run, "");
    Target { name: "checkpoints", files: files(make), load }.fuzz(1500);
}

/// Tokenizers of several kinds, since a `tokenizer.json` may ask for any part of the library.
fn tokenizers(folder: &Path) {
    let corpus = std::iter::repeat_n("the cat sat on the mat, 12 times".to_string(), 9);
    let trained = Tokenizer::train(corpus, 290, |_| ()).expect("a tokenizer");
    trained.save(folder, 64, Role::Chat(&ChatTemplate::smollm2())).expect("its files");
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        std::fs::remove_file(folder.join(name)).expect("a file");
    }
    let end = serde_json::json!({"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
        "rstrip": true, "normalized": false, "special": true});
    let unigram = serde_json::json!({"version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Left", "pad_to_multiple_of": 4, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "<|endoftext|>"},
        "added_tokens": [end],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Strip", "strip_left": true,
            "strip_right": true}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Prepend", "prepend": "a"}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": true},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|endoftext|>",
            "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<|endoftext|>":
            {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "_",
            "prepend_scheme": "always", "split": true}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            {"type": "Fuse"}]},
        "model": {"type": "Unigram", "unk_id": 1, "byte_fallback": true, "vocab": [["<|endoftext|>", 0.0],
            ["<unk>", 0.0], ["_", -1.5], ["_the", -2.0], ["a", -2.5], ["t", -3.0], ["c", -3.5], ["<0x41>", -9.0]]}});
    let word_piece = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [end],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|\\d"},
            "behavior": "Isolated", "invert": false}, {"type": "BertPreTokenizer"}]},
        "post_processor": {"type": "BertProcessing", "sep": ["<|endoftext|>", 0], "cls": ["<|endoftext|>", 0]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"<|endoftext|>": 0, "?": 1, "the": 2, "c": 3, "##a": 4, "##t": 5}}});
    write(&folder.join("unigram.json"), unigram.to_string().as_bytes());
    write(&folder.join("word_piece.json"), word_piece.to_string().as_bytes());
}

#[test]
fn tokenizer_files() {
    let load = |folder: &Path, name: &str| {
        let tokenizer = Tokenizer::load(folder.join(name))?;
        let limit = tokenizer.vocab_size();
        assert!((tokenizer.eos_id() as usize) < limit, "the end of text is no token");
        for text in [
            "the cat sat  on\n12 m\u{e9}ts \u{4e2d}<|endoftext|>",
            "",
            " \u{301}\u{0}",
            "ﬁ Å\u{1f469}\u{200d}",
        ] {
            for ids in [tokenizer.encode(text)?, tokenizer.encode_ordinary(text)?] {
                assert!(ids.iter().all(|&id| (id as usize) < limit), "{ids:?} of {limit} ids");
                let whole = tokenizer.decode_with(&ids, Special::Skip);
                let mut stream = tokenizer.stream(Special::Skip);
                let streamed = ids.iter().map(|&id| stream.push(id)).collect::<String>() + &stream.finish();
                // Only a byte-level decoder gives the text of tokens independently of those after them.
                assert!(name != "tokenizer.json" || streamed.len() <= whole.len() + 64);
            }
        }
        tokenizer.decode(&[u32::MAX, 0, 1, 2, 3]);
        Ok(())
    };
    Target { name: "tokenizer_files", files: files(tokenizers), load }.fuzz(1500);
}

#[test]
fn chat_templates() {
    let make = |folder: &Path| {
        let settings = serde_json::json!({"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>",
            "additional_special_tokens": ["<|im_start|>", {"content": "a"}],
            "chat_template": [{"name": "default", "template": smolter::tokenizer::chat_template()}]});
        let source =
            std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat_templates");
        for name in ["chatml_blocks", "thinking", "tools", "values"] {
            let text = std::fs::read(source.join(format!("{name}.jinja"))).expect("a fixture");
            write(&folder.join(name).join("chat_template.jinja"), &text);
            write(&folder.join(name).join("tokenizer_config.json"), settings.to_string().as_bytes());
        }
        write(&folder.join("settings/tokenizer_config.json"), settings.to_string().as_bytes());
        write(
            &folder.join("settings/special_tokens_map.json"),
            br#"{"unk_token": "?", "pad_token": {"content": "x"}}"#,
        );
    };
    let load = |folder: &Path, name: &str| {
        let template = ChatTemplate::load(folder.join(name).parent().expect("a folder"))?;
        let chat = ["user", "assistant", "user"].map(|role| Message::new(role, "<b>'2'\n</think> + 2"));
        template.render(&chat, true)?;
        template.render(&chat[..2], false).map(|_| ())
    };
    Target { name: "chat_templates", files: files(make), load }.fuzz(3000);
}

#[test]
fn recipes() {
    let make = |folder: &Path| write(&folder.join("tiny.toml"), RECIPE.as_bytes());
    let load = |folder: &Path, name: &str| {
        let recipe = Recipe::load(&folder.join(name).to_string_lossy(), &[])?;
        let text = recipe.to_toml()?;
        write(&folder.join("again.toml"), text.as_bytes());
        let again = Recipe::load(&folder.join("again.toml").to_string_lossy(), &[]);
        assert_eq!(again.expect("a resolved recipe is a recipe").hash(), recipe.hash());
        Ok(())
    };
    Target { name: "recipes", files: files(make), load }.fuzz(2500);
}

/// Ids of the token set. The headers of shards are checksummed, so none that opens has another number.
const IDS: usize = 300;

fn token_shards(folder: &Path) {
    let format = SetFormat { vocab_size: IDS, eos: 0, tokenizer_hash: 5, shard_bytes: 100, fingerprint: 6 };
    let mut writer = TokenSetWriter::create(folder, "web", format).expect("a writer");
    for i in 0..20u32 {
        writer.push(&(0..i).map(|j| 1 + (i * j) % 299).collect::<Vec<_>>()).expect("a document");
    }
    writer.finish().expect("a set");
}

/// A whole set must give documents that follow one another, of tokens in the vocabulary.
fn load_shards(folder: &Path) -> smolter::Result<()> {
    let set = TokenSet::open(folder, "web", Verify::Full)?;
    let mut end = 0;
    for document in 0..set.documents() {
        let range = set.document(document);
        assert_eq!(range.start, end, "document {document}");
        end = range.end;
    }
    assert_eq!(end, set.len());
    assert!(set.tokens(0..set.len()).iter().all(|&id| (id as usize) < IDS));
    Ok(())
}

#[test]
fn token_sets() {
    let load = |folder: &Path, _: &str| load_shards(folder);
    Target { name: "token_sets", files: files(token_shards), load }.fuzz(3000);
}

/// Writes the set again into a folder of its own, with checksums that are right for what the shards now hold.
fn seal(folder: &Path) -> std::path::PathBuf {
    let sealed = folder.join("sealed");
    let manifest = std::fs::read(folder.join("web.json")).expect("a manifest");
    let Ok(mut manifest) = serde_json::from_slice::<serde_json::Value>(&manifest) else {
        return folder.into();
    };
    let entries = manifest.get_mut("shards").and_then(|shards| shards.as_array_mut()).into_iter().flatten();
    for (i, entry) in entries.filter(|entry| entry.is_object()).enumerate() {
        let name = format!("web-{i:05}.tokens");
        let Ok(mut bytes) = std::fs::read(folder.join(&name)) else { return folder.into() };
        if let Some((header, contents)) = bytes.split_first_chunk_mut::<64>() {
            let field = |i: usize| u64::from_le_bytes(*header[i..].first_chunk().expect("8 bytes"));
            let hash = xxh3_64(contents);
            entry["tokens"] = field(24).into();
            entry["documents"] = field(32).into();
            entry["payload_hash"] = format!("{hash:016x}").into();
            header[48..56].copy_from_slice(&hash.to_le_bytes());
            let hash = xxh3_64(&header[..56]);
            header[56..].copy_from_slice(&hash.to_le_bytes());
        }
        write(&sealed.join(&name), &bytes);
    }
    write(&sealed.join("web.json"), manifest.to_string().as_bytes());
    sealed
}

/// A checksum says that a file is what was written, not that what was written makes sense.
#[test]
fn sealed_token_sets() {
    let load = |folder: &Path, _: &str| load_shards(&seal(folder));
    Target { name: "sealed_token_sets", files: files(token_shards), load }.fuzz(2000);
}

#[test]
fn texts() {
    let make = |folder: &Path| {
        let lines = (0..30).map(|i| format!("{{\"text\": \"number {i} \\u00e9\", \"n\": [{i}, {{}}]}}\n"));
        let lines: String = lines.collect();
        let array = format!("[{}]", lines.trim_end().replace('\n', ",\n"));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(lines.as_bytes()).expect("gzip");
        write(&folder.join("a.jsonl"), lines.as_bytes());
        write(&folder.join("b.json"), array.as_bytes());
        write(&folder.join("c.txt"), lines.as_bytes());
        write(&folder.join("d.jsonl.gz"), &gzip.finish().expect("gzip"));
        write(&folder.join("e.json.zst"), &zstd::encode_all(array.as_bytes(), 3).expect("zstd"));
        let texts = StringArray::from((0..30).map(|i| Some(format!("row {i}"))).collect::<Vec<_>>());
        let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).expect("a batch");
        let mut parquet = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("parquet");
        parquet.write(&batch).expect("parquet");
        write(&folder.join("f.parquet"), &parquet.into_inner().expect("parquet"));
    };
    let load = |folder: &Path, name: &str| {
        let source = Source::new([folder.join(name)]).on_broken(OnBroken::Skip);
        let mut documents = source.documents()?;
        let mut count = 0;
        for document in documents.by_ref() {
            count += 1;
            assert!(document?.number >= 1);
        }
        let report = documents.report();
        assert_eq!(report.documents, count);
        let strict = source.on_broken(OnBroken::Refuse).documents()?.collect::<smolter::Result<Vec<_>>>();
        assert_eq!(strict.is_ok(), report.broken == 0, "{report:?}");
        strict.map(|_| ())
    };
    Target { name: "texts", files: files(make), load }.fuzz(3000);
}
