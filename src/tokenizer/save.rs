//! The three tokenizer files of a Hugging Face model folder.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{END_OF_TEXT, IM_END, IM_START, SPECIAL_TOKENS, Tokenizer, chat_template};
use crate::error::{Error, Result};

/// What the model is for, which decides the roles of the special tokens (recipe.md 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A pretrained model: every role is `<|endoftext|>`.
    Base,
    /// A chat model: messages begin with `<|im_start|>` and end with `<|im_end|>`; the chat template is saved.
    Chat,
}

impl Tokenizer {
    /// Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` into `folder`, such that
    /// `transformers.AutoTokenizer` loads it. `model_max_length` is the context length in tokens.
    ///
    /// `tokenizer.json` is written byte for byte as it was loaded.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn save(&self, folder: impl AsRef<Path>, model_max_length: usize, role: Role) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let config = self.config(model_max_length, role);
        let map = special_tokens_map(role);
        let files = [
            ("tokenizer.json", self.json.clone()),
            ("tokenizer_config.json", format!("{config:#}\n").into_bytes()),
            ("special_tokens_map.json", format!("{map:#}\n").into_bytes()),
        ];
        for (name, contents) in files {
            let file = folder.join(name);
            std::fs::write(&file, contents).map_err(Error::io(&file))?;
        }
        Ok(())
    }

    /// Only tokens that this vocabulary has are declared, at its own ids: a foreign tokenizer stays itself.
    fn config(&self, model_max_length: usize, role: Role) -> Value {
        let mut added: Vec<_> = self.inner.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let decoder: Map<_, _> =
            added.iter().map(|(id, token)| (id.to_string(), token_flags(&token.content, token.special))).collect();
        let (bos, eos) = ends(role);
        let mut config = json!({
            "add_prefix_space": false,
            "added_tokens_decoder": decoder,
            "additional_special_tokens": additional(role),
            "bos_token": bos,
            "clean_up_tokenization_spaces": false,
            "eos_token": eos,
            "model_max_length": model_max_length,
            "tokenizer_class": "GPT2Tokenizer",
            "unk_token": END_OF_TEXT,
            "vocab_size": self.vocab_size(),
        });
        if role == Role::Chat {
            config["pad_token"] = json!(IM_END);
            config["chat_template"] = json!(chat_template());
        }
        config
    }
}

fn ends(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Base => (END_OF_TEXT, END_OF_TEXT),
        Role::Chat => (IM_START, IM_END),
    }
}

fn additional(role: Role) -> &'static [&'static str] {
    match role {
        Role::Base => &SPECIAL_TOKENS,
        Role::Chat => &[IM_START, IM_END],
    }
}

fn token_flags(content: &str, special: bool) -> Value {
    json!({
        "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
        "special": special,
    })
}

fn special_tokens_map(role: Role) -> Value {
    let token = |content| {
        json!({"content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false})
    };
    let (bos, eos) = ends(role);
    let mut map = json!({
        "additional_special_tokens": additional(role),
        "bos_token": token(bos),
        "eos_token": token(eos),
        "unk_token": token(END_OF_TEXT),
    });
    if role == Role::Chat {
        map["pad_token"] = token(IM_END);
    }
    map
}
