//! The three tokenizer files of a Hugging Face model folder.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{ChatTemplate, END_OF_TEXT, SPECIAL_TOKENS, Tokenizer};
use crate::error::{Error, Result};

/// Roles that a chat template may leave without a token.
const ROLES: [&str; 4] = ["additional_special_tokens", "bos_token", "eos_token", "unk_token"];

/// What the model is for, which decides the roles of the special tokens.
#[derive(Clone, Copy)]
pub enum Role<'a> {
    /// A pretrained model: every role is `<|endoftext|>`.
    Base,
    /// A chat model: the roles are those that its template knows, which is saved too.
    Chat(&'a ChatTemplate),
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
    /// [`Error::Input`] if `role` is [`Role::Chat`] and the vocabulary lacks the token that ends a message.
    pub fn files(&self, model_max_length: usize, role: Role) -> Result<[(&'static str, Vec<u8>); 3]> {
        if let Role::Chat(template) = role
            && let Some(eos) = template.special_token("eos_token")
            && self.token_to_id(eos).is_none()
        {
            let why = "which ends a message of its chat template: take a tokenizer that has it, or another template";
            return Err(Error::input(format!("{}: no token {eos}, {why}", self.place)));
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
        let mut config = json!({
            "add_prefix_space": false,
            "added_tokens_decoder": decoder,
            "additional_special_tokens": self.base_tokens(),
            "bos_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": false,
            "eos_token": END_OF_TEXT,
            "model_max_length": model_max_length,
            "tokenizer_class": "GPT2Tokenizer",
            "unk_token": END_OF_TEXT,
            "vocab_size": self.vocab_size(),
        });
        if let Role::Chat(template) = role {
            ROLES.iter().for_each(|role| config[role] = Value::Null);
            for (role, token) in template.special_tokens() {
                config[role] = token.clone();
            }
            config["chat_template"] = json!(template.source());
        }
        config
    }

    fn special_tokens_map(&self, role: Role) -> Value {
        let token = |content: &str| json!({"content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false});
        match role {
            Role::Base => json!({
                "additional_special_tokens": self.base_tokens(),
                "bos_token": token(END_OF_TEXT),
                "eos_token": token(END_OF_TEXT),
                "unk_token": token(END_OF_TEXT),
            }),
            Role::Chat(template) => {
                let of_role = |(role, value): (&String, &Value)| {
                    (role.clone(), value.as_str().map_or(value.clone(), token))
                };
                Value::Object(template.special_tokens().iter().map(of_role).collect())
            }
        }
    }

    /// Tokens that the vocabulary lacks are left out: `transformers` would add them, past the embedding's end.
    fn base_tokens(&self) -> Vec<&'static str> {
        SPECIAL_TOKENS.into_iter().filter(|token| self.token_to_id(token).is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{IM_END, IM_START};
    use super::*;

    #[test]
    fn a_saved_folder_loads_to_the_same_tokenizer() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = std::iter::repeat_n("hello world, hello".to_string(), 9);
        let tokenizer = Tokenizer::train(corpus, 280, |_| ()).unwrap();
        let template = ChatTemplate::smollm2();
        tokenizer.save(folder.path(), 2048, Role::Chat(&template)).unwrap();
        assert_eq!(ChatTemplate::load(folder.path()).unwrap().hash(), template.hash());
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
