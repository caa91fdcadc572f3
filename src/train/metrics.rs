//! `metrics.jsonl`: one line per step. Everything in it but the `timing` object repeats bit for bit.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Optimizer updates done, this one included.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Mean negative log-likelihood in nats per token.
    pub loss: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Per dataset: tokens so far in this stage, and this step's loss on its sequences.
    pub datasets: BTreeMap<String, DatasetMetrics>,
    /// Mean loss on held-out text, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_loss: Option<f64>,
    /// What differs from run to run.
    pub timing: Timing,
}

/// A dataset's part of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatasetMetrics {
    /// Tokens of this step.
    pub tokens: u64,
    /// Mean loss on them; none if there are none.
    pub loss: Option<f64>,
}

/// Speed and memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Since the process began to train.
    pub seconds: f64,
    /// Of this step.
    pub tokens_per_second: f64,
    /// Floating-point operations per second of this step, in billions.
    pub gflops: f64,
    /// Bytes allocated for the graph.
    pub memory: u64,
}

/// The file, open for appending.
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens `path` at the end of step `step`: lines of later steps, from a run that was cut off after its last
    /// checkpoint, are dropped, because those steps will come again.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        if path.exists() {
            let kept: Vec<String> = read_lines(path)?
                .into_iter()
                .filter(|line| {
                    serde_json::from_str::<Metrics>(line).is_ok_and(|metrics| metrics.step <= step)
                })
                .map(|line| line + "\n")
                .collect();
            let temporary = path.with_extension("jsonl.tmp");
            std::fs::write(&temporary, kept.concat()).map_err(Error::io(&temporary))?;
            std::fs::rename(&temporary, path).map_err(Error::io(path))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path))?;
        Ok(MetricsFile { path: path.into(), file })
    }

    /// Appends a step.
    pub fn append(&mut self, metrics: &Metrics) -> Result<()> {
        let line = serde_json::to_string(metrics).expect("metrics are plain data") + "\n";
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path))
    }
}

fn read_lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    Ok(text.lines().map(String::from).collect())
}

/// The file's lines without what differs from run to run, for comparison.
pub fn repeatable(path: &Path) -> Result<Vec<String>> {
    read_lines(path)?
        .iter()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line)
                .map_err(|e| Error::damaged(path, format!("a line is not JSON ({e})")))?;
            if let Some(object) = value.as_object_mut() {
                object.remove("timing");
            }
            Ok(value.to_string())
        })
        .collect()
}
