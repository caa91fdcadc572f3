//! Decoding one token at a time, as a model writes them.

use std::sync::LazyLock;

use tokenizers::DecoderWrapper;

use super::{Special, Tokenizer};

/// Turns ids into text one by one: what it returns, joined, is what [`Tokenizer::decode_with`] makes of all ids.
///
/// A token may hold a part of a character. Its bytes wait until a later token completes them, so that no returned
/// piece splits a character; bytes that can no longer become UTF-8 are U+FFFD, as in whole decoding.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    special: Special,
    state: State,
}

enum State {
    /// Byte-level tokenizers: bytes that wait for the rest of their character, at most three.
    Bytes(Vec<u8>),
    /// Others, whose tokens may change what stands before them: all ids, and the bytes of their text given out.
    /// Each id costs as much as decoding all before it.
    Whole { ids: Vec<u32>, given: String },
}

impl Tokenizer {
    /// A stream that begins with an empty text.
    pub fn stream(&self, special: Special) -> TextStream<'_> {
        let state = match self.inner.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => State::Bytes(Vec::new()),
            _ => State::Whole { ids: Vec::new(), given: String::new() },
        };
        TextStream { tokenizer: self, special, state }
    }
}

impl TextStream<'_> {
    /// Takes one more id and returns the text that is now certain; often a word, sometimes nothing.
    pub fn push(&mut self, id: u32) -> String {
        match &mut self.state {
            State::Bytes(waiting) => {
                self.tokenizer.append_bytes(id, self.special, waiting);
                take_text(waiting)
            }
            State::Whole { ids, given } => {
                ids.push(id);
                let text = self.tokenizer.decode_with(ids, self.special);
                take_suffix(given, text.trim_end_matches('\u{fffd}'))
            }
        }
    }

    /// Returns what still waits, as whole decoding would end it, and starts over.
    pub fn finish(&mut self) -> String {
        match &mut self.state {
            State::Bytes(waiting) => String::from_utf8_lossy(&std::mem::take(waiting)).into_owned(),
            State::Whole { ids, given } => {
                let text = self.tokenizer.decode_with(&std::mem::take(ids), self.special);
                take_suffix(&mut std::mem::take(given), &text)
            }
        }
    }
}

impl Tokenizer {
    /// Appends the bytes that a byte-level decoder makes of one id: none where it would leave the id out.
    fn append_bytes(&self, id: u32, special: Special, bytes: &mut Vec<u8>) {
        let Some(token) = self.inner.id_to_token(id) else { return };
        if special == Special::Skip && self.inner.get_added_vocabulary().is_special_token(&token) {
            return;
        }
        let start = bytes.len();
        for symbol in token.chars() {
            let Some(byte) = byte_of(symbol) else {
                // The decoder takes a token that is not made of byte symbols alone for plain text.
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            };
            bytes.push(byte);
        }
    }
}

/// The byte that GPT-2's `bytes_to_unicode` (openai/gpt-2, src/encoder.py) writes as `symbol`: printable Latin-1
/// stands for itself, the 68 other bytes for U+0100 and up, in order.
fn byte_of(symbol: char) -> Option<u8> {
    static OTHERS: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..=255).filter(|&b| !stands_for_itself(b)).collect());
    match u8::try_from(u32::from(symbol)) {
        Ok(byte) => stands_for_itself(byte).then_some(byte),
        Err(_) => OTHERS.get(u32::from(symbol) as usize - 256).copied(),
    }
}

fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// Takes all text off the front of `bytes`, but for the beginning of a character at its end.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    loop {
        match std::str::from_utf8(bytes) {
            Ok(valid) => {
                text.push_str(valid);
                bytes.clear();
                return text;
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                let Some(broken) = error.error_len() else {
                    *bytes = rest.to_vec();
                    return text;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                *bytes = rest[broken..].to_vec();
            }
        }
    }
}

/// What `text` has beyond `given`, which is updated. A text that now reads otherwise waits: what is given out
/// cannot be taken back.
fn take_suffix(given: &mut String, text: &str) -> String {
    let more = text.strip_prefix(given.as_str()).unwrap_or_default().to_string();
    given.push_str(&more);
    more
}

/// Cuts a stream of text before the first stop string, wherever the pieces of the stream are divided.
///
/// The first stop string is the one that is complete first; of two that end together, the longer. Text that may be
/// the beginning of a stop string is held back until it is known.
///
/// ```
/// use smolter::tokenizer::StopStrings;
/// let mut stops = StopStrings::new(["\nUser:"])?;
/// assert_eq!(stops.push("Yes.\nUs"), "Yes.");
/// assert_eq!(stops.push("er: and"), "");
/// assert_eq!(stops.stopped(), Some("\nUser:"));
/// # Ok::<(), smolter::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: Option<usize>,
}

impl StopStrings {
    /// Stops at any of `stops`; with none it never does and holds nothing back.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if one of them is empty.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> crate::Result<Self> {
        let stops: Vec<String> = stops.into_iter().map(Into::into).collect();
        if stops.iter().any(String::is_empty) {
            return Err(crate::Error::input(
                "a stop string is empty: leave it out, or give the text to stop at",
            ));
        }
        Ok(StopStrings { stops, ..Self::default() })
    }

    /// Takes more text and returns what surely stands before any stop string; nothing once it has stopped.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        self.held.push_str(text);
        let ends = |(i, stop): (usize, &String)| self.held.find(stop).map(|at| (at + stop.len(), at, i));
        if let Some((_, at, i)) = self.stops.iter().enumerate().filter_map(ends).min() {
            self.stopped = Some(i);
            let mut before = std::mem::take(&mut self.held);
            before.truncate(at);
            return before;
        }
        let may_begin = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let certain = self.held.char_indices().map(|(at, _)| at).find(may_begin).unwrap_or(self.held.len());
        let rest = self.held.split_off(certain);
        std::mem::replace(&mut self.held, rest)
    }

    /// Returns what was held back: the text has ended without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop string that ended the text.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.map(|i| self.stops[i].as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::super::smollm2_data;
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::path::Path;

    /// The trained fixture, and SmolLM2's own tokenizer where the data folder is there.
    fn tokenizers() -> Vec<Tokenizer> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let fixture = Tokenizer::load(root.join("tests/fixtures/tokenizer")).unwrap();
        let smollm2 = smollm2_data().map(|folder| Tokenizer::load(folder).unwrap());
        [fixture].into_iter().chain(smollm2).collect()
    }

    fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: Special) -> String {
        let mut stream = tokenizer.stream(special);
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text += &stream.finish();
        assert_eq!(stream.finish(), "", "finish starts over");
        text
    }

    #[test]
    fn the_byte_table_is_the_library_s() {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut bytes: Vec<u8> = alphabet.iter().map(|&symbol| byte_of(symbol).unwrap()).collect();
        bytes.sort();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!([byte_of('Ġ'), byte_of('Ċ'), byte_of('a')], [Some(b' '), Some(b'\n'), Some(b'a')]);
        assert_eq!([byte_of('中'), byte_of(' '), byte_of('\u{ad}'), byte_of('\u{144}')], [None; 4]);
    }

    #[test]
    fn random_ids_give_the_text_of_whole_decoding() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for tokenizer in tokenizers() {
            // Beyond the vocabulary, too. Most single bytes of UTF-8 are among the first 300 ids.
            let (all, low) = (tokenizer.vocab_size() as u32 + 9, 300);
            for round in 0..2000 {
                let top = if round % 2 == 0 { all } else { low };
                let ids: Vec<u32> = (0..rng.random_range(0..40)).map(|_| rng.random_range(0..top)).collect();
                for special in [Special::Show, Special::Skip] {
                    let whole = tokenizer.decode_with(&ids, special);
                    assert_eq!(streamed(&tokenizer, &ids, special), whole, "{ids:?} {special:?}");
                }
            }
        }
    }

    #[test]
    fn text_comes_as_soon_as_it_is_certain() {
        for tokenizer in tokenizers() {
            let ids = tokenizer.encode("na\u{efc}ve 👩‍🔬 <|im_end|>中").unwrap();
            let mut stream = tokenizer.stream(Special::Show);
            for (i, &id) in ids.iter().enumerate() {
                let sent = stream.push(id);
                assert!(!sent.contains('\u{fffd}'), "a character was split: {sent:?}");
                if !tokenizer.decode(&ids[..=i]).ends_with('\u{fffd}') {
                    assert!(matches!(&stream.state, State::Bytes(waiting) if waiting.is_empty()));
                }
            }
        }
    }

    #[test]
    fn special_tokens_are_shown_or_skipped() {
        for tokenizer in tokenizers() {
            let ids = tokenizer.encode("<|im_start|>a b<|im_end|>\n").unwrap();
            assert_eq!(streamed(&tokenizer, &ids, Special::Show), "<|im_start|>a b<|im_end|>\n");
            assert_eq!(streamed(&tokenizer, &ids, Special::Skip), "a b\n");
        }
    }

    #[test]
    fn a_tokenizer_without_byte_level_streams_too() {
        let json = r#"{"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
                              "rstrip": false, "normalized": false, "special": true}],
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
            "decoder": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": true},
            "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"<|endoftext|>": 0, "_ab": 1, "c": 2, "?": 3}}}"#;
        let tokenizer = Tokenizer::from_bytes(json).unwrap();
        let ids = [1, 2, 1, 0, 1];
        let mut stream = tokenizer.stream(Special::Skip);
        assert_eq!(ids.map(|id| stream.push(id)), ["ab", "c", " ab", "", " ab"]);
        assert_eq!(streamed(&tokenizer, &ids, Special::Show), tokenizer.decode(&ids));
    }

    /// The definition, read from the whole text character by character.
    fn cut(text: &str, stops: &[&str]) -> (String, bool) {
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let found =
                stops.iter().filter(|stop| text[..end].ends_with(**stop)).map(|stop| end - stop.len()).min();
            if let Some(at) = found {
                return (text[..at].to_string(), true);
            }
        }
        (text.to_string(), false)
    }

    #[test]
    fn stop_strings_are_found_however_the_text_is_divided() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let stops = ["aba", "bb", "é中é", "aaab"];
        let mut stopped = 0;
        for _ in 0..4000 {
            let text: String =
                (0..rng.random_range(0..12)).map(|_| ['a', 'b', 'é', '中'][rng.random_range(0..4)]).collect();
            let chars: Vec<char> = text.chars().collect();
            let mut machine = StopStrings::new(stops).unwrap();
            let mut sent = String::new();
            let mut rest = chars.as_slice();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(rng.random_range(0..=rest.len().min(4)));
                sent += &machine.push(&piece.iter().collect::<String>());
                rest = tail;
            }
            let was_stopped = machine.stopped().is_some();
            sent += &machine.finish();
            assert_eq!((sent, was_stopped), cut(&text, &stops), "{text:?}");
            stopped += usize::from(was_stopped);
        }
        assert!((500..3500).contains(&stopped), "{stopped} of 4000");
    }

    #[test]
    fn a_stop_string_over_several_tokens_is_found() {
        for tokenizer in tokenizers() {
            for stop in ["\n\nUser:", "中文", "<|im_end|>", "😀"] {
                let ids = tokenizer.encode(&format!("One, two.{stop} three")).unwrap();
                let (mut stream, mut stops) =
                    (tokenizer.stream(Special::Show), StopStrings::new([stop]).unwrap());
                let mut text = String::new();
                let mut used = 0;
                while stops.stopped().is_none() {
                    text += &stops.push(&stream.push(ids[used]));
                    used += 1;
                }
                assert_eq!((text.as_str(), stops.stopped()), ("One, two.", Some(stop)));
                assert!(used < ids.len(), "it stops as soon as the string is complete");
                assert_eq!(stops.push("more") + &stops.finish(), "");
            }
        }
    }

    #[test]
    fn nothing_is_held_back_without_need() {
        let mut none = StopStrings::new::<&str>([]).unwrap();
        assert_eq!(none.push("abc"), "abc");
        let mut stops = StopStrings::new(["###"]).unwrap();
        assert_eq!(
            [stops.push("a#"), stops.push("#b"), stops.push("##"), stops.finish()],
            ["a", "##b", "", "##"]
        );
        assert_eq!(StopStrings::new(["a", ""]).unwrap_err().exit_code(), 2);
    }
}
