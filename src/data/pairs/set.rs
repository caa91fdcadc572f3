//! Pairs as token sets: the documents 3 i, 3 i + 1 and 3 i + 2 of a set are prompt, chosen and rejected answer of pair i.
//! Nothing is cut here: how long a sequence may be is the stage's.

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::{Pair, pairs};
use crate::data::conversation::{Columns, Conversation};
use crate::data::shard::TokenSet;
use crate::data::source::{Record, Report, Source};
use crate::data::tokenize::{Counts, Sides, TokenizeOptions};
use crate::error::{Error, Result};
use crate::tokenizer::{ChatTemplate, Tokenizer};

/// Text per thread that is encoded at once.
const BATCH_BYTES_PER_THREAD: usize = 1 << 20;
const BATCH_PAIRS: usize = 1 << 13;

/// How pairs become tokens.
pub struct Pairs<'a> {
    /// For the text of the messages.
    pub tokenizer: &'a Tokenizer,
    /// What writes conversations.
    pub template: &'a ChatTemplate,
    /// Where a record has its prompt.
    pub columns: Columns,
}

/// The tokens of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairTokens {
    /// What both answers go on from; never empty.
    pub prompt: Vec<u32>,
    /// The chosen and the rejected answer; neither is empty.
    pub answers: [Vec<u32>; 2],
}

/// How long the sequences of pairs are at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tokens of the prompt, at least 1.
    pub prompt: usize,
    /// Tokens of prompt and answer, more than those of the prompt.
    pub length: usize,
}

impl PairTokens {
    /// Keeps the end of the prompt, and as much of the beginnings of the answers as there is room for.
    #[must_use]
    pub fn cut(mut self, Cut { prompt, length }: Cut) -> Self {
        assert!((1..length).contains(&prompt), "{prompt} tokens of the prompt in {length}");
        self.prompt.drain(..self.prompt.len().saturating_sub(prompt));
        self.answers.iter_mut().for_each(|answer| answer.truncate(length - self.prompt.len()));
        self
    }
}

/// The number of pairs in a set.
pub fn pair_count(set: &TokenSet) -> u64 {
    set.documents() / 3
}

/// Tokens of both sequences of pair `index` of a set, each with its prompt, as [`PairTokens::cut`] leaves them.
///
/// # Panics
/// If there are not so many.
pub fn pair_lengths(set: &TokenSet, index: u64, cut: Cut) -> [usize; 2] {
    // Every document of a set is followed by a token that is not its own.
    let tokens = |i: u64| {
        let range = set.document(3 * index + i);
        (range.end - range.start - 1) as usize
    };
    let prompt = tokens(0).min(cut.prompt);
    [1, 2].map(|answer| (prompt + tokens(answer)).min(cut.length))
}

/// Pair `index` of a set.
///
/// # Panics
/// If there are not so many.
pub fn pair(set: &TokenSet, index: u64) -> PairTokens {
    let document = |i: u64| {
        let mut range = set.document(3 * index + i);
        // Every document of a set is followed by a token that is not its own.
        range.end -= 1;
        set.tokens(range)
    };
    PairTokens { prompt: document(0), answers: [document(1), document(2)] }
}

impl Pairs<'_> {
    /// Identifies the sets of pairs that `records` identifies.
    pub(in crate::data) fn fingerprint_of(&self, records: u64, options: TokenizeOptions) -> u64 {
        let TokenizeOptions { held_out_fraction, shard_bytes, .. } = options;
        let (tokenizer, template) = (self.tokenizer.hash(), self.template.hash());
        let made = format!(
            "pairs {tokenizer} {records} {template} {held_out_fraction} {shard_bytes} {:?}",
            self.columns
        );
        xxh3_64(made.as_bytes())
    }

    /// Appends the pairs of `source` to sets, three documents each, in the given order. The prompt alone decides which are
    /// held out.
    ///
    /// # Errors
    /// As [`pairs`], and [`Error::Io`] naming a file that cannot be written.
    pub(in crate::data) fn extend(
        &self,
        sides: &mut Sides,
        source: &Source,
        mut progress: impl FnMut(&Counts),
    ) -> Result<Report> {
        let mut records = pairs(source, &self.columns)?;
        let batch_bytes = BATCH_BYTES_PER_THREAD * rayon::current_num_threads();
        loop {
            let (mut batch, mut bytes) = (Vec::<Record<Pair>>::new(), 0);
            while bytes < batch_bytes && batch.len() < BATCH_PAIRS {
                let Some(record) = records.next().transpose()? else { break };
                if record.value.is_equal() {
                    sides.counts.equal += 1;
                    continue;
                }
                bytes += record.value.bytes();
                batch.push(record);
            }
            if batch.is_empty() {
                return Ok(records.report().clone());
            }
            let encoded: Vec<_> = batch.par_iter().map(|record| self.encode(&record.value)).collect();
            for (record, tokens) in batch.iter().zip(encoded) {
                let PairTokens { prompt, answers: [chosen, rejected] } = match tokens {
                    Ok(tokens) => tokens,
                    Err(Error::Input(why)) => {
                        records.reject(record, &why)?;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let pair = &record.value;
                let hash = xxh3_64(pair.key().as_bytes());
                for (ids, bytes) in [(prompt, pair.bytes()), (chosen, 0), (rejected, 0)] {
                    sides.push(hash, bytes, &ids, &[])?;
                }
            }
            progress(&sides.counts);
        }
    }

    fn encode(&self, pair: &Pair) -> Result<PairTokens> {
        let Pairs { tokenizer, template, .. } = self;
        let answer = |message| {
            let conversation =
                Conversation { messages: pair.conversation(message), tools: pair.tools.clone() };
            let Conversation { messages, tools } = match template.writes_tools() {
                true => conversation,
                false => conversation.with_tools_in_text(),
            };
            if let Some(why) = messages.iter().find_map(|message| tokenizer.too_long(&message.content)) {
                return Err(Error::input(why));
            }
            template.encode_answer(tokenizer, &messages, &tools)
        };
        let ((prompt, chosen), (_, rejected)) = (answer(&pair.chosen)?, answer(&pair.rejected)?);
        if prompt.is_empty() || chosen.is_empty() || rejected.is_empty() {
            return Err(Error::input("the chat template writes nothing of it"));
        }
        Ok(PairTokens { prompt, answers: [chosen, rejected] })
    }
}
