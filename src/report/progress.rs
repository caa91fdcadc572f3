//! Progress with an estimate of the time left: a bar in a terminal, a line every ten seconds elsewhere.

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between lines where stderr is not a terminal.
const PERIOD: Duration = Duration::from_secs(10);

/// Progress of one task.
pub struct Progress {
    bar: ProgressBar,
    plain: Option<Plain>,
}

struct Plain {
    what: String,
    begun: Instant,
    /// Position when it began: a resumed run does not start at zero.
    first: u64,
    printed: Instant,
}

impl Progress {
    /// A task of `total` units that is at `position` already.
    pub fn new(what: &str, total: u64, position: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(total) } else { ProgressBar::hidden() };
        bar.set_length(total);
        let style = ProgressStyle::with_template("{prefix} {bar:32} {pos}/{len}  {msg}  ETA {eta}")
            .expect("the template is well-formed");
        bar.set_style(style);
        bar.set_prefix(what.to_string());
        bar.set_position(position);
        bar.reset_eta();
        let now = Instant::now();
        let plain =
            (!terminal).then(|| Plain { what: what.into(), begun: now, first: position, printed: now });
        Progress { bar, plain }
    }

    /// Reports that `position` is reached, with a few words about the state.
    pub fn set(&mut self, position: u64, message: &str) {
        self.bar.set_position(position);
        self.bar.set_message(message.to_string());
        let total = self.bar.length().unwrap_or(0);
        if let Some(plain) = &mut self.plain
            && plain.printed.elapsed() >= PERIOD
        {
            plain.printed = Instant::now();
            let done = position.saturating_sub(plain.first).max(1) as f64;
            let left = plain.begun.elapsed().mul_f64(total.saturating_sub(position) as f64 / done);
            eprintln!("{} {position}/{total}  {message}  ETA {}", plain.what, HumanDuration(left));
        }
    }

    /// Prints a line that stays, above the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| println!("{text}"));
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
