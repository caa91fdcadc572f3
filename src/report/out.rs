//! The one way to the terminal. What a command is for goes to standard output and must arrive; what only tells how
//! things stand is dropped when nobody can read it, so that no closed terminal ends hours of training.
//!
//! Live rows (progress, curves) stay at the bottom of the terminal: every other line is written above them.

use crate::error::{Error, Result};
use console::Term;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};

/// What errors call the place that output goes to.
const STDOUT: &str = "standard output";

/// Rows and columns of a terminal that does not tell its size.
const USUAL_SIZE: (usize, usize) = (24, 80);

static SCREEN: LazyLock<Mutex<Screen>> = LazyLock::new(|| Mutex::new(Screen::new()));

static CLOSED_AT_START: AtomicBool = AtomicBool::new(false);

struct Screen {
    /// Where live rows are drawn: standard error, if it is a terminal that can move its cursor.
    terminal: Option<Term>,
    /// Live rows by owner, as they should be.
    live: BTreeMap<u64, Vec<String>>,
    /// Columns of each row that is drawn.
    drawn: Vec<usize>,
    next_owner: u64,
    stdout_lost: bool,
    stderr_lost: bool,
}

fn screen() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Standard output was closed when the process began, before Rust's runtime put something in its place.
pub fn closed_at_start() {
    CLOSED_AT_START.store(true, Ordering::Relaxed);
}

/// Prints to standard output what the command is for, at once.
///
/// # Errors
/// [`Error::Io`] if it cannot be written.
pub fn print(text: impl Display) -> Result<()> {
    check()?;
    screen().above(|| write_stdout(&text.to_string())).map_err(lost)
}

/// Prints a line to standard output, as [`print`].
///
/// # Errors
/// As [`print`].
pub fn line(text: impl Display) -> Result<()> {
    print(format_args!("{text}\n"))
}

/// Requires a standard output, for those who write to it themselves.
///
/// # Errors
/// [`Error::Io`] if it is closed.
pub fn check() -> Result<()> {
    if CLOSED_AT_START.load(Ordering::Relaxed) {
        return Err(lost(std::io::Error::other("it is closed")));
    }
    Ok(())
}

/// The error of a write to standard output.
pub fn lost(source: std::io::Error) -> Error {
    Error::io(STDOUT)(source)
}

/// Whether the error is that of a reader of standard output who has seen enough, such as `head`: nothing to report.
pub fn reader_left(error: &Error) -> bool {
    matches!(error, Error::Io { path, source } if path.as_os_str() == STDOUT
        && source.kind() == ErrorKind::BrokenPipe)
}

/// Prints a line of a report that accompanies other work to standard output; dropped from the first failure on.
pub fn say(text: impl Display) {
    let mut screen = screen();
    if !screen.stdout_lost {
        screen.stdout_lost = screen.above(|| write_stdout(&format!("{text}\n"))).is_err();
    }
}

/// Prints a line to standard error; dropped from the first failure on.
pub fn note(text: impl Display) {
    let mut screen = screen();
    if !screen.stderr_lost {
        let write = || std::io::stderr().write_all(format!("{text}\n").as_bytes());
        screen.stderr_lost |= screen.above(write).is_err();
    }
}

/// Prints a warning to standard error, as [`note`].
pub fn warn(text: impl Display) {
    note(format_args!("warning: {text}"));
}

fn write_stdout(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

/// Rows at the bottom of the terminal until this is dropped.
pub struct Live {
    owner: u64,
}

impl Live {
    /// No rows yet; `None` where there is no terminal to draw them on.
    pub fn new() -> Option<Live> {
        let mut screen = screen();
        screen.terminal.as_ref()?;
        screen.next_owner += 1;
        Some(Live { owner: screen.next_owner })
    }

    /// Draws these rows in place of those before; what does not fit a row is cut off.
    pub fn set(&self, rows: Vec<String>) {
        let mut screen = screen();
        screen.live.insert(self.owner, rows);
        screen.redraw();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut screen = screen();
        if screen.live.remove(&self.owner).is_some() {
            screen.redraw();
        }
    }
}

/// Rows and columns for tables and curves: those of the terminal, or usual ones.
pub fn size() -> (usize, usize) {
    size_of(&Term::stderr())
}

fn size_of(terminal: &Term) -> (usize, usize) {
    match terminal.size_checked() {
        Some((rows, columns)) if rows > 0 && columns > 0 => (rows.into(), columns.into()),
        _ => USUAL_SIZE,
    }
}

impl Screen {
    fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = (std::io::stderr().is_terminal() && !dumb).then(Term::buffered_stderr);
        Screen {
            terminal,
            live: BTreeMap::new(),
            drawn: Vec::new(),
            next_owner: 0,
            stdout_lost: false,
            stderr_lost: false,
        }
    }

    /// Writes something above the live rows.
    fn above<T>(&mut self, write: impl FnOnce() -> T) -> T {
        if self.drawn.is_empty() {
            return write();
        }
        self.draw(&[]);
        let written = write();
        self.redraw();
        written
    }

    fn redraw(&mut self) {
        let Some(terminal) = &self.terminal else { return };
        let (height, width) = size_of(terminal);
        let rows = self.live.values().flatten();
        // One column less than there are: a full row may or may not move the cursor on. One row less, for the shell.
        let rows = rows.map(|row| console::truncate_str(row, width - 1, "").into_owned());
        let rows: Vec<String> = rows.take(height.saturating_sub(1).max(1)).collect();
        self.draw(&rows);
    }

    /// Puts `rows` in the place of what is drawn; the cursor stays at the end of the last one.
    fn draw(&mut self, rows: &[String]) {
        let Some(terminal) = self.terminal.as_ref().filter(|_| !self.stderr_lost) else { return };
        let (_, width) = size_of(terminal);
        // Rows wrap when the terminal becomes narrower.
        let used: usize = self.drawn.iter().map(|columns| columns.div_ceil(width).max(1)).sum();
        let draw = || {
            if used > 0 {
                terminal.write_str("\r")?;
                terminal.move_cursor_up(used - 1)?;
                terminal.clear_to_end_of_screen()?;
            }
            terminal.write_str(&rows.join("\n"))?;
            terminal.flush()
        };
        self.stderr_lost = draw().is_err();
        self.drawn = rows.iter().map(|row| console::measure_text_width(row)).collect();
    }
}
