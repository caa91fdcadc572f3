//! `smolter bench`: what this adapter can do, and how much of it decoding and training reach.

use super::{DeviceFlag, at_least_1, bytes};
use crate::bench::{Options, Report, run, table};
use crate::checkpoint::write_file;
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::graph::parameter::MAX_BINDING;
use crate::infer::generator::{CHUNK, Sizes};
use crate::nn::Architecture;
use crate::nn::config::PRESETS;
use crate::report::out::{self, print};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "Examples:
  smolter bench  the adapter's peaks, and every model that fits
  smolter bench --models smollm2-135m,smollm2-360m --batch 4
  smolter bench --device llvmpipe --json bench.json";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Bench {
    /// Models to measure, separated by commas; by default all that fit the memory and two minutes.
    #[arg(long, value_delimiter = ',', value_parser = PRESETS)]
    models: Vec<String>,
    /// Sequences that are decoded side by side.
    #[arg(long, default_value_t = 1, value_parser = at_least_1)]
    batch: usize,
    /// Tokens that the cache has room for.
    #[arg(long, default_value_t = 512, value_parser = at_least_1)]
    context: usize,
    /// Tokens of a training step [default: 128 on software adapters, else 1024].
    #[arg(long, value_parser = at_least_1)]
    length: Option<usize>,
    /// Device memory to stay within, such as 4GiB; by default what is free, where that is known.
    #[arg(long, value_parser = bytes)]
    memory: Option<u64>,
    /// Writes everything as JSON: into this file, or into this folder under the adapter's name.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceFlag,
}

/// Time for models that are not asked for by name.
const TIME: Duration = Duration::from_secs(120);

impl Bench {
    pub fn run(self) -> Result<()> {
        match &self.json {
            Some(path) => check(path)?,
            None => out::check()?,
        }
        let backend = Backend::open(&self.device.device)?;
        if self.json.is_none() {
            // Before minutes of measurements: will they arrive?
            out::line(format_args!("measuring {}", backend.description()))?;
        }
        let software = matches!(&backend, Backend::Gpu(device) if !device.info.hardware);
        let preset = |name: &str| Some((name.to_string(), Architecture::preset(name)?));
        let asked = |name: &&str| self.models.is_empty() || self.models.iter().any(|it| it == name);
        let options = Options {
            models: PRESETS.into_iter().filter(asked).filter_map(preset).collect(),
            decode: Sizes { batch: self.batch, context: self.context, chunk: CHUNK },
            length: self.length.unwrap_or(if software { 128 } else { 1024 }),
            memory: self.memory,
            time: self.models.is_empty().then_some(TIME),
            window: MAX_BINDING,
        };
        let report = run(&backend, &options)?;
        // Saved first: nothing that befalls the terminal may lose minutes of measurements.
        let saved = self.json.as_deref().map(|path| save(&report, path)).transpose()?;
        print(table::text(&report))?;
        saved.map_or(Ok(()), |path| print(format_args!("\nwritten: {}\n", path.display())))
    }
}

/// Before minutes of measurements: can the result be written?
fn check(path: &Path) -> Result<()> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    Err(Error::input(format!(
        "--json {}: there is no folder {}; make it first",
        path.display(),
        folder.display()
    )))
}

fn save(report: &Report, path: &Path) -> Result<PathBuf> {
    let path = if path.is_dir() { path.join(report.slug() + ".json") } else { path.to_path_buf() };
    let json = serde_json::to_string_pretty(report)
        .map_err(|e| Error::failure(format!("{}: {e}", path.display())))?;
    write_file(&path, |file| writeln!(file, "{json}").map_err(Error::io(&path)))?;
    Ok(path)
}
