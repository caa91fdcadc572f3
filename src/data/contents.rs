//! What the records of a dataset are, and how they become token sets.

use std::path::Path;

use super::pairs::Pairs;
use super::source::{Report, Source};
use super::tokenize::chat::Chat;
use super::tokenize::{Counts, Sides, TokenizeOptions, extend, fingerprint_of, texts};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// What the records of a dataset are.
pub enum Contents<'a> {
    /// Texts, encoded by a tokenizer.
    Text(&'a Tokenizer),
    /// Conversations.
    Conversations(Chat<'a>),
    /// Preference pairs, of three documents each.
    Pairs(Pairs<'a>),
}

impl Contents<'_> {
    /// What encodes them.
    pub fn tokenizer(&self) -> &Tokenizer {
        match self {
            Contents::Text(tokenizer) => tokenizer,
            Contents::Conversations(Chat { tokenizer, .. }) | Contents::Pairs(Pairs { tokenizer, .. }) => {
                tokenizer
            }
        }
    }

    /// Whether it is kept which of their tokens are the assistant's.
    pub fn has_judged(&self) -> bool {
        matches!(self, Contents::Conversations(Chat { judged: true, .. }))
    }

    /// Identifies the sets that [`Contents::tokenize`] makes of these: existing sets with another fingerprint are out of
    /// date.
    ///
    /// # Errors
    /// As [`Source::fingerprint`].
    pub fn fingerprint(&self, source: &Source, options: TokenizeOptions) -> Result<u64> {
        Ok(self.fingerprint_of(source.fingerprint()?, options))
    }

    /// Identifies the sets of records that `records` identifies.
    pub(super) fn fingerprint_of(&self, records: u64, options: TokenizeOptions) -> u64 {
        match self {
            Contents::Text(tokenizer) => fingerprint_of(tokenizer, records, options),
            Contents::Conversations(chat) => chat.fingerprint_of(records, options),
            Contents::Pairs(pairs) => pairs.fingerprint_of(records, options),
        }
    }

    /// Tokenises the records of `source` into the set `name` in `folder`, and held-out ones into the set beside it; also
    /// returns the report on broken records. The files do not depend on the number of threads. `progress` is called
    /// after every batch.
    ///
    /// # Errors
    /// Those of reading `source`; [`Error::Io`](crate::error::Error::Io) naming a file that cannot be written;
    /// [`Error::Input`](crate::error::Error::Input) for a fraction outside [0, 1). After an error there is no set of this
    /// name.
    pub fn tokenize(
        &self,
        source: &Source,
        folder: impl AsRef<Path>,
        name: &str,
        options: TokenizeOptions,
        progress: impl FnMut(&Counts),
    ) -> Result<(Counts, Report)> {
        let options = TokenizeOptions { fingerprint: self.fingerprint(source, options)?, ..options };
        let folder = folder.as_ref();
        let mut sides = Sides::create(self.tokenizer(), folder, name, options, self.has_judged())?;
        let report = self.extend(&mut sides, source, progress)?;
        Ok((sides.finish()?, report))
    }

    /// Appends the records of `source` to sets.
    pub(super) fn extend(
        &self,
        sides: &mut Sides,
        source: &Source,
        progress: impl FnMut(&Counts),
    ) -> Result<Report> {
        match self {
            Contents::Text(tokenizer) => {
                let mut documents = source.documents()?;
                extend(sides, tokenizer, texts(tokenizer, &mut documents), progress)?;
                Ok(documents.report().clone())
            }
            Contents::Conversations(chat) => chat.extend(sides, source, progress),
            Contents::Pairs(pairs) => pairs.extend(sides, source, progress),
        }
    }
}
