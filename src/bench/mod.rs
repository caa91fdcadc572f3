//! What an adapter can do, and how much of it decoding and training reach.
//!
//! First the adapter's own peaks ([`peaks`]), then for each model a decode step ([`decode`]) and a training step
//! ([`training`]), each with its time per op as a share of the peak that bounds it ([`roofline`]).

pub mod decode;
mod memory;
pub mod peaks;
pub mod roofline;
pub mod spread;
pub mod table;
pub mod training;
mod weights;

use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::graph::Backend;
use crate::infer::generator::Sizes;
use crate::nn::Architecture;
use crate::report::progress::Progress;
use crate::train::fit::{Candidate, Work};
use crate::train::kinds::Objective;
use decode::Decode;
use memory::misfit;
use peaks::Peaks;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use training::Training;

/// What to measure.
pub struct Options {
    /// Names and shapes, the smallest first.
    pub models: Vec<(String, Architecture)>,
    /// Sequences, context and prompt chunk of decoding.
    pub decode: Sizes,
    /// Tokens of a training step.
    pub length: usize,
    /// Bytes of device memory to stay within; `None` finds out.
    pub memory: Option<u64>,
    /// No model is begun that would take longer than what is left of this.
    pub time: Option<Duration>,
    /// Bytes of each of the four windows that the read peak reads: a power of two up to 128 MiB.
    pub window: u64,
}

/// Everything measured in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Versions of this program and what it stands on.
    pub versions: Versions,
    /// When, in local time.
    pub measured_at: String,
    /// The adapter.
    pub adapter: Adapter,
    /// What it can do.
    pub peaks: Peaks,
    /// What the models reach.
    pub models: Vec<Model>,
}

/// Versions of this program and what it stands on.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// This program.
    pub smolter: &'static str,
    /// Its commit, with `-dirty` where there were changes; `unknown` where it was not built from a repository.
    pub commit: &'static str,
    /// The graphics library.
    pub wgpu: &'static str,
    /// Its shader compiler.
    pub naga: &'static str,
}

/// The adapter that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Adapter {
    /// Its name.
    pub name: String,
    /// Graphics interface.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Whether it is hardware.
    pub hardware: bool,
    /// Kernel family.
    pub kernels: String,
    /// Optional features in use.
    pub features: Vec<String>,
    /// Whether device times are the adapter's own timestamps, or the host's clock.
    pub timestamps: bool,
}

/// What one model reaches.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Trained values.
    pub parameters: u64,
    /// Decoding.
    pub decode: Outcome<Decode>,
    /// Training.
    pub training: Outcome<Training>,
}

/// A measurement, or why there is none.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// It was done.
    Measured(T),
    /// It does not fit the memory or the time.
    Skipped(String),
}

impl<T> Outcome<T> {
    /// What was measured, if it was.
    pub fn measured(&self) -> Option<&T> {
        match self {
            Outcome::Measured(it) => Some(it),
            Outcome::Skipped(_) => None,
        }
    }

    /// Why it was not measured, if so.
    pub fn skipped(&self) -> Option<&str> {
        match self {
            Outcome::Measured(_) => None,
            Outcome::Skipped(why) => Some(why),
        }
    }
}

/// Runs all measurements on a device.
///
/// # Errors
/// [`Error::Input`] if there is no device or the sizes do not fit a model, [`Error::Device`] if the device is lost,
/// [`Error::Failure`] if it computes values that are not finite.
pub fn run(backend: &Backend, options: &Options) -> Result<Report> {
    let Backend::Gpu(device) = backend else {
        return Err(Error::input(
            "bench measures an adapter, and the reference executor has none; choose one with --device, or install a \
             software adapter (on Debian or Ubuntu: apt-get install mesa-vulkan-drivers)",
        ));
    };
    for (name, config) in &options.models {
        check(name, config, options)?;
    }
    let mut progress = Progress::new("bench", 1 + 2 * options.models.len() as u64, 0);
    progress.set(0, "peaks");
    let peaks = peaks::measure(device, options.window)?;
    let mut bench = Bench {
        device,
        backend,
        options,
        peaks: &peaks,
        limit: options.memory.or_else(|| memory::available(device)),
        end: options.time.map(|time| Instant::now() + time),
        progress,
        done: 1,
    };
    let models = bench.models()?;
    bench.progress.finish();
    let adapter = adapter(device);
    Ok(Report { versions: VERSIONS, measured_at: now(), adapter, peaks, models })
}

/// The f32 multiply-add peak of a device alone, as JSON with the keys of a [`Report`].
///
/// # Errors
/// As [`peaks::measure`].
pub fn compute_peak(device: &Arc<Device>) -> Result<serde_json::Value> {
    let f32 = peaks::multiply_add_f32(device)?;
    let (versions, measured_at, adapter) = (VERSIONS, now(), adapter(device));
    Ok(serde_json::json!({
        "versions": versions, "measured_at": measured_at, "adapter": adapter, "peaks": { "f32": f32 },
    }))
}

/// The time, in local time.
fn now() -> String {
    chrono::Local::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, false)
}

/// What `build.rs` found out.
const VERSIONS: Versions = Versions {
    smolter: env!("CARGO_PKG_VERSION"),
    commit: env!("SMOLTER_COMMIT"),
    wgpu: env!("SMOLTER_WGPU"),
    naga: env!("SMOLTER_NAGA"),
};

fn check(name: &str, architecture: &Architecture, options: &Options) -> Result<()> {
    let (least, most) = (decode::least_context(options.decode.chunk), architecture.positions());
    let wrong = |flag: &str, given: usize, least: usize| {
        Err(Error::input(format!("{flag} {given}: {name} takes from {least} to {most} tokens")))
    };
    if !(least..=most).contains(&options.decode.context) {
        return wrong("--context", options.decode.context, least);
    }
    if !(1..=most).contains(&options.length) {
        return wrong("--length", options.length, 1);
    }
    Ok(())
}

fn adapter(device: &Device) -> Adapter {
    let (info, caps) = (device.info.clone(), device.caps);
    let mut features = Vec::from_iter(device.has_timestamps().then(|| "timestamps".to_string()));
    features.extend(caps.features());
    Adapter {
        name: info.name,
        backend: info.backend,
        driver: info.driver,
        hardware: info.hardware,
        kernels: caps.family().into(),
        features,
        timestamps: device.has_timestamps(),
    }
}

/// A run in progress.
struct Bench<'a> {
    device: &'a Arc<Device>,
    backend: &'a Backend,
    options: &'a Options,
    peaks: &'a Peaks,
    /// Bytes of device memory, where they are known.
    limit: Option<u64>,
    end: Option<Instant>,
    progress: Progress,
    done: u64,
}

/// Seconds that a measurement took per parameter of its model: what a larger model is predicted from.
type Pace = Option<f64>;

impl Bench<'_> {
    fn models(&mut self) -> Result<Vec<Model>> {
        let (mut decode_pace, mut training_pace) = (None, None);
        let mut models = Vec::new();
        for (name, config) in &self.options.models {
            let parameters = config.num_parameters();
            let fit = self.fit_decode(config);
            let decode =
                self.timed(&format!("{name} decoding"), parameters, &mut decode_pace, fit, |bench, ()| {
                    decode::measure(bench.backend, config, bench.options.decode, bench.peaks)
                })?;
            let fit = self.fit_training(config);
            let training = self.timed(
                &format!("{name} training"),
                parameters,
                &mut training_pace,
                fit,
                |bench, plan| training::measure(bench.backend, config, plan, bench.peaks),
            )?;
            models.push(Model { name: name.clone(), parameters, decode, training });
        }
        Ok(models)
    }

    /// Runs a measurement, unless it does not fit the memory or smaller models tell that it takes too long.
    fn timed<P, T>(
        &mut self,
        what: &str,
        parameters: u64,
        pace: &mut Pace,
        fit: std::result::Result<P, String>,
        run: impl FnOnce(&Self, P) -> Result<T>,
    ) -> Result<Outcome<T>> {
        self.progress.set(self.done, what);
        self.done += 1;
        let plan = match fit {
            Ok(plan) => plan,
            Err(why) => return Ok(Outcome::Skipped(format!("does not fit: {why}"))),
        };
        if let (Some(pace), Some(end)) = (*pace, self.end) {
            let seconds = pace * parameters as f64;
            if Duration::from_secs_f64(seconds) > end.saturating_duration_since(Instant::now()) {
                let why = format!("skipped: would take about {seconds:.0} s more; name it by --models");
                return Ok(Outcome::Skipped(why));
            }
        }
        let begun = Instant::now();
        let measured = run(self, plan)?;
        *pace = Some(begun.elapsed().as_secs_f64() / parameters as f64);
        Ok(Outcome::Measured(measured))
    }

    fn fit_decode(&self, architecture: &Architecture) -> std::result::Result<(), String> {
        misfit(self.device, decode::least_memory(architecture, self.options.decode), self.limit)
            .map_or(Ok(()), Err)
    }

    fn fit_training(&self, architecture: &Architecture) -> std::result::Result<Candidate, String> {
        let shape = training::shape(self.options.length);
        let caps = self.device.caps;
        let (objective, architecture) = (Objective::NextToken { document_mask: false }, architecture.clone());
        let work = Work { architecture, objective, sequences: 1, length: shape.length };
        let plan = work.candidate(&caps, shape.micro_batch, shape.recompute)?;
        misfit(self.device, plan.store.total() + plan.plan.total(), self.limit).map_or(Ok(plan), Err)
    }
}

impl Report {
    /// The adapter's name as a file name: `llvmpipe-llvm-15-0-6-256-bits`.
    pub fn slug(&self) -> String {
        slug(&self.adapter.name)
    }
}

fn slug(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_name_files() {
        assert_eq!(slug("llvmpipe (LLVM 15.0.6, 256 bits)"), "llvmpipe-llvm-15-0-6-256-bits");
        assert_eq!(slug("NVIDIA GeForce RTX 4090/PCIe"), "nvidia-geforce-rtx-4090-pcie");
    }
}
