//! A report for people: at most 100 columns.

use super::Report;
use super::decode::Decode;
use super::memory::gib;
use super::peaks::{Peak, Peaks};
use super::roofline::OpTime;
use super::spread::Spread;
use super::training::Training;
use crate::report::number::{digits, percent};
use crate::report::table;
use comfy_table::Table;
use std::fmt::Write;

/// Ops below this share of the time are one line together.
const MINOR: f64 = 0.01;

/// The whole report.
pub fn text(report: &Report) -> String {
    let (adapter, versions) = (&report.adapter, &report.versions);
    let mut out = format!(
        "{} ({}, {})\n{} kernels; {}; device times by {}\nsmolter {} ({}), wgpu {}, naga {}\n",
        adapter.name,
        adapter.backend,
        adapter.driver,
        adapter.kernels,
        adapter.features.join(", "),
        if adapter.timestamps { "its timestamps" } else { "the host's clock" },
        versions.smolter,
        versions.commit,
        versions.wgpu,
        versions.naga,
    );
    section(&mut out, "what the adapter can do", &peaks(&report.peaks));
    let rows = report.models.iter().filter_map(|it| Some((it.name.as_str(), it.decode.measured()?)));
    section(&mut out, "decoding", &decoding(rows));
    skipped(&mut out, report.models.iter().map(|model| (&model.name, model.decode.skipped())));
    let rows = report.models.iter().filter_map(|it| Some((it.name.as_str(), it.training.measured()?)));
    section(&mut out, "training, one sequence per step", &training(rows));
    skipped(&mut out, report.models.iter().map(|model| (&model.name, model.training.skipped())));
    for model in &report.models {
        if let Some(decode) = model.decode.measured() {
            let title = format!("{}: a decode step, {}", model.name, time(decode.step_s.median));
            section(&mut out, &title, &ops(&decode.ops, decode.step_s.median));
        }
        if let Some(training) = model.training.measured() {
            let title = format!("{}: a training step, {}", model.name, time(training.step_s.median));
            section(&mut out, &title, &ops(&training.ops, training.step_s.median));
            let title = format!("{}: memory of the training step", model.name);
            section(&mut out, &title, &memory(&training.memory));
        }
    }
    out
}

fn section(out: &mut String, title: &str, table: &Table) {
    let _ = writeln!(out, "\n{title}\n{table}");
}

/// A line for each model that was not measured.
fn skipped<'a>(out: &mut String, models: impl Iterator<Item = (&'a String, Option<&'a str>)>) {
    for (name, why) in models.filter_map(|(name, why)| Some((name, why?))) {
        let _ = writeln!(out, " {name}: {why}");
    }
}

fn peaks(peaks: &Peaks) -> Table {
    let mut rows = table(&["peak", "median", "min", "max", "", "fastest way"]);
    let mut row = |name: &str, peak: &Peak, scale: f64, unit: &str| {
        let way = peak.fastest();
        let [median, min, max] = [way.rate.median, way.rate.min, way.rate.max].map(|x| digits(x / scale));
        rows.add_row([name, &median, &min, &max, unit, &way.name]);
    };
    row("read", &peaks.read, 1e9, "GB/s");
    row("copy (read + write)", &peaks.copy, 1e9, "GB/s");
    row("f32 multiply-add", &peaks.f32, 1e9, "GFLOP/s");
    match &peaks.f16 {
        Some(peak) => row("f16 multiply-add", peak, 1e9, "GFLOP/s"),
        None => _ = rows.add_row(["f16 multiply-add", "-", "", "", "", "no f16 in shaders"]),
    }
    rows
}

fn decoding<'a>(models: impl Iterator<Item = (&'a str, &'a Decode)>) -> Table {
    let mut rows = table(&[
        "model",
        "batch",
        "position",
        "tokens/s",
        "step",
        "spread",
        "reads",
        "of read peak",
        "prefill tok/s",
    ]);
    for (name, it) in models {
        rows.add_row([
            name.to_string(),
            it.batch.to_string(),
            it.position.to_string(),
            digits(it.tokens_per_s),
            time(it.step_s.median),
            spread(&it.step_s),
            format!("{} GB/s", digits(it.bytes_per_s / 1e9)),
            percent(it.share_of_read),
            digits(it.prefill_tokens_per_s),
        ]);
    }
    rows
}

fn training<'a>(models: impl Iterator<Item = (&'a str, &'a Training)>) -> Table {
    let mut rows =
        table(&["model", "tokens", "tokens/s", "step", "spread", "model work", "of f32 peak", "memory"]);
    for (name, it) in models {
        rows.add_row([
            name.to_string(),
            it.tokens.to_string(),
            digits(it.tokens_per_s),
            time(it.step_s.median),
            spread(&it.step_s),
            format!("{} GFLOP/s", digits(it.model_flops_per_s / 1e9)),
            percent(it.share_of_peak),
            gib(it.memory.iter().map(|(_, bytes)| bytes).sum()),
        ]);
    }
    rows
}

/// Time per op. What a step takes beyond its ops goes to submissions and the host.
fn ops(ops: &[OpTime], step_s: f64) -> Table {
    let mut rows = table(&["op", "nodes", "time", "of step", "GFLOP/s", "GB/s", "bound by", "of its peak"]);
    let (major, minor): (Vec<&OpTime>, Vec<&OpTime>) =
        ops.iter().partition(|op| op.seconds >= MINOR * step_s);
    for op in major {
        rows.add_row([
            op.op.clone(),
            op.nodes.to_string(),
            time(op.seconds),
            percent(op.seconds / step_s),
            digits(op.flops_per_s / 1e9),
            digits(op.bytes_per_s / 1e9),
            op.bound.to_string(),
            op.share.map_or("-".into(), percent),
        ]);
    }
    let mut rest = |name: &str, nodes: usize, seconds: f64| {
        rows.add_row([name.to_string(), nodes.to_string(), time(seconds), percent(seconds / step_s)]);
    };
    let sum = |ops: &[&OpTime]| ops.iter().map(|op| op.seconds).sum::<f64>();
    rest("other ops", minor.iter().map(|op| op.nodes).sum(), sum(&minor));
    let all: f64 = ops.iter().map(|op| op.seconds).sum();
    if step_s > all {
        rest("submission, host", 0, step_s - all);
    }
    rows
}

/// Bytes per slab; all activations, which are many slabs, together.
fn memory(slabs: &[(String, u64)]) -> Table {
    let mut rows = table(&["slab", "memory"]);
    let mut activations = 0;
    for (name, bytes) in slabs {
        match name.starts_with("activations") {
            true => activations += bytes,
            false => _ = rows.add_row([name, &gib(*bytes)]),
        }
    }
    rows.add_row(["activations", &gib(activations)]);
    rows.add_row(["all", &gib(slabs.iter().map(|(_, bytes)| bytes).sum())]);
    rows
}

fn time(seconds: f64) -> String {
    if seconds < 1.0 { format!("{} ms", digits(1e3 * seconds)) } else { format!("{} s", digits(seconds)) }
}

/// How far the extremes lie from the median.
fn spread(all: &Spread) -> String {
    format!("-{:.0}/+{:.0} %", 100.0 * (1.0 - all.min / all.median), 100.0 * (all.max / all.median - 1.0))
}
