//! `smolter report`: what became of a run, or of several beside each other, as a page to read.

use super::runs;
use crate::bench::compute_peak;
use crate::checkpoint::replace;
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::pages;
use crate::pages::peak::Peak;
use crate::report::out;
use crate::train::made::BENCH_FILE;
use crate::train::overview::Overview;
use clap::Args;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "Examples:
  smolter report microcosm                   report.html and report.md in runs/microcosm
  smolter report runs/a runs/b runs/c        side by side, into the current folder
  smolter report runs/a --out a.html
  smolter report runs/a --bench bench.json   with the speed as a share of the peak in there";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Report {
    /// Run folders, or their names in `runs`.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Where to: a folder, or a file that ends in .html or .md [default: the run folder; of several runs the current one].
    #[arg(short, long, value_name = "FOLDER|FILE")]
    out: Option<PathBuf>,
    /// A result of `smolter bench --json` on the device of a run; may be repeated.
    #[arg(long, value_name = "FILE")]
    bench: Vec<PathBuf>,
}

/// Most runs of a report: each has a column and a colour.
const MOST: usize = 50;

impl Report {
    pub fn run(self) -> Result<()> {
        if self.runs.len() > MOST {
            let count = self.runs.len();
            return Err(Error::input(format!("{count} runs are too many for a report: give {MOST} at most")));
        }
        let peaks = self.bench.iter().map(|path| Peak::read(path)).collect::<Result<Vec<_>>>()?;
        let found = self.runs.iter().map(|run| runs::find(run)).collect::<Result<Vec<Overview>>>()?;
        let place = match (&self.out, &found[..]) {
            (Some(out), _) => out.clone(),
            (None, [run]) => run.path.clone(),
            (None, _) => PathBuf::from("."),
        };
        for path in pages::write(&pages::page(found, &peaks), &place)? {
            out::line(path.strip_prefix(".").unwrap_or(&path).display())?;
        }
        Ok(())
    }
}

/// Steps that took so long are worth two seconds more, to know what their device can do.
const LONG: f64 = 60.0;

/// Writes the report of a run that has ended on `backend` into its folder, and says where it is. That it cannot be written
/// does not undo the run.
pub fn of_ended(run: &Path, backend: &Backend) {
    let Some(overview) = Overview::of(run) else { return };
    if overview.last.as_ref().is_some_and(|last| last.timing.seconds >= LONG) {
        measure_peak(run, backend).unwrap_or_else(|error| out::warn(format_args!("no peak: {error}")));
    }
    match pages::write(&pages::page(vec![overview], &[]), run) {
        Ok(paths) => {
            let all: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            out::say(format_args!("report:        {}", all.join(", ")));
        }
        Err(error) => out::warn(format_args!("no report: {error}")),
    }
}

/// Measures what the adapter can do, unless the run folder tells it already.
fn measure_peak(run: &Path, backend: &Backend) -> Result<()> {
    let Backend::Gpu(device) = backend else { return Ok(()) };
    if Peak::of(run, Some(&device.info.name), &[]).is_some() {
        return Ok(());
    }
    let peak = format!("{:#}\n", compute_peak(device)?);
    replace(&run.join(BENCH_FILE), peak.as_bytes())
}
