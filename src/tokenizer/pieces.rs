//! Cutting a long text into pieces that encode to the same ids as the whole, which bounds memory.

use serde_json::{Value, json};

/// Whether [`pieces`] is exact for this tokenizer: its pre-tokenizer is SmolLM2's, nothing is normalised, and
/// no added token holds or swallows white space.
pub(super) fn divisible(tokenizer: &tokenizers::Tokenizer) -> bool {
    let smollm2 = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    ]});
    let pre_tokenizer = serde_json::to_value(tokenizer.get_pre_tokenizer()).unwrap_or(Value::Null);
    let plain = |token: &tokenizers::AddedToken| {
        !token.lstrip && !token.rstrip && !token.single_word && !token.content.contains(char::is_whitespace)
    };
    tokenizer.get_normalizer().is_none()
        && pre_tokenizer == smollm2
        && tokenizer.get_added_tokens_decoder().values().all(plain)
}

/// Cuts `text` into pieces of at least `min_bytes` (the last may be shorter).
///
/// A cut goes before white space that follows something else: GPT-2's pattern always starts a word there, and what
/// white space becomes never depends on what precedes it. With `at_digits` it also goes before or after a digit, each
/// of which is a word of its own. A text without such a place stays whole.
pub(super) fn pieces(text: &str, min_bytes: usize, at_digits: bool) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let whole = rest.take()?;
        let cut = cut_after(whole, min_bytes, at_digits);
        let (piece, tail) = whole.split_at(cut.unwrap_or(whole.len()));
        rest = cut.map(|_| tail);
        Some(piece)
    })
}

fn cut_after(text: &str, min_bytes: usize, at_digits: bool) -> Option<usize> {
    let start = (min_bytes..text.len()).find(|&i| text.is_char_boundary(i))?;
    let mut before = None;
    for (i, c) in text[start..].char_indices() {
        let cuts = |before: char| {
            c.is_whitespace() && !before.is_whitespace()
                || at_digits && (c.is_numeric() || before.is_numeric())
        };
        if before.is_some_and(cuts) {
            return Some(start + i);
        }
        before = Some(c);
    }
    None
}

/// Whether text may be cut at digits: no added token holds any.
pub(super) fn divisible_at_digits(tokenizer: &tokenizers::Tokenizer) -> bool {
    let added = tokenizer.get_added_tokens_decoder();
    added.values().all(|token| !token.content.contains(char::is_numeric))
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn cuts_before_white_space_and_at_digits() {
        let text = "ab cd  ef\n\ngh1x\nij";
        let cut = |at_digits| pieces(text, 1, at_digits).collect::<Vec<_>>();
        assert_eq!(cut(false), ["ab", " cd", "  ef", "\n\ngh1x", "\nij"]);
        assert_eq!(cut(true), ["ab", " cd", "  ef", "\n\ngh", "1x", "\nij"]);
        assert_eq!(pieces(text, 100, true).collect::<Vec<_>>(), [text]);
        assert_eq!(pieces("é中 a", 1, true).collect::<String>(), "é中 a");
        assert_eq!(pieces("", 1, true).collect::<Vec<_>>(), [""]);
    }
}
