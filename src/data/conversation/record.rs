//! From a JSON object to a conversation.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Conversation;
use crate::tokenizer::Message;

type Object = Map<String, Value>;
type Outcome<T> = std::result::Result<T, String>;

/// `columns` of a dataset: what makes a conversation. Those that are not given have the names that are usual.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// The list of messages: `messages`, `conversations` or `conversation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<String>,
    /// What the user says, if there is no list of messages: `prompt` or `instruction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What belongs to the prompt, a line after it: beside `instruction`, `input` or `context`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// What the assistant answers: `completion`, `response` or `output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion: Option<String>,
    /// The system prompt: `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The tools, as a list or as its JSON text: `tools`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<String>,
}

/// How many keys a message names.
const NAMED: usize = 10;

/// The names that columns usually have.
const MESSAGES: &[&str] = &["messages", "conversations", "conversation"];
const PROMPT: &[&str] = &["prompt", "instruction"];
const INPUT: &[&str] = &["input", "context"];
const COMPLETION: &[&str] = &["completion", "response", "output"];
const SYSTEM: &[&str] = &["system"];
const TOOLS: &[&str] = &["tools"];

/// A column that is there: its name and what it holds.
type Column<'a> = (&'a str, &'a Value);

/// The column that is named, or the first that is there of the usual ones. One that holds null is not there, as in
/// tables where each row has only some columns.
fn find<'a>(record: &'a Object, named: &'a Option<String>, usual: &[&'a str]) -> Option<Column<'a>> {
    let one = named.as_deref();
    let names = if one.is_some() { &[] } else { usual };
    let there = |name: &'a str| record.get(name).filter(|value| !value.is_null()).map(|value| (name, value));
    one.into_iter().chain(names.iter().copied()).find_map(there)
}

impl Columns {
    /// Whether all have the names that are usual.
    pub fn are_usual(&self) -> bool {
        *self == Columns::default()
    }

    /// Whether a conversation, or a prompt, may be made of a column of this name.
    pub fn may_use(&self, name: &str) -> bool {
        let Columns { messages, prompt, input, completion, system, tools } = self;
        [messages, prompt, input, completion, system, tools].iter().any(|it| it.as_deref() == Some(name))
            || [MESSAGES, PROMPT, INPUT, COMPLETION, SYSTEM, TOOLS].concat().contains(&name)
    }

    /// The conversation of a record, not yet checked.
    pub(super) fn read(&self, record: &Object) -> Outcome<Conversation> {
        let (name, mut messages, ends) = self.read_beginning(record)?;
        if !ends {
            let Some((answer_name, answer)) = find(record, &self.completion, COMPLETION) else {
                let wanted = self.completion.as_deref().unwrap_or("completion, response or output");
                return Err(format!("\"{name}\" without an answer: no {wanted} among: {}", keys(record)));
            };
            messages.extend(read_side(answer_name, answer, "assistant")?);
        }
        Ok(Conversation { messages, tools: self.read_tools(record)? })
    }

    /// The messages that a record gives before whatever it answers: all of a list of messages, or the prompt; with its
    /// system prompt. For records that have several answers, such as preference pairs.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn read_prompt(&self, record: &Object) -> Outcome<Vec<Message>> {
        self.read_beginning(record).map(|(_, messages, _)| messages)
    }

    /// The tools of a record, none where it has none.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read_tools(&self, record: &Object) -> Outcome<Vec<Value>> {
        let tools = find(record, &self.tools, TOOLS);
        tools.map_or(Ok(Vec::new()), |(name, tools)| read_tools(name, tools))
    }

    /// The column that was found, its messages, and whether they are a whole conversation.
    fn read_beginning<'a>(&'a self, record: &'a Object) -> Outcome<(&'a str, Vec<Message>, bool)> {
        let prompted = self.prompt.is_some() && self.messages.is_none();
        let list = find(record, &self.messages, MESSAGES);
        let (name, mut messages, ends) = match list.filter(|_| !prompted) {
            Some((name, value)) => match listed(value) {
                Some(list) => (name, read_messages(name, &list)?, true),
                None => return Err(format!("\"{name}\" is {}, not a list of messages", kind(value))),
            },
            None => {
                let prompt = find(record, &self.prompt, PROMPT);
                let Some((name, prompt)) = prompt.filter(|_| self.messages.is_none()) else {
                    return Err(self.nothing_found(record));
                };
                (name, self.with_input(record, name, read_side(name, prompt, "user")?)?, false)
            }
        };
        if let Some((name, system)) = find(record, &self.system, SYSTEM) {
            let text = read_text(name, system)?;
            if !text.is_empty() && messages.first().is_none_or(|message| message.role != "system") {
                messages.insert(0, Message::new("system", text));
            }
        }
        Ok((name, messages, ends))
    }

    /// A prompt with what belongs to it, a line after its last message.
    fn with_input(&self, record: &Object, name: &str, mut prompt: Vec<Message>) -> Outcome<Vec<Message>> {
        let beside: &[&str] = if name == "instruction" { INPUT } else { &[] };
        if let Some((name, input)) = find(record, &self.input, beside) {
            let input = read_text(name, input)?;
            if let Some(last) = prompt.last_mut().filter(|_| !input.is_empty()) {
                last.content =
                    if last.content.is_empty() { input } else { format!("{}\n{input}", last.content) };
            }
        }
        Ok(prompt)
    }

    fn nothing_found(&self, record: &Object) -> String {
        let wanted = match (&self.messages, &self.prompt) {
            (Some(name), _) | (None, Some(name)) => format!(" (\"{name}\")"),
            (None, None) => {
                " (messages; conversations; prompt and completion or response; instruction and output)".into()
            }
        };
        format!("no conversation{wanted} among: {}", keys(record))
    }
}

fn keys(record: &Object) -> String {
    let mut keys: Vec<&str> = record.keys().map(String::as_str).take(NAMED).collect();
    if record.len() > NAMED {
        keys.push("...");
    }
    keys.join(", ")
}

/// One side of prompt and completion: a text of `role`, a message, or a list of messages. `name` is what errors call it.
///
/// # Errors
/// What is wrong with it.
pub fn read_side(name: &str, value: &Value, role: &str) -> Outcome<Vec<Message>> {
    match value {
        // Parts of a text have types.
        Value::Array(list) if list.iter().all(|item| item.get("type").is_none()) => read_messages(name, list),
        Value::Object(_) => match listed(value) {
            Some(list) => read_messages(name, &list),
            None => Ok(vec![read_message(&format!("\"{name}\""), value)?]),
        },
        other => Ok(vec![Message::new(role, read_text(name, other)?)]),
    }
}

/// The items of a list; also of a list of objects that is written as an object of equally long lists, as in tables of old.
fn listed(value: &Value) -> Option<Cow<'_, [Value]>> {
    let fields = match value {
        Value::Array(list) => return Some(Cow::Borrowed(list)),
        Value::Object(fields) => fields,
        _ => return None,
    };
    let lists = fields.iter().map(|(name, list)| Some((name, list.as_array()?)));
    let lists = lists.collect::<Option<Vec<_>>>()?;
    let length = lists.first()?.1.len();
    let item = |i: usize| {
        let there = lists.iter().filter(|(_, list)| !list[i].is_null());
        there.map(|(name, list)| ((*name).clone(), list[i].clone())).collect::<Object>().into()
    };
    lists.iter().all(|(_, list)| list.len() == length).then(|| (0..length).map(item).collect())
}

fn read_messages(name: &str, list: &[Value]) -> Outcome<Vec<Message>> {
    if list.is_empty() {
        return Err(format!("\"{name}\" is empty"));
    }
    list.iter().enumerate().map(|(i, item)| read_message(&format!("message {}", i + 1), item)).collect()
}

/// A message with `role` and `content`, or `from` and `value`.
fn read_message(place: &str, item: &Value) -> Outcome<Message> {
    let Value::Object(item) = item else {
        return Err(format!("{place} is {}, not an object with role and content", kind(item)));
    };
    let first_of = |names: [&'static str; 2]| names.into_iter().find_map(|name| item.get(name));
    let speaker = match first_of(["role", "from"]) {
        Some(Value::String(speaker)) => speaker,
        Some(other) => return Err(format!("the role of {place} is {}, not a text", kind(other))),
        None => return Err(format!("{place} has no role (or from) among: {}", keys(item))),
    };
    let role = match speaker.as_str() {
        "system" => "system",
        "user" | "human" => "user",
        "assistant" | "gpt" | "function_call" => "assistant",
        "tool" | "observation" | "function" => "tool",
        _ => {
            let speaker: String = speaker.chars().take(40).collect();
            return Err(format!(
                "the role of {place} is {speaker:?}; known: system, user (human), assistant (gpt), function_call, \
                 tool (observation)"
            ));
        }
    };
    let mut extra: Object = item.clone();
    ["role", "from", "content", "value"].iter().for_each(|key| drop(extra.shift_remove(*key)));
    let place = format!("{place} ({role})");
    let content = match first_of(["content", "value"]) {
        None | Some(Value::Null) if extra.get("tool_calls").is_some_and(Value::is_array) => String::new(),
        Some(content) => read_text(&place, content)?,
        None => return Err(format!("{place} has no content (or value) among: {}", keys(item))),
    };
    if speaker == "function_call" {
        extra.insert("tool_calls".into(), read_calls(&place, &content)?);
        return Ok(Message { role: role.into(), content: String::new(), extra });
    }
    Ok(Message { role: role.into(), content, extra })
}

/// ShareGPT's text of a call, or of a list of calls, as `tool_calls` have them.
fn read_calls(place: &str, text: &str) -> Outcome<Value> {
    let wrong = || format!("{place} calls no function: it is not JSON with a name and arguments");
    let value: Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let list = match value {
        Value::Array(list) if !list.is_empty() => list,
        Value::Object(_) => vec![value],
        _ => return Err(wrong()),
    };
    let call = |call: Value| {
        let Some(name) = call["name"].as_str() else { return Err(wrong()) };
        let arguments = match &call["arguments"] {
            // Some write the arguments as a text of their own.
            Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
            Value::Null => json!({}),
            other => other.clone(),
        };
        Ok(json!({"type": "function", "function": {"name": name, "arguments": arguments}}))
    };
    list.into_iter().map(call).collect::<Outcome<Vec<Value>>>().map(Value::Array)
}

/// A text, or a list of its parts.
fn read_text(place: &str, value: &Value) -> Outcome<String> {
    let part = |part: &Value| match part {
        Value::String(text) => Ok(text.clone()),
        Value::Object(entries) => {
            if let Some(kind) = entries.get("type").filter(|kind| *kind != "text") {
                return Err(format!("{place} has a part of type {kind}, not text"));
            }
            let text = ["text", "value", "content"].iter().find_map(|key| entries.get(*key)?.as_str());
            text.map(String::from).ok_or_else(|| format!("{place} has a part without text"))
        }
        other => Err(format!("{place} has a part that is {}, not text", kind(other))),
    };
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => parts.iter().map(part).collect(),
        other => Err(format!("{place} holds {}, not a text", kind(other))),
    }
}

fn read_tools(name: &str, value: &Value) -> Outcome<Vec<Value>> {
    let wrong = || format!("\"{name}\" is not a list of tools");
    match value {
        Value::String(text) if text.trim().is_empty() => Ok(Vec::new()),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Array(tools)) => Ok(tools),
            _ => Err(wrong()),
        },
        Value::Array(tools) => Ok(tools.clone()),
        _ => Err(wrong()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
