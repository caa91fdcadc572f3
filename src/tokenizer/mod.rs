//! Text to token ids and back: the byte-level BPE tokenizer of SmolLM2 (recipe.md 1.4), or any other that
//! comes as a Hugging Face `tokenizer.json`.

mod save;
mod special;
mod train;

pub use save::Role;
pub use special::{
    DEFAULT_SYSTEM_PROMPT, END_OF_TEXT, IM_END, IM_START, SPECIAL_TOKENS, chat_template,
};
pub use train::{MIN_VOCAB_SIZE, TrainProgress};

use std::path::Path;
use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

/// A tokenizer that is ready to encode and decode; cheap to share between threads by reference.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same tokenizer, blind to special tokens; made when first asked for.
    ordinary: OnceLock<Box<tokenizers::Tokenizer>>,
    /// `tokenizer.json`, byte for byte as it was loaded, so that saving never changes a tokenizer.
    json: Vec<u8>,
    vocab_size: usize,
    eos: u32,
}

impl Tokenizer {
    /// Loads `path`, a `tokenizer.json` or a folder that holds one.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Input`], naming the file, if it is no tokenizer or
    /// has no `<|endoftext|>` token.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let json = std::fs::read(&file).map_err(Error::io(&file))?;
        Self::parse(json).map_err(|what| Error::input(format!("{}: {what}", file.display())))
    }

    /// Takes the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Input`] if it is no tokenizer or has no `<|endoftext|>` token.
    pub fn from_bytes(json: impl Into<Vec<u8>>) -> Result<Self> {
        Self::parse(json.into()).map_err(|what| Error::input(format!("tokenizer.json: {what}")))
    }

    fn parse(json: Vec<u8>) -> std::result::Result<Self, String> {
        let mut inner = tokenizers::Tokenizer::from_bytes(&json)
            .map_err(|e| format!("not a Hugging Face tokenizer: {e}"))?;
        // A tokenizer.json may ask for both; either would cut or stretch documents behind our back.
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        inner.with_padding(None);
        let eos = inner
            .token_to_id(END_OF_TEXT)
            .ok_or_else(|| format!("no token {END_OF_TEXT}, which ends a document: add it as a special token"))?;
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        Ok(Self { inner, ordinary: OnceLock::new(), json, vocab_size, eos })
    }

    /// Encodes `text`. Special tokens written out in `text` become their ids, as in `transformers`; none are
    /// added.
    ///
    /// # Errors
    /// [`Error::Failure`] if the tokenizer's own model refuses the text; byte-level BPE never does.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.inner, text)
    }

    /// Encodes `text` with special tokens taken as ordinary text, so that what a user types cannot close a
    /// chat message or end a document.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>> {
        let ordinary = self.ordinary.get_or_init(|| {
            let mut blind = Box::new(self.inner.clone());
            blind.set_encode_special_tokens(true);
            blind
        });
        encode(ordinary, text)
    }

    /// The text of `ids`, special tokens included. Bytes that are not UTF-8 become U+FFFD; ids outside the
    /// vocabulary become nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner
            .decode(ids, false)
            .unwrap_or_else(|_| ids.iter().filter_map(|&id| self.inner.id_to_token(id)).collect())
    }

    /// The number of ids: the highest id plus one, special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of `token`, spelled as in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id of `<|endoftext|>`, which ends a document.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }

    /// Identifies the tokenizer: XXH3 of its `tokenizer.json`. Token shards carry it.
    pub fn hash(&self) -> u64 {
        xxh3_64(&self.json)
    }
}

fn encode(inner: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>> {
    inner
        .encode_fast(text, false)
        .map(|encoding| encoding.get_ids().to_vec())
        .map_err(|e| Error::failure(format!("tokenizer: a text of {} bytes was refused: {e}", text.len())))
}
