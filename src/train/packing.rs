//! Where the sequences of pairs lie in rows of a given length, both of a pair in the same pass.

use std::cmp::Reverse;

/// A pass of some rows, filled from their beginnings.
pub struct Pass {
    /// Positions of each row that are taken.
    pub used: Vec<usize>,
    /// The pairs in it by index, and the first position of both sequences among those of all rows.
    pub pairs: Vec<(usize, [usize; 2])>,
    /// The first position of each sequence in its row, by row.
    begun: Vec<Vec<usize>>,
}

/// Passes in which there may still be room; those before are full, or nearly so.
const OPEN: usize = 64;

/// Packs pairs of sequences of the given lengths into passes of `rows` rows of `length`: the longest pairs first, each into
/// the first pass that has room. Whatever the lengths, no pass that is followed by another has fewer than `rows` / 2 pairs.
///
/// # Panics
/// If a sequence is longer than a row, or there are no two rows.
pub fn pack(lengths: &[[usize; 2]], rows: usize, length: usize) -> Vec<Pass> {
    assert!(rows >= 2 && lengths.as_flattened().iter().all(|&it| it <= length), "sequences that fit no row");
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| (Reverse(lengths[i].iter().sum::<usize>()), i));
    let mut passes: Vec<Pass> = Vec::new();
    for index in order {
        let open = passes.len().saturating_sub(OPEN);
        if !passes[open..].iter_mut().any(|pass| pass.take(index, lengths[index], length)) {
            let mut pass = Pass { used: vec![0; rows], pairs: Vec::new(), begun: vec![Vec::new(); rows] };
            assert!(pass.take(index, lengths[index], length), "two rows have room for a pair");
            passes.push(pass);
        }
    }
    passes
}

impl Pass {
    /// Takes a pair, if there is room for both of its sequences.
    fn take(&mut self, index: usize, lengths: [usize; 2], length: usize) -> bool {
        let room = |used: &[usize], of: usize| used.iter().position(|used| used + of <= length);
        let Some(first) = room(&self.used, lengths[0]) else { return false };
        self.used[first] += lengths[0];
        let Some(second) = room(&self.used, lengths[1]) else {
            self.used[first] -= lengths[0];
            return false;
        };
        let begun = [self.used[first] - lengths[0], self.used[second]];
        self.used[second] += lengths[1];
        self.begun[first].push(begun[0]);
        self.begun[second].push(begun[1]);
        self.pairs.push((index, [first * length + begun[0], second * length + begun[1]]));
        true
    }

    /// For each position the first one in its row of its sequence, or of the padding behind the last one.
    pub fn starts(&self, length: usize) -> Vec<u32> {
        let row = |(used, begun): (&usize, &Vec<usize>)| {
            let mut row = vec![0; length];
            for &at in begun.iter().chain([used]) {
                row[at..].fill(at as u32);
            }
            row
        };
        self.used.iter().zip(&self.begun).flat_map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn every_sequence_has_a_place_of_its_own() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for case in 0..200 {
            let (rows, length): (usize, usize) = (rng.random_range(2..7), rng.random_range(4..50));
            let count = rng.random_range(1..300);
            let longest = if case % 2 == 0 { length } else { length.div_ceil(4) };
            let lengths: Vec<[usize; 2]> =
                (0..count).map(|_| [0, 1].map(|_| rng.random_range(2..=longest.max(2)))).collect();
            let passes = pack(&lengths, rows, length);
            let mut seen = vec![0; count];
            for (i, pass) in passes.iter().enumerate() {
                let mut owner = vec![None; rows * length];
                for &(index, firsts) in &pass.pairs {
                    seen[index] += 1;
                    for (side, (first, of)) in firsts.into_iter().zip(lengths[index]).enumerate() {
                        assert_eq!(first / length, (first + of - 1) / length, "over the end of a row");
                        for place in &mut owner[first..first + of] {
                            assert!(place.replace((index, side)).is_none(), "two from {first} on");
                        }
                    }
                }
                assert!(i + 1 == passes.len() || pass.pairs.len() >= rows / 2, "{} pairs", pass.pairs.len());
                // Starts name the sequence, whose first position is the one that it starts at.
                for (at, start) in pass.starts(length).into_iter().enumerate() {
                    let first = at / length * length + start as usize;
                    assert!(first <= at && owner[first] == owner[at], "case {case}");
                    assert!(first.is_multiple_of(length) || owner[first] != owner[first - 1], "case {case}");
                }
            }
            assert!(seen.iter().all(|&times| times == 1));
            assert!(passes.len() <= count.div_ceil(rows / 2));
        }
    }

    #[test]
    fn short_sequences_fill_rows() {
        let lengths: Vec<[usize; 2]> = (0..64).map(|i| [20 + i % 13, 30 + i % 7]).collect();
        let tokens: usize = lengths.as_flattened().iter().sum();
        let passes = pack(&lengths, 2, 512);
        assert!(passes.len() * 2 * 512 - tokens < 2 * 512, "{} passes for {tokens} tokens", passes.len());
    }
}
