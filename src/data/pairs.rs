//! Preference pairs: a prompt with two answers, of which one is preferred.
//!
//! A record has `chosen` and `rejected`, each a text, a message, or a list of messages. A `chosen` that is a whole
//! conversation has the prompt in it: all turns but the last. Elsewhere the prompt stands beside, in the forms that
//! [conversations](super::conversation) have: `prompt`, `instruction` and perhaps `input`, `messages` or
//! `conversations`, with `system` and `tools`.

mod set;

pub use set::{Cut, PairTokens, Pairs, pair, pair_count, pair_lengths};

use serde_json::{Map, Value, json};

use super::conversation::{Columns, MAX_MESSAGES, read_side};
use super::source::{Records, Source};
use crate::error::Result;
use crate::tokenizer::Message;

/// A prompt with two answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The conversation so far; its last message is not the assistant's.
    pub prompt: Vec<Message>,
    /// The tools that the assistant may call.
    pub tools: Vec<Value>,
    /// What the assistant should say.
    pub chosen: Message,
    /// What it should rather not say.
    pub rejected: Message,
}

impl Pair {
    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_record(record: &Map<String, Value>, columns: &Columns) -> std::result::Result<Self, String> {
        let (turns, chosen) = answer(record, "chosen")?;
        let (_, rejected) = answer(record, "rejected")?;
        let prompt = match turns.is_empty() {
            true => {
                columns.read_prompt(record).map_err(|why| why.replacen("no conversation", "no prompt", 1))?
            }
            false => turns,
        };
        if prompt.len() >= MAX_MESSAGES {
            return Err(format!("{} messages, more than {MAX_MESSAGES}: divide it", prompt.len()));
        }
        match prompt.last() {
            Some(last) if last.role == "assistant" => {
                return Err("the prompt ends with the assistant: nobody asks for an answer".into());
            }
            Some(last) if last.role != "system" && !last.content.trim().is_empty() => {}
            _ => return Err("the prompt is empty".into()),
        }
        Ok(Pair { prompt, tools: columns.read_tools(record)?, chosen, rejected })
    }

    /// Whether both answers are the same, so that there is nothing to learn.
    pub fn is_equal(&self) -> bool {
        self.chosen == self.rejected
    }

    /// The conversation that ends with `answer`.
    pub fn conversation(&self, answer: &Message) -> Vec<Message> {
        self.prompt.iter().chain([answer]).cloned().collect()
    }

    /// The prompt as text that identifies it.
    fn key(&self) -> String {
        json!([self.prompt, self.tools]).to_string()
    }

    /// Bytes of all that is said.
    fn bytes(&self) -> usize {
        let messages = self.prompt.iter().chain([&self.chosen, &self.rejected]);
        messages.map(|message| message.content.len()).sum()
    }
}

/// The turns before an answer, if the field has them, and the answer.
fn answer(record: &Map<String, Value>, name: &str) -> std::result::Result<(Vec<Message>, Message), String> {
    let Some(value) = record.get(name).filter(|value| !value.is_null()) else {
        let keys: Vec<&str> = record.keys().map(String::as_str).take(10).collect();
        return Err(format!("no \"{name}\" among: {}", keys.join(", ")));
    };
    let mut turns = read_side(name, value, "assistant")?;
    let Some(answer) = turns.pop() else { return Err(format!("\"{name}\" is empty")) };
    if answer.role != "assistant" {
        return Err(format!("\"{name}\" ends with a message of {}, not of the assistant", answer.role));
    }
    let calls =
        answer.extra.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
    if answer.content.trim().is_empty() && !calls {
        return Err(format!("the answer in \"{name}\" is empty"));
    }
    if turns.first().is_some_and(|first| first.role == "assistant") {
        return Err(format!(
            "\"{name}\" has several messages and begins with the assistant: give one answer, or the whole conversation"
        ));
    }
    Ok((turns, answer))
}

/// Streams the pairs of `source`. Records that are none are refused or skipped as it says.
///
/// # Errors
/// As [`Source::objects`].
pub fn pairs(source: &Source, columns: &Columns) -> Result<Records<Pair>> {
    let (columns, named) = (columns.clone(), columns.clone());
    let is_wanted = move |name: &str| ["chosen", "rejected"].contains(&name) || named.may_use(name);
    source.parsed(is_wanted, move |record| Pair::from_record(&record, &columns))
}

#[cfg(test)]
mod tests;
