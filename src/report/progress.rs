//! Progress with an estimate of the time left: live rows in a terminal, a line every ten seconds elsewhere.

use super::curve::Curve;
use super::out::{self, Live, MARGIN};
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
    /// Share of the time that is over, and how long the rest takes, where positions do not tell.
    estimate: Option<(f64, Duration)>,
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
            estimate: None,
            shown: now,
            curve: None,
            live: Live::new(),
        };
        progress.draw();
        progress
    }

    /// The same with a curve of losses above it, where the terminal has room.
    pub fn with_curve(self) -> Self {
        Progress { curve: self.live.as_ref().map(|_| Curve::default()), ..self }
    }

    /// The curve, if there is one.
    pub fn curve(&mut self) -> Option<&mut Curve> {
        self.curve.as_mut()
    }

    /// From now on the share of the time that is over, and how long the rest takes, are these: positions take unlike times.
    pub fn estimate(&mut self, estimate: Option<(f64, Duration)>) {
        self.estimate = estimate;
    }

    /// As [`set`](Self::set), of a part of the task with a name of its own.
    pub fn set_named(&mut self, what: &str, position: u64, message: &str) {
        if self.what != what {
            self.what = what.into();
        }
        self.set(position, message);
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
        rows.push(self.bar(out::size().1.saturating_sub(MARGIN)));
        live.set(rows);
    }

    fn curve_rows(&self) -> Vec<String> {
        let (rows, columns) = out::size();
        match &self.curve {
            Some(curve) if rows >= CURVE_ROOM.0 && columns >= CURVE_ROOM.1 => {
                curve.draw((columns - MARGIN).min(CURVE_SIZE.1), (rows / 2).min(CURVE_SIZE.0))
            }
            _ => Vec::new(),
        }
    }

    /// What is done, of how much, and how long the rest will take.
    fn state(&self) -> String {
        let Some(total) = self.total else { return format!("{}  {}", self.position, self.message) };
        let left = self.left(total).map_or(String::new(), |left| format!("  ETA {:#}", HumanDuration(left)));
        format!("{}/{total}  {}{left}", self.position, self.message)
    }

    /// How long the rest will take.
    fn left(&self, total: u64) -> Option<Duration> {
        if let Some((_, left)) = self.estimate {
            return Some(left);
        }
        let done = self.position.saturating_sub(self.first);
        let rate = total.saturating_sub(self.position) as f64 / done as f64;
        Duration::try_from_secs_f64(self.begun.elapsed().as_secs_f64() * rate).ok().filter(|_| done > 0)
    }

    /// One row of at most `width` columns. Where space is short, the bar goes first, then the end.
    fn bar(&self, width: usize) -> String {
        let state = self.state();
        let used = console::measure_text_width(&self.what) + console::measure_text_width(&state) + 2;
        let room = width.saturating_sub(used).min(32);
        match self.total {
            Some(total) if room >= 8 => {
                let by_position = self.position.min(total) as f64 / total.max(1) as f64;
                let share = self.estimate.map_or(by_position, |(share, _)| share.clamp(0.0, 1.0));
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
        let mut uneven = at(Some(8), 4, "");
        uneven.estimate(Some((0.25, Duration::from_secs(90))));
        uneven.set_named("writing", 4, "");
        assert_eq!(uneven.bar(79), format!("writing {}{} 4/8    ETA 2m", "█".repeat(8), "░".repeat(24)));
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
