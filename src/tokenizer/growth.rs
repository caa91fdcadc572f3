//! How much longer a tokenizer's normalizer or decoder makes a text. Each step of a chain may multiply it, so that a
//! file of some KiB can ask for more memory than there is.

use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

use crate::panics::caught;

/// Most times that a chain may stretch a text, and bytes that it may add in any case.
const MOST_TIMES: f64 = 16.0;
const MOST_ADDED: f64 = 65536.0;

/// Most steps of a chain.
const MOST_STEPS: usize = 64;

/// A text of n bytes may become one of `times` n + `added` bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    times: f64,
    added: f64,
}

impl Step {
    fn after(self, length: f64) -> f64 {
        self.times * length + self.added
    }
}

/// The steps of a normalizer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Growth(Vec<Step>);

/// The most that a normalizer does to a text.
///
/// # Errors
/// If it has more steps than anybody needs.
pub(super) fn of_normalizer(normalizer: Option<&NormalizerWrapper>) -> Result<Growth, String> {
    steps("normalizer", &json(normalizer), "normalizers").map(Growth)
}

/// Refuses a tokenizer whose pre-tokenizer or decoder stretches what it is given without measure.
///
/// # Errors
/// Says how much it does.
pub(super) fn check(tokenizer: &tokenizers::Tokenizer) -> Result<(), String> {
    let pre_tokenizer = json(tokenizer.get_pre_tokenizer());
    let decoder = json(tokenizer.get_decoder());
    let chains = [("pre_tokenizer", pre_tokenizer, "pretokenizers"), ("decoder", decoder, "decoders")];
    for (what, chain, list) in chains {
        let step =
            |all: Step, next: &Step| Step { times: all.times * next.times, added: next.after(all.added) };
        let all = steps(what, &chain, list)?.iter().fold(Step { times: 1.0, added: 0.0 }, step);
        if all.times > MOST_TIMES || all.added > MOST_ADDED {
            return Err(format!(
                "its {what} may make a text {:.0} times as long, and add {:.0} bytes: take another tokenizer",
                all.times, all.added
            ));
        }
    }
    Ok(())
}

/// A part of a tokenizer as `tokenizer.json` has it, with all types written out.
fn json<T: serde::Serialize>(part: Option<&T>) -> Value {
    serde_json::to_value(part).unwrap_or(Value::Null)
}

fn steps(what: &str, outer: &Value, list: &str) -> Result<Vec<Step>, String> {
    fn flatten<'a>(value: &'a Value, list: &str, found: &mut Vec<&'a Value>) {
        match value[list].as_array() {
            Some(inner) if value["type"] == "Sequence" => {
                inner.iter().for_each(|value| flatten(value, list, found));
            }
            _ => found.push(value),
        }
    }
    let mut found = Vec::new();
    flatten(outer, list, &mut found);
    if found.len() > MOST_STEPS {
        return Err(format!("its {what} has {} steps, more than {MOST_STEPS}", found.len()));
    }
    Ok(found.into_iter().map(step).collect())
}

/// The most that one step does, whatever the text. What Unicode's normal forms do is known: at most 11 times the bytes.
fn step(value: &Value) -> Step {
    let length = |key: &str| value[key].as_str().map_or(0, str::len) as f64;
    let (times, added) = match value["type"].as_str().unwrap_or_default() {
        "Replace" => match value["pattern"]["String"].as_str() {
            Some(pattern) if !pattern.is_empty() => {
                ((length("content") / pattern.len() as f64).max(1.0), 0.0)
            }
            // It may match a character, or nothing at all between two of them.
            _ => (1.0 + length("content"), length("content")),
        },
        "Prepend" => (1.0, length("prepend")),
        // A byte becomes a character of at most two bytes, a Chinese character gets two blanks.
        "ByteLevel" | "BertNormalizer" | "Lowercase" => (2.0, 1.0),
        "NFC" | "NFD" | "NFKC" | "NFKD" => (11.0, 0.0),
        "Precompiled" => (longest_entry(value["precompiled_charsmap"].as_str().unwrap_or_default()), 0.0),
        "Metaspace" | "WordPiece" | "CTC" | "BPEDecoder" => {
            (1.0, length("replacement") + length("prefix") + length("word_delimiter_token") + 8.0)
        }
        _ => (1.0, 0.0),
    };
    Step { times, added }
}

/// Length of the longest entry of SentencePiece's table of characters, at least 1. In base64 it is the size of an
/// index in four bytes, the index, and the entries, each ended by a zero.
fn longest_entry(table: &str) -> f64 {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(table.len()), 0u32, 0);
    for digit in table.bytes().filter_map(digit) {
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    let index = bytes.first_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize);
    let entries = bytes.get(4 + index..).unwrap_or_default();
    entries.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0).max(1) as f64
}

impl Growth {
    /// Refuses a text that `normalizer` stretches beyond measure, or to more than `longest` bytes. Most tokenizers
    /// cannot; with others the text is normalised step by step, as long as it is short enough.
    pub(super) fn check(
        &self,
        normalizer: Option<&NormalizerWrapper>,
        text: &str,
        longest: usize,
    ) -> Result<(), String> {
        let Some(normalizer) = normalizer else { return Ok(()) };
        let most = (MOST_TIMES * text.len() as f64 + MOST_ADDED).min(longest as f64);
        if self.0.iter().fold(text.len() as f64, |length, step| step.after(length)) <= most {
            return Ok(());
        }
        let refusal = || {
            let length = text.len();
            format!(
                "its normalizer makes a text of {length} bytes longer than {most:.0} bytes: take another tokenizer"
            )
        };
        let mut text = NormalizedString::from(text);
        let mut apply = |normalizer: &NormalizerWrapper, step: &Step| {
            // Even where it then is too long, it must not be longer than can be held.
            if step.after(text.get().len() as f64) > 16.0 * longest as f64 {
                return Err(refusal());
            }
            match caught(|| normalizer.normalize(&mut text)) {
                Ok(Ok(())) if text.get().len() as f64 <= most => Ok(()),
                Ok(Ok(())) => Err(refusal()),
                Ok(Err(error)) => Err(format!("its normalizer refuses the text: {error}")),
                Err(why) => Err(format!("its normalizer refuses the text: {why}")),
            }
        };
        let mut flat = Vec::new();
        flatten(normalizer, &mut flat);
        flat.into_iter().zip(&self.0).try_for_each(|(normalizer, step)| apply(normalizer, step))
    }
}

fn flatten<'a>(normalizer: &'a NormalizerWrapper, found: &mut Vec<&'a NormalizerWrapper>) {
    match normalizer {
        NormalizerWrapper::Sequence(sequence) => {
            sequence.as_ref().iter().for_each(|inner| flatten(inner, found));
        }
        other => found.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn growth(normalizer: Value) -> (Growth, NormalizerWrapper) {
        let normalizer: NormalizerWrapper = serde_json::from_value(normalizer).unwrap();
        (of_normalizer(Some(&normalizer)).unwrap(), normalizer)
    }

    fn replace(from: &str, to: &str) -> Value {
        json!({"type": "Replace", "pattern": {"String": from}, "content": to})
    }

    #[test]
    fn a_normalizer_that_multiplies_is_refused_for_what_it_does() {
        let tenfold = vec![replace("a", &"a".repeat(10)); 9];
        let (growth, normalizer) = growth(json!({"type": "Sequence", "normalizers": tenfold}));
        let check = |text: &str| growth.check(Some(&normalizer), text, 8 << 20);
        assert!(check("aa").unwrap_err().contains("2 bytes longer than 65568"));
        assert_eq!(check(&"b".repeat(100)), Ok(()), "there is nothing to replace");
        assert!(check(&"b".repeat(9 << 20)).is_err());
    }

    #[test]
    fn the_normalizers_of_known_tokenizers_do_not_matter() {
        let llama2 = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"}, replace(" ", "\u{2581}")]});
        let compatible =
            json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]});
        for known in [llama2, compatible] {
            let (growth, normalizer) = growth(known);
            for text in ["", " a b ", &"a b\u{fdfa}\u{130} ".repeat(50_000)] {
                assert_eq!(growth.check(Some(&normalizer), text, 8 << 20), Ok(()));
            }
        }
    }

    #[test]
    fn chains_without_measure_are_refused_at_once() {
        let many = json!({"type": "Sequence", "normalizers": vec![json!({"type": "NFC"}); 65]});
        let many: NormalizerWrapper = serde_json::from_value(many).unwrap();
        assert!(of_normalizer(Some(&many)).unwrap_err().contains("65 steps"));
        // Eight bytes of index, then the entries.
        assert_eq!(longest_entry("CAAAAAAAAAAAAAAAYWIAYWJjZAA="), 4.0);
        assert_eq!(longest_entry(""), 1.0);
    }
}
