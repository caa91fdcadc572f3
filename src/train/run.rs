//! A run from the user's side: its folder, resuming, and the report at the end.

use super::engine::Engine;
use super::saved::RECIPE_FILE;
use super::trainer::{Ending, Options, Trainer};
use crate::checkpoint::{Checkpoint, folder};
use crate::error::{Error, Result};
use crate::eval::ngram::NGram;
use crate::generate::sample;
use crate::graph::Backend;
use crate::recipes::Recipe;
use crate::report::{profile, table};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Device memory to plan for where the user gives none: hardware does not tell, so 4 GiB; a software adapter and the
/// reference executor have half of what the machine has free.
pub fn default_memory(backend: &Backend) -> u64 {
    let hardware = matches!(backend, Backend::Gpu(device) if !device.caps.is_lanes());
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?.to_string();
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    match available {
        Some(kib) if !hardware => kib * 1024 / 2,
        _ => 4 << 30,
    }
}

/// The first of `runs/NAME`, `runs/NAME-2`, ... that does not exist.
pub fn fresh_folder(name: &str) -> PathBuf {
    let candidate = |i: u32| match i {
        1 => Path::new("runs").join(name),
        _ => Path::new("runs").join(format!("{name}-{i}")),
    };
    (1..).map(candidate).find(|path| !path.exists()).expect("numbers are endless")
}

/// Trains `recipe` in the fresh folder `options.run`.
///
/// # Errors
/// [`Error::Input`] if the folder holds a run already.
pub fn start(recipe: Recipe, options: Options) -> Result<()> {
    if options.run.join(RECIPE_FILE).exists() {
        return Err(Error::input(format!(
            "{}: holds a run already; continue it with --resume {0}, or give another --out",
            options.run.display()
        )));
    }
    introduce(&recipe, &options);
    let trainer = Trainer::new(recipe, options, None)?;
    complete(trainer)
}

/// Continues the run in `options.run` from its newest whole checkpoint.
///
/// # Errors
/// [`Error::Input`] if there is no run, [`Error::Damaged`] if none of its checkpoints is whole.
pub fn resume(options: Options) -> Result<()> {
    let path = options.run.join(RECIPE_FILE);
    if !path.exists() {
        return Err(Error::input(format!(
            "{}: no run to resume here (no {RECIPE_FILE})",
            options.run.display()
        )));
    }
    let recipe = Recipe::load(&path.to_string_lossy(), &[])?;
    introduce(&recipe, &options);
    let checkpoint = match folder::newest_whole(&options.run)? {
        None => {
            println!("no checkpoint yet: from the beginning");
            None
        }
        Some((checkpoint, warnings)) => {
            warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            println!("from {}", checkpoint.path.display());
            Some(checkpoint)
        }
    };
    complete(Trainer::new(recipe, options, checkpoint)?)
}

fn introduce(recipe: &Recipe, options: &Options) {
    println!("{}", recipe.describe());
    println!("device: {}", options.backend.description());
    println!("run folder: {}", options.run.display());
}

fn complete(mut trainer: Trainer) -> Result<()> {
    let ending = trainer.run()?;
    if std::env::var("SMOLTER_DEBUG").is_ok_and(|level| level == "2") {
        let stage = trainer.engine.stage();
        for program in [stage.micro, stage.update.program] {
            eprintln!(
                "{}:\n{}",
                stage.graph.program_name(program),
                profile::table(&trainer.engine.executor().profile(program))
            );
        }
    }
    let saved = trainer.last_saved().map(|path| path.display().to_string()).unwrap_or_default();
    match ending {
        Ending::Stopped { step } => {
            println!("stopped after step {step}; saved {saved}");
            let run =
                Path::new(&saved).ancestors().nth(2).map(|p| p.display().to_string()).unwrap_or_default();
            println!("continue with: smolter train --resume {run}");
        }
        Ending::Finished => {
            report(&mut trainer)?;
            println!("saved {saved}");
        }
    }
    Ok(())
}

/// Held-out losses beside those of n-gram models of the same text, and a sample.
fn report(trainer: &mut Trainer) -> Result<()> {
    let recipe = trainer.recipe().clone();
    if let Some(held_out) = trainer.held_out()? {
        let baselines = [2, 3].map(|order| baseline(trainer, order));
        let mut table = table(&["held-out loss (nats/token)", "this model", "bigram", "trigram"]);
        let mut row = |name: &str, loss: f64, windows: &[&[u32]]| {
            let grams =
                baselines.iter().map(|model| format!("{:.3}", model.mean_loss(windows.iter().copied())));
            table.add_row([name.to_string(), format!("{loss:.3}")].into_iter().chain(grams));
        };
        for (i, dataset) in recipe.datasets.iter().enumerate() {
            let windows: Vec<&[u32]> =
                held_out.windows.iter().filter(|(d, _)| *d == i).map(|(_, w)| w.as_slice()).collect();
            if let Some(loss) = held_out.datasets[i] {
                row(&dataset.name, loss, &windows);
            }
        }
        let all: Vec<&[u32]> = held_out.windows.iter().map(|(_, w)| w.as_slice()).collect();
        row("all", held_out.loss, &all);
        println!("\n{table}\n");
    }
    for prompt in &recipe.sample.prompts {
        println!("{}\n", write_text(&mut trainer.engine, &trainer.corpus.tokenizer, &recipe, prompt)?);
    }
    Ok(())
}

/// Most tokens per dataset that an n-gram baseline learns from.
const BASELINE_TOKENS: u64 = 20_000_000;

fn baseline(trainer: &Trainer, order: usize) -> NGram {
    let streams: Vec<Vec<u32>> =
        trainer.corpus.sets.iter().map(|set| set.tokens(0..set.len().min(BASELINE_TOKENS))).collect();
    NGram::train(order, trainer.recipe().model.vocab_size, streams.iter().map(Vec::as_slice))
}

/// `prompt` and how the model goes on from it, up to the end of the document.
fn write_text(
    engine: &mut Engine,
    tokenizer: &crate::tokenizer::Tokenizer,
    recipe: &Recipe,
    prompt: &str,
) -> Result<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(recipe.sample.seed);
    let mut ids = vec![tokenizer.eos_id()];
    ids.extend(tokenizer.encode(prompt)?);
    let length = engine.stage().shape.length;
    for _ in 0..recipe.sample.tokens {
        let start = ids.len().saturating_sub(length);
        let logits = engine.next_logits(&ids[start..])?;
        let token = sample(&logits, recipe.sample.temperature, &mut rng);
        if token == tokenizer.eos_id() {
            break;
        }
        ids.push(token);
    }
    Ok(tokenizer.decode(&ids[1..]))
}

/// Trains `steps` steps in one go, and again with the process killed in the middle and resumed, and compares
/// weights, moments and metrics byte for byte.
///
/// `spawn` starts a child process that trains into the given folder until the given step.
///
/// # Errors
/// [`Error::Failure`] naming the first difference.
pub fn verify_resume(
    recipe: &Recipe,
    folder: &Path,
    backend: &Backend,
    memory: u64,
    steps: u64,
    spawn: impl Fn(&Path) -> Result<std::process::Child>,
) -> Result<()> {
    let never = AtomicBool::new(false);
    let options = |name: &str| Options {
        run: folder.join(name),
        backend: backend.clone(),
        memory,
        until: Some(steps),
        interrupted: &never,
    };
    println!("1. {steps} steps in one go");
    let mut whole = Trainer::new(recipe.clone(), options("whole"), None)?;
    whole.run()?;
    let first = whole.last_saved().expect("a run ends with a checkpoint").to_path_buf();
    drop(whole);

    println!("2. the same, killed in the middle");
    let broken = folder.join("killed");
    let mut child = spawn(&broken)?;
    let metrics = broken.join("metrics.jsonl");
    let kill_at = steps / 2 + 1;
    loop {
        let lines = std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count() as u64);
        if lines >= kill_at {
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
    // A quick run may have got to its end before the kill; what is resumed must have steps left.
    let unfinished = folder::list(&broken)?.into_iter().rev().find(|&(step, _)| step < steps);
    let checkpoint = unfinished.map(|(_, path)| Checkpoint::open(&path)).transpose()?;
    let from = checkpoint.as_ref().map_or("the beginning".into(), |c| format!("step {}", c.state.step));
    println!("   killed after step {kill_at} or later; resuming from {from}");
    let mut second = Trainer::new(recipe.clone(), options("killed"), checkpoint)?;
    second.run()?;
    let second = second.last_saved().expect("a run ends with a checkpoint").to_path_buf();

    println!("3. comparing");
    for file in ["model.safetensors", "trainer/exp_avg.safetensors", "trainer/exp_avg_sq.safetensors"] {
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
        println!("   {file}: {} bytes identical", a.len());
    }
    let lines = |run: &str| super::metrics::repeatable(&folder.join(run).join("metrics.jsonl"));
    let (a, b) = (lines("whole")?, lines("killed")?);
    if a != b {
        return Err(Error::failure("metrics.jsonl differs"));
    }
    println!("   metrics.jsonl: {} steps identical", a.len());
    Ok(())
}
