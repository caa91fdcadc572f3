//! A conversation as token ids.

use std::ops::Range;

use serde_json::Value;

use super::{ChatTemplate, Message};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Stands for a special token that a message spells out; the next character tells which. Neither occurs in text:
/// Unicode keeps the first for no character at all, the others for private use.
const MARK: char = '\u{fdd0}';
const FIRST: u32 = 0xe000;
const MOST: usize = 0x1900;

impl ChatTemplate {
    /// The ids of a rendered conversation, as `transformers` has them in `apply_chat_template(tokenize=True)`; but
    /// special tokens that a message spells out are ordinary text, so that nobody closes a message from within.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>> {
        let special = tokenizer.special_tokens();
        let text = self.render(&masked(messages, &special), add_generation_prompt)?;
        let mut ids = Vec::new();
        for piece in pieces(&text, &special) {
            ids.extend(match piece {
                Piece::Text(range) => tokenizer.encode(&text[range])?,
                Piece::Spelled(_, token) => tokenizer.encode_ordinary(token)?,
            });
        }
        Ok(ids)
    }
}

/// A part of a rendered text, by its bytes.
pub(super) enum Piece<'a> {
    /// Text in which special tokens are special.
    Text(Range<usize>),
    /// The mark of this special token, which a message spells out.
    Spelled(Range<usize>, &'a str),
}

/// The parts of a text that was made of [`masked`] messages.
pub(super) fn pieces<'a>(text: &str, special: &'a [String]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let marks = text.match_indices(MARK).map(|(at, _)| at);
    let mut start = 0;
    for end in marks.chain([text.len()]) {
        let mut rest = text[start..end].chars();
        let spelled = (rest.next() == Some(MARK)).then(|| rest.next()).flatten();
        let index = spelled.and_then(|c| u32::from(c).checked_sub(FIRST));
        // Else the mark was in the message itself.
        if let Some(token) = index.and_then(|index| special.get(index as usize)) {
            let after = end - rest.as_str().len();
            pieces.push(Piece::Spelled(start..after, token));
            start = after;
        }
        pieces.push(Piece::Text(start..end));
        start = end;
    }
    pieces
}

/// The messages with a mark in place of each special token that they spell out.
pub(super) fn masked(messages: &[Message], special: &[String]) -> Vec<Message> {
    let masked = |message: &Message| Message {
        role: message.role.clone(),
        content: mask(&message.content, special),
        extra: message.extra.iter().map(|(key, value)| (key.clone(), mask_value(value, special))).collect(),
    };
    messages.iter().map(masked).collect()
}

/// A value with all its texts masked; keys stay.
pub(super) fn mask_value(value: &Value, special: &[String]) -> Value {
    match value {
        Value::String(text) => Value::String(mask(text, special)),
        Value::Array(items) => items.iter().map(|item| mask_value(item, special)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), mask_value(value, special))).collect()
        }
        other => other.clone(),
    }
}

/// `text` with a mark in place of each special token.
fn mask(text: &str, special: &[String]) -> String {
    let indices = (FIRST..).filter_map(char::from_u32).take(MOST);
    special.iter().zip(indices).fold(text.to_string(), |text, (token, index)| {
        if text.contains(token) { text.replace(token, &format!("{MARK}{index}")) } else { text }
    })
}
