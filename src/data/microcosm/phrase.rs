//! Pieces of templates, and what makes phrases right: articles and capitals.

/// A phrase with its indefinite article: "a bowl", "an old hat".
pub(super) fn with_article(phrase: &str) -> String {
    let vowel = phrase.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']);
    format!("{} {phrase}", if vowel { "an" } else { "a" })
}

/// Capitalises the first letter of the text, of each sentence, and of quoted speech.
pub(super) fn capitalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut start, mut ended, mut quoted, mut interrupted) = (true, false, false, false);
    for c in text.chars() {
        if c == '"' {
            quoted = !quoted;
            // `"No," she said, "not yet."` is one sentence in two parts.
            start |= quoted && !interrupted;
            interrupted = !quoted && out.ends_with(',');
            // `"Stop!" she cried` goes on; after `"Stop."` a new sentence begins.
            ended &= out.ends_with('.');
        } else if c.is_whitespace() {
            start |= ended || c == '\n';
            ended = false;
        } else {
            ended = matches!(c, '.' | '?' | '!');
            interrupted &= !ended;
            if start && c.is_alphanumeric() {
                start = false;
                out.push(c.to_ascii_uppercase());
                continue;
            }
        }
        out.push(c);
    }
    out
}

/// Splits a text that starts with a bracket into what is inside it and what comes after it.
pub(super) fn bracketed(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (&text[1..i], &text[i + 1..]);
        }
    }
    panic!("a bracket is not closed in the template {text:?}")
}

/// The alternatives that stand inside a bracket.
pub(super) fn alternatives(inside: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (i, c) in inside.char_indices() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            '|' if depth == 0 => {
                parts.push(&inside[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_and_speech_begin_with_capitals() {
        assert_eq!(
            capitalise("he said, \"go. now!\" and went. 3.5 a\nb"),
            "He said, \"Go. Now!\" and went. 3.5 a\nB"
        );
        assert_eq!(capitalise("\"no?\" she asked."), "\"No?\" she asked.");
        assert_eq!(capitalise("\"no,\" he said, \"not you.\" so"), "\"No,\" he said, \"not you.\" So");
        assert_eq!(capitalise("\"no,\" he said. \"not you.\""), "\"No,\" he said. \"Not you.\"");
    }
}
