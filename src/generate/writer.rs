//! The text of one sequence as it is generated.

use super::engine::Choice;
use crate::error::Result;
use crate::tokenizer::{Special, StopStrings, TextStream, Tokenizer};

/// Turns chosen tokens into text until a stop token or a stop string ends it.
pub struct Writer<'a> {
    stream: TextStream<'a>,
    stops: StopStrings,
    end_tokens: &'a [u32],
    /// The text so far, without what may still become a stop string.
    pub text: String,
    /// The tokens so far, the one that ended the text included.
    pub choices: Vec<Choice>,
    /// Whether the text has ended.
    pub ended: bool,
}

impl<'a> Writer<'a> {
    /// An empty text that ends with one of `end_tokens`, or before one of the strings `stops`.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if a stop string is empty.
    pub fn new(tokenizer: &'a Tokenizer, end_tokens: &'a [u32], stops: &[String]) -> Result<Self> {
        Ok(Writer {
            stream: tokenizer.stream(Special::Skip),
            stops: StopStrings::new(stops.to_vec())?,
            end_tokens,
            text: String::new(),
            choices: Vec::new(),
            ended: false,
        })
    }

    /// Takes a token; returns the text that is now certain, whole characters only.
    pub fn push(&mut self, choice: Choice) -> String {
        self.choices.push(choice);
        self.ended = self.end_tokens.contains(&choice.token);
        let more = if self.ended { String::new() } else { self.stream.push(choice.token) };
        let more = self.stops.push(&more);
        self.ended |= self.stops.stopped().is_some();
        self.text += &more;
        more
    }

    /// Ends the text; returns what was held back.
    pub fn finish(&mut self) -> String {
        let rest = self.stream.finish();
        let rest = self.stops.push(&rest) + &self.stops.finish();
        self.ended = true;
        self.text += &rest;
        rest
    }
}
