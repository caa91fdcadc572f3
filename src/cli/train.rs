//! `smolter train`: a recipe from text to checkpoint.

use super::signals::{self, Signal};
use super::{DeviceFlag, RecipeFlags, bytes, count};
use crate::check::resume::verify_resume;
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::report::out;
use crate::train::run::{default_memory, resume, start};
use crate::train::run_folder::RunFolder;
use crate::train::trainer::{Ending, Options, Requests};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const EXAMPLES: &str = "Examples:
  smolter train         the default recipe: no files, no network, minutes
  smolter train my.txt  a small model of your own text
  smolter train mine.toml --steps 500 --lr 1e-3 -o runs/try
  smolter train --resume runs/try";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Train {
    #[command(flatten)]
    recipe: RecipeFlags,
    /// Run folder; by default the first free one of runs/NAME, runs/NAME-2, ...
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Continues the run in this folder from its newest whole checkpoint.
    #[arg(long, value_name = "RUN", conflicts_with = "out")]
    resume: Option<PathBuf>,
    /// Device memory to stay within, such as 4GiB; decides micro-batch and recomputation.
    #[arg(long, value_parser = bytes)]
    memory: Option<u64>,
    /// Stops, with a checkpoint, after this step.
    #[arg(long, value_name = "STEP", value_parser = count)]
    until: Option<u64>,
    /// Proves that resuming is exact: trains, trains again with a kill in the middle, compares byte for byte.
    #[arg(long, conflicts_with_all = ["resume", "until"])]
    verify_resume: bool,
    #[command(flatten)]
    device: DeviceFlag,
}

/// Steps that `--verify-resume` trains, and between checkpoints meanwhile.
const VERIFY_STEPS: u64 = 10;
const VERIFY_EVERY: u64 = 3;

impl Train {
    pub fn run(self) -> Result<()> {
        if self.verify_resume {
            return self.verify();
        }
        static REQUESTS: Requests = Requests {
            stop: AtomicBool::new(false),
            save: AtomicBool::new(false),
            unsaved: AtomicBool::new(false),
        };
        let stopped_by = stop_on_signals(&REQUESTS)?;
        let until = self.until;
        let ending = match &self.resume {
            Some(run) => {
                self.recipe.refuse_beside_resume(run)?;
                let run = RunFolder::open(run)?;
                let backend = Backend::open(&self.device.device)?;
                let memory = self.memory_of(&backend);
                resume(Options { run: &run, backend, memory, until, requests: &REQUESTS })?
            }
            None => {
                let recipe = self.recipe.load(&[])?;
                let backend = Backend::open(&self.device.device)?;
                let run = match &self.out {
                    Some(path) => RunFolder::claim(path)?,
                    None => RunFolder::create(&recipe.name)?,
                };
                let memory = self.memory_of(&backend);
                start(recipe, Options { run: &run, backend, memory, until, requests: &REQUESTS })?
            }
        };
        match (ending, stopped_by.get()) {
            // So that `train && export` does not go on.
            (Ending::Stopped { .. }, Some(signal)) => std::process::exit(signal.exit_code()),
            _ => Ok(()),
        }
    }

    fn memory_of(&self, backend: &Backend) -> u64 {
        self.memory.unwrap_or_else(|| default_memory(backend))
    }

    fn verify(&self) -> Result<()> {
        let recipe = self.recipe.load(&[format!("checkpoint.every={VERIFY_EVERY}")])?;
        let backend = Backend::open(&self.device.device)?;
        let memory = self.memory_of(&backend);
        // Not kept, so that it goes with all that is in it.
        let folder = match &self.out {
            Some(path) => RunFolder::claim(path)?,
            None => RunFolder::create(&format!("{}-verify-resume", recipe.name))?,
        };
        let steps = VERIFY_STEPS.min(recipe.total_steps());
        out::say(format_args!("device: {}", backend.description()));
        let given = folder.join("given.toml");
        std::fs::write(&given, recipe.to_toml()?).map_err(Error::io(&given))?;
        let spawn = |run: &Path| {
            let program = std::env::current_exe().map_err(Error::io("smolter"))?;
            let mut command = Command::new(&program);
            command.args(["train", "--device", &self.device.device, "--recipe"]).arg(&given);
            command.arg("--out").arg(run);
            command.args(["--until", &steps.to_string(), "--memory", &memory.to_string()]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(Error::io(&program))
        };
        let proof = verify_resume(&recipe, &folder, &backend, memory, steps, spawn);
        if matches!(proof, Err(Error::Failure(_))) {
            // What differs is worth a look.
            folder.keep();
        }
        proof?;
        out::say("resume is exact");
        Ok(())
    }
}

/// Time in which further signals belong to the first: `timeout` and shells signal both a process and its group.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// Passes signals on as requests. The first one to stop finishes the step; it ends the process at once where there is
/// nothing to save, and so does a second one. Returns where the first one will be.
fn stop_on_signals(requests: &'static Requests) -> Result<Arc<OnceLock<Signal>>> {
    let stopped_by = Arc::new(OnceLock::new());
    let first = stopped_by.clone();
    let mut since: Option<Instant> = None;
    signals::watch(move |signal| {
        if signal == Signal::Hangup {
            requests.save.store(true, Ordering::Relaxed);
        } else if !requests.unsaved.load(Ordering::Relaxed) {
            out::note("stopped; there was nothing to save");
            std::process::exit(signal.exit_code());
        } else if since.is_none() {
            since = Some(Instant::now());
            let _ = first.set(signal);
            requests.stop.store(true, Ordering::Relaxed);
            out::note("finishing the step and saving; once more to stop at once");
        } else if since.is_some_and(|since| since.elapsed() > DEBOUNCE) {
            std::process::exit(signal.exit_code());
        }
    })?;
    Ok(stopped_by)
}
