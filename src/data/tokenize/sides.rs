//! The token sets that a dataset becomes: for training and held out, each perhaps with a set of judged tokens.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Counts, TokenizeOptions, held_out_name, judged_name};
use crate::data::shard::{Paused, SetFormat, TokenSetWriter};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// A set, and which of its tokens are judged.
struct Side {
    tokens: TokenSetWriter,
    judged: Option<TokenSetWriter>,
}

impl Side {
    fn create(folder: &Path, name: &str, format: SetFormat, judged: bool) -> Result<Self> {
        let judged = judged.then(|| TokenSetWriter::create(folder, &judged_name(name), flags(format)));
        Ok(Side { tokens: TokenSetWriter::create(folder, name, format)?, judged: judged.transpose()? })
    }

    fn resume(folder: &Path, name: &str, format: SetFormat, paused: &PausedSide) -> Result<Self> {
        let judged = paused.judged.as_ref();
        let judged = judged
            .map(|it| TokenSetWriter::resume(folder, &judged_name(name), flags(format), it))
            .transpose()?;
        Ok(Side { tokens: TokenSetWriter::resume(folder, name, format, &paused.tokens)?, judged })
    }

    fn pause(&mut self) -> Result<PausedSide> {
        let judged = self.judged.as_mut().map(TokenSetWriter::pause).transpose()?;
        Ok(PausedSide { tokens: self.tokens.pause()?, judged })
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

/// The format of judged tokens. The end-of-text token is never said by anybody.
fn flags(format: SetFormat) -> SetFormat {
    SetFormat { vocab_size: 2, eos: 0, ..format }
}

/// How far a side is on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PausedSide {
    #[serde(flatten)]
    tokens: Paused,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    judged: Option<Paused>,
}

/// Training and held-out documents.
pub(in crate::data) struct Sides {
    train: Side,
    held_out: Option<Side>,
    /// Hashes below it are held out.
    threshold: u64,
    /// Documents of fewer tokens are left out.
    min_tokens: usize,
    /// What has been written.
    pub(in crate::data) counts: Counts,
}

/// How far sets are on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::data) struct PausedSides {
    counts: Counts,
    train: PausedSide,
    held_out: Option<PausedSide>,
}

impl Sides {
    /// Begins the sets of dataset `name` in `folder`, with those of judged tokens if `judged`.
    pub(in crate::data) fn create(
        tokenizer: &Tokenizer,
        folder: &Path,
        name: &str,
        options: TokenizeOptions,
        judged: bool,
    ) -> Result<Self> {
        let side = |name: &str, format, _: Option<&PausedSide>| Side::create(folder, name, format, judged);
        Self::open(tokenizer, name, options, None, side)
    }

    /// Goes on where sets were paused; see [`TokenSetWriter::resume`].
    pub(in crate::data) fn resume(
        tokenizer: &Tokenizer,
        folder: &Path,
        name: &str,
        options: TokenizeOptions,
        paused: &PausedSides,
        judged: bool,
    ) -> Result<Self> {
        let side = |name: &str, format, paused: Option<&PausedSide>| match paused {
            Some(paused) => Side::resume(folder, name, format, paused),
            None => Side::create(folder, name, format, judged),
        };
        Self::open(tokenizer, name, options, Some(paused), side)
    }

    fn open(
        tokenizer: &Tokenizer,
        name: &str,
        options: TokenizeOptions,
        paused: Option<&PausedSides>,
        open: impl Fn(&str, SetFormat, Option<&PausedSide>) -> Result<Side>,
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
        let train = open(name, format, paused.map(|it| &it.train))?;
        let held_out = (fraction > 0.0)
            .then(|| open(&held_out_name(name), format, paused.and_then(|it| it.held_out.as_ref())))
            .transpose()?;
        let threshold = (fraction * 2f64.powi(64)) as u64;
        let counts = paused.map_or(Counts::default(), |it| it.counts);
        Ok(Sides { train, held_out, threshold, min_tokens: options.min_tokens, counts })
    }

    /// Appends a document of `bytes` bytes to the side that its `hash` chooses. `judged` has a value for each of `ids`
    /// where there are sets of judged tokens.
    pub(in crate::data) fn push(
        &mut self,
        hash: u64,
        bytes: usize,
        ids: &[u32],
        judged: &[bool],
    ) -> Result<()> {
        if ids.len() < self.min_tokens {
            self.counts.short += 1;
            return Ok(());
        }
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

    /// See [`TokenSetWriter::pause`].
    pub(in crate::data) fn pause(&mut self) -> Result<PausedSides> {
        let held_out = self.held_out.as_mut().map(Side::pause).transpose()?;
        Ok(PausedSides { counts: self.counts, train: self.train.pause()?, held_out })
    }

    /// Makes the sets whole. That for training comes last: where it exists, so do the others.
    pub(in crate::data) fn finish(self) -> Result<Counts> {
        self.held_out.map_or(Ok(()), Side::finish)?;
        self.train.finish()?;
        Ok(self.counts)
    }
}
