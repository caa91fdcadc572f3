//! On which tokens of a conversation a model is judged: all, or what the assistant says.
//!
//! What the assistant says is found in the rendered text. A template may tell, with `{% generation %}`. Of any other the
//! conversation up to a message, with the assistant's turn opened, begins the text of the whole: what follows, up to
//! where the conversation with that message ends, is the message, its end token, and perhaps white space, which does not
//! count.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::encode::{Piece, mask_value, masked, pieces};
use super::jinja::{CLOSED, OPENED};
use super::{ChatTemplate, Message};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Which tokens of a conversation a model is judged on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judged {
    /// All of them, as SmolLM2 was.
    #[default]
    All,
    /// What the assistant says, and the token that ends it.
    Assistant,
}

/// A conversation as tokens, with those marked that a model is judged on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JudgedTokens {
    /// The token ids.
    pub ids: Vec<u32>,
    /// For each, whether the model is judged on predicting it.
    pub judged: Vec<bool>,
}

/// A conversation as text.
struct Rendered {
    text: String,
    /// What a model is judged on, in order.
    judged: Vec<Range<usize>>,
    /// The special tokens that are masked where a message spells them out.
    special: Vec<String>,
}

impl ChatTemplate {
    /// The ids of a rendered conversation as [`ChatTemplate::encode`] gives them, and which of them are judged: those
    /// that lie wholly in the judged text. `tools` are what the template may offer to the assistant.
    ///
    /// # Errors
    /// As [`ChatTemplate::encode`], and [`Error::Input`] naming the template if it does not tell what the assistant says.
    pub fn encode_judged(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: &[Value],
        judged: Judged,
    ) -> Result<JudgedTokens> {
        let Rendered { text, judged, special } = self.render_judged(tokenizer, messages, tools, judged)?;
        let mut tokens = JudgedTokens::default();
        let mut judged = judged.into_iter().peekable();
        let mut push = |id: u32, range: Range<usize>| {
            while judged.next_if(|text| text.end < range.end).is_some() {}
            tokens.ids.push(id);
            tokens.judged.push(judged.peek().is_some_and(|text| text.start <= range.start));
        };
        for piece in pieces(&text, &special) {
            match piece {
                Piece::Text(Range { start, end }) => {
                    for (id, span) in tokenizer.encode_spans(&text[start..end])? {
                        push(id, start + span.start..start + span.end);
                    }
                }
                Piece::Spelled(range, token) => {
                    tokenizer.encode_ordinary(token)?.into_iter().for_each(|id| push(id, range.clone()));
                }
            }
        }
        Ok(tokens)
    }

    /// The ids of a conversation up to its last message, with the assistant's turn opened, and those of what the assistant
    /// then says, its end token included. Each text is encoded for itself, so that all answers go on from one prompt.
    ///
    /// # Errors
    /// As [`ChatTemplate::encode_judged`].
    pub fn encode_answer(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: &[Value],
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        let rendered = self.render_judged(tokenizer, messages, tools, Judged::Assistant)?;
        let answer = rendered.judged.last().cloned().unwrap_or_default();
        let encode = |text: &str| -> Result<Vec<u32>> {
            let mut ids = Vec::new();
            for piece in pieces(text, &rendered.special) {
                ids.extend(match piece {
                    Piece::Text(range) => tokenizer.encode(&text[range])?,
                    Piece::Spelled(_, token) => tokenizer.encode_ordinary(token)?,
                });
            }
            Ok(ids)
        };
        Ok((encode(&rendered.text[..answer.start])?, encode(&rendered.text[answer])?))
    }

    /// The text of a conversation, with special tokens that messages spell out masked.
    fn render_judged(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: &[Value],
        judged: Judged,
    ) -> Result<Rendered> {
        let marks = judged == Judged::Assistant && self.marks_generation;
        let mut special = tokenizer.special_tokens();
        if marks {
            // So that no message pretends to be a mark.
            special.extend([OPENED, CLOSED].map(String::from));
        }
        let messages = masked(messages, &special);
        let tools: Vec<Value> = tools.iter().map(|tool| mask_value(tool, &special)).collect();
        let text = self.render_with(&messages, &tools, false, marks)?;
        let (text, judged) = match judged {
            Judged::All => {
                let all = 0..text.len();
                (text, vec![all])
            }
            Judged::Assistant if marks => without_marks(&text),
            Judged::Assistant => {
                let said = self.said_by_assistant(&messages, &tools, &text, &special)?;
                (text, said)
            }
        };
        Ok(Rendered { text, judged, special })
    }

    /// Where the assistant's messages and their end tokens lie in the `text` of a conversation.
    fn said_by_assistant(
        &self,
        messages: &[Message],
        tools: &[Value],
        text: &str,
        special: &[String],
    ) -> Result<Vec<Range<usize>>> {
        // Where the first `count` messages end, with the assistant's turn opened or not.
        let end_of = |count: usize, opened: bool| -> Result<Option<usize>> {
            let prefix = self.render_with(&messages[..count], tools, opened, false)?;
            Ok(text.starts_with(&prefix).then_some(prefix.len()))
        };
        let mut said = Vec::new();
        for (i, _) in messages.iter().enumerate().filter(|(_, message)| message.role == "assistant") {
            let start = end_of(i, true)?;
            let end = if i + 1 == messages.len() { Some(text.len()) } else { end_of(i + 1, false)? };
            let Some((start, end)) = start.zip(end).filter(|(start, end)| start <= end) else {
                return Err(Error::input(format!(
                    "{}: what the assistant says in message {} cannot be told from its text, which is another with \
                     later messages than without: put {{% generation %}} and {{% endgeneration %}} around it in the \
                     template, or judge all tokens",
                    self.place,
                    i + 1
                )));
            };
            let whole = text[start..end].trim_end();
            let ended = special.iter().any(|token| whole.ends_with(token.as_str()));
            said.push(start..if ended { start + whole.len() } else { end });
        }
        Ok(said)
    }
}

/// The text without the marks of `{% generation %}`, and the ranges between them.
fn without_marks(marked: &str) -> (String, Vec<Range<usize>>) {
    let (mut text, mut ranges, mut opened) = (String::with_capacity(marked.len()), Vec::new(), None);
    for part in marked.split_inclusive([OPENED, CLOSED]) {
        text += part.trim_end_matches([OPENED, CLOSED]);
        if part.ends_with(OPENED) {
            opened = opened.or(Some(text.len()));
        } else if part.ends_with(CLOSED) {
            ranges.extend(opened.take().map(|start| start..text.len()));
        }
    }
    (text, ranges)
}

#[cfg(test)]
mod tests;
