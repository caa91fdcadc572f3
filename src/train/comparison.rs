//! How often a model finds the chosen answer of held-out pairs the likelier one, beside the model that its stage began with,
//! pair by pair: the difference is far surer than the two shares are.

use crate::report::table;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Held-out pairs of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOutPairs {
    /// All of them.
    pub all: Comparison,
    /// Those of each dataset, by name.
    pub datasets: BTreeMap<String, Comparison>,
}

/// Of some pairs: the share whose chosen answer is the likelier one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// How many pairs.
    pub pairs: u64,
    /// By log-probability: the longer an answer, the less likely it is.
    pub log_prob: Change,
    /// By log-probability per judged token.
    pub per_token: Change,
}

/// What became of a share of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Of the model that the stage began with.
    pub before: f64,
    /// Of the model now.
    pub now: f64,
    /// How much it has risen.
    pub difference: f64,
    /// Standard error of the difference, from the differences of the single pairs.
    pub standard_error: f64,
}

/// Counts of pairs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pairs: u64,
    log_prob: Counts,
    per_token: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    before: u64,
    /// Pairs that the model has won, and lost, since.
    won: u64,
    lost: u64,
}

impl Counts {
    fn add(&mut self, before: [f64; 2], now: [f64; 2]) {
        let [before, now] = [before, now].map(|[chosen, rejected]| chosen > rejected);
        self.before += u64::from(before);
        self.won += u64::from(now && !before);
        self.lost += u64::from(before && !now);
    }

    fn change(&self, pairs: u64) -> Change {
        let (n, won, lost) = (pairs as f64, self.won as f64, self.lost as f64);
        let (before, difference) = (self.before as f64, (won - lost) / n);
        // Each pair's difference is 1, 0 or -1.
        let variance = (won + lost - n * difference * difference) / (n - 1.0).max(1.0);
        let standard_error = (variance.max(0.0) / n).sqrt();
        Change { before: before / n, now: (before + won - lost) / n, difference, standard_error }
    }
}

impl Tally {
    /// Adds a pair: log-probabilities of the chosen and the rejected answer before and now, and how many tokens each has.
    pub fn add(&mut self, before: [f64; 2], now: [f64; 2], counts: [u32; 2]) {
        let per_token = |of: [f64; 2]| [0, 1].map(|side| of[side] / f64::from(counts[side].max(1)));
        self.pairs += 1;
        self.log_prob.add(before, now);
        self.per_token.add(per_token(before), per_token(now));
    }

    /// The shares; none without pairs.
    pub fn comparison(&self) -> Option<Comparison> {
        let Tally { pairs, log_prob, per_token } = self;
        (*pairs > 0).then(|| Comparison {
            pairs: *pairs,
            log_prob: log_prob.change(*pairs),
            per_token: per_token.change(*pairs),
        })
    }
}

impl HeldOutPairs {
    /// For people: a table in per cent of the pairs.
    pub fn table(&self) -> String {
        let mut table =
            table(&["likelier (%)", "pairs", "before", "now", "change (%)", "a token", "now", "change (%)"]);
        for row in self.rows() {
            table.add_row(row);
        }
        table.to_string()
    }

    /// A row per dataset, and one of all pairs: how many, by log-probability before, now and the difference with its
    /// standard error, and the same per token; in per cent.
    fn rows(&self) -> Vec<Vec<String>> {
        let datasets = self.datasets.iter().map(|(name, comparison)| (name.as_str(), comparison));
        let row = |(name, Comparison { pairs, log_prob, per_token }): (&str, &Comparison)| {
            let cells = [log_prob, per_token].map(Change::cells).concat();
            [name.to_string(), pairs.to_string()].into_iter().chain(cells).collect::<Vec<_>>()
        };
        datasets.chain([("all", &self.all)]).map(row).collect()
    }
}

impl Change {
    /// Before, now, and the difference with its standard error, in per cent.
    pub fn cells(&self) -> [String; 3] {
        let [before, now, difference, error] =
            [self.before, self.now, self.difference, self.standard_error].map(|share| 100.0 * share);
        [format!("{before:.1}"), format!("{now:.1}"), format!("{difference:+.1}±{error:.1}")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_that_of_the_single_pairs() {
        // Before and now: how much likelier the chosen answer is; it has twice as many tokens.
        let pairs =
            [(1.0, 2.0), (-1.0, 3.0), (-2.0, 1.0), (4.0, -1.0), (-1.0, -9.0), (0.0, 5.0), (-3.0, 0.0)];
        let mut tally = Tally::default();
        assert!(tally.comparison().is_none());
        for (before, now) in pairs {
            tally.add([before - 10.0, -10.0], [now - 10.0, -10.0], [5, 4]);
        }
        let found = tally.comparison().expect("pairs");
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let share = |of: &dyn Fn(&(f64, f64)) -> bool| pairs.map(|it| f64::from(u8::from(of(&it))));
        let check = |found: Change, before: [f64; 7], now: [f64; 7]| {
            let differences: Vec<f64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
            let squares: Vec<f64> = differences.iter().map(|it| (it - mean(&differences)).powi(2)).collect();
            let error = (squares.iter().sum::<f64>() / 6.0 / 7.0).sqrt();
            let wanted = [mean(&before), mean(&now), mean(&differences), error];
            let got = [found.before, found.now, found.difference, found.standard_error];
            assert!(
                got.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() < 1e-12),
                "{got:?} {wanted:?}"
            );
        };
        assert_eq!(found.pairs, 7);
        check(found.log_prob, share(&|it| it.0 > 0.0), share(&|it| it.1 > 0.0));
        // (x - 10) / 5 > -10 / 4 where x > -2.5.
        check(found.per_token, share(&|it| it.0 > -2.5), share(&|it| it.1 > -2.5));
        let mut one = Tally::default();
        one.add([-2.0, -1.0], [-1.0, -2.0], [1, 1]);
        let change = one.comparison().expect("a pair").log_prob;
        assert_eq!(
            (change.before, change.now, change.difference, change.standard_error),
            (0.0, 1.0, 1.0, 0.0)
        );
        assert_eq!(change.cells(), ["0.0", "100.0", "+100.0±0.0"]);
    }
}
