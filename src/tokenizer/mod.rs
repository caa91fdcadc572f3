//! Text to token ids and back: the byte-level BPE tokenizer of SmolLM2, or any other that
//! comes as a Hugging Face `tokenizer.json`.

mod growth;
mod pieces;
mod save;
mod spans;
mod special;
mod stream;
mod template;
mod train;

pub use save::Role;
pub use special::{END_OF_TEXT, IM_END, IM_START, SPECIAL_TOKENS, chat_template};
pub use stream::{StopStrings, TextStream};
pub use template::{ChatTemplate, Judged, JudgedTokens, Message, confine_templates, render_confined};
pub use train::{MIN_VOCAB_SIZE, TrainProgress, VocabSize};

use std::path::Path;
use std::sync::OnceLock;

use tokenizers::Encoding;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::files;
use crate::panics::caught;

/// A tokenizer that is ready to encode and decode; cheap to share between threads by reference.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same tokenizer, blind to special tokens; made when first asked for.
    ordinary: OnceLock<tokenizers::Tokenizer>,
    /// `tokenizer.json`, byte for byte as it was loaded, so that saving never changes a tokenizer.
    json: Vec<u8>,
    /// The file, for messages.
    place: String,
    /// Whether a long text may be encoded in pieces; see [`pieces`].
    divisible: bool,
    divisible_at_digits: bool,
    /// How far its normalizer may stretch a text; see [`growth`].
    growth: growth::Growth,
    vocab_size: usize,
    eos: u32,
}

/// What decoding does with special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Writes them out, such as `<|im_end|>`.
    Show,
    /// Leaves them out.
    Skip,
}

/// Pieces that a long text is encoded in. The library holds about 160 bytes for each byte that it encodes.
const PIECE_BYTES: usize = 256 << 10;

/// Longest piece, as given and as the normalizer makes it: a text without a place to cut it takes the library's memory
/// for each of its bytes.
const LONGEST_PIECE: usize = 4 << 20;
const LONGEST_NORMALISED: usize = 2 * LONGEST_PIECE;

/// Longest token of a Unigram model, whose `vocab` is an array. The library keeps them as a trie and frees it by
/// recursion, a call per byte, for which the stack must do.
const MAX_PIECE: usize = 1000;

impl Tokenizer {
    /// Loads `path`, a `tokenizer.json` or a folder that holds one.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Input`], naming the file, if it is no tokenizer or
    /// has no `<|endoftext|>` token.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let json = files::read(&file, files::LISTS)?;
        Self::parse(json, file.display().to_string())
    }

    /// Takes the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Input`] if it is no tokenizer or has no `<|endoftext|>` token.
    fn from_bytes(json: impl Into<Vec<u8>>) -> Result<Self> {
        Self::parse(json.into(), "tokenizer.json".into())
    }

    fn parse(json: Vec<u8>, place: String) -> Result<Self> {
        let refuse = |what: String| Error::input(format!("{place}: {what}"));
        let outline: serde_json::Value =
            serde_json::from_slice(&json).map_err(|e| refuse(format!("not JSON: {e}")))?;
        let mut pieces = outline["model"]["vocab"].as_array().into_iter().flatten();
        if pieces.any(|piece| piece[0].as_str().is_some_and(|text| text.len() > MAX_PIECE)) {
            return Err(refuse(format!("a token is longer than {MAX_PIECE} bytes")));
        }
        let parsed = caught(|| tokenizers::Tokenizer::from_bytes(&json)).map_err(Into::into);
        let mut inner = parsed
            .and_then(|parsed| parsed)
            .map_err(|e: tokenizers::Error| refuse(format!("not a Hugging Face tokenizer: {e}")))?;
        // A tokenizer.json may ask for both; either would cut or stretch documents behind our back.
        inner.with_truncation(None).map_err(|e| refuse(e.to_string()))?;
        inner.with_padding(None);
        // It may add special tokens, which we never ask for, or repeat the text.
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        let growth = growth::of_normalizer(inner.get_normalizer()).map_err(refuse)?;
        growth::check(&inner).map_err(refuse)?;
        let eos = inner.token_to_id(END_OF_TEXT).ok_or_else(|| {
            refuse(format!("no token {END_OF_TEXT}, which ends a document: add it as a special token"))
        })?;
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let divisible = pieces::divisible(&inner);
        let divisible_at_digits = pieces::divisible_at_digits(&inner);
        Ok(Self {
            inner,
            ordinary: OnceLock::new(),
            json,
            place,
            divisible,
            divisible_at_digits,
            growth,
            vocab_size,
            eos,
        })
    }

    /// Encodes `text`. Special tokens written out in `text` become their ids, as in `transformers`; none are
    /// added.
    ///
    /// # Errors
    /// [`Error::Input`] naming the tokenizer if its model refuses the text; byte-level BPE never does.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(&self.inner, text, PIECE_BYTES)
    }

    /// Encodes `text` with special tokens taken as ordinary text, so that what a user types cannot close a
    /// chat message or end a document.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>> {
        let ordinary = self.ordinary.get_or_init(|| {
            let mut blind = self.inner.clone();
            blind.set_encode_special_tokens(true);
            blind
        });
        self.encode_with(ordinary, text, PIECE_BYTES)
    }

    /// The text of `ids`, special tokens included. Bytes that are not UTF-8 become U+FFFD; ids outside the
    /// vocabulary become nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.decode_with(ids, Special::Show)
    }

    /// As [`Tokenizer::decode`], with special tokens shown or skipped. [`Tokenizer::stream`] does it id by id.
    pub fn decode_with(&self, ids: &[u32], special: Special) -> String {
        let plain = || ids.iter().filter_map(|&id| self.inner.id_to_token(id)).collect();
        match caught(|| self.inner.decode(ids, special == Special::Skip)) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) | Err(_) => plain(),
        }
    }

    /// The number of ids: the highest id plus one, special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of `token`, spelled as in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of `id`, spelled as in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The special tokens, the longest first.
    pub fn special_tokens(&self) -> Vec<String> {
        let added = self.inner.get_added_tokens_decoder().into_values();
        let mut tokens: Vec<String> = added
            .filter(|token| token.special && !token.content.is_empty())
            .map(|token| token.content)
            .collect();
        tokens.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        tokens
    }

    /// The id of `<|endoftext|>`, which ends a document.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }

    /// Identifies the tokenizer: XXH3 of its `tokenizer.json`. Token shards carry it.
    pub fn hash(&self) -> u64 {
        xxh3_64(&self.json)
    }

    fn encode_with(&self, inner: &tokenizers::Tokenizer, text: &str, piece_bytes: usize) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 4);
        for piece in self.pieces(text, piece_bytes) {
            let encoding = self.encode_piece(piece, |piece| inner.encode_fast(piece, false))?;
            ids.extend_from_slice(encoding.get_ids());
        }
        Ok(ids)
    }

    fn encode_piece<'a>(
        &self,
        piece: &'a str,
        encode: impl FnOnce(&'a str) -> tokenizers::Result<Encoding>,
    ) -> Result<Encoding> {
        self.check_length(piece)
            .and_then(|()| self.growth.check(self.inner.get_normalizer(), piece, LONGEST_NORMALISED))
            .map_err(|why| Error::input(format!("{}: {why}", self.place)))?;
        let encoding = caught(|| encode(piece)).map_err(Into::into);
        encoding.and_then(|encoding| encoding).map_err(|e: tokenizers::Error| {
            Error::input(format!("{}: refuses a text of {} bytes: {e}", self.place, piece.len()))
        })
    }

    fn pieces<'a>(&self, text: &'a str, piece_bytes: usize) -> impl Iterator<Item = &'a str> {
        pieces::pieces(text, if self.divisible { piece_bytes } else { usize::MAX }, self.divisible_at_digits)
    }

    /// Why [`encode`](Self::encode) would refuse `text`, if its length is why.
    pub fn too_long(&self, text: &str) -> Option<String> {
        self.pieces(text, PIECE_BYTES).find_map(|piece| self.check_length(piece).err())
    }

    fn check_length(&self, piece: &str) -> std::result::Result<(), String> {
        if piece.len() > LONGEST_PIECE {
            let (length, most) = (piece.len(), LONGEST_PIECE >> 20);
            return Err(format!(
                "{length} bytes of text without a place where this tokenizer may cut it, more than {most} MiB: \
                 divide it"
            ));
        }
        Ok(())
    }

    /// Whether `id` is in the vocabulary.
    pub fn knows(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some()
    }
}

/// The folder with SmolLM2's own tokenizer, which is no part of this repository. `None` where it is not, which is a
/// failure if `SMOLTER_REQUIRE_DATA=1`.
#[cfg(test)]
fn smollm2_data() -> Option<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/tokenizer");
    if folder.join("tokenizer.json").exists() {
        return Some(folder);
    }
    let required = std::env::var("SMOLTER_REQUIRE_DATA").is_ok_and(|v| v == "1");
    assert!(!required, "SMOLTER_REQUIRE_DATA=1, but SmolLM2's tokenizer is not in {}", folder.display());
    eprintln!("skipped: SmolLM2's tokenizer is not in {}", folder.display());
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        let corpus =
            ["to be, or not to be, that is the question\n\n  it's 'tis 42", "naïve 中文 <file_sep>x"];
        let corpus = corpus.iter().cycle().take(100).map(|text| text.to_string());
        Tokenizer::train(corpus, 340, |_| ()).unwrap()
    }

    #[test]
    fn special_tokens_are_recognised_only_when_asked() {
        let tokenizer = tokenizer();
        let text = "<|im_start|>user\n2+2<|im_end|>";
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!((ids[0], ids[ids.len() - 1]), (1, 2));
        let ordinary = tokenizer.encode_ordinary(text).unwrap();
        assert!(ordinary.iter().all(|&id| id > 16));
        assert_eq!(tokenizer.decode(&ids), text);
        assert_eq!(tokenizer.decode(&ordinary), text);
    }

    #[test]
    fn encoding_in_pieces_gives_the_same_ids() {
        let tokenizer = tokenizer();
        assert!(tokenizer.divisible);
        let parts =
            ["a", "the", " ", "  ", "\n", "\n\n", "\t", "'s", "7", "é", "中", "<|im_end|>", ".", "\u{a0}"];
        let mut state = 1u64;
        for _ in 0..300 {
            let mut text = String::new();
            for _ in 0..30 {
                state = xxh3_64(&state.to_le_bytes());
                text.push_str(parts[state as usize % parts.len()]);
            }
            let whole = tokenizer.encode_with(&tokenizer.inner, &text, usize::MAX).unwrap();
            assert_eq!(tokenizer.encode_with(&tokenizer.inner, &text, 1).unwrap(), whole, "{text:?}");
            assert_eq!(tokenizer.decode(&whole), text);
        }
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Tokenizer::load(folder.path()).err().unwrap();
        assert!(missing.to_string().contains("tokenizer.json"), "{missing}");
        let file = folder.path().join("broken.json");
        std::fs::write(&file, "{}").unwrap();
        let broken = Tokenizer::load(&file).err().unwrap();
        assert!(broken.to_string().contains("broken.json") && broken.exit_code() == 2, "{broken}");
        let nameless = String::from_utf8(tokenizer().json).unwrap().replace(END_OF_TEXT, "<eot>");
        std::fs::write(&file, nameless).unwrap();
        let no_eos = Tokenizer::load(&file).err().unwrap();
        assert!(no_eos.to_string().contains(END_OF_TEXT), "{no_eos}");
    }

    #[test]
    fn ids_outside_the_vocabulary_decode_to_nothing() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.decode(&[u32::MAX, tokenizer.token_to_id("a").unwrap(), 340]), "a");
    }
}
