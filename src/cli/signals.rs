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

/// Calls `act` for every signal from now on, in a thread of its own, instead of what the system would do.
///
/// # Errors
/// [`Error::Failure`] if the system does not let signals be caught.
pub fn watch(act: impl FnMut(Signal) + Send + 'static) -> Result<()> {
    install(act).map_err(|error| Error::failure(format!("cannot catch signals: {error}")))
}

#[cfg(unix)]
fn install(mut act: impl FnMut(Signal) + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
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

/// Elsewhere all ways to end a process look alike.
#[cfg(not(unix))]
fn install(mut act: impl FnMut(Signal) + Send + 'static) -> std::result::Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || act(Signal::Interrupt))
}
