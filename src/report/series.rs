//! A series of numbers over steps or tokens, however long, in bounded memory.

/// Most points that a series keeps.
pub const CAPACITY: usize = 2048;

/// Larger values are left out, like those that are not finite: nothing can be drawn with them.
const LARGEST: f64 = 1e30;

/// A series of (x, value) that is thinned out as it grows: each kept point stands for a power of two of them.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Sums of `2^group` points each.
    full: Vec<Sum>,
    group: u32,
    /// The sum that is not full.
    open: Sum,
    /// x of the first value, and of the last.
    ends: Option<(u64, u64)>,
}

/// Values that were added up.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    x: f64,
    value: f64,
    low: f64,
    high: f64,
}

/// What a kept point tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Mean x.
    pub x: f64,
    /// Mean value.
    pub mean: f64,
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
}

impl Sum {
    fn and(self, other: Sum) -> Sum {
        if self.count == 0 {
            return other;
        }
        Sum {
            count: self.count + other.count,
            x: self.x + other.x,
            value: self.value + other.value,
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }

    fn point(self) -> Point {
        let count = self.count as f64;
        Point { x: self.x / count, mean: self.value / count, low: self.low, high: self.high }
    }
}

impl Series {
    /// Adds a value; those that are not finite are left out.
    pub fn push(&mut self, x: u64, value: f64) {
        // Also false for what is no number.
        if !matches!(value.abs(), size if size <= LARGEST) {
            return;
        }
        self.ends = Some((self.ends.map_or(x, |(first, _)| first), x));
        self.open = self.open.and(Sum { count: 1, x: x as f64, value, low: value, high: value });
        if self.open.count < 1 << self.group {
            return;
        }
        self.full.push(std::mem::take(&mut self.open));
        if self.full.len() == CAPACITY {
            self.full = self.full.chunks(2).map(|pair| pair[0].and(pair[1])).collect();
            self.group += 1;
        }
    }

    /// The kept points, in order: fewer than [`CAPACITY`] and one.
    pub fn points(&self) -> Vec<Point> {
        let open = Some(self.open).filter(|open| open.count > 0);
        self.full.iter().copied().chain(open).map(Sum::point).collect()
    }

    /// x of the first value, and of the last.
    pub fn ends(&self) -> Option<(u64, u64)> {
        self.ends
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.ends.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_series_keeps_its_means_and_extremes() {
        let mut long = Series::default();
        (0..10 * CAPACITY as u64).for_each(|i| long.push(i + 1, (i % 2) as f64));
        let points = long.points();
        assert!(points.len() > CAPACITY / 4 && points.len() <= CAPACITY, "{}", points.len());
        assert!(points.iter().all(|it| (it.mean - 0.5).abs() < 1e-9 && it.low == 0.0 && it.high == 1.0));
        assert!(points.is_sorted_by(|a, b| a.x < b.x));
        assert_eq!(long.ends(), Some((1, 10 * CAPACITY as u64)));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let mut series = Series::default();
        for value in [f64::NAN, f64::INFINITY, -1e300] {
            series.push(1, value);
        }
        assert!(series.is_empty() && series.points().is_empty());
        series.push(7, -2.0);
        assert_eq!(series.points(), [Point { x: 7.0, mean: -2.0, low: -2.0, high: -2.0 }]);
    }
}
