//! Repeated measurements.

use crate::error::Result;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Median and extremes of repeated measurements, in one unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Median; the mean of the middle two of an even number.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// How many there were.
    pub repeats: usize,
}

impl Spread {
    /// Of at least one value.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (n, last) = (values.len(), values.len() - 1);
        let median = (values[last / 2] + values[n / 2]) / 2.0;
        Spread { median, min: values[0], max: values[last], repeats: n }
    }

    /// From seconds to units of work per second, for `work` units each time.
    pub fn rate(&self, work: f64) -> Self {
        Spread { median: work / self.median, min: work / self.max, max: work / self.min, ..*self }
    }
}

/// Calls `once`, which returns seconds, `most` times; after `limit` no more often than twice.
pub fn repeat(most: usize, limit: Duration, mut once: impl FnMut() -> Result<f64>) -> Result<Spread> {
    let begun = Instant::now();
    let mut all = Vec::new();
    while all.len() < most && (all.len() < 2 || begun.elapsed() < limit) {
        all.push(once()?);
    }
    Ok(Spread::of(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_rates() {
        let odd = Spread::of(vec![4.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max, odd.repeats), (2.0, 1.0, 4.0, 3));
        assert_eq!(Spread::of(vec![3.0, 1.0, 9.0, 5.0]).median, 4.0);
        let rate = odd.rate(8.0);
        assert_eq!((rate.median, rate.min, rate.max), (4.0, 2.0, 8.0));
    }
}
