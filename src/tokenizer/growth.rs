//! How much longer a tokenizer's normalizer or decoder makes a text. Each step of a chain may multiply it, so that a
//! file of some KiB can ask for more memory than there is.

use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

use crate::panics::caught;

/// Most times that a normalizer may stretch a text, and bytes that it may add in any case.
const MOST_TIMES: f64 = 16.0;
const MOST_ADDED: f64 = 65536.0;

/// Most times that a decoder may stretch a token.
const MOST_DECODED: f64 = 64.0;

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

/// The most that a normalizer of `tokenizer.json` does to a text.
///
/// # Errors
/// If it has more steps than anybody needs.
pub(super) fn of_normalizer(normalizer: &Value) -> Result<Growth, String> {
    steps("normalizer", normalizer, "normalizers").map(Growth)
}

/// Refuses a decoder that stretches tokens without measure.
///
/// # Errors
/// Says how much it does.
pub(super) fn check_decoder(decoder: &Value) -> Result<(), String> {
    let step = |all: Step, next: &Step| Step { times: all.times * next.times, added: next.after(all.added) };
    let all = steps("decoder", decoder, "decoders")?.iter().fold(Step { times: 1.0, added: 0.0 }, step);
    if all.times > MOST_DECODED || all.added > MOST_ADDED {
        return Err(format!(
            "its decoder may make a token {:.0} times as long, and add {:.0} bytes",
            all.times, all.added
        ));
    }
    Ok(())
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
        // Whatever its table says, which nobody can read from here.
        "Precompiled" => (length("precompiled_charsmap").max(1.0), 0.0),
        "Metaspace" | "WordPiece" | "CTC" | "BPEDecoder" => {
            (1.0, length("replacement") + length("prefix") + length("word_delimiter_token") + 8.0)
        }
        _ => (1.0, 0.0),
    };
    Step { times, added }
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
            if step.after(text.get().len() as f64) > 16.0 * longest as f64 && !is_form(normalizer) {
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

/// Tables of single characters: what they add is small, even where their largest entry is not.
fn is_form(normalizer: &NormalizerWrapper) -> bool {
    matches!(
        normalizer,
        NormalizerWrapper::NFC(_)
            | NormalizerWrapper::NFD(_)
            | NormalizerWrapper::NFKC(_)
            | NormalizerWrapper::NFKD(_)
    )
}

fn flatten<'a>(normalizer: &'a NormalizerWrapper, found: &mut Vec<&'a NormalizerWrapper>) {
    match normalizer {
        NormalizerWrapper::Sequence(sequence) => {
            sequence.as_ref().iter().for_each(|inner| flatten(inner, found));
        }
        other => found.push(other),
    }
}
