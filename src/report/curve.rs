//! Loss curves drawn with Braille dots, 2 x 4 to a character.

use super::series::Series;

/// Columns of the labels at the left.
const LABEL: usize = 9;

/// What marks held-out losses.
const MARK: char = 'o';

/// Losses over steps or tokens, in bounded memory.
pub struct Curve {
    /// What is counted along the curve.
    axis: &'static str,
    training: Series,
    held_out: Series,
}

impl Default for Curve {
    fn default() -> Self {
        Curve::over("step")
    }
}

impl Curve {
    /// An empty one over an axis of that name.
    pub fn over(axis: &'static str) -> Curve {
        Curve { axis, training: Series::default(), held_out: Series::default() }
    }

    /// Adds the training loss of a step; those that are not finite are left out.
    pub fn push(&mut self, step: u64, loss: f64) {
        self.training.push(step, loss);
    }

    /// Adds a held-out loss.
    pub fn push_held_out(&mut self, step: u64, loss: f64) {
        self.held_out.push(step, loss);
    }

    /// Rows of at most `width` columns, `height` of them: the curve, and below it the steps. No rows before there are
    /// two steps, or where there is no room.
    pub fn draw(&self, width: usize, height: usize) -> Vec<String> {
        let points = means(&self.training);
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
        if points.len() < 2 || width < LABEL + 20 || height < 4 {
            return Vec::new();
        }
        let mut canvas = Canvas::new(width - LABEL, height - 1);
        let marks = means(&self.held_out);
        let all = || points.iter().chain(&marks).map(|&(_, loss)| loss);
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let (low, high) = if low < high { (low, high) } else { (low - 0.5, high + 0.5) };
        let (dots_wide, dots_high) = (canvas.columns * 2, canvas.rows * 4);
        let x_of = |step: f64| (step - first.0) / (last.0 - first.0) * (dots_wide - 1) as f64;
        let y_of = |loss: f64| ((high - loss) / (high - low) * (dots_high - 1) as f64).round() as usize;
        let mut before: Option<usize> = None;
        for (x, loss) in columns(&points, dots_wide, x_of) {
            let y = y_of(loss);
            let from = before.replace(y).unwrap_or(y);
            (from.min(y)..=from.max(y)).for_each(|y| canvas.dot(x, y));
        }
        for &(step, loss) in &marks {
            let x = x_of(step).round().clamp(0.0, (dots_wide - 1) as f64) as usize;
            canvas.marks.push((x / 2, y_of(loss) / 4));
        }
        let middle = canvas.rows / 2;
        let label = |row: usize| match row {
            0 => number(high),
            row if row + 1 == canvas.rows => number(low),
            row if row == middle => {
                number(high - (high - low) * middle as f64 / (canvas.rows - 1).max(1) as f64)
            }
            _ => String::new(),
        };
        let mut rows: Vec<String> = (0..canvas.rows)
            .map(|row| format!("{:>w$} {}", label(row), canvas.row(row), w = LABEL - 1))
            .collect();
        let (start, end) = self.training.ends().unwrap_or_default();
        let legend = if marks.is_empty() { "loss".into() } else { format!("loss, {MARK} held-out") };
        let (left, right) = (format!("{} {start}  {legend}", self.axis), end.to_string());
        let below = format!("{:LABEL$}{left}{right:>w$}", "", w = (width - LABEL).saturating_sub(left.len()));
        rows.push(below.chars().take(width).collect());
        rows
    }
}

/// The kept points of a series as (step, mean).
fn means(series: &Series) -> Vec<(f64, f64)> {
    series.points().iter().map(|point| (point.x, point.mean)).collect()
}

/// At most seven characters.
fn number(x: f64) -> String {
    match x.abs() {
        size if size < 100.0 => format!("{x:.3}"),
        size if size < 1e6 => format!("{x:.0}"),
        _ => format!("{x:.0e}"),
    }
}

/// The value of each dot column between the first and the last point: the mean of the points in it, or between two
/// points what lies on the line.
fn columns(points: &[(f64, f64)], wide: usize, x_of: impl Fn(f64) -> f64) -> Vec<(usize, f64)> {
    let mut sums = vec![(0.0, 0u32); wide];
    for &(step, loss) in points {
        let sum = &mut sums[(x_of(step).round() as usize).min(wide - 1)];
        *sum = (sum.0 + loss, sum.1 + 1);
    }
    let known: Vec<(usize, f64)> = sums
        .iter()
        .enumerate()
        .filter(|(_, sum)| sum.1 > 0)
        .map(|(x, sum)| (x, sum.0 / f64::from(sum.1)))
        .collect();
    let between = |pair: &[(usize, f64)]| {
        let ((a, from), (b, to)) = (pair[0], pair[1]);
        (a..b).map(move |x| (x, from + (to - from) * (x - a) as f64 / (b - a) as f64)).collect::<Vec<_>>()
    };
    known.windows(2).flat_map(between).chain(known.last().copied()).collect()
}

struct Canvas {
    columns: usize,
    rows: usize,
    /// Dots of each cell as Unicode numbers them.
    cells: Vec<u8>,
    /// Cells (column, row) that show a mark.
    marks: Vec<(usize, usize)>,
}

impl Canvas {
    fn new(columns: usize, rows: usize) -> Self {
        Canvas { columns, rows, cells: vec![0; columns * rows], marks: Vec::new() }
    }

    fn dot(&mut self, x: usize, y: usize) {
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        self.cells[y / 4 * self.columns + x / 2] |= BITS[x % 2][y % 4];
    }

    fn row(&self, row: usize) -> String {
        let cell = |column: usize| match self.cells[row * self.columns + column] {
            _ if self.marks.contains(&(column, row)) => MARK,
            0 => ' ',
            dots => char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' '),
        };
        (0..self.columns).map(cell).collect::<String>().trim_end().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(losses: impl IntoIterator<Item = f64>) -> Curve {
        let mut curve = Curve::default();
        (1..).zip(losses).for_each(|(step, loss)| curve.push(step, loss));
        curve
    }

    #[test]
    fn a_falling_line_is_drawn() {
        let mut falling = curve((0..=16).map(|i| 4.0 - f64::from(i) / 8.0));
        falling.push_held_out(17, 3.0);
        let rows = falling.draw(LABEL + 30, 5);
        let labels: Vec<String> = rows.iter().map(|row| row.chars().take(LABEL).collect()).collect();
        assert_eq!(labels, ["   4.000 ", "         ", "   2.667 ", "   2.000 ", "         "], "{rows:#?}");
        // From the upper left corner to the lower right one.
        let cells: Vec<Vec<char>> = rows.iter().map(|row| row.chars().skip(LABEL).collect()).collect();
        assert!(cells[0][0] > '\u{2800}' && cells[3].len() == 30 && cells[3][29] > '\u{2800}', "{rows:#?}");
        assert!(rows.iter().any(|row| row.ends_with(MARK)) && rows[4].ends_with("17"), "{rows:#?}");
        assert!(rows[4].contains("step 1  loss, o held-out"));
    }

    #[test]
    fn any_series_fits_its_space() {
        let odd = [
            vec![],
            vec![1.0],
            vec![f64::NAN, 1.0],
            vec![2.0; 3],
            vec![f64::INFINITY, 1.0, 2.0, f64::NAN, 1e30],
            (0..100_000).map(|i| f64::from(i % 7)).collect(),
            vec![-1e300, 1e300],
        ];
        for losses in odd {
            let curve = curve(losses.clone());
            for (width, height) in [(0, 0), (28, 4), (29, 4), (79, 10), (400, 3), (300, 60)] {
                let rows = curve.draw(width, height);
                assert!(rows.is_empty() || rows.len() == height, "{width}x{height}");
                assert!(rows.iter().all(|row| row.chars().count() <= width), "{width}x{height} {rows:#?}");
            }
        }
    }
}
