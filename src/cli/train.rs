//! `smolter train`: a recipe from text to checkpoint.

use super::signals::{self, Signal};
use super::{DeviceFlag, RecipeFlags, bytes, count};
use crate::check::resume::{remove_runs, verify_resume};
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::report::{out, quoted};
use crate::train::made;
use crate::train::run::{default_memory, resume, start};
use crate::train::run_folder::{RunFolder, can_be_resumed};
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
        let folder = Arc::new(OnceLock::new());
        let stopped_by = stop_on_signals({
            let folder = folder.clone();
            move || way_back(folder.get())
        })?;
        let until = self.until;
        let ending = match &self.resume {
            Some(run) => {
                self.recipe.refuse_beside_resume(run)?;
                let run = RunFolder::open(run)?;
                let _ = folder.set(run.to_path_buf());
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
                let _ = folder.set(run.to_path_buf());
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
        let existed = self.out.as_ref().is_some_and(|folder| folder.exists());
        let place: Arc<OnceLock<PathBuf>> = Arc::new(OnceLock::new());
        let stopped_by = stop_on_signals({
            let place = place.clone();
            move || {
                // The run may write until it sees the request to stop.
                for folder in std::iter::repeat_n(place.get(), SWEEPS).flatten() {
                    remove_proof(folder);
                    if !existed {
                        let _ = std::fs::remove_dir(folder);
                    }
                    std::thread::sleep(SWEEP);
                }
                "stopped before anything was proven".into()
            }
        })?;
        let folder = match &self.out {
            Some(path) => RunFolder::claim(path)?,
            None => RunFolder::create(&format!("{}-verify-resume", recipe.name))?,
        };
        let _ = place.set(folder.to_path_buf());
        let steps = VERIFY_STEPS.min(recipe.total_steps());
        out::say(format_args!("device: {}", backend.description()));
        let given = folder.join(GIVEN_FILE);
        std::fs::write(&given, recipe.to_toml()?).map_err(Error::io(&given))?;
        let spawn = |run: &Path| {
            let program = std::env::current_exe().map_err(Error::io("smolter"))?;
            let mut command = Command::new(&program);
            command.args(["train", "--device", &self.device.device, "--recipe"]).arg(&given);
            command.arg("--out").arg(run);
            command.args(["--until", &steps.to_string(), "--memory", &memory.to_string()]);
            // Signals are for us to pass on, also those of a terminal.
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(Error::io(&program))
        };
        let proof = verify_resume(&recipe, &folder, &backend, memory, steps, &REQUESTS, spawn);
        if let (Err(Error::Failure(_)), None) = (&proof, stopped_by.get()) {
            // What differs is worth a look.
            folder.keep();
        } else {
            remove_proof(&folder);
        }
        // Goes before the process does.
        drop(folder);
        if let Some(signal) = stopped_by.get() {
            std::process::exit(signal.exit_code());
        }
        proof?;
        out::say("resume is exact");
        Ok(())
    }
}

/// What signals ask of the command.
pub(super) static REQUESTS: Requests =
    Requests { stop: AtomicBool::new(false), save: AtomicBool::new(false), unsaved: AtomicBool::new(false) };

/// How often a proof that is stopped in preparation is removed, and the time between.
const SWEEPS: usize = 5;
const SWEEP: Duration = Duration::from_millis(20);

/// The recipe in the folder of a proof.
const GIVEN_FILE: &str = "given.toml";

/// Removes what a proof has made in its folder.
fn remove_proof(folder: &Path) {
    remove_runs(folder);
    let _ = std::fs::remove_file(folder.join(GIVEN_FILE));
    made::remove(folder);
}

/// What to tell of a run that is stopped before a step is done.
fn way_back(run: Option<&PathBuf>) -> String {
    match run.filter(|run| can_be_resumed(run)) {
        Some(run) => {
            format!("stopped before a step was done; continue with: smolter train --resume {}", quoted(run))
        }
        None => "stopped before the run began".into(),
    }
}

/// Time in which further signals belong to the first: `timeout` and shells signal both a process and its group.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// Passes signals on as [`REQUESTS`]. The first one to stop finishes the step; it ends the process at once where there is
/// nothing to save, with the line that `leave` gives, and so does a second one. Returns where the first one will be.
pub(super) fn stop_on_signals(leave: impl Fn() -> String + Send + 'static) -> Result<Arc<OnceLock<Signal>>> {
    let requests = &REQUESTS;
    let stopped_by = Arc::new(OnceLock::new());
    let first = stopped_by.clone();
    let mut since: Option<Instant> = None;
    signals::watch(move |signal| {
        if signal == Signal::Hangup {
            requests.save.store(true, Ordering::Relaxed);
        } else if !requests.unsaved.load(Ordering::Relaxed) {
            let _ = first.set(signal);
            requests.stop.store(true, Ordering::Relaxed);
            out::note(leave());
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
