//! A byte-level BPE tokenizer as GGUF metadata: read from `tokenizer.json` and `tokenizer_config.json`.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::checkpoint::gguf::Value;
use crate::error::{Error, Result};
use crate::files;
use crate::nn::Architecture;

/// What a token is to llama.cpp (`llama_token_type` of llama.h).
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Normal = 1,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
}

/// The entries `tokenizer.*`.
///
/// Ids without a token, which models whose vocabulary is padded have, become unused tokens `[PADn]`.
///
/// # Errors
/// [`Error::Input`] naming the file and what llama.cpp's tokenizer would do otherwise, or if there is no tokenizer.
pub(super) fn read(folder: &Path, architecture: &Architecture) -> Result<Vec<(String, Value)>> {
    let path = folder.join("tokenizer.json");
    if !path.is_file() {
        return Err(refuse(&path, "is missing, and a GGUF file holds its model's tokenizer: copy it there"));
    }
    let tokenizer = parse(&path)?;
    let pre = pre_tokenizer(&tokenizer).map_err(|why| refuse(&path, why))?;
    let tokens = tokens(&tokenizer, architecture.vocab_size()).map_err(|why| refuse(&path, why))?;
    let merges = merges(&tokenizer).map_err(|why| refuse(&path, why))?;

    let settings_path = folder.join("tokenizer_config.json");
    let settings = if settings_path.is_file() { parse(&settings_path)? } else { json!({}) };
    let role = |role: &str| match &settings[role] {
        Json::Null => Ok(None),
        token => {
            let token = token.as_str().or(token["content"].as_str()).unwrap_or_default();
            match tokens.iter().position(|(text, _)| text == token) {
                Some(id) => Ok(Some(id as u32)),
                None => Err(refuse(&settings_path, format!("{role} is not a token of tokenizer.json"))),
            }
        }
    };
    let ids = [
        ("bos", role("bos_token")?.or(architecture.bos_token_id())),
        ("eos", role("eos_token")?.or(architecture.eos_token_id())),
        ("padding", role("pad_token")?),
        ("unknown", role("unk_token")?),
    ];

    let mut entries = vec![
        ("tokenizer.ggml.model".to_string(), Value::Text("gpt2".into())),
        ("tokenizer.ggml.pre".into(), Value::Text(pre.into())),
        (
            "tokenizer.ggml.token_type".into(),
            Value::I32s(tokens.iter().map(|(_, kind)| *kind as i32).collect()),
        ),
        ("tokenizer.ggml.tokens".into(), Value::Texts(tokens.into_iter().map(|(text, _)| text).collect())),
        ("tokenizer.ggml.merges".into(), Value::Texts(merges)),
        ("tokenizer.ggml.add_bos_token".into(), Value::Bool(false)),
        ("tokenizer.ggml.add_eos_token".into(), Value::Bool(false)),
    ];
    let known = ids.into_iter().filter_map(|(role, id)| Some((role, id?)));
    entries.extend(known.map(|(role, id)| (format!("tokenizer.ggml.{role}_token_id"), Value::U32(id))));
    if let Some(template) = chat_template(folder, &settings)? {
        entries.push(("tokenizer.chat_template".into(), Value::Text(template)));
    }
    Ok(entries)
}

/// An error about the file `path`.
fn refuse(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::input(format!("{}: {why}", path.display()))
}

fn parse(path: &Path) -> Result<Json> {
    serde_json::from_slice(&files::read(path, files::LISTS)?)
        .map_err(|e| refuse(path, format!("not JSON: {e}")))
}

/// llama.cpp's name for how text is cut before merging, and a refusal of everything that it would not do.
fn pre_tokenizer(tokenizer: &Json) -> std::result::Result<&'static str, String> {
    let model = &tokenizer["model"];
    if model["type"] != json!("BPE") {
        return Err(format!("its model is {}, but only byte-level BPE can be written", model["type"]));
    }
    let absent = |value: &Json| [json!(null), json!(false), json!(""), json!(0.0)].contains(value);
    let unheard_of =
        ["dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"];
    for (name, value) in unheard_of
        .map(|name| (name, &model[name]))
        .into_iter()
        .chain([("normalizer", &tokenizer["normalizer"])])
    {
        if !absent(value) {
            return Err(format!("'{name}' is {value}, which llama.cpp would ignore"));
        }
    }
    let after = &tokenizer["post_processor"];
    if !after.is_null() && after["type"] != json!("ByteLevel") {
        return Err(format!("post_processor {} adds tokens, which cannot be written", after["type"]));
    }
    let byte_level = |step: &Json| {
        step["type"] == json!("ByteLevel")
            && step["add_prefix_space"] == json!(false)
            && step["use_regex"] != json!(false)
    };
    let before = &tokenizer["pre_tokenizer"];
    let steps: &[Json] =
        before["pretokenizers"].as_array().map_or(std::slice::from_ref(before), Vec::as_slice);
    match steps {
        [only] if byte_level(only) => Ok("gpt-2"),
        [digits, rest]
            if digits["type"] == json!("Digits")
                && digits["individual_digits"] == json!(true)
                && byte_level(rest) =>
        {
            Ok("smollm")
        }
        _ => {
            Err("its pre_tokenizer is neither SmolLM's (single digits, then GPT-2's pattern) nor GPT-2's"
                .into())
        }
    }
}

/// The text and kind of every id below `vocab_size`.
fn tokens(tokenizer: &Json, vocab_size: usize) -> std::result::Result<Vec<(String, Kind)>, String> {
    let vocab = tokenizer["model"]["vocab"].as_object().ok_or("no vocab")?;
    let none = Vec::new();
    let added = tokenizer["added_tokens"].as_array().unwrap_or(&none);
    let mut tokens: Vec<Option<(String, Kind)>> = vec![None; vocab_size];
    let mut place = |id: &Json, text: &str, kind: Kind| {
        let slot = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        match slot {
            None => Err(format!("token {text:?} has id {id}, outside the model's {vocab_size} ids")),
            Some(Some((other, _))) if other != text => {
                Err(format!("tokens {text:?} and {other:?} have the same id {id}"))
            }
            Some(slot) => {
                *slot = Some((text.to_string(), kind));
                Ok(())
            }
        }
    };
    for (text, id) in vocab {
        place(id, text, Kind::Normal)?;
    }
    for token in added {
        let kind = if token["special"] == json!(true) { Kind::Control } else { Kind::UserDefined };
        place(&token["id"], token["content"].as_str().unwrap_or_default(), kind)?;
    }
    let padded = |(id, token): (usize, Option<_>)| token.unwrap_or((format!("[PAD{id}]"), Kind::Unused));
    Ok(tokens.into_iter().enumerate().map(padded).collect())
}

/// Merges as `first second`; `tokenizer.json` has them so, or as pairs.
fn merges(tokenizer: &Json) -> std::result::Result<Vec<String>, String> {
    let merges = tokenizer["model"]["merges"].as_array().ok_or("no merges")?;
    let parse = |merge: &Json| {
        let text = match merge {
            Json::String(text) => Some(text.clone()),
            pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
        };
        text.filter(|text| text.split(' ').count() == 2)
    };
    let found = merges
        .iter()
        .map(|merge| parse(merge).ok_or_else(|| format!("{merge} is not a merge of two tokens")));
    found.collect()
}

fn chat_template(folder: &Path, settings: &Json) -> Result<Option<String>> {
    let path = folder.join("chat_template.jinja");
    if path.is_file() {
        return files::read_text(&path, files::SETTINGS).map(Some);
    }
    let template = &settings["chat_template"];
    let default = template.as_array().and_then(|all| all.iter().find(|one| one["name"] == json!("default")));
    Ok(template.as_str().or(default.and_then(|one| one["template"].as_str())).map(str::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::LlamaConfig;
    use crate::tokenizer::{ChatTemplate, Role, Tokenizer};

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::train(std::iter::repeat_n("ab ab".to_string(), 3), 300, |_| ()).unwrap();
        tokenizer.save(folder.path(), 64, Role::Chat(&ChatTemplate::smollm2())).unwrap();
        folder
    }

    fn model(vocab_size: usize) -> Architecture {
        LlamaConfig { vocab_size, ..LlamaConfig::smollm2_135m() }.into()
    }

    #[test]
    fn a_trained_tokenizer_is_described_whole() {
        let folder = folder();
        let entries = read(folder.path(), &model(290)).unwrap();
        let get = |key: &str| &entries.iter().find(|(name, _)| name == key).expect(key).1;
        assert_eq!(*get("tokenizer.ggml.pre"), Value::Text("smollm".into()));
        assert_eq!(*get("tokenizer.ggml.merges"), Value::Texts(vec!["a b".into(), "\u{120} ab".into()]));
        let (Value::Texts(tokens), Value::I32s(kinds)) =
            (get("tokenizer.ggml.tokens"), get("tokenizer.ggml.token_type"))
        else {
            panic!("wrong types");
        };
        assert_eq!((tokens.len(), kinds.len()), (290, 290));
        assert_eq!((tokens[2].as_str(), kinds[2]), ("<|im_end|>", 3));
        assert_eq!((tokens[274].as_str(), kinds[274]), ("\u{120}ab", 1));
        assert_eq!((tokens[275].as_str(), kinds[275]), ("[PAD275]", 5));
        assert_eq!(*get("tokenizer.ggml.bos_token_id"), Value::U32(1));
        assert_eq!(*get("tokenizer.ggml.eos_token_id"), Value::U32(2));
        assert_eq!(*get("tokenizer.ggml.padding_token_id"), Value::U32(2));
        assert_eq!(*get("tokenizer.ggml.unknown_token_id"), Value::U32(0));
        assert!(matches!(get("tokenizer.chat_template"), Value::Text(text) if text.contains("im_start")));
    }

    #[test]
    fn what_llama_cpp_would_do_otherwise_is_refused() {
        let folder = folder();
        let path = folder.path().join("tokenizer.json");
        let whole: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let refused = |change: &dyn Fn(&mut Json), vocab_size: usize| {
            let mut changed = whole.clone();
            change(&mut changed);
            std::fs::write(&path, changed.to_string()).unwrap();
            match read(folder.path(), &model(vocab_size)) {
                Err(error) => error.to_string(),
                Ok(_) => panic!("was accepted"),
            }
        };
        for (word, change) in [
            ("Unigram", (&|t: &mut Json| t["model"]["type"] = json!("Unigram")) as &dyn Fn(&mut Json)),
            ("normalizer", &|t| t["normalizer"] = json!({"type": "NFC"})),
            ("byte_fallback", &|t| t["model"]["byte_fallback"] = json!(true)),
            ("TemplateProcessing", &|t| t["post_processor"] = json!({"type": "TemplateProcessing"})),
            ("pre_tokenizer", &|t| {
                t["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = json!(false)
            }),
            ("pre_tokenizer", &|t| t["pre_tokenizer"] = json!(null)),
            ("same id 2", &|t| t["model"]["vocab"]["x"] = json!(2)),
            ("merge", &|t| t["model"]["merges"][0] = json!("a b c")),
        ] {
            let why = refused(change, 290);
            assert!(why.contains(word) && why.contains("tokenizer.json: "), "{word}: {why}");
        }
        assert!(refused(&|_| (), 274).contains("id 274, outside the model's 274 ids"));
        std::fs::remove_file(&path).unwrap();
        assert!(read(folder.path(), &model(290)).unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn merges_may_be_pairs_and_pre_tokenizers_alone() {
        let pairs = json!({"model": {"merges": [["a", "b"], ["ab", "c"]]}});
        assert_eq!(merges(&pairs).unwrap(), ["a b", "ab c"]);
        let plain = json!({"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}});
        assert_eq!(pre_tokenizer(&plain).unwrap(), "gpt-2");
    }
}
