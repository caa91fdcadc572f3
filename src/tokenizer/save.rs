//! The three tokenizer files of a Hugging Face model folder.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{END_OF_TEXT, IM_END, IM_START, SPECIAL_TOKENS, Tokenizer, chat_template};
use crate::error::{Error, Result};

/// What the model is for, which decides the roles of the special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A pretrained model: every role is `<|endoftext|>`.
    Base,
    /// A chat model: messages begin with `<|im_start|>` and end with `<|im_end|>`; the chat template is saved.
    Chat,
}

impl Tokenizer {
    /// Writes the [`files`](Self::files) into `folder`, such that `transformers.AutoTokenizer` loads it.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file, and those of [`files`](Self::files).
    pub fn save(&self, folder: impl AsRef<Path>, model_max_length: usize, role: Role) -> Result<()> {
        let folder = folder.as_ref();
        let files = self.files(model_max_length, role)?;
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        for (name, contents) in files {
            let file = folder.join(name);
            std::fs::write(&file, contents).map_err(Error::io(&file))?;
        }
        Ok(())
    }

    /// Names and bytes of `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`.
    /// `model_max_length` is the context length in tokens.
    ///
    /// `tokenizer.json` is byte for byte as it was loaded.
    ///
    /// # Errors
    /// [`Error::Input`] if `role` is [`Role::Chat`] and the vocabulary lacks the tokens that frame a message.
    pub fn files(&self, model_max_length: usize, role: Role) -> Result<[(&'static str, Vec<u8>); 3]> {
        if role == Role::Chat && [IM_START, IM_END].iter().any(|token| self.token_to_id(token).is_none()) {
            return Err(Error::input(format!(
                "tokenizer: no {IM_START} and {IM_END} tokens, which chat needs: train with a tokenizer that has them"
            )));
        }
        let config = self.config(model_max_length, role);
        let map = self.special_tokens_map(role);
        Ok([
            ("tokenizer.json", self.json.clone()),
            ("tokenizer_config.json", format!("{config:#}\n").into_bytes()),
            ("special_tokens_map.json", format!("{map:#}\n").into_bytes()),
        ])
    }

    fn config(&self, model_max_length: usize, role: Role) -> Value {
        let mut added: Vec<_> = self.inner.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let decoder: Map<_, _> = added.iter().map(|(id, token)| (id.to_string(), json!(token))).collect();
        let (bos, eos) = ends(role);
        let mut config = json!({
            "add_prefix_space": false,
            "added_tokens_decoder": decoder,
            "additional_special_tokens": self.additional(role),
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

    fn special_tokens_map(&self, role: Role) -> Value {
        let token = |content| json!({"content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false});
        let (bos, eos) = ends(role);
        let mut map = json!({
            "additional_special_tokens": self.additional(role),
            "bos_token": token(bos),
            "eos_token": token(eos),
            "unk_token": token(END_OF_TEXT),
        });
        if role == Role::Chat {
            map["pad_token"] = token(IM_END);
        }
        map
    }

    /// Tokens that the vocabulary lacks are left out: `transformers` would add them, past the embedding's end.
    fn additional(&self, role: Role) -> Vec<&'static str> {
        let tokens: &[&str] = match role {
            Role::Base => &SPECIAL_TOKENS,
            Role::Chat => &[IM_START, IM_END],
        };
        tokens.iter().copied().filter(|token| self.token_to_id(token).is_some()).collect()
    }
}

fn ends(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Base => (END_OF_TEXT, END_OF_TEXT),
        Role::Chat => (IM_START, IM_END),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_folder_loads_to_the_same_tokenizer() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = std::iter::repeat_n("hello world, hello".to_string(), 9);
        let tokenizer = Tokenizer::train(corpus, 280, |_| ()).unwrap();
        tokenizer.save(folder.path(), 2048, Role::Chat).unwrap();
        let loaded = Tokenizer::load(folder.path()).unwrap();
        assert_eq!(loaded.hash(), tokenizer.hash());
        assert_eq!(loaded.encode("hello<|im_end|>").unwrap(), tokenizer.encode("hello<|im_end|>").unwrap());

        let read = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(folder.path().join(name)).unwrap()).unwrap()
        };
        let config = read("tokenizer_config.json");
        assert_eq!(config["tokenizer_class"], "GPT2Tokenizer");
        assert_eq!(config["model_max_length"], 2048);
        assert_eq!(config["eos_token"], IM_END);
        assert_eq!(config["added_tokens_decoder"]["16"]["content"], "<empty_output>");
        assert!(config["chat_template"].as_str().unwrap().contains("add_generation_prompt"));
        assert_eq!(read("special_tokens_map.json")["bos_token"]["content"], IM_START);
    }

    #[test]
    fn the_base_role_has_no_chat_template() {
        let tokenizer = Tokenizer::train(std::iter::empty(), 273, |_| ()).unwrap();
        let config = tokenizer.config(8192, Role::Base);
        assert_eq!(config["eos_token"], END_OF_TEXT);
        assert_eq!(config.get("chat_template"), None);
    }
}
