//! Tokens with the text that each stands for.

use std::ops::Range;

use super::{PIECE_BYTES, Tokenizer};
use crate::error::Result;

impl Tokenizer {
    /// As [`Tokenizer::encode`], each id with the bytes of `text` that it stands for. A token that is only part of a
    /// character has the whole character.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_spans(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        let mut spans = Vec::with_capacity(text.len() / 4);
        let mut first = 0;
        for piece in self.pieces(text, PIECE_BYTES) {
            let encoding = self.encode_piece(piece, |piece| self.inner.encode(piece, false))?;
            let offsets = encoding.get_offsets().iter().map(|&(start, end)| first + start..first + end);
            spans.extend(encoding.get_ids().iter().copied().zip(offsets));
            first += piece.len();
        }
        Ok(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_those_of_the_text() {
        let corpus = std::iter::repeat_n("to be, or not to be 42".to_string(), 20);
        let tokenizer = Tokenizer::train(corpus, 320, |_| ()).unwrap();
        let text = "not to be<|im_end|>\n  naïve 中文 <|im_start|>42".repeat(3);
        let spans = tokenizer.encode_spans(&text).unwrap();
        let ids: Vec<u32> = spans.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, tokenizer.encode(&text).unwrap());
        let mut end = 0;
        for (id, span) in spans {
            let whole = tokenizer.decode(&[id]);
            assert!(whole.contains('\u{fffd}') || text[span.clone()] == whole, "{id} {span:?}");
            // In order, without gaps.
            assert!(span.start <= end && span.end >= end, "{id} {span:?}");
            end = span.end;
        }
        assert_eq!(end, text.len());
    }
}
