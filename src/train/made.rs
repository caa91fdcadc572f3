//! What a run makes in its folder, by name: a start that comes to nothing takes that away, and nothing else.

use super::begun::BEGUN_FILE;
use super::corpus;
use super::events::EVENTS_FOLDER;
use super::history::HISTORY_FILE;
use super::metrics::METRICS_FILE;
use super::samples::SAMPLES_FILE;
use super::saved::RECIPE_FILE;
use super::scores::SCORES_FILE;
use super::sitting::SITTINGS_FILE;
use crate::checkpoint::folder;
use crate::files;
use std::path::Path;

/// File that is locked while a process trains in the folder; it names the process.
pub const LOCK_FILE: &str = "lock";

/// File that tells how the run ended; not there while it runs, nor after a kill.
pub const ENDING_FILE: &str = "ending.json";

/// What the adapter can do, as `smolter bench` writes it.
pub const BENCH_FILE: &str = "bench.json";

/// The report, as HTML and as Markdown.
pub const REPORT_FILES: [&str; 2] = ["report.html", "report.md"];

/// Folder of token sets and tokenizer.
pub const DATA_FOLDER: &str = "data";

/// Folder of checkpoints.
pub const CHECKPOINTS_FOLDER: &str = "checkpoints";

/// Removes what a run has made in the folder `run`, as far as that is possible. All else stays, and the folders that it
/// lies in.
pub fn remove(run: &Path) {
    let records = [METRICS_FILE, SCORES_FILE, SAMPLES_FILE, HISTORY_FILE, SITTINGS_FILE];
    let files = [LOCK_FILE, RECIPE_FILE, BEGUN_FILE, ENDING_FILE, BENCH_FILE];
    for name in files.into_iter().chain(records).chain(REPORT_FILES) {
        for name in [name.to_string(), format!(".tmp-{name}"), format!("{name}.tmp")] {
            let _ = std::fs::remove_file(run.join(name));
        }
    }
    let events = run.join(EVENTS_FOLDER);
    files::remove_some(&events, |path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("events.out.tfevents.") && name.ends_with(".smolter")
    });
    corpus::remove(&run.join(DATA_FOLDER));
    let _ = folder::remove_all(run);
    let _ = std::fs::remove_dir(run.join(CHECKPOINTS_FOLDER));
}
