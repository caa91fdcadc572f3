//! `smolter doctor`: does this GPU and its driver compute right values and right gradients?

use super::DeviceFlag;
use crate::check::doctor::diagnose;
use crate::error::{Error, Result};
use crate::gpu::device;
use crate::graph::Backend;
use crate::report::{out, table};
use clap::Args;

const EXAMPLES: &str = "Examples:
  smolter doctor                     the adapter that training would take
  smolter doctor --device intel      the one whose name has these letters
  smolter doctor --device reference  the CPU";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    #[command(flatten)]
    device: DeviceFlag,
}

impl Doctor {
    pub fn run(self) -> Result<()> {
        out::check()?;
        for adapter in device::list() {
            out::line(format_args!("found: {} ({})", adapter.name, adapter.detail))?;
        }
        let backend = Backend::open(&self.device.device)?;
        out::line(format_args!("checking: {}", backend.description()))?;
        if let Backend::Gpu(device) = &backend {
            let mut parts = vec![format!("{} kernels", device.caps.family())];
            parts.extend(device.caps.features());
            out::line(format_args!("          {}", parts.join(", ")))?;
        }
        let lines = diagnose(&backend)?;
        let mut table = table(&["check", "cases", "worst error", "limit", "verdict"]);
        for line in &lines {
            let verdict = if line.passes() { "ok" } else { "WRONG" };
            table.add_row([
                line.what.clone(),
                line.cases.to_string(),
                format!("{:.1e}", line.worst),
                format!("{:.0e}", line.limit),
                verdict.to_string(),
            ]);
        }
        out::line(format_args!("{table}\n"))?;
        let wrong: Vec<_> = lines.iter().filter(|line| !line.passes()).collect();
        if wrong.is_empty() {
            return out::line("healthy: values, gradients and training steps agree with f64 on this device");
        }
        for line in &wrong {
            out::line(format_args!("wrong: {}: error {:.1e} at {}", line.what, line.worst, line.at))?;
        }
        let names: Vec<&str> = wrong.iter().map(|line| line.what.as_str()).collect();
        Err(Error::failure(format!(
            "{}: do not train on this device; wrong are: {} (try SMOLTER_DISABLE=subgroups or f16, or another driver)",
            backend.description(),
            names.join("; ")
        )))
    }
}
