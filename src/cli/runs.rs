//! `smolter runs`: the runs in a folder, and one of them in detail.

use crate::error::{Error, Result};
use crate::report::curve::Curve;
use crate::report::number::duration;
use crate::report::{out, quoted, table};
use crate::train::history;
use crate::train::metrics::Metrics;
use crate::train::overview::{Overview, Record, State, steps};
use clap::{Args, Subcommand};
use indicatif::HumanDuration;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const EXAMPLES: &str = "Examples:
  smolter runs  those in runs/
  smolter runs /mnt/runs
  smolter runs show microcosm";

const SHOW_EXAMPLES: &str = "Examples:
  smolter runs show microcosm  runs/microcosm
  smolter runs show /mnt/runs/try";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Runs {
    /// Folder with run folders.
    #[arg(default_value = FOLDER)]
    folder: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Draws the loss curve of one run, with a table of its steps.
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The run folder, or its name in `runs`.
        run: PathBuf,
    },
}

/// Where runs go by default.
const FOLDER: &str = "runs";

/// Rows and columns of a curve.
const CURVE_ROWS: usize = 16;
const CURVE_COLUMNS: std::ops::RangeInclusive<usize> = 60..=120;

/// Most steps in the table of a run.
const TABLE_STEPS: u64 = 12;

impl Runs {
    pub fn run(self) -> Result<()> {
        match &self.command {
            None => list(&self.folder),
            Some(Command::Show { run }) => show(run),
        }
    }
}

fn list(folder: &Path) -> Result<()> {
    let all = match Overview::of(folder) {
        Some(run) => vec![run],
        None if folder == Path::new(FOLDER) && !folder.exists() => Vec::new(),
        None if !folder.is_dir() => {
            let why = "no such folder; give one that run folders lie in";
            return Err(Error::input(format!("{}: {why}", folder.display())));
        }
        None => Overview::of_all(folder)?,
    };
    if all.is_empty() {
        return out::line(format_args!("no runs in {} yet; smolter train starts one", folder.display()));
    }
    let mut rows = table(&["run", "state", "step", "loss", "held-out", "last checkpoint", "changed"]);
    for run in &all {
        rows.add_row([
            name(&run.path),
            run.state.name().to_string(),
            progress(run),
            run.last.as_ref().map_or("-".into(), |last| format!("{:.3}", last.loss)),
            run.held_out_loss.map_or("-".into(), |loss| format!("{loss:.3}")),
            run.checkpoint.as_deref().map_or("none yet".into(), name),
            run.changed.map_or("-".into(), ago),
        ]);
    }
    out::line(rows)
}

/// The run in the folder `run`, or of that name in `runs`.
pub fn find(run: &Path) -> Result<Overview> {
    let named = Path::new(FOLDER).join(run);
    let why = "no run here; smolter runs lists those that there are";
    let none = || Error::input(format!("{}: {why}", run.display()));
    [run, &named].into_iter().find_map(Overview::of).ok_or_else(none)
}

fn show(run: &Path) -> Result<()> {
    let found = find(run)?;
    if let Some(recipe) = &found.recipe {
        out::line(recipe.describe())?;
    }
    let reason = found.state.reason().map_or(String::new(), |reason| format!(" ({reason})"));
    out::line(format_args!(
        "{}: {}{reason}, step {}",
        found.path.display(),
        found.state.name(),
        progress(&found)
    ))?;
    show_steps(&found)?;
    show_history(&found)?;
    if let Some(checkpoint) = &found.checkpoint {
        out::line(format_args!("\nlast checkpoint: {}", checkpoint.display()))?;
    }
    match found.state {
        // An error that ended a run would end it again, and its line tells what to do.
        State::Running | State::Ended(Record::Finished | Record::Failed { .. }) => Ok(()),
        State::Ended(Record::Stopped) | State::Killed => {
            out::line(format_args!("continue with: smolter train --resume {}", quoted(&found.path)))
        }
    }
}

/// The curve and the table of a run's steps, as far as `metrics.jsonl` has them.
fn show_steps(run: &Overview) -> Result<()> {
    if run.last.is_none() {
        return out::line("no steps to show");
    }
    let mut curve = Curve::default();
    let (mut all, mut measured) = (0, 0);
    for step in steps(&run.path)? {
        step.draw_on(&mut curve);
        all += 1;
        measured += u64::from(step.held_out_loss.is_some());
    }
    let columns = (out::size().1 - 1).clamp(*CURVE_COLUMNS.start(), *CURVE_COLUMNS.end());
    let rows = curve.draw(columns, CURVE_ROWS);
    if !rows.is_empty() {
        out::line(format_args!("\n{}", rows.join("\n")))?;
    }
    out::line(format_args!("\n{}", steps_table(&run.path, all, measured)?))
}

/// What happened to a run besides its steps.
fn show_history(run: &Overview) -> Result<()> {
    let events = history::read(&run.path);
    if !events.is_empty() {
        out::line("\nhistory")?;
    }
    events.iter().try_for_each(|event| out::line(format_args!("  {}", event.describe())))
}

/// Evenly chosen ones of a run's `all` steps: of those with a held-out loss, of which there are `measured`, if any.
fn steps_table(run: &Path, all: u64, measured: u64) -> Result<comfy_table::Table> {
    let mut rows = table(&["step", "tokens", "loss", "held-out", "lr", "grad norm", "tokens/s", "time"]);
    let count = if measured > 0 { measured } else { all };
    // The last of them is always there.
    let chosen = |number: u64| (count - number.min(count)).is_multiple_of(count.div_ceil(TABLE_STEPS).max(1));
    let candidates = steps(run)?.filter(|step: &Metrics| measured == 0 || step.held_out_loss.is_some());
    for (_, step) in (1..).zip(candidates).filter(|&(number, _)| chosen(number)) {
        rows.add_row([
            step.step.to_string(),
            step.tokens.to_string(),
            format!("{:.3}", step.loss),
            step.held_out_loss.map_or("-".into(), |loss| format!("{loss:.3}")),
            format!("{:.2e}", step.lr),
            format!("{:.2}", step.grad_norm),
            format!("{:.0}", step.timing.tokens_per_second),
            duration(step.timing.seconds),
        ]);
    }
    Ok(rows)
}

/// The last part of a path, on one line.
fn name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let name = absolute.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    name.replace(char::is_control, "?")
}

fn progress(run: &Overview) -> String {
    let step = run.last.as_ref().map_or(0, |last| last.step);
    match &run.recipe {
        Some(recipe) => format!("{step}/{}", recipe.total_steps()),
        None => step.to_string(),
    }
}

fn ago(time: SystemTime) -> String {
    format!("{} ago", HumanDuration(SystemTime::now().duration_since(time).unwrap_or_default()))
}
