//! Which device or host arithmetic a graph runs on.

use super::gpu::GpuExecutor;
use super::reference::ReferenceExecutor;
use super::{Executor, Graph, Plan};
use crate::error::Result;
use crate::gpu::{Caps, Device};
use std::sync::Arc;

/// Where a graph runs.
#[derive(Clone)]
pub enum Backend {
    /// On this adapter.
    Gpu(Arc<Device>),
    /// On the host in f32: the fallback.
    Reference,
    /// On the host in f64: the oracle.
    Oracle,
}

impl Backend {
    /// `auto`, part of an adapter's name, or `reference`.
    ///
    /// # Errors
    /// [`Error::Input`] if no adapter has that name, [`Error::Device`] if it cannot be opened.
    pub fn open(choice: &str) -> Result<Backend> {
        if choice == "reference" {
            return Ok(Backend::Reference);
        }
        match Device::open(choice)? {
            Some(device) => Ok(Backend::Gpu(Arc::new(device))),
            None => {
                eprintln!(
                    "warning: no GPU and no software adapter found; computing on the CPU by the reference executor \
                     (on Debian or Ubuntu: apt-get install mesa-vulkan-drivers)"
                );
                Ok(Backend::Reference)
            }
        }
    }

    /// What it is, for people.
    pub fn description(&self) -> String {
        match self {
            Backend::Gpu(device) => device.description.clone(),
            Backend::Reference => {
                format!("reference executor, f32 on {} CPU threads", rayon::current_num_threads())
            }
            Backend::Oracle => {
                format!("reference executor, f64 on {} CPU threads", rayon::current_num_threads())
            }
        }
    }

    /// What kernels may use there.
    pub fn caps(&self) -> Caps {
        match self {
            Backend::Gpu(device) => device.caps,
            _ => Caps::baseline(),
        }
    }

    /// The same, restricted to what `caps` allow.
    pub fn with_caps(&self, caps: Caps) -> Backend {
        match self {
            Backend::Gpu(device) => Backend::Gpu(Arc::new(device.with_caps(caps))),
            other => other.clone(),
        }
    }

    /// Allocates a planned graph.
    pub fn execute(&self, graph: &Graph, plan: Plan) -> Result<Box<dyn Executor>> {
        Ok(match self {
            Backend::Gpu(device) => Box::new(GpuExecutor::new(device.clone(), graph, plan)?),
            Backend::Reference => Box::new(ReferenceExecutor::<f32>::new(graph.clone())),
            Backend::Oracle => Box::new(ReferenceExecutor::<f64>::new(graph.clone())),
        })
    }
}
