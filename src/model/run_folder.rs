//! Run folders in place of models.

use crate::error::Error;
use crate::files;
use std::path::{Path, PathBuf};

/// Folder of the checkpoints in a run folder.
const CHECKPOINTS: &str = "checkpoints";

/// Files that make a folder a run's, even before its first checkpoint.
const RECIPE: &str = "recipe.toml";
const METRICS: &str = "metrics.jsonl";

/// The run folder that `path` means: itself, or the one that it is the checkpoints folder of.
pub(super) fn of(path: &Path) -> Option<PathBuf> {
    if path.join(CHECKPOINTS).is_dir() || path.join(RECIPE).is_file() && path.join(METRICS).is_file() {
        return Some(path.into());
    }
    // `.` and the like have no name.
    let path = match path.file_name() {
        Some(_) => path.to_path_buf(),
        None => path.canonicalize().ok()?,
    };
    let run = path.parent().filter(|_| path.is_dir() && path.ends_with(CHECKPOINTS))?;
    Some(if run == Path::new("") { ".".into() } else { run.into() })
}

/// The error of a run without a checkpoint: says how far it is and when the first one comes, as far as it tells.
pub(super) fn no_checkpoint(run: &Path) -> Error {
    let recipe = files::read_text(&run.join(RECIPE), files::SETTINGS).ok();
    let recipe = recipe.and_then(|text| text.parse::<toml::Table>().ok());
    let every = recipe.and_then(|recipe| recipe.get("checkpoint")?.get("every")?.as_integer());
    let metrics = files::read(&run.join(METRICS), files::LISTS).ok();
    let step = metrics.map(|bytes| bytes.iter().filter(|&&byte| byte == b'\n').count());
    let next = match (every, step) {
        (Some(every), Some(step)) => format!(": it is at step {step}, and the first comes by step {every}"),
        (Some(every), None) => format!(": the first comes by step {every}"),
        (None, Some(step)) => format!(": it is at step {step}"),
        _ => String::new(),
    };
    Error::input(format!("{}: this run has no checkpoint yet{next}", run.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_meant_by_its_folder_and_its_checkpoints() {
        let place = tempfile::tempdir().unwrap();
        let run = place.path().join("a");
        std::fs::create_dir_all(run.join("checkpoints")).unwrap();
        assert_eq!(of(&run), Some(run.clone()));
        assert_eq!(of(&run.join("checkpoints")), Some(run.clone()));
        assert_eq!(of(&run.join("checkpoints/.")), Some(run.clone()));
        assert_eq!(of(place.path()), None);
        assert_eq!(of(&run.join("other/checkpoints")), None);
    }

    #[test]
    fn a_run_before_its_first_checkpoint_says_when_it_comes() {
        let run = tempfile::tempdir().unwrap();
        let say = || no_checkpoint(run.path()).to_string();
        assert!(say().ends_with("no checkpoint yet"));
        std::fs::write(run.path().join(RECIPE), "[checkpoint]\nevery = 40").unwrap();
        assert!(say().ends_with("no checkpoint yet: the first comes by step 40"));
        std::fs::write(run.path().join(METRICS), "{}\n{}\n").unwrap();
        assert!(say().ends_with("no checkpoint yet: it is at step 2, and the first comes by step 40"));
        assert_eq!(of(run.path()), Some(run.path().into()));
        std::fs::write(run.path().join(RECIPE), "[checkpoint\nevery = ").unwrap();
        assert!(say().ends_with("no checkpoint yet: it is at step 2"));
    }
}
