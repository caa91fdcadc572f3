//! In which order datasets take turns: largest deficit first, as a table that repeats.

/// Weights are counted in millionths.
const UNITS: u64 = 1_000_000;

/// Weights as integers in lowest terms. Their sum is the period after which the turns repeat.
///
/// `weights` are at least 0 and sum to 1 within rounding. What is lost in rounding down goes to the largest
/// remainders.
pub(super) fn integer_weights(weights: &[f64]) -> Vec<u64> {
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| weight / sum * UNITS as f64).collect();
    // A share that is whole but for rounding errors of f64 must not be rounded down.
    let mut units: Vec<u64> = exact.iter().map(|share| (share + 1e-3) as u64).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by(|&a, &b| {
        let remainder = |i: usize| exact[i] - units[i] as f64;
        remainder(b).total_cmp(&remainder(a)).then(a.cmp(&b))
    });
    let missing = UNITS.saturating_sub(units.iter().sum());
    by_remainder.iter().take(missing as usize).for_each(|&i| units[i] += 1);
    let divisor = units.iter().fold(0, |a, &b| greatest_common_divisor(a, b));
    units.iter().map(|units| units / divisor).collect()
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// One period of turns.
///
/// Turn t goes to the dataset with the largest weight x (t + 1) - count, the first among equals. With integer
/// weights W that sum to N this is periodic: every deficit stays above -N, because whoever takes a turn had one
/// above 0; after N turns each deficit N x (W - count) is a multiple of N, so none is below 0, and they sum to 0.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    weights: Vec<u64>,
    /// The dataset of each turn.
    turns: Vec<u16>,
    /// How many turns of the period that dataset had before.
    earlier: Vec<u32>,
}

impl Turns {
    /// # Panics
    /// If all weights are 0.
    pub(super) fn new(weights: Vec<u64>) -> Self {
        let period = weights.iter().sum::<u64>() as usize;
        assert!(period > 0, "turns need a weight");
        let mut counts = vec![0u32; weights.len()];
        let mut deficits = vec![0i64; weights.len()];
        let (mut turns, mut earlier) = (Vec::with_capacity(period), Vec::with_capacity(period));
        for _ in 0..period {
            deficits.iter_mut().zip(&weights).for_each(|(deficit, &weight)| *deficit += weight as i64);
            let next = (0..weights.len()).rev().max_by_key(|&i| deficits[i]).unwrap_or(0);
            deficits[next] -= period as i64;
            turns.push(next as u16);
            earlier.push(counts[next]);
            counts[next] += 1;
        }
        Self { weights, turns, earlier }
    }

    /// The dataset of `turn`, and how many turns it had before.
    pub(super) fn at(&self, turn: u64) -> (usize, u64) {
        let period = self.turns.len() as u64;
        let place = (turn % period) as usize;
        let dataset = self.turns[place] as usize;
        (dataset, turn / period * self.weights[dataset] + u64::from(self.earlier[place]))
    }

    /// How many of the first `turns` turns each dataset has.
    pub(super) fn counts(&self, turns: u64) -> Vec<u64> {
        let period = self.turns.len() as u64;
        let mut counts: Vec<u64> = self.weights.iter().map(|weight| turns / period * weight).collect();
        self.turns[..(turns % period) as usize].iter().for_each(|&dataset| counts[dataset as usize] += 1);
        counts
    }

    /// The number of turns after which `dataset` has had `count` of them, `count` at least 1. None if it never
    /// has, or not within 2^64 turns.
    pub(super) fn turns_until(&self, dataset: usize, count: u64) -> Option<u64> {
        let last = count - 1;
        let periods = last.checked_div(self.weights[dataset])?;
        let earlier = last % self.weights[dataset];
        let is_it = |place: &usize| {
            self.turns[*place] as usize == dataset && u64::from(self.earlier[*place]) == earlier
        };
        let place = (0..self.turns.len()).find(is_it)? as u64;
        periods.checked_mul(self.turns.len() as u64)?.checked_add(place + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_become_small_integers() {
        assert_eq!(integer_weights(&[0.6, 0.3, 0.1]), [6, 3, 1]);
        assert_eq!(integer_weights(&[0.54, 0.36, 0.1]), [27, 18, 5]);
        assert_eq!(integer_weights(&[1.0 / 3.0; 3]), [333_334, 333_333, 333_333]);
        assert_eq!(integer_weights(&[1.0, 0.0]), [1, 0]);
        assert_eq!(integer_weights(&[0.999999, 0.000001]), [999_999, 1]);
        assert_eq!(integer_weights(&[0.1 + 0.2, 0.7]), [3, 7]);
    }

    #[test]
    fn every_turn_goes_to_the_largest_deficit() {
        for weights in [vec![6, 3, 1], vec![1, 1, 1, 0], vec![27, 18, 5, 50], vec![499, 1, 250, 250]] {
            let (turns, period) = (Turns::new(weights.clone()), weights.iter().sum::<u64>());
            let mut counts = vec![0u64; weights.len()];
            for turn in 0..3 * period {
                let deficit = |i: usize| (weights[i] * (turn + 1)) as i128 - (period * counts[i]) as i128;
                let best = (0..weights.len()).map(deficit).max().unwrap();
                let (dataset, count) = turns.at(turn);
                assert_eq!(dataset, (0..weights.len()).find(|&i| deficit(i) == best).unwrap());
                assert_eq!(count, counts[dataset]);
                assert_eq!(turns.counts(turn), counts);
                counts[dataset] += 1;
                assert_eq!(turns.turns_until(dataset, counts[dataset]), Some(turn + 1));
            }
        }
    }

    #[test]
    fn far_turns_do_not_overflow() {
        let turns = Turns::new(vec![999_999, 1]);
        assert_eq!(turns.turns_until(1, u64::MAX), None);
        assert_eq!(Turns::new(vec![1, 0]).turns_until(1, 1), None);
        let (_, count) = turns.at(u64::MAX);
        assert!(count > u64::MAX / 1_000_000);
    }
}
