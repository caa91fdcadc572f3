//! Conversations: what a chat model learns from, in the forms that people have them.
//!
//! | form | a record has |
//! |---|---|
//! | messages | `messages`: a list of `role` and `content` |
//! | ShareGPT | `conversations`: a list of `from` and `value` |
//! | prompt and completion | `prompt`, and `completion` or `response`; each a text or a list of messages |
//! | Alpaca | `instruction`, perhaps `input`, and `output` |
//!
//! Each record may have another form. A `system` prompt and `tools` may stand beside any of them; columns of other names
//! are named by [`Columns`].

pub mod decontaminate;
mod record;

pub use record::{Columns, read_side};

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::source::{Records, Source};
use crate::error::Result;
use crate::tokenizer::Message;

/// Most messages of a conversation.
pub const MAX_MESSAGES: usize = 1024;

/// A conversation. Calls of tools are in the `tool_calls` of the assistant's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The messages, at least one of them the assistant's.
    pub messages: Vec<Message>,
    /// The tools that the assistant may call.
    pub tools: Vec<Value>,
}

impl Conversation {
    /// Reads a record, whatever its form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_record(record: &Map<String, Value>, columns: &Columns) -> std::result::Result<Self, String> {
        let conversation = columns.read(record)?;
        conversation.check()?;
        Ok(conversation)
    }

    /// What makes it useless to learn from.
    fn check(&self) -> std::result::Result<(), String> {
        if self.messages.len() > MAX_MESSAGES {
            return Err(format!("{} messages, more than {MAX_MESSAGES}: divide it", self.messages.len()));
        }
        let answers = || self.messages.iter().enumerate().filter(|(_, message)| message.role == "assistant");
        if answers().next().is_none() {
            return Err("no message of the assistant: there is nothing to learn".into());
        }
        let empty = |message: &Message| message.content.trim().is_empty() && calls(message).is_empty();
        match answers().find(|(_, message)| empty(message)) {
            Some((i, _)) => Err(format!("message {} (assistant) is empty: there is nothing to learn", i + 1)),
            None => Ok(()),
        }
    }

    /// Identifies what is said, and the tools.
    pub fn hash(&self) -> u64 {
        xxh3_64(json!([self.messages, self.tools]).to_string().as_bytes())
    }

    /// Bytes of all that is said.
    pub fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.content.len()).sum()
    }

    /// The same for templates that do not write tools: they are written into the system prompt and calls into what the
    /// assistant says, in the way of SmolLM2-1.7B-Instruct.
    #[must_use]
    pub fn with_tools_in_text(mut self) -> Self {
        for message in &mut self.messages {
            let calls: Vec<Value> = calls(message).iter().map(|call| bare(call).clone()).collect();
            message.extra.shift_remove("tool_calls");
            if !calls.is_empty() {
                let text = format!("<tool_call>{}</tool_call>", json!(calls));
                let said = message.content.trim_end();
                message.content = if said.is_empty() { text } else { format!("{said}\n{text}") };
            }
        }
        if !self.tools.is_empty() {
            let tools: Vec<Value> = self.tools.drain(..).map(|tool| bare(&tool).clone()).collect();
            let text = format!(
                "You can call these tools:\n<tools>{}</tools>\n\nTo call some of them, answer with nothing but \
                 <tool_call>[{{\"name\": ..., \"arguments\": {{...}}}}]</tool_call>.",
                json!(tools)
            );
            match self.messages.first_mut().filter(|message| message.role == "system") {
                Some(system) if system.content.is_empty() => system.content = text,
                Some(system) => system.content = format!("{}\n\n{text}", system.content),
                None => self.messages.insert(0, Message::new("system", text)),
            }
        }
        self
    }
}

/// The calls of tools that a message makes.
fn calls(message: &Message) -> &[Value] {
    message.extra.get("tool_calls").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The function in `{"type": "function", "function": ...}`.
fn bare(value: &Value) -> &Value {
    value.get("function").filter(|function| function.is_object()).unwrap_or(value)
}

/// Streams the conversations of `source`. Records that are none are refused or skipped as it says.
///
/// # Errors
/// As [`Source::objects`].
pub fn conversations(source: &Source, columns: &Columns) -> Result<Records<Conversation>> {
    let (columns, named) = (columns.clone(), columns.clone());
    source.parsed(move |name| named.may_use(name), move |record| Conversation::from_record(&record, &columns))
}

#[cfg(test)]
mod tests;
