//! A conversation as token ids.

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
        let masked: Vec<Message> = messages
            .iter()
            .map(|message| Message::new(message.role.clone(), mask(&message.content, &special)))
            .collect();
        let text = self.render(&masked, add_generation_prompt)?;
        let mut pieces = text.split(MARK);
        let mut ids = tokenizer.encode(pieces.next().unwrap_or_default())?;
        for piece in pieces {
            let mut rest = piece.chars();
            let index = rest.next().and_then(|c| u32::from(c).checked_sub(FIRST));
            match index.and_then(|index| special.get(index as usize)) {
                Some(token) => {
                    ids.extend(tokenizer.encode_ordinary(token)?);
                    ids.extend(tokenizer.encode(rest.as_str())?);
                }
                // The mark was in the message itself.
                None => ids.extend(tokenizer.encode(&format!("{MARK}{piece}"))?),
            }
        }
        Ok(ids)
    }
}

/// `text` with a mark in place of each special token.
fn mask(text: &str, special: &[String]) -> String {
    let indices = (FIRST..).filter_map(char::from_u32).take(MOST);
    special.iter().zip(indices).fold(text.to_string(), |text, (token, index)| {
        if text.contains(token) { text.replace(token, &format!("{MARK}{index}")) } else { text }
    })
}
