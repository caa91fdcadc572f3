//! `sittings.jsonl`: a line for each time that a process sat down to train the run: with what program, on what device, and
//! how much memory its work takes.

use super::objective::Shape;
use super::stages::PlannedStage;
use crate::error::{Error, Result};
use crate::files;
use crate::graph::Backend;
use crate::recipes::Recipe;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// File in a run folder.
pub const SITTINGS_FILE: &str = "sittings.jsonl";

/// One process's time on a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sitting {
    /// When it began, in local time.
    pub began: String,
    /// Steps that were done before.
    pub step: u64,
    /// Version of this program.
    pub version: String,
    /// Its commit; `unknown` where it was not built from a repository.
    pub commit: String,
    /// The device, as people read it.
    pub device: String,
    /// The name of the adapter, if it is one.
    pub adapter: Option<String>,
    /// Bytes of device memory that it was to stay within.
    pub memory: u64,
    /// What the stages that were left take.
    pub stages: Vec<StageMemory>,
}

/// How the work of a stage was cut, and what that takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageMemory {
    /// The stage's name.
    pub stage: String,
    /// Sequences or pairs of a pass.
    pub micro_batch: usize,
    /// Passes of a step.
    pub passes: usize,
    /// What is computed again: name of a policy.
    pub recompute: String,
    /// Bytes by what they are for.
    pub slabs: Vec<(String, u64)>,
}

impl Sitting {
    /// That of this process, which begins after `step` and may take `memory` bytes on `backend`.
    pub fn new(
        recipe: &Recipe,
        stages: &[PlannedStage],
        backend: &Backend,
        memory: u64,
        step: u64,
    ) -> Sitting {
        let of_stage = |stage: &PlannedStage| {
            let Shape { micro_batch, passes, recompute, .. } = stage.shape;
            StageMemory {
                stage: recipe.stages[stage.span.stage].name.clone(),
                micro_batch,
                passes,
                recompute: recompute.name().into(),
                slabs: stage.slabs.clone(),
            }
        };
        Sitting {
            began: chrono::Local::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, false),
            step,
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("SMOLTER_COMMIT").into(),
            device: backend.description(),
            adapter: match backend {
                Backend::Gpu(device) => Some(device.info.name.clone()),
                Backend::Reference | Backend::Oracle => None,
            },
            memory,
            stages: stages.iter().map(of_stage).collect(),
        }
    }

    /// Adds it to those of the run folder. What is no file steps aside.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn append(&self, run: &Path) -> Result<()> {
        let path = run.join(SITTINGS_FILE);
        if path.symlink_metadata().is_ok() && !path.is_file() {
            files::set_aside(&path)?;
        }
        let line = serde_json::to_string(self).expect("it is plain data") + "\n";
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(Error::io(&path))
    }
}
