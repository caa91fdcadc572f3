//! Progress with an estimate of the time left: live rows in a terminal, a line every ten seconds elsewhere.

use super::curve::Curve;
use super::out::{self, Live};
use indicatif::HumanDuration;
use std::time::{Duration, Instant};

/// Time between lines where stderr is not a terminal.
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// Time between drawings in a terminal.
const DRAW_PERIOD: Duration = Duration::from_millis(100);

/// The smallest terminal that shows a curve, in rows and columns.
const CURVE_ROOM: (usize, usize) = (16, 60);

/// Most rows and columns of a curve.
const CURVE_SIZE: (usize, usize) = (14, 120);

/// Progress of one task.
pub struct Progress {
    what: String,
    /// Units in all, where that is known.
    total: Option<u64>,
    position: u64,
    /// Position when it began: a resumed run does not start at zero.
    first: u64,
    begun: Instant,
    message: String,
    shown: Instant,
    curve: Option<Curve>,
    live: Option<Live>,
}

impl Progress {
    /// A task of `total` units, `None` where nobody knows, that is at `position` already.
    pub fn new(what: &str, total: impl Into<Option<u64>>, position: u64) -> Self {
        let now = Instant::now();
        let progress = Progress {
            what: what.into(),
            total: total.into(),
            position,
            first: position,
            begun: now,
            message: String::new(),
            shown: now,
            curve: None,
            live: Live::new(),
        };
        progress.draw();
        progress
    }

    /// The same with a curve of losses above it, where the terminal has room.
    pub fn with_curve(self) -> Self {
        Progress { curve: Some(Curve::default()), ..self }
    }

    /// The curve, if there is one.
    pub fn curve(&mut self) -> Option<&mut Curve> {
        self.curve.as_mut()
    }

    /// Reports that `position` is reached, with a few words about the state.
    pub fn set(&mut self, position: u64, message: &str) {
        (self.position, self.message) = (position, message.into());
        let period = if self.live.is_some() { DRAW_PERIOD } else { LINE_PERIOD };
        if self.shown.elapsed() < period && !(self.live.is_some() && self.total == Some(position)) {
            return;
        }
        self.shown = Instant::now();
        match &self.live {
            Some(_) => self.draw(),
            None => out::note(format_args!("{} {}", self.what, self.state())),
        }
    }

    /// Ends it: the curve stays, the bar goes.
    pub fn finish(&mut self) {
        let rows = self.curve_rows();
        // Its rows go before lasting ones come.
        if self.live.take().is_some() && !rows.is_empty() {
            out::note(rows.join("\n"));
        }
    }

    fn draw(&self) {
        let Some(live) = &self.live else { return };
        let mut rows = self.curve_rows();
        rows.push(self.bar(out::size().1 - 1));
        live.set(rows);
    }

    fn curve_rows(&self) -> Vec<String> {
        let (rows, columns) = out::size();
        match &self.curve {
            Some(curve) if rows >= CURVE_ROOM.0 && columns >= CURVE_ROOM.1 => {
                curve.draw((columns - 1).min(CURVE_SIZE.1), (rows / 2).min(CURVE_SIZE.0))
            }
            _ => Vec::new(),
        }
    }

    /// What is done, of how much, and how long the rest will take.
    fn state(&self) -> String {
        let Some(total) = self.total else { return format!("{}  {}", self.position, self.message) };
        let done = self.position.saturating_sub(self.first).max(1) as f64;
        let rate = total.saturating_sub(self.position) as f64 / done;
        let left = Duration::try_from_secs_f64(self.begun.elapsed().as_secs_f64() * rate);
        let left = match left {
            Ok(left) if self.position > self.first => format!("  ETA {}", HumanDuration(left)),
            _ => String::new(),
        };
        format!("{}/{total}  {}{left}", self.position, self.message)
    }

    /// One row of at most `width` columns. Where space is short, the bar goes first, then the end.
    fn bar(&self, width: usize) -> String {
        let state = self.state();
        let used = console::measure_text_width(&self.what) + console::measure_text_width(&state) + 2;
        let room = width.saturating_sub(used).min(32);
        match self.total {
            Some(total) if room >= 8 => {
                let share = self.position.min(total) as f64 / total.max(1) as f64;
                let full = (share * room as f64) as usize;
                format!("{} {}{} {state}", self.what, "█".repeat(full), "░".repeat(room - full))
            }
            _ => format!("{} {state}", self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(total: Option<u64>, position: u64, message: &str) -> Progress {
        let mut progress = Progress { live: None, ..Progress::new("reading", total, 0) };
        progress.set(position, message);
        progress
    }

    #[test]
    fn only_a_known_total_is_shown() {
        assert_eq!(at(None, 7, "3 MB").bar(79), "reading 7  3 MB");
        let half = at(Some(8), 4, "").bar(79);
        assert!(half.starts_with(&format!("reading {}{} 4/8", "█".repeat(16), "░".repeat(16))), "{half}");
        assert!(half.contains("ETA"));
        assert!(!at(Some(8), 0, "").bar(79).contains("ETA"));
    }

    #[test]
    fn the_bar_gives_way_to_the_words() {
        for width in [0, 1, 20, 40, 79, 200] {
            for position in [0, 3, 1000, u64::MAX] {
                let row = at(Some(1000), position, "loss 1.234").bar(width);
                assert!(row.contains("/1000  loss 1.234"), "{row}");
                assert!(!row.contains('█') || row.chars().count() <= width, "{row}");
            }
        }
    }
}
