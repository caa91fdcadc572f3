//! `smolter plan`: what a recipe needs, before anything runs and without touching a device.

use super::{DeviceFlag, RecipeFlags, bytes};
use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::graph::Backend;
use crate::graph::recompute::Policy;
use crate::report::{out, table};
use crate::train::fit::{Candidate, Work};
use crate::train::measure::matmul_speed;
use clap::Args;
use comfy_table::Table;
use indicatif::{HumanCount, HumanDuration};
use std::time::Duration;

#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    recipe: RecipeFlags,
    /// Device memory to stay within, such as 4GiB.
    #[arg(long, value_parser = bytes, default_value = "4GiB")]
    memory: u64,
    /// Lists every tensor with its place.
    #[arg(long)]
    tensors: bool,
    /// Measures the device for two seconds and predicts the time of the run.
    #[arg(long)]
    measure: bool,
    #[command(flatten)]
    device: DeviceFlag,
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

impl Plan {
    pub fn run(self) -> Result<()> {
        let recipe = self.recipe.load()?;
        out::line(recipe.describe())?;
        let mut flops = 0.0;
        for span in recipe.spans() {
            let (stage, work) = (&recipe.stages[span.stage], Work::of(&recipe, span.stage));
            // The same kernels on every device but for the number of launches.
            let fit = work.choose(&Caps::baseline(), recipe.batch_of(span.stage).micro_batch, self.memory);
            let fit = fit.map_err(|why| {
                Error::input(format!("stage {}: nothing fits {}: {why}", stage.name, mib(self.memory)))
            })?;
            let (shape, steps) = (fit.training.shape, span.steps());
            out::line(format_args!(
                "\nstage {}: {} steps of {} x {} tokens; {} passes of {} {} per step, recomputation '{}'",
                stage.name,
                HumanCount(steps),
                work.sequences,
                stage.window(),
                shape.passes,
                shape.micro_batch,
                if work.objective.preference().is_some() { "pairs" } else { "sequences" },
                shape.recompute.name()
            ))?;
            out::line(slabs(&fit))?;
            out::line(format_args!("\nother choices:\n{}", self.choices(&work, shape.micro_batch)))?;
            if self.tensors {
                out::line(format_args!("\n{}", tensors(&fit)))?;
            }
            let update = fit.training.graph.cost(fit.training.update.program).flops;
            flops += (fit.training.step_flops() + update) * steps as f64;
        }
        out::line(format_args!("\n{flops:.3e} floating-point operations in all"))?;
        if self.measure {
            let backend = Backend::open(&self.device.device)?;
            let speed = matmul_speed(&backend)?;
            let time = Duration::try_from_secs_f64(flops / speed).unwrap_or(Duration::MAX);
            out::line(format_args!(
                "{} multiplies matrices at {:.1} GFLOP/s: at least {} for the whole run",
                backend.description(),
                speed / 1e9,
                HumanDuration(time)
            ))?;
        } else {
            out::line("time: add --measure to measure this machine for two seconds")?;
        }
        Ok(())
    }

    fn choices(&self, work: &Work, chosen: usize) -> Table {
        let mut rows = table(&["recomputation", "micro-batch", "memory", "fits"]);
        for policy in Policy::ALL {
            let sizes = [1, chosen, (2 * chosen).min(work.sequences)];
            for (i, &size) in sizes.iter().enumerate() {
                if sizes[..i].contains(&size) || !work.sequences.is_multiple_of(size) {
                    continue;
                }
                let found = work.candidate(&Caps::baseline(), size, policy);
                let (memory, fits) = match &found {
                    Ok(found) => (mib(found.total()), found.total() <= self.memory),
                    Err(why) => (why.clone(), false),
                };
                let fits = if fits { "yes" } else { "no" };
                rows.add_row([policy.name().to_string(), size.to_string(), memory, fits.to_string()]);
            }
        }
        rows
    }
}

fn slabs(fit: &Candidate) -> Table {
    let mut rows = table(&["slab", "memory"]);
    for (name, bytes) in fit.slabs() {
        rows.add_row([name, mib(bytes)]);
    }
    rows.add_row(["all".to_string(), mib(fit.total())]);
    rows
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
