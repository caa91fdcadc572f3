//! What several runs say of one number.

use serde::Serialize;

/// A mean over runs with other seeds, and how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean of the runs.
    pub mean: f64,
    /// The larger of the two below. How runs differ has in it how items do, for each run is asked others; but few runs may be
    /// alike by chance.
    pub standard_error: f64,
    /// Standard error of the mean by how the runs differ: standard deviation / sqrt(runs); none with one run.
    pub over_seeds: Option<f64>,
    /// Standard error of the mean by the items that each run was asked.
    pub over_items: f64,
    /// How many runs there are.
    pub runs: usize,
}

impl Estimate {
    /// Of at least one run's value and its standard error over items.
    pub fn of(values: &[(f64, f64)]) -> Estimate {
        let n = values.len() as f64;
        let mean = values.iter().map(|(value, _)| value).sum::<f64>() / n;
        let squares: f64 = values.iter().map(|(value, _)| (value - mean).powi(2)).sum();
        let over_seeds = (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt());
        let over_items = values.iter().map(|(_, error)| error * error).sum::<f64>().sqrt() / n;
        let standard_error = over_seeds.unwrap_or(0.0).max(over_items);
        Estimate { mean, standard_error, over_seeds, over_items, runs: values.len() }
    }

    /// The mean in standard errors, of which there may be none.
    pub fn in_errors(&self) -> f64 {
        if self.mean == 0.0 { 0.0 } else { self.mean / self.standard_error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_runs_or_of_items() {
        // Three runs: variance 0.01, so 0.1 / sqrt(3).
        let spread = Estimate::of(&[(0.4, 0.03), (0.5, 0.03), (0.6, 0.03)]);
        assert!((spread.mean - 0.5).abs() < 1e-12 && spread.runs == 3);
        assert!((spread.over_seeds.unwrap() - 0.1 / 3f64.sqrt()).abs() < 1e-12);
        assert!((spread.over_items - 0.03 / 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(spread.standard_error, spread.over_seeds.unwrap());
        // Alike by chance.
        let alike = Estimate::of(&[(0.5, 0.03), (0.5, 0.04)]);
        assert_eq!((alike.over_seeds, alike.standard_error), (Some(0.0), 0.025));
        assert_eq!(alike.in_errors(), 20.0);
        let one = Estimate::of(&[(0.5, 0.05)]);
        assert_eq!((one.over_seeds, one.standard_error, one.in_errors()), (None, 0.05, 10.0));
        assert_eq!(Estimate::of(&[(0.0, 0.0)]).in_errors(), 0.0);
    }
}
