//! The token sets that a dataset becomes: for training and held out, each perhaps with a set of judged tokens.

use std::path::Path;

use super::{Counts, TokenizeOptions, held_out_name, judged_name};
use crate::data::shard::{SetFormat, TokenSetWriter};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// A set, and which of its tokens are judged.
struct Side {
    tokens: TokenSetWriter,
    judged: Option<TokenSetWriter>,
}

impl Side {
    fn create(folder: &Path, name: &str, format: SetFormat, judged: bool) -> Result<Self> {
        // The end-of-text token is never said by anybody.
        let flags = SetFormat { vocab_size: 2, eos: 0, ..format };
        let judged = judged.then(|| TokenSetWriter::create(folder, &judged_name(name), flags));
        Ok(Side { tokens: TokenSetWriter::create(folder, name, format)?, judged: judged.transpose()? })
    }

    fn push(&mut self, ids: &[u32], judged: &[bool]) -> Result<()> {
        if let Some(set) = &mut self.judged {
            set.push(&judged.iter().map(|&judged| judged.into()).collect::<Vec<u32>>())?;
        }
        self.tokens.push(ids)
    }

    /// Where there are tokens, it is known which are judged.
    fn finish(self) -> Result<()> {
        self.judged.map_or(Ok(()), TokenSetWriter::finish)?;
        self.tokens.finish()
    }
}

/// Training and held-out documents.
pub(super) struct Sides {
    train: Side,
    held_out: Option<Side>,
    /// Hashes below it are held out.
    threshold: u64,
    pub(super) counts: Counts,
}

impl Sides {
    /// Begins the sets of dataset `name` in `folder`, with those of judged tokens if `judged`.
    pub(super) fn create(
        tokenizer: &Tokenizer,
        folder: &Path,
        name: &str,
        options: TokenizeOptions,
        judged: bool,
    ) -> Result<Self> {
        let fraction = options.held_out_fraction;
        if !(0.0..1.0).contains(&fraction) {
            return Err(Error::input(format!(
                "dataset {name}: held_out_fraction is {fraction}: choose it in [0, 1)"
            )));
        }
        let format = SetFormat {
            vocab_size: tokenizer.vocab_size(),
            eos: tokenizer.eos_id(),
            tokenizer_hash: tokenizer.hash(),
            shard_bytes: options.shard_bytes,
            fingerprint: options.fingerprint,
        };
        let train = Side::create(folder, name, format, judged)?;
        let held_out = (fraction > 0.0)
            .then(|| Side::create(folder, &held_out_name(name), format, judged))
            .transpose()?;
        let threshold = (fraction * 2f64.powi(64)) as u64;
        Ok(Sides { train, held_out, threshold, counts: Counts::default() })
    }

    /// Appends a document of `bytes` bytes to the side that its `hash` chooses. `judged` has a value for each of `ids`
    /// where there are sets of judged tokens.
    pub(super) fn push(&mut self, hash: u64, bytes: usize, ids: &[u32], judged: &[bool]) -> Result<()> {
        let tokens = ids.len() as u64 + 1;
        self.counts.documents += 1;
        self.counts.tokens += tokens;
        self.counts.bytes += bytes as u64;
        match &mut self.held_out {
            Some(held_out) if hash < self.threshold => {
                self.counts.held_out_documents += 1;
                self.counts.held_out_tokens += tokens;
                held_out.push(ids, judged)
            }
            _ => self.train.push(ids, judged),
        }
    }

    /// Makes the sets whole. That for training comes last: where it exists, so do the others.
    pub(super) fn finish(self) -> Result<Counts> {
        self.held_out.map_or(Ok(()), Side::finish)?;
        self.train.finish()?;
        Ok(self.counts)
    }
}
