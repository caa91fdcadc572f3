//! The text of one sequence as it is generated.

use super::generator::Choice;
use crate::error::Result;
use crate::tokenizer::{Special, StopStrings, TextStream, Tokenizer};

/// Turns chosen tokens into text until a stop token or a stop string ends it.
pub struct Writer<'a> {
    stream: TextStream<'a>,
    stops: StopStrings,
    end_tokens: Vec<u32>,
    /// The text so far, without what may still become a stop string.
    pub text: String,
    /// The tokens so far, the one that ended the text included.
    pub choices: Vec<Choice>,
    /// Whether the text has ended.
    pub ended: bool,
}

impl<'a> Writer<'a> {
    /// An empty text that ends with one of `end_tokens`, or before one of the strings `stops`. A string that spells a
    /// special token stands for that token, which is no part of the text.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if a stop string is empty.
    pub fn new(tokenizer: &'a Tokenizer, end_tokens: &[u32], stops: &[String]) -> Result<Self> {
        let special = tokenizer.special_tokens();
        let (tokens, strings): (Vec<&String>, Vec<&String>) =
            stops.iter().partition(|stop| special.contains(stop));
        let ids = tokens.into_iter().filter_map(|token| tokenizer.token_to_id(token));
        Ok(Writer {
            stream: tokenizer.stream(Special::Skip),
            stops: StopStrings::new(strings.into_iter().cloned())?,
            end_tokens: end_tokens.iter().copied().chain(ids).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_with_a_token_or_before_a_string() {
        let tokenizer = Tokenizer::train(std::iter::repeat_n("ab ab".to_string(), 3), 300, |_| ()).unwrap();
        let write = |text: &str, ends: &[u32], stops: &[&str]| {
            let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
            let mut writer = Writer::new(&tokenizer, ends, &stops).unwrap();
            let mut streamed = String::new();
            for token in tokenizer.encode(text).unwrap() {
                if !writer.ended {
                    streamed += &writer.push(Choice { token, logprob: 0.0 });
                }
            }
            let ended = writer.ended;
            streamed += &writer.finish();
            assert_eq!(streamed, writer.text);
            (streamed, ended)
        };
        let text = "ab<|im_end|> b\u{e9}<|endoftext|>c";
        assert_eq!(write(text, &[], &[]), ("ab b\u{e9}c".into(), false));
        assert_eq!(write(text, &[2], &[]), ("ab".into(), true));
        assert_eq!(write(text, &[0], &["<|repo_name|>"]), ("ab b\u{e9}".into(), true));
        assert_eq!(write(text, &[0], &["<|im_end|>"]), ("ab".into(), true));
        assert_eq!(write(text, &[0], &["\u{e9}", "q"]), ("ab b".into(), true));
        assert_eq!(write("ab", &[0], &["abc"]), ("ab".into(), false));
    }
}
