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
/// A cut goes before a single white space character with none beside it. GPT-2's pattern always starts a word
/// there: nothing that matches before it can take the space, and a lone space never depends on what precedes it.
/// A text without such a place stays whole.
pub(super) fn pieces(text: &str, min_bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let whole = rest.take()?;
        let cut = cut_after(whole, min_bytes);
        let (piece, tail) = whole.split_at(cut.unwrap_or(whole.len()));
        rest = cut.map(|_| tail);
        Some(piece)
    })
}

fn cut_after(text: &str, min_bytes: usize) -> Option<usize> {
    let start = (min_bytes..text.len()).find(|&i| text.is_char_boundary(i))?;
    let mut before_space = false;
    let mut space = None;
    for (i, c) in text[start..].char_indices() {
        if !c.is_whitespace() {
            if space.is_some() {
                return space;
            }
            before_space = true;
        } else {
            space = before_space.then_some(start + i);
            before_space = false;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn cuts_only_before_lone_spaces() {
        let text = "ab cd  ef\n\ngh\nij k";
        assert_eq!(pieces(text, 1).collect::<Vec<_>>(), ["ab", " cd  ef\n\ngh", "\nij", " k"]);
        assert_eq!(pieces(text, 100).collect::<Vec<_>>(), [text]);
        assert_eq!(pieces("é中 a", 1).collect::<String>(), "é中 a");
        assert_eq!(pieces("", 1).collect::<Vec<_>>(), [""]);
    }
}
