//! `smolter plan`: what a recipe needs, before anything runs and without touching a device.

use super::{DeviceFlag, RecipeFlags, bytes};
use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::graph::Backend;
use crate::graph::recompute::Policy;
use crate::ops::TensorType;
use crate::recipes::{Recipe, Span};
use crate::report::table;
use crate::train::fit::{Candidate, candidate, choose};
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
        println!("{}", recipe.describe());
        let mut flops = 0.0;
        for span in recipe.spans() {
            let stage = &recipe.stages[span.stage];
            // The same kernels on every device but for the number of launches.
            let fit = choose(
                &recipe.model_at(span.stage),
                &Caps::baseline(),
                span.sequences_per_step,
                stage.sequence_length,
                recipe.batch_of(span.stage).micro_batch,
                self.memory,
            )
            .map_err(|why| {
                Error::input(format!("stage {}: nothing fits {}: {why}", stage.name, mib(self.memory)))
            })?;
            let shape = fit.stage.shape;
            println!(
                "\nstage {}: {} steps of {} x {} tokens; {} passes of {} sequences per step, recomputation '{}'",
                stage.name,
                HumanCount(span.steps()),
                span.sequences_per_step,
                stage.sequence_length,
                shape.passes,
                shape.micro_batch,
                shape.recompute.name()
            );
            println!("{}", slabs(&fit));
            println!("\nother choices:\n{}", self.choices(&recipe, &span, shape.micro_batch));
            if self.tensors {
                println!("\n{}", tensors(&fit));
            }
            let graph = &fit.stage.graph;
            let step = graph.cost(fit.stage.micro).flops * shape.passes as f64
                + graph.cost(fit.stage.update.program).flops;
            flops += step * span.steps() as f64;
        }
        println!("\n{:.3e} floating-point operations in all", flops);
        if self.measure {
            let backend = Backend::open(&self.device.device)?;
            let speed = matmul_speed(&backend)?;
            let time = Duration::try_from_secs_f64(flops / speed).unwrap_or(Duration::MAX);
            println!(
                "{} multiplies matrices at {:.1} GFLOP/s: at least {} for the whole run",
                backend.description(),
                speed / 1e9,
                HumanDuration(time)
            );
        } else {
            println!("time: add --measure to measure this machine for two seconds");
        }
        Ok(())
    }

    fn choices(&self, recipe: &Recipe, span: &Span, chosen: usize) -> Table {
        let mut rows = table(&["recomputation", "micro-batch", "memory", "fits"]);
        let length = recipe.stages[span.stage].sequence_length;
        for policy in Policy::ALL {
            let sizes = [1, chosen, (2 * chosen).min(span.sequences_per_step)];
            for (i, &size) in sizes.iter().enumerate() {
                if sizes[..i].contains(&size) || !span.sequences_per_step.is_multiple_of(size) {
                    continue;
                }
                let config = recipe.model_at(span.stage);
                let found =
                    candidate(&config, &Caps::baseline(), span.sequences_per_step, length, size, policy);
                let (memory, fits) = match &found {
                    Ok(found) => (mib(found.plan.total()), found.plan.total() <= self.memory),
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
    for (name, bytes) in fit.plan.slabs() {
        rows.add_row([name, mib(bytes)]);
    }
    rows.add_row(["all".to_string(), mib(fit.plan.total())]);
    rows
}

fn tensors(fit: &Candidate) -> Table {
    let mut rows = table(&["tensor", "type", "buffer", "offset", "bytes"]);
    for (i, value) in fit.stage.graph.values().iter().enumerate() {
        if value.root.0 as usize == i {
            let place = fit.plan.places[i];
            let ty: &TensorType = &value.ty;
            let buffer = fit.plan.buffers[place.buffer].name.clone();
            rows.add_row([
                value.name.clone(),
                format!("{ty:?}"),
                buffer,
                place.offset.to_string(),
                place.bytes.to_string(),
            ]);
        }
    }
    rows
}
