//! Pairs as token sets: the documents 3 i, 3 i + 1 and 3 i + 2 of a set are prompt, chosen and rejected answer of pair i.
//! Nothing is cut here: how long a sequence may be is the stage's.

use std::path::Path;

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::{Pair, pairs};
use crate::data::conversation::{Columns, Conversation};
use crate::data::shard::{SetFormat, TokenSet, TokenSetWriter};
use crate::data::source::{Record, Report, Source};
use crate::data::tokenize::{TokenizeOptions, held_out_name};
use crate::error::{Error, Result};
use crate::tokenizer::{ChatTemplate, Tokenizer};

/// Text per thread that is encoded at once.
const BATCH_BYTES_PER_THREAD: usize = 1 << 20;
const BATCH_PAIRS: usize = 1 << 13;

/// How pairs become tokens.
pub struct PairOptions<'a> {
    /// What writes conversations.
    pub template: &'a ChatTemplate,
    /// Where a record has its prompt.
    pub columns: Columns,
    /// As for text; the prompt alone decides which pairs are held out.
    pub tokenize: TokenizeOptions,
}

/// What has been tokenised so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairCounts {
    /// Pairs written, held-out ones included.
    pub pairs: u64,
    /// Pairs in the held-out set.
    pub held_out_pairs: u64,
    /// Tokens of prompts and answers.
    pub tokens: u64,
    /// Pairs with two equal answers, left out.
    pub equal: u64,
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

/// Identifies the sets that [`tokenize_pairs`] makes of these.
///
/// # Errors
/// As [`Source::fingerprint`].
pub fn fingerprint(tokenizer: &Tokenizer, source: &Source, options: &PairOptions) -> Result<u64> {
    let TokenizeOptions { held_out_fraction, shard_bytes, .. } = options.tokenize;
    let made = format!(
        "pairs {} {} {} {held_out_fraction} {shard_bytes} {:?}",
        tokenizer.hash(),
        source.fingerprint()?,
        options.template.hash(),
        options.columns
    );
    Ok(xxh3_64(made.as_bytes()))
}

/// Tokenises the pairs of `source` into the set `name` in `folder`, and held-out ones into the set beside it; also
/// returns the report on broken records. The files do not depend on the number of threads.
///
/// # Errors
/// As [`pairs`]; [`Error::Io`] naming a file that cannot be written. After an error there is no set of this name.
pub fn tokenize_pairs(
    tokenizer: &Tokenizer,
    source: &Source,
    folder: &Path,
    name: &str,
    options: &PairOptions,
    mut progress: impl FnMut(&PairCounts),
) -> Result<(PairCounts, Report)> {
    let format = SetFormat {
        vocab_size: tokenizer.vocab_size(),
        eos: tokenizer.eos_id(),
        tokenizer_hash: tokenizer.hash(),
        shard_bytes: options.tokenize.shard_bytes,
        fingerprint: fingerprint(tokenizer, source, options)?,
    };
    let fraction = options.tokenize.held_out_fraction;
    let threshold = (fraction * 2f64.powi(64)) as u64;
    let mut train = TokenSetWriter::create(folder, name, format)?;
    let mut held_out = match fraction {
        0.0 => None,
        _ => Some(TokenSetWriter::create(folder, &held_out_name(name), format)?),
    };
    let mut counts = PairCounts::default();
    let mut records = pairs(source, &options.columns)?;
    let batch_bytes = BATCH_BYTES_PER_THREAD * rayon::current_num_threads();
    loop {
        let (mut batch, mut bytes) = (Vec::<Record<Pair>>::new(), 0);
        while bytes < batch_bytes && batch.len() < BATCH_PAIRS {
            let Some(record) = records.next().transpose()? else { break };
            if record.value.is_equal() {
                counts.equal += 1;
                continue;
            }
            bytes += record.value.bytes();
            batch.push(record);
        }
        if batch.is_empty() {
            break;
        }
        let encoded: Vec<_> =
            batch.par_iter().map(|it| encode(tokenizer, options.template, &it.value)).collect();
        for (record, tokens) in batch.iter().zip(encoded) {
            let PairTokens { prompt, answers } = match tokens {
                Ok(tokens) => tokens,
                Err(Error::Input(why)) => {
                    records.reject(record, &why)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let is_held_out = xxh3_64(record.value.key().as_bytes()) < threshold;
            let set = held_out.as_mut().filter(|_| is_held_out).unwrap_or(&mut train);
            for document in [&prompt, &answers[0], &answers[1]] {
                set.push(document)?;
                counts.tokens += document.len() as u64;
            }
            counts.pairs += 1;
            counts.held_out_pairs += u64::from(is_held_out);
        }
        progress(&counts);
    }
    // The train set comes last: where it exists, so does its held-out set.
    held_out.map_or(Ok(()), TokenSetWriter::finish)?;
    train.finish()?;
    Ok((counts, records.report().clone()))
}

fn encode(tokenizer: &Tokenizer, template: &ChatTemplate, pair: &Pair) -> Result<PairTokens> {
    let answer = |message| {
        let conversation = Conversation { messages: pair.conversation(message), tools: pair.tools.clone() };
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
