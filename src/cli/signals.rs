//! What the system and the user at the terminal tell a process.

use crate::error::{Error, Result};

/// A signal that a command deals with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C, or SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal is gone.
    Hangup,
}

impl Signal {
    /// The exit code of a process that the signal has ended.
    pub fn exit_code(self) -> i32 {
        match self {
            Signal::Hangup => 129,
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }
}

/// Calls `act` for every signal from now on, in a thread of its own, instead of what the system would do. A signal that
/// whoever started the process has told it to ignore stays ignored: a shell does so for `smolter train &` in a script.
///
/// # Errors
/// [`Error::Failure`] if the system does not let signals be caught.
pub fn watch(act: impl FnMut(Signal) + Send + 'static) -> Result<()> {
    install(act).map_err(|error| Error::failure(format!("cannot catch signals: {error}")))
}

#[cfg(unix)]
fn install(mut act: impl FnMut(Signal) + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let wanted = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|&signal| !is_ignored(signal));
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    let forever = move || {
        for signal in signals.forever() {
            act(match signal {
                SIGHUP => Signal::Hangup,
                SIGINT => Signal::Interrupt,
                _ => Signal::Terminate,
            });
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(forever).map(|_| ())
}

/// Whether the process ignores the signal; Linux alone tells without being asked in C.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Elsewhere all ways to end a process look alike.
#[cfg(not(unix))]
fn install(mut act: impl FnMut(Signal) + Send + 'static) -> std::result::Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || act(Signal::Interrupt))
}
