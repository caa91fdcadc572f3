//! `smolter train`: a recipe from text to checkpoint.

use super::{DeviceFlag, RecipeFlags, bytes};
use crate::check::resume::verify_resume;
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::recipes::Recipe;
use crate::report::out;
use crate::train::run::{default_memory, fresh_folder, resume, start};
use crate::train::trainer::Options;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    recipe: RecipeFlags,
    /// Run folder; by default the first free one of runs/NAME, runs/NAME-2, ...
    #[arg(long)]
    out: Option<PathBuf>,
    /// Continues the run in this folder from its newest whole checkpoint.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["out", "recipe", "set"])]
    resume: Option<PathBuf>,
    /// Device memory to stay within, such as 4GiB; decides micro-batch and recomputation.
    #[arg(long, value_parser = bytes)]
    memory: Option<u64>,
    /// Stops, with a checkpoint, after this step.
    #[arg(long, value_name = "STEP")]
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
        static INTERRUPTED: AtomicBool = AtomicBool::new(false);
        let handler = || {
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            out::note("\nfinishing the step and saving; once more to stop at once");
        };
        ctrlc::set_handler(handler).map_err(|e| Error::failure(format!("cannot catch Ctrl-C: {e}")))?;
        let options = |run: PathBuf| -> Result<Options<'static>> {
            let backend = Backend::open(&self.device.device)?;
            let memory = self.memory.unwrap_or_else(|| default_memory(&backend));
            Ok(Options { run, backend, memory, until: self.until, interrupted: &INTERRUPTED })
        };
        match &self.resume {
            Some(run) => resume(options(run.clone())?),
            None => {
                let recipe = self.recipe.load()?;
                let run = self.out.clone().unwrap_or_else(|| fresh_folder(&recipe.name));
                start(recipe, options(run)?)
            }
        }
    }

    fn verify(&self) -> Result<()> {
        let mut overrides = self.recipe.set.clone();
        overrides.push(format!("checkpoint.every={VERIFY_EVERY}"));
        let recipe = Recipe::load(&self.recipe.recipe, &overrides)?;
        let backend = Backend::open(&self.device.device)?;
        let memory = self.memory.unwrap_or_else(|| default_memory(&backend));
        let folder =
            self.out.clone().unwrap_or_else(|| fresh_folder(&format!("{}-verify-resume", recipe.name)));
        let steps = VERIFY_STEPS.min(recipe.total_steps());
        out::say(format_args!("device: {}", backend.description()));
        let spawn = |run: &Path| {
            let program = std::env::current_exe().map_err(Error::io("smolter"))?;
            let mut command = Command::new(&program);
            command
                .args(["train", "--recipe", &self.recipe.recipe, "--device", &self.device.device, "--out"])
                .arg(run);
            command.args(["--until", &steps.to_string(), "--memory", &memory.to_string()]);
            overrides.iter().for_each(|set| {
                command.args(["--set", set]);
            });
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(Error::io(&program))
        };
        verify_resume(&recipe, &folder, &backend, memory, steps, spawn)?;
        out::say("resume is exact");
        std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))
    }
}
