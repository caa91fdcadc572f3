//! How long to wait for a device: a slow one is not a lost one.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seconds without any completed submission after which the device is taken for lost.
pub const PATIENCE_VARIABLE: &str = "SMOLTER_PATIENCE";

/// Target GPU time of one submission, in milliseconds.
pub const SUBMIT_VARIABLE: &str = "SMOLTER_SUBMIT_MS";

/// Without [`PATIENCE_VARIABLE`]: the largest op of SmolLM2-1.7B takes a slow software adapter minutes.
const DEFAULT: Duration = Duration::from_secs(600);

/// By default also this many times the longest submission that was measured.
const SLACK: u32 = 20;

/// After this long without any completed submission, the user is told.
const QUIET: Duration = Duration::from_secs(60);

/// Longest single wait; between waits is seen what has completed.
const SLICE: Duration = Duration::from_secs(1);

/// What is known of a device's submissions, and for how long to wait for the next one.
pub(super) struct Patience {
    /// Target GPU time of one submission.
    pub(super) submit: Duration,
    /// What the user set.
    given: Option<Duration>,
    /// Nanoseconds of the longest measured submission.
    longest: AtomicU64,
    /// Submissions that have completed.
    completed: AtomicU64,
}

impl Patience {
    /// As the environment says.
    pub(super) fn from_env() -> Result<Self> {
        Self::new(&variable(SUBMIT_VARIABLE), &variable(PATIENCE_VARIABLE))
    }

    fn new(submit_ms: &str, seconds: &str) -> Result<Self> {
        Ok(Patience {
            submit: number(SUBMIT_VARIABLE, "milliseconds", submit_ms, 1e-3)?
                .unwrap_or(Duration::from_millis(100)),
            given: number(PATIENCE_VARIABLE, "seconds", seconds, 1.0)?,
            longest: AtomicU64::new(0),
            completed: AtomicU64::new(0),
        })
    }

    /// A submission took this long.
    pub(super) fn note_time(&self, time: Duration) {
        self.longest.fetch_max(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// A submission has completed.
    pub(super) fn note_completed(&self) {
        self.completed.fetch_add(1, Ordering::Relaxed);
    }

    /// Longest time without a completed submission.
    pub(super) fn limit(&self) -> Duration {
        let longest = Duration::from_nanos(self.longest.load(Ordering::Relaxed));
        self.given.unwrap_or_else(|| DEFAULT.max(longest.saturating_mul(SLACK)))
    }

    /// The time to wait before looking again at what has completed.
    pub(super) fn slice(&self) -> Duration {
        SLICE.min(self.limit())
    }

    /// Begins to wait.
    pub(super) fn wait(&self) -> Wait<'_> {
        let completed = self.completed.load(Ordering::Relaxed);
        Wait { patience: self, completed, silent_since: Instant::now(), told: false }
    }
}

/// One wait for a submission.
pub(super) struct Wait<'a> {
    patience: &'a Patience,
    completed: u64,
    silent_since: Instant,
    told: bool,
}

/// What to do when nothing has come yet.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Wait on.
    Wait,
    /// Wait on, and tell the user.
    Tell,
    /// The device is lost.
    GiveUp,
}

impl Wait<'_> {
    /// Decides at time `now`.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let completed = self.patience.completed.load(Ordering::Relaxed);
        if completed != self.completed {
            (self.completed, self.silent_since) = (completed, now);
        }
        let silent = now.saturating_duration_since(self.silent_since);
        if silent >= self.patience.limit() {
            return Next::GiveUp;
        }
        if silent < QUIET || self.told {
            return Next::Wait;
        }
        self.told = true;
        Next::Tell
    }
}

fn variable(name: &str) -> String {
    std::env::var_os(name).unwrap_or_default().to_string_lossy().into_owned()
}

/// The value of a variable in units of `unit` seconds, unless it is empty.
fn number(name: &str, units: &str, value: &str, unit: f64) -> Result<Option<Duration>> {
    if value.is_empty() {
        return Ok(None);
    }
    let number = value.trim().parse::<f64>().ok().filter(|&number| number > 0.0);
    let duration = number.and_then(|number| Duration::try_from_secs_f64(number * unit).ok());
    duration.filter(|duration| !duration.is_zero()).map(Some).ok_or_else(|| {
        Error::input(format!("{name}={value}: not a number of {units} above 0; give one such as {name}=20"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(wait: &mut Wait, seconds: u64) -> Next {
        let now = wait.silent_since + Duration::from_secs(seconds);
        wait.next(now)
    }

    #[test]
    fn progress_renews_patience_and_silence_ends_it() {
        let patience = Patience::new("", "").unwrap();
        let mut wait = patience.wait();
        assert_eq!(after(&mut wait, 59), Next::Wait);
        assert_eq!(after(&mut wait, 61), Next::Tell);
        assert_eq!(after(&mut wait, 62), Next::Wait, "told once");
        patience.note_completed();
        assert_eq!(after(&mut wait, 700), Next::Wait, "something has completed meanwhile");
        assert_eq!(after(&mut wait, 599), Next::Wait);
        assert_eq!(after(&mut wait, 600), Next::GiveUp);
    }

    #[test]
    fn slow_submissions_are_waited_for_unless_the_user_says_how_long() {
        let of = |seconds: &str| {
            let patience = Patience::new("", seconds).unwrap();
            patience.note_time(Duration::from_secs(100));
            patience.note_time(Duration::from_secs(1));
            patience.limit()
        };
        assert_eq!(of(""), Duration::from_secs(2000));
        assert_eq!(of("0.5"), Duration::from_millis(500));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in ["x", "0", "-1", "nan", "inf", "1e300", "1e-30", "1 s"] {
            for (submit, seconds) in [(wrong, ""), ("", wrong)] {
                let error = Patience::new(submit, seconds).err().expect(wrong);
                assert!(matches!(error, Error::Input(_)) && error.to_string().contains(wrong), "{error}");
            }
        }
        assert_eq!(Patience::new("20", "").unwrap().submit, Duration::from_millis(20));
    }
}
