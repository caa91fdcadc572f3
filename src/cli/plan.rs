//! `smolter plan`: what a recipe needs, before anything runs; only `--measure` touches a device.

use super::{DeviceFlag, RecipeFlags, bytes};
use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::graph::Backend;
use crate::graph::recompute::Policy;
use crate::recipes::{Dataset, Reading, Recipe};
use crate::report::{out, size, table};
use crate::tokenizer::Tokenizer;
use crate::train::fit::{Candidate, Work};
use crate::train::measure::matmul_speed;
use crate::train::objective::Shape;
use crate::train::run::default_memory;
use clap::Args;
use comfy_table::Table;
use indicatif::{HumanCount, HumanDuration};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "Examples:
  smolter plan                      the default recipe in 4 GiB
  smolter plan --recipe smollm2-135m --memory 8GiB
  smolter plan mine.toml --measure  for the device here, with the time that it will take
  smolter plan my.txt --tensors";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Plan {
    #[command(flatten)]
    recipe: RecipeFlags,
    /// Device memory to stay within, such as 4GiB [default: 4GiB; with --measure, what train takes on that device].
    #[arg(long, value_parser = bytes)]
    memory: Option<u64>,
    /// Lists every tensor with its place.
    #[arg(long)]
    tensors: bool,
    /// Plans for the device, measures it for two seconds, and predicts the time of the run.
    #[arg(long)]
    measure: bool,
    #[command(flatten)]
    device: DeviceFlag,
}

/// Micro-batches on either side of the chosen one that are listed.
const AROUND: usize = 2;

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

impl Plan {
    pub fn run(self) -> Result<()> {
        let Reading { recipe, missing, .. } = self.recipe.read()?;
        missing.iter().for_each(out::warn);
        warn(&recipe);
        out::check()?;
        let backend = if self.measure { Some(Backend::open(&self.device.device)?) } else { None };
        // Without a device, as on hardware.
        let caps = backend.as_ref().map_or(Caps::baseline(), Backend::caps);
        let memory = self.memory.unwrap_or_else(|| backend.as_ref().map_or(4 << 30, default_memory));
        out::line(recipe.describe())?;
        let mut flops = 0.0;
        // Stages that are planned, with what decides a plan, and the operations of a step.
        let mut planned: Vec<(&str, Work, usize, f64)> = Vec::new();
        let mut refused = None;
        for span in recipe.spans() {
            let (stage, work) = (&recipe.stages[span.stage], Work::of(&recipe, span.stage));
            let (given, steps) = (recipe.batch_of(span.stage).micro_batch, span.steps());
            let same =
                planned.iter().find(|(_, other, micro_batch, _)| (other, *micro_batch) == (&work, given));
            let (count, sequences, length) = (HumanCount(steps), work.sequences, stage.window());
            let title = format!("\nstage {}: {count} steps of {sequences} x {length} tokens", stage.name);
            if let Some((name, .., of_step)) = same {
                flops += of_step * steps as f64;
                out::line(format_args!("{title}; cut as those of stage {name}"))?;
                continue;
            }
            let fit = match work.choose(&caps, given, memory) {
                Ok(fit) => fit,
                Err(why) => {
                    // The other stages are worth a look too.
                    let why = format!("nothing fits {}: {why}", size(memory));
                    out::line(format_args!("{title}; {why}"))?;
                    let error =
                        || Error::input(format!("stage {}: {why}; give more with --memory", stage.name));
                    refused.get_or_insert_with(error);
                    continue;
                }
            };
            let shape = fit.training.shape;
            out::line(format_args!(
                "{title}; {} passes of {} {} per step, recomputation '{}'",
                shape.passes,
                shape.micro_batch,
                if work.objective.preference().is_some() { "pairs" } else { "sequences" },
                shape.recompute.name()
            ))?;
            out::line(format_args!("because: {}", work.reason(&caps, given, shape)))?;
            out::line(slabs(&fit))?;
            if let Some(saved) = savings(&work, &caps, &fit) {
                out::line(format_args!("\n{saved}"))?;
            }
            out::line(format_args!(
                "\nchoices within {}:\n{}",
                size(memory),
                choices(&work, &caps, shape, memory)
            ))?;
            if self.tensors {
                out::line(format_args!("\n{}", tensors(&fit)))?;
            }
            let update = fit.training.graph.cost(fit.training.update.program).flops;
            let of_step = fit.training.step_flops() + update;
            flops += of_step * steps as f64;
            planned.push((&stage.name, work, given, of_step));
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        out::line(format_args!("\n{flops:.3e} floating-point operations in all"))?;
        let Some(backend) = backend else {
            return out::line(
                "this is the plan for a hardware GPU; --measure plans for the device here, and predicts the time",
            );
        };
        let speed = matmul_speed(&backend)?;
        let time = Duration::try_from_secs_f64(flops / speed).unwrap_or(Duration::MAX);
        out::line(format_args!(
            "{} multiplies matrices at {:.1} GFLOP/s: at least {} for the whole run",
            backend.description(),
            speed / 1e9,
            HumanDuration(time)
        ))
    }
}

/// What else `train` would refuse, as far as it can be known without reading text.
fn warn(recipe: &Recipe) {
    if let Some(path) = recipe.tokenizer.path.as_ref().filter(|path| path.exists()) {
        let wanted = recipe.model.vocab_size;
        match Tokenizer::load(path).map(|tokenizer| tokenizer.vocab_size()) {
            Err(error) => out::warn(error),
            Ok(found) if found > wanted => out::warn(format_args!(
                "tokenizer.path: {}: {found} tokens, but model.vocab_size is {wanted}",
                path.display()
            )),
            Ok(_) => {}
        }
    }
    for span in recipe.spans() {
        let (stage, weights) = (&recipe.stages[span.stage], recipe.weights_at(span.stage));
        let used = recipe.datasets.iter().zip(weights).filter(|(_, weight)| *weight > 0.0);
        let most: Option<f64> = used.map(|(dataset, _)| most_tokens(dataset)).sum();
        let needed = span.steps().saturating_mul(span.tokens_per_step);
        if let Some(most) = most.filter(|&most| most < needed as f64) {
            out::warn(format_args!(
                "stage {}: {needed} tokens are more than the {most:.0} bytes of its datasets, epochs counted",
                stage.name
            ));
        }
    }
}

/// Tokens that a dataset cannot exceed: its bytes, where files are plain text, as often as they are read.
fn most_tokens(dataset: &Dataset) -> Option<f64> {
    let bytes = |path: &PathBuf| {
        let plain =
            path.extension().is_some_and(|it| ["txt", "jsonl", "ndjson"].iter().any(|plain| it == *plain));
        std::fs::metadata(path).ok().filter(|file| plain && file.is_file()).map(|file| file.len())
    };
    let paths = Some(&dataset.paths).filter(|paths| !paths.is_empty())?;
    Some(dataset.max_epochs? * paths.iter().map(bytes).sum::<Option<u64>>()? as f64)
}

/// Micro-batches around the chosen one, under every recomputation, and why some have no plan in any memory.
fn choices(work: &Work, caps: &Caps, chosen: Shape, memory: u64) -> String {
    let mut rows = table(&["recomputation", "micro-batch", "tokens per pass", "memory", "fits"]);
    let all = work.micro_batches();
    let at = all.partition_point(|&size| size < chosen.micro_batch);
    let mut impossible = BTreeMap::new();
    for policy in Policy::ALL {
        for &size in &all[at.saturating_sub(AROUND)..(at + AROUND + 1).min(all.len())] {
            let (taken, fits) = match work.candidate(caps, size, policy) {
                Ok(found) => (mib(found.total()), found.total() <= memory),
                Err(why) => {
                    impossible.entry(size).or_insert(why);
                    ("-".to_string(), false)
                }
            };
            let fits = match fits {
                true if (size, policy) == (chosen.micro_batch, chosen.recompute) => "chosen",
                true => "yes",
                false => "no",
            };
            let tokens = HumanCount((size * work.length) as u64).to_string();
            rows.add_row([policy.name(), &size.to_string(), &tokens, &taken, fits]);
        }
    }
    let impossible = impossible.iter().map(|(size, why)| format!("\nnot {size}: {why}"));
    format!("{rows}{}", impossible.collect::<String>())
}

fn slabs(fit: &Candidate) -> Table {
    let mut rows = table(&["slab", "memory"]);
    for (name, bytes) in fit.slabs() {
        rows.add_row([name, mib(bytes)]);
    }
    rows.add_row(["all".to_string(), mib(fit.total())]);
    rows
}

/// What adapters save beside training all parameters in the same passes; nothing where there are none.
fn savings(work: &Work, caps: &Caps, fit: &Candidate) -> Option<String> {
    let (architecture, shape) = (&work.architecture, fit.training.shape);
    let lora = architecture.lora.as_ref()?;
    let whole = Work { architecture: architecture.clone().with_lora(None), ..work.clone() };
    let (all, trained) = (architecture.num_parameters(), architecture.num_trained());
    let saved = match whole.candidate(caps, shape.micro_batch, shape.recompute) {
        Ok(whole) => {
            let (step, other) = (fit.training.step_flops(), whole.training.step_flops());
            format!(
                "training all {} would take {}: {} are saved, and {:.0} % of the operations of a step",
                HumanCount(all),
                mib(whole.total()),
                mib(whole.total().saturating_sub(fit.total())),
                100.0 * (1.0 - step / other)
            )
        }
        Err(why) => format!("training all {} would not do: {why}", HumanCount(all)),
    };
    Some(format!("{}; {saved}", lora.describe(trained)))
}

fn tensors(fit: &Candidate) -> Table {
    let mut rows = table(&["tensor", "type", "buffer", "offset", "bytes"]);
    for (i, value) in
        fit.training.graph.values().iter().enumerate().filter(|(i, it)| it.root.0 as usize == *i)
    {
        let (buffers, place) = match fit.store.place(&value.name) {
            Some(place) => (&fit.store.buffers, place),
            None => (&fit.plan.buffers, fit.plan.places[i]),
        };
        rows.add_row([
            value.name.clone(),
            format!("{:?}", value.ty),
            buffers[place.buffer].name.clone(),
            place.offset.to_string(),
            place.bytes.to_string(),
        ]);
    }
    rows
}
