//! Proof that resuming is exact: a run in one go against one that is killed and resumed.

use crate::checkpoint::{Checkpoint, folder};
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::ops::adamw::STATES;
use crate::recipes::Recipe;
use crate::report::out;
use crate::train::metrics::{METRICS_FILE, repeatable};
use crate::train::run_folder::RunFolder;
use crate::train::samples::SAMPLES_FILE;
use crate::train::scores::SCORES_FILE;
use crate::train::trainer::{Options, Requests, Trainer};
use crate::train::{corpus, made};
use std::path::Path;
use std::sync::atomic::Ordering;

/// The runs in the folder of a proof.
const WHOLE: &str = "whole";
const KILLED: &str = "killed";

/// Removes the runs of a proof in `folder`, and the folder of the tokens that they share.
pub fn remove_runs(folder: &Path) {
    for run in [WHOLE, KILLED].map(|name| folder.join(name)) {
        made::remove(&run);
        let _ = std::fs::remove_dir(run);
    }
    corpus::remove_shared(folder);
}

/// Trains `steps` steps in one go, and again with the process killed in the middle and resumed, and compares
/// weights, moments and metrics byte for byte.
///
/// `folder` is a new one for both runs. `spawn` starts a child process that trains into the given folder until the given step.
/// Once `requests` ask to stop, it comes to nothing.
///
/// # Errors
/// [`Error::Failure`] naming the first difference, or saying that it was stopped.
pub fn verify_resume(
    recipe: &Recipe,
    folder: &Path,
    backend: &Backend,
    memory: u64,
    steps: u64,
    requests: &Requests,
    spawn: impl Fn(&Path) -> Result<std::process::Child>,
) -> Result<()> {
    let options = |run| Options { run, backend: backend.clone(), memory, until: Some(steps), requests };
    let going_on = || match requests.stop.load(Ordering::Relaxed) {
        true => Err(Error::failure("stopped before anything was proven")),
        false => Ok(()),
    };
    out::say(format_args!("1. {steps} steps in one go"));
    let run = RunFolder::claim(&folder.join(WHOLE))?;
    let mut whole = Trainer::new(recipe.clone(), options(&run), None)?;
    whole.run()?;
    going_on()?;
    let first = whole.last_saved().expect("a run ends with a checkpoint").to_path_buf();
    drop(whole);

    out::say(format_args!("2. the same, killed in the middle"));
    let broken = folder.join(KILLED);
    // From here on a stop has to end the child first.
    requests.unsaved.store(true, Ordering::Relaxed);
    let mut child = spawn(&broken)?;
    let metrics = broken.join(METRICS_FILE);
    let kill_at = steps / 2 + 1;
    loop {
        let lines = std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count() as u64);
        if lines >= kill_at || going_on().is_err() {
            break;
        }
        if let Some(status) = child.try_wait().map_err(Error::io(&broken))? {
            return Err(Error::failure(format!(
                "the run to be killed ended by itself at step {lines} ({status})"
            )));
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().and_then(|()| child.wait()).map_err(Error::io(&broken))?;
    requests.unsaved.store(false, Ordering::Relaxed);
    going_on()?;
    // A quick run may have got to its end before the kill; what is resumed must have steps left.
    let unfinished = folder::list(&broken)?.into_iter().rev().find(|&(step, _)| step < steps);
    let checkpoint = unfinished.map(|(_, path)| Checkpoint::open(&path)).transpose()?;
    let from = checkpoint.as_ref().map_or("the beginning".into(), |c| format!("step {}", c.state.step));
    out::say(format_args!("   killed after step {kill_at} or later; resuming from {from}"));
    let run = RunFolder::open(&broken)?;
    let mut second = Trainer::new(recipe.clone(), options(&run), checkpoint)?;
    second.run()?;
    going_on()?;
    let second = second.last_saved().expect("a run ends with a checkpoint").to_path_buf();

    out::say(format_args!("3. comparing"));
    let states = STATES.map(|state| format!("trainer/{state}.safetensors"));
    let adapter = "adapter/adapter_model.safetensors".to_string();
    let adapter = first.join(&adapter).exists().then_some(adapter);
    for file in ["model.safetensors".to_string()].iter().chain(&adapter).chain(&states) {
        let [a, b] = [&first, &second].map(|checkpoint| {
            let path = checkpoint.join(file);
            std::fs::read(&path).map_err(Error::io(&path))
        });
        let (a, b) = (a?, b?);
        if a != b {
            return Err(Error::failure(format!(
                "{file} differs between {} and {}",
                first.display(),
                second.display()
            )));
        }
        out::say(format_args!("   {file}: {} bytes identical", a.len()));
    }
    let lines = |run: &str| repeatable(&folder.join(run).join(METRICS_FILE));
    let (a, b) = (lines(WHOLE)?, lines(KILLED)?);
    if a != b {
        return Err(Error::failure("metrics.jsonl differs"));
    }
    out::say(format_args!("   metrics.jsonl: {} steps identical", a.len()));
    for name in [SCORES_FILE, SAMPLES_FILE] {
        // A run whose recipe asks nothing of its model has none.
        let [a, b] =
            [WHOLE, KILLED].map(|run| std::fs::read(folder.join(run).join(name)).unwrap_or_default());
        if a != b {
            return Err(Error::failure(format!("{name} differs")));
        }
        if !a.is_empty() {
            out::say(format_args!("   {name}: {} bytes identical", a.len()));
        }
    }
    Ok(())
}
