//! Training of a byte-level BPE tokenizer with SmolLM2's pre-tokenizer and special tokens (those of
//! HuggingFaceTB/cosmo2-tokenizer).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{
    AddedToken, Model, NormalizerWrapper, OffsetReferential, OffsetType, PostProcessorWrapper,
    PreTokenizedString, PreTokenizer, TokenizerBuilder,
};

use super::{SPECIAL_TOKENS, Tokenizer, pieces};
use crate::error::{Error, Result};

/// Longest token. Text without words, or that repeats itself, would otherwise become a handful of tokens.
const MAX_TOKEN_BYTES: usize = 128;

/// The smallest vocabulary that can be trained: the special tokens and one token for each of 256 bytes.
pub const MIN_VOCAB_SIZE: usize = SPECIAL_TOKENS.len() + 256;

/// A pair of tokens is merged only if it occurs at least this often.
const MIN_FREQUENCY: u64 = 2;

/// The library counts pairs in `i32`, and no pair can occur more often than there are bytes.
const MAX_BYTES: u64 = i32::MAX as u64;

/// Half the length, in bytes, from which a stretch of text without white space and digits teaches nothing: the library
/// takes time with the square of a word's length.
const LONG_WORD: usize = 16 << 10;

/// How far the reading of the training documents is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrainProgress {
    /// Documents read.
    pub documents: u64,
    /// Bytes of text read.
    pub bytes: u64,
}

/// How many ids a tokenizer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VocabSize {
    /// Ids in the end, special ones included.
    pub kept: usize,
    /// Ids that are trained at first. All but the most used of them go again: most merges are steps on the way to a
    /// word and occur nowhere else (scaffold tokens: Lian et al. 2024, section 2). What is left takes a word that is a
    /// token as it stands, without the merges that led to it (`ignore_merges`, as Llama 3 has it).
    pub trained: usize,
}

impl From<usize> for VocabSize {
    fn from(size: usize) -> Self {
        Self { kept: size, trained: size }
    }
}

impl Tokenizer {
    /// Trains a tokenizer of at most `size` ids on `documents`, calling `progress` once per document.
    ///
    /// Ids: the special tokens, then the 256 byte symbols in code point order, then merges, most frequent
    /// first. All 256 bytes are kept, seen or not (SmolLM2 itself lacks 21), so that no text ever loses a byte.
    /// Fewer ids come out if the documents hold too few pairs that occur twice; see
    /// [`Tokenizer::vocab_size`]. Stretches of more than 32 KiB without white space or a digit are left out. The result depends on the documents alone, not on their order or on threads.
    ///
    /// # Errors
    /// [`Error::Input`] if `size.kept` is under [`MIN_VOCAB_SIZE`] or the documents exceed 2 GiB of text.
    pub fn train(
        documents: impl Iterator<Item = String> + Send,
        size: impl Into<VocabSize>,
        mut progress: impl FnMut(TrainProgress) + Send,
    ) -> Result<Self> {
        let size = size.into();
        if size.kept < MIN_VOCAB_SIZE {
            return Err(Error::input(format!(
                "tokenizer: a vocabulary of {} is too small: ask for at least {MIN_VOCAB_SIZE} \
                 (256 bytes and {} special tokens)",
                size.kept,
                SPECIAL_TOKENS.len()
            )));
        }
        let failure = |e: tokenizers::Error| Error::failure(format!("tokenizer: training failed: {e}"));
        let mut seen = TrainProgress::default();
        let mut words = Words::default();
        let documents = documents.map_while(|text| {
            seen.documents += 1;
            seen.bytes += text.len() as u64;
            progress(seen);
            let text = (seen.bytes <= MAX_BYTES).then(|| without_long_words(text))?;
            if size.trained > size.kept {
                words.count(&text);
            }
            Some(text)
        });

        let mut untrained =
            TokenizerBuilder::<BPE, NormalizerWrapper, Sequence, PostProcessorWrapper, _>::new()
                .with_model(BPE::default())
                .with_pre_tokenizer(Some(pre_tokenizer()))
                .with_decoder(Some(ByteLevel::default()))
                .build()
                .map_err(failure)?;
        let special = SPECIAL_TOKENS.iter().map(|&token| AddedToken::from(token, true).normalized(false));
        let mut trainer = BpeTrainer::builder()
            .vocab_size(size.trained)
            .min_frequency(MIN_FREQUENCY)
            .special_tokens(special.collect())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .max_token_length(Some(MAX_TOKEN_BYTES))
            .show_progress(false)
            .build();
        let trained = untrained.train(&mut trainer, documents).map_err(failure)?;
        if seen.bytes > MAX_BYTES {
            return Err(Error::input(
                "tokenizer: more than 2 GiB of text to train on: draw a smaller sample of documents",
            ));
        }
        let (model, json) = (trained.get_model(), trained.to_string(true).map_err(failure)?);
        if model.get_vocab_size() <= size.kept {
            return Self::from_bytes(json);
        }
        Self::from_bytes(prune(&json, &words.uses_of_tokens(model).map_err(failure)?, size.kept))
    }
}

/// How often each word of the documents occurs, in the library's spelling of bytes.
#[derive(Default)]
struct Words(BTreeMap<String, u64>);

impl Words {
    fn count(&mut self, text: &str) {
        let mut split = PreTokenizedString::from(text);
        // What the trainer cannot split it reports itself.
        if pre_tokenizer().pre_tokenize(&mut split).is_ok() {
            for (word, ..) in split.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
                *self.0.entry(word.to_owned()).or_default() += 1;
            }
        }
    }

    /// How often each id occurs in the documents.
    fn uses_of_tokens(&self, model: &BPE) -> tokenizers::Result<BTreeMap<u64, u64>> {
        let mut uses = BTreeMap::new();
        for (word, count) in &self.0 {
            for token in model.tokenize(word)? {
                *uses.entry(token.id.into()).or_default() += count;
            }
        }
        Ok(uses)
    }
}

/// A `tokenizer.json` with its special tokens, its bytes and the most used of its other tokens, `size` ids in all, in the
/// order that they had.
fn prune(json: &str, uses: &BTreeMap<u64, u64>, size: usize) -> String {
    let mut tokenizer: Value = serde_json::from_str(json).expect("the library writes JSON");
    let model = &mut tokenizer["model"];
    let mut tokens: Vec<(u64, String)> = model["vocab"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(token, id)| (id.as_u64().expect("ids are numbers"), token.clone()))
        .collect();
    let is_needed = |id: u64| id < MIN_VOCAB_SIZE as u64;
    tokens.retain(|&(id, _)| is_needed(id) || uses.contains_key(&id));
    tokens.sort_by_key(|&(id, _)| (!is_needed(id), Reverse(uses.get(&id)), id));
    tokens.truncate(size);
    tokens.sort_unstable();
    let vocab: Map<String, Value> =
        tokens.into_iter().zip(0..).map(|((_, token), id)| (token, Value::from(id))).collect();
    let is_left = |merge: &Value| {
        let [a, b] = [&merge[0], &merge[1]].map(|part| part.as_str().unwrap_or_default());
        [a, b, format!("{a}{b}").as_str()].iter().all(|token| vocab.contains_key(*token))
    };
    let merges: Vec<Value> =
        model["merges"].as_array().into_iter().flatten().filter(|merge| is_left(merge)).cloned().collect();
    (model["vocab"], model["merges"], model["ignore_merges"]) =
        (Value::Object(vocab), Value::Array(merges), true.into());
    tokenizer.to_string()
}

fn without_long_words(text: String) -> String {
    let is_long = |piece: &&str| piece.len() > 2 * LONG_WORD;
    let pieces = || pieces::pieces(&text, LONG_WORD, true);
    if !pieces().any(|piece| is_long(&piece)) {
        return text;
    }
    pieces().filter(|piece| !is_long(piece)).collect()
}

fn pre_tokenizer() -> Sequence {
    Sequence::new(vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> Vec<String> {
        (0..200)
            .map(|i| format!("the cat {i} sat on the mat, and the hat's {} naïve 中文\n", i * 37))
            .collect()
    }

    fn train(vocab_size: usize) -> Tokenizer {
        Tokenizer::train(corpus().into_iter(), vocab_size, |_| ()).unwrap()
    }

    #[test]
    fn a_word_without_end_is_left_out() {
        let plain = train(300);
        let long = corpus().into_iter().map(|text| text + " " + &"x".repeat(1_000_000)).take(1);
        let with_it = Tokenizer::train(corpus().into_iter().chain(long), 300, |_| ()).unwrap();
        assert_eq!(with_it.token_to_id("xx"), None);
        assert_eq!(with_it.vocab_size(), plain.vocab_size());
    }

    #[test]
    fn ids_start_with_special_tokens_then_all_bytes() {
        let tokenizer = train(300);
        for (id, token) in SPECIAL_TOKENS.iter().enumerate() {
            assert_eq!(tokenizer.token_to_id(token), Some(id as u32));
        }
        assert_eq!(tokenizer.token_to_id("!"), Some(17));
        assert_eq!(tokenizer.vocab_size(), 300);
        let every_byte = ByteLevel::alphabet().into_iter().map(|c| tokenizer.token_to_id(&c.to_string()));
        assert_eq!(every_byte.map(|id| id.unwrap()).filter(|id| (17..273).contains(id)).count(), 256);
    }

    #[test]
    fn digits_stand_alone_and_words_merge_with_their_space() {
        let tokenizer = train(400);
        assert_eq!(tokenizer.encode("12345").unwrap().len(), 5);
        assert_eq!(tokenizer.encode(" the").unwrap(), [tokenizer.token_to_id("Ġthe").unwrap()]);
        assert_eq!(tokenizer.token_to_id("37"), None);
    }

    /// Of "cat", "sat" and so on only whole words are left, which are encoded as before; what no word is still has bytes.
    #[test]
    fn steps_on_the_way_to_a_word_can_go() {
        let whole = train(400);
        let pruned =
            |kept| Tokenizer::train(corpus().into_iter(), VocabSize { kept, trained: 400 }, |_| ()).unwrap();
        let small = pruned(300);
        assert!(whole.token_to_id("at").is_some() && small.token_to_id("at").is_none());
        assert!(small.vocab_size() < 300, "{}", small.vocab_size());
        for text in corpus() {
            let [before, after] = [&whole, &small].map(|it| it.encode(&text).unwrap());
            let written = |tokenizer: &Tokenizer, ids: &[u32]| -> Vec<String> {
                ids.iter().map(|&id| tokenizer.decode(&[id])).collect()
            };
            assert_eq!(written(&whole, &before), written(&small, &after));
        }
        assert_eq!(small.encode("at").unwrap().len(), 2);
        assert_eq!(small.decode(&small.encode(" thatch añ\u{1}").unwrap()), " thatch añ\u{1}");
        // The most used come first: "Ġthe" occurs three times in a document.
        let smallest = pruned(MIN_VOCAB_SIZE + 1);
        assert_eq!(smallest.vocab_size(), MIN_VOCAB_SIZE + 1);
        assert!(smallest.token_to_id("Ġthe").is_some());
    }

    #[test]
    fn result_depends_on_neither_order_nor_threads() {
        let expected = train(350);
        for threads in [1, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let reversed =
                pool.install(|| Tokenizer::train(corpus().into_iter().rev(), 350, |_| ()).unwrap());
            assert_eq!(reversed.hash(), expected.hash());
        }
    }

    #[test]
    fn too_small_a_vocabulary_is_refused_and_an_empty_corpus_is_not() {
        let error = Tokenizer::train(corpus().into_iter(), 272, |_| ()).err().unwrap();
        assert!(error.to_string().contains("at least 273"), "{error}");
        let bytes_only = Tokenizer::train(std::iter::empty(), 1000, |_| ()).unwrap();
        assert_eq!(bytes_only.vocab_size(), MIN_VOCAB_SIZE);
        assert_eq!(bytes_only.decode(&bytes_only.encode("añ\u{1}").unwrap()), "añ\u{1}");
    }

    #[test]
    fn progress_counts_documents_and_bytes() {
        let mut last = TrainProgress::default();
        Tokenizer::train(corpus().into_iter(), 300, |p| last = p).unwrap();
        let bytes = corpus().iter().map(|text| text.len() as u64).sum();
        assert_eq!(last, TrainProgress { documents: 200, bytes });
    }
}
