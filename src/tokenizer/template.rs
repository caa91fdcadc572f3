//! Chat templates: a conversation to the text that a chat model was trained on.
//!
//! A template is Jinja, rendered as `transformers` does in `apply_chat_template` (utils/chat_template_utils.py):
//! the newline after a block and the blanks before it are dropped, `tojson` is Python's `json.dumps` with
//! `ensure_ascii=False`, and `raise_exception`, `strftime_now`, `{% break %}` and `{% generation %}` exist.

mod encode;
mod json;

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use crate::error::{Error, Result};
use crate::files;
use crate::panics::caught;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`; templates may know others.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into() }
    }
}

/// The chat template of a model folder.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Where the template stands, for messages: a file, and the key in it.
    place: String,
    /// `bos_token` and its like, by name.
    special_tokens: Map<String, serde_json::Value>,
}

/// The one template of an environment.
const NAME: &str = "chat";

const CONFIG: &str = "tokenizer_config.json";

/// Instructions that rendering may take, about a second of work: a damaged template may loop for ever.
const FUEL: u64 = 10_000_000;

/// Longest template, in bytes; those of large models with tools have a tenth of it.
const MAX_SOURCE: usize = 128 << 10;

/// Stack that compiling takes for each byte, at most: not all recursion of the compiler is bounded.
const STACK_PER_BYTE: usize = 16 << 10;

/// Most blanks per level that `tojson` writes.
const MAX_INDENT: usize = 64;

impl ChatTemplate {
    /// Loads the template of a model folder: `chat_template.jinja`, or else `chat_template` in
    /// `tokenizer_config.json`, which is a template or a list of named ones, of which `default` is taken.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Input`] if there is no template, as in base models, or if it
    /// is not Jinja: names the file and the line in the template.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let config = read_object(&folder.join(CONFIG))?;
        let map = read_object(&folder.join("special_tokens_map.json"))?;
        let file = folder.join("chat_template.jinja");
        let (place, source) = if file.exists() {
            (file.display().to_string(), files::read_text(&file, files::SETTINGS)?)
        } else {
            let place = format!("{}: chat_template", folder.join(CONFIG).display());
            let source = config.get("chat_template").and_then(default_template);
            (place, source.ok_or_else(|| no_template(folder))?.to_string())
        };
        Self::parse(place, &source, special_tokens([map, config]))
    }

    fn parse(place: String, source: &str, special_tokens: Map<String, serde_json::Value>) -> Result<Self> {
        let source = without_generation_tags(source);
        if source.len() > MAX_SOURCE {
            return Err(Error::input(format!("{place}: longer than {} KiB", MAX_SOURCE >> 10)));
        }
        let stack = (1 << 20) + source.len() * STACK_PER_BYTE;
        let compile = move || caught(|| compile(source));
        let compiled = std::thread::Builder::new()
            .stack_size(stack)
            .spawn(compile)
            .map_err(|error| Error::failure(format!("{place}: no thread to compile it: {error}")))?
            .join();
        let environment = match compiled {
            Ok(Ok(Ok(environment))) => environment,
            Ok(Ok(Err(error))) => return Err(Error::input(describe(&place, &error))),
            Ok(Err(_)) | Err(_) => return Err(Error::input(format!("{place}: cannot be compiled"))),
        };
        Ok(ChatTemplate { environment, place, special_tokens })
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
        let mut variables = self.special_tokens.clone();
        variables.insert("tools".into(), json!(null));
        variables.insert("documents".into(), json!(null));
        variables.insert("add_generation_prompt".into(), json!(add_generation_prompt));
        let messages = serde_json::to_value(messages)
            .map_err(|error| Error::input(format!("{}: a message is not a map: {error}", self.place)))?;
        variables.insert("messages".into(), messages);
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(Serde(variables)))
            .map_err(|error| Error::input(describe(&self.place, &error)))
    }
}

/// A JSON object from a file; empty if there is no such file.
fn read_object(file: &Path) -> Result<Map<String, serde_json::Value>> {
    if !file.exists() {
        return Ok(Map::new());
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
fn special_tokens<const N: usize>(
    maps: [Map<String, serde_json::Value>; N],
) -> Map<String, serde_json::Value> {
    let content =
        |value: &serde_json::Value| value.as_str().or(value["content"].as_str()).map(|text| json!(text));
    let mut found = Map::new();
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

/// What `transformers` sets up, with minijinja's names.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters are valid"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", strftime_now);
    environment
}

fn compile(source: String) -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = environment();
    environment.add_template_owned(NAME, source)?;
    Ok(environment)
}

/// Python's `json.dumps(value, ensure_ascii=False)`, with its arguments.
fn to_json(
    value: Serde<serde_json::Value>,
    arguments: Kwargs,
) -> std::result::Result<String, minijinja::Error> {
    let style = json::Style {
        ensure_ascii: arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: arguments.get::<Option<usize>>("indent")?.map(|indent| indent.min(MAX_INDENT)),
        separators: arguments.get::<Option<Vec<String>>>("separators")?,
        sort_keys: arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    arguments.assert_all_used()?;
    Ok(json::dumps(&value.0, &style))
}

/// The local time, written as C's `strftime` does.
fn strftime_now(format: &str) -> std::result::Result<String, minijinja::Error> {
    use std::fmt::Write;
    let mut text = String::new();
    write!(text, "{}", chrono::Local::now().format(format)).map_err(|_| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now cannot write '{format}'"))
    })?;
    Ok(text)
}

/// Writes `{% generation %}`, which marks what the assistant says, as `{% with %}`: the same scope and white space.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        result += before;
        // The sign of `{%}` does not both open and close.
        let end = tag[2..].find("%}").map_or(tag.len(), |end| 2 + end);
        let (tag, after) = tag.split_at(end);
        let signs = |c: char| c == '-' || c == '+';
        result += &match tag[2..].trim_matches(signs).trim() {
            "generation" => tag.replace("generation", "with"),
            "endgeneration" => tag.replace("endgeneration", "endwith"),
            _ => tag.to_string(),
        };
        rest = after;
    }
    result + rest
}

/// One line: place, line in the template, what is wrong.
fn describe(place: &str, error: &minijinja::Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!(", line {line}"));
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    format!("{place}{line}: {}", what.replace('\n', " "))
}

#[cfg(test)]
mod tests;
