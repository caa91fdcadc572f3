//! Chat templates: a conversation to the text that a chat model was trained on.
//!
//! A template is Jinja, rendered as `transformers` does in `apply_chat_template` (utils/chat_template_utils.py):
//! the newline after a block and the blanks before it are dropped, `tojson` is Python's `json.dumps` with
//! `ensure_ascii=False`, and `raise_exception`, `strftime_now`, `{% break %}` and `{% generation %}` exist.

//!
//! Templates come with models, from anybody. What a static check finds harmless is rendered in this process. Anything
//! else is rendered in a process of its own with limits, once the program has said ([`confine_templates`]) that it
//! can be started as one.

mod confined;
mod encode;
mod harmless;
mod jinja;
mod json;
mod judged;

pub use confined::{confine_templates, render_confined};
pub use judged::{Judged, JudgedTokens};

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::files;
use crate::tokenizer::special::{END_OF_TEXT, IM_END, IM_START, chat_template};
use jinja::{Compiled, Fault, Variables};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`; templates may know others.
    pub role: String,
    /// What is said.
    pub content: String,
    /// Whatever else templates may read, such as `tool_calls` or `name`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into(), extra: Map::new() }
    }
}

/// The chat template of a model folder.
pub struct ChatTemplate {
    engine: Engine,
    /// Where the template stands, for messages: a file, and the key in it.
    place: String,
    source: String,
    /// `bos_token` and its like, by name.
    special_tokens: Variables,
    /// Identifies template and special tokens.
    hash: u64,
    /// Whether it says what the assistant says, with `{% generation %}`.
    marks_generation: bool,
    /// Whether it writes tools and their calls.
    writes_tools: bool,
}

/// Where a template is rendered.
enum Engine {
    /// In this process, with bounded fuel.
    InProcess(Box<Compiled>),
    /// In a process of its own, with bounded time and memory; this is the source.
    Confined(String),
}

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// Longest template, in bytes; those of large models with tools have a tenth of it.
const MAX_SOURCE: usize = 128 << 10;

/// Longest text that any conversation may become, in bytes; a longer one may be so many times as long as the
/// conversation itself. Text takes longer to encode than to make.
const FREE_TEXT: usize = 512 << 10;
const MAX_GROWTH: usize = 16;

impl ChatTemplate {
    /// Loads the template of a model folder: `chat_template.jinja`, or else `chat_template` in
    /// `tokenizer_config.json`, which is a template or a list of named ones, of which `default` is taken.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Input`] if there is no template, as in base models, or if it
    /// is not Jinja: names the file and the line in the template.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        Self::find(folder)?.ok_or_else(|| no_template(folder))
    }

    /// As [`load`](Self::load); `None` where there is no template.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let config = read_object(&folder.join(CONFIG))?;
        let map = read_object(&folder.join(SPECIAL_TOKENS))?;
        let file = folder.join("chat_template.jinja");
        let (place, source) = if file.exists() {
            (file.display().to_string(), files::read_text(&file, files::SETTINGS)?)
        } else {
            let place = format!("{}: chat_template", folder.join(CONFIG).display());
            let Some(source) = config.get("chat_template").and_then(default_template) else {
                return Ok(None);
            };
            (place, source.to_string())
        };
        Self::parse(place, &source, special_tokens([map, config])).map(Some)
    }

    /// As [`load`](Self::load), but with the template in `file`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_file(file: &Path, folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let maps = [read_object(&folder.join(SPECIAL_TOKENS))?, read_object(&folder.join(CONFIG))?];
        let source = files::read_text(file, files::SETTINGS)?;
        Self::parse(file.display().to_string(), &source, special_tokens(maps))
    }

    fn parse(place: String, source: &str, special_tokens: Variables) -> Result<Self> {
        if source.len() > MAX_SOURCE {
            return Err(Error::input(format!("{place}: longer than {} KiB", MAX_SOURCE >> 10)));
        }
        let engine = if confined::is_on() && !harmless::is_harmless(source) {
            confined::compile(source).map(|()| Engine::Confined(source.to_string()))
        } else {
            Compiled::new(source).map(|compiled| Engine::InProcess(Box::new(compiled)))
        };
        let engine = engine.map_err(|fault| Error::input(format!("{place}{fault}")))?;
        // In no order, so that a template that was saved is the same.
        let tokens: BTreeMap<&String, &Value> = special_tokens.iter().collect();
        let hash = xxh3_64(format!("{source}{tokens:?}").as_bytes());
        let source = source.to_string();
        let marks_generation = jinja::has_generation_tags(&source);
        let writes_tools = ["tools", "tool_calls"].iter().any(|name| source.contains(name));
        Ok(ChatTemplate { engine, place, source, special_tokens, hash, marks_generation, writes_tools })
    }

    /// SmolLM2's own template and special tokens, for tokenizers that come without.
    pub fn smollm2() -> Self {
        let tokens = [
            ("additional_special_tokens", json!([IM_START, IM_END])),
            ("bos_token", json!(IM_START)),
            ("eos_token", json!(IM_END)),
            ("pad_token", json!(IM_END)),
            ("unk_token", json!(END_OF_TEXT)),
        ];
        let tokens = tokens.into_iter().map(|(role, token)| (role.to_string(), token)).collect();
        Self::parse("SmolLM2's chat template".into(), &chat_template(), tokens)
            .expect("our own template compiles")
    }

    /// Identifies the template and the special tokens that it writes.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The template itself.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The special tokens that the template knows, by their roles.
    pub(super) fn special_tokens(&self) -> &Map<String, Value> {
        &self.special_tokens
    }

    /// Whether the template writes tools and their calls; one that does not leaves them out.
    pub fn writes_tools(&self) -> bool {
        self.writes_tools
    }

    /// A special token by its role, such as `eos_token`.
    pub fn special_token(&self, role: &str) -> Option<&str> {
        self.special_tokens.get(role)?.as_str()
    }

    /// The text of a conversation. A message is a [`Message`] or any other map with `role` and `content`.
    /// `add_generation_prompt` opens the assistant's turn.
    ///
    /// # Errors
    /// [`Error::Input`] naming file and line if the template refuses the conversation (`raise_exception`) or asks
    /// for what does not exist.
    pub fn render<M: Serialize>(&self, messages: &[M], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, &[], add_generation_prompt, false)
    }

    /// As [`render`](Self::render), with tools; what stands in `{% generation %}` is marked if `marks`.
    fn render_with<M: Serialize>(
        &self,
        messages: &[M],
        tools: &[Value],
        add_generation_prompt: bool,
        marks: bool,
    ) -> Result<String> {
        let mut variables = self.special_tokens.clone();
        variables.insert("tools".into(), if tools.is_empty() { json!(null) } else { json!(tools) });
        variables.insert("documents".into(), json!(null));
        variables.insert("add_generation_prompt".into(), json!(add_generation_prompt));
        if marks {
            variables.insert(jinja::MARKS.into(), json!(true));
        }
        let messages = serde_json::to_value(messages)
            .map_err(|error| Error::input(format!("{}: a message is not a map: {error}", self.place)))?;
        let most = longest_text(&messages);
        variables.insert("messages".into(), messages);
        let text = match &self.engine {
            Engine::InProcess(compiled) => compiled.render(variables),
            Engine::Confined(source) => confined::render(source, variables),
        };
        let text = text.and_then(|text| match text.len() {
            0 if add_generation_prompt => Err(Fault::new("makes no text of these messages")),
            long if long > most => {
                Err(Fault::new(format!("makes {} KiB of text, too much for these messages", long >> 10)))
            }
            _ => Ok(text),
        });
        text.map_err(|fault| Error::input(format!("{}{fault}", self.place)))
    }
}

/// Most bytes of text that may be made of `messages`.
fn longest_text(messages: &Value) -> usize {
    fn bytes(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(bytes).sum(),
            Value::Object(map) => map.iter().map(|(key, value)| key.len() + bytes(value)).sum(),
            _ => 8,
        }
    }
    FREE_TEXT.max(bytes(messages).saturating_mul(MAX_GROWTH))
}

/// A JSON object from a file; empty if there is no such file.
fn read_object(file: &Path) -> Result<Variables> {
    if !file.exists() {
        return Ok(Variables::new());
    }
    serde_json::from_slice(&files::read(file, files::LISTS)?)
        .map_err(|error| Error::input(format!("{}: not a JSON object: {error}", file.display())))
}

/// The template itself, or the one named `default` in a list of `{"name": ..., "template": ...}`.
fn default_template(value: &serde_json::Value) -> Option<&str> {
    let named = value.as_array().into_iter().flatten().find(|entry| entry["name"] == "default");
    named.map_or(value, |entry| &entry["template"]).as_str()
}

fn no_template(folder: &Path) -> Error {
    Error::input(format!(
        "{}: no chat template, neither chat_template.jinja nor chat_template in {CONFIG}: base models have none, \
         take an instruct model or add one",
        folder.display()
    ))
}

/// `bos_token` and its like: text, or an object whose `content` is the text. Later maps have the last word.
fn special_tokens<const N: usize>(maps: [Variables; N]) -> Variables {
    let content =
        |value: &serde_json::Value| value.as_str().or(value["content"].as_str()).map(|text| json!(text));
    let mut found = Variables::new();
    for (key, value) in maps.into_iter().flatten() {
        if key.ends_with("_token")
            && let Some(token) = content(&value)
        {
            found.insert(key, token);
        } else if key == "additional_special_tokens"
            && let Some(list) = value.as_array()
        {
            found.insert(key, list.iter().filter_map(content).collect());
        }
    }
    found
}

#[cfg(test)]
mod tests;
