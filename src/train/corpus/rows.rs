//! Conversations that have a sequence each: where they lie, and where those end that are too long.

use std::ops::Range;

use crate::data::shard::TokenSet;

/// The conversations of a set that fit sequences of some length.
pub struct Rows {
    /// The tokens of each, without the end-of-text token: at most one more than the length, which is only predicted.
    pub rows: Vec<Range<u64>>,
    /// How many were too long and were cut off behind a turn of the assistant's.
    pub cut: u64,
    /// How many have no turn of the assistant's that fits, and are left out.
    pub left_out: u64,
}

impl Rows {
    /// Those of `set`, of whose tokens `judged` are the assistant's.
    pub(super) fn of(set: &TokenSet, judged: &TokenSet, length: usize) -> Self {
        let longest = length as u64 + 1;
        let mut rows = Rows { rows: Vec::new(), cut: 0, left_out: 0 };
        for index in 0..set.documents() {
            let Range { start, end } = set.document(index);
            let end = end - 1;
            if end - start <= longest {
                rows.rows.push(start..end);
                continue;
            }
            // With the flag behind the last token that fits: the turn may go on there.
            let flags = judged.tokens(start..start + longest + 1);
            match flags.windows(2).rposition(|pair| pair == [1, 0]) {
                Some(last) => {
                    let cut = start + last as u64 + 1;
                    // Behind the last turn there may be a newline.
                    rows.cut += u64::from(judged.tokens(cut..end).contains(&1));
                    rows.rows.push(start..cut);
                }
                None => rows.left_out += 1,
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::shard::{SetFormat, TokenSetWriter, Verify};

    #[test]
    fn what_is_too_long_ends_behind_a_turn_or_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let format =
            SetFormat { vocab_size: 300, eos: 0, tokenizer_hash: 7, shard_bytes: 1 << 20, fingerprint: 1 };
        let mut tokens = TokenSetWriter::create(folder.path(), "chat", format).unwrap();
        let flags = SetFormat { vocab_size: 2, ..format };
        let mut judged = TokenSetWriter::create(folder.path(), "chat.judged", flags).unwrap();
        for said in [
            &[0, 1, 0][..],
            &[0, 1, 1, 0, 1],
            &[0, 1, 0, 0, 1, 1],
            &[0, 0, 0, 1, 1, 1],
            &[0, 1, 1, 0, 1, 0, 1, 1],
        ] {
            tokens.push(&vec![9; said.len()]).unwrap();
            judged.push(said).unwrap();
        }
        tokens.finish().unwrap();
        judged.finish().unwrap();
        let open = |name| TokenSet::open(folder.path(), name, Verify::Full).unwrap();
        // Five tokens fit: four, and one that is only predicted.
        let rows = Rows::of(&open("chat"), &open("chat.judged"), 4);
        assert_eq!(rows.rows, [0..3, 4..9, 10..12, 24..29]);
        assert_eq!((rows.cut, rows.left_out), (2, 1));
    }
}
