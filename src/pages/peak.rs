//! What a device can do, as `smolter bench` has measured it.

use crate::error::{Error, Result};
use crate::files;
use crate::train::made::BENCH_FILE;
use serde::Deserialize;
use std::path::Path;

/// The multiply-add peak of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Peak {
    /// The adapter's name.
    pub adapter: String,
    /// Billions of f32 operations per second.
    pub gflops: f64,
    /// When it was measured.
    pub measured_at: String,
}

/// The parts of a bench result that matter here.
#[derive(Deserialize)]
struct Report {
    measured_at: String,
    adapter: Adapter,
    peaks: Peaks,
}

#[derive(Deserialize)]
struct Adapter {
    name: String,
}

#[derive(Deserialize)]
struct Peaks {
    f32: Best,
}

#[derive(Deserialize)]
struct Best {
    best: f64,
}

impl Peak {
    /// That of a file which `smolter bench --json` wrote.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Input`] naming the file, if it is none.
    pub fn read(path: &Path) -> Result<Peak> {
        let report: Report =
            serde_json::from_slice(&files::read(path, files::SETTINGS)?).map_err(|error| {
                Error::input(format!("{}: no result of smolter bench: {error}", path.display()))
            })?;
        let gflops = report.peaks.f32.best / 1e9;
        if !(gflops > 0.0 && gflops.is_finite()) {
            return Err(Error::input(format!("{}: a peak of {gflops} GFLOP/s", path.display())));
        }
        Ok(Peak { adapter: report.adapter.name, gflops, measured_at: report.measured_at })
    }

    /// That of the run's `adapter`: the one in the run folder, else one of `others`.
    pub fn of(run: &Path, adapter: Option<&str>, others: &[Peak]) -> Option<Peak> {
        let own = Peak::read(&run.join(BENCH_FILE)).ok();
        own.into_iter().chain(others.iter().cloned()).find(|peak| Some(peak.adapter.as_str()) == adapter)
    }
}
