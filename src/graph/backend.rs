//! Which device or host arithmetic a graph runs on.

use super::gpu::GpuExecutor;
use super::reference::ReferenceExecutor;
use super::store::Memory;
use super::{Executor, Graph, Plan, Store, StorePlan};
use crate::error::Result;
use crate::gpu::{Caps, Device};
use crate::report::out;
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
                out::warn(
                    "no GPU and no software adapter found; computing on the CPU by the reference executor \
                     (on Debian or Ubuntu: apt-get install mesa-vulkan-drivers)",
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

    /// Waits for everything submitted so far.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device is lost.
    pub fn wait(&self) -> Result<()> {
        match self {
            Backend::Gpu(device) => device.wait(),
            Backend::Reference | Backend::Oracle => Ok(()),
        }
    }

    /// The same, restricted to what `caps` allow.
    pub fn with_caps(&self, caps: Caps) -> Backend {
        match self {
            Backend::Gpu(device) => Backend::Gpu(Arc::new(device.with_caps(caps))),
            other => other.clone(),
        }
    }

    /// Allocates a store of weights, all zero.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if memory runs out.
    pub fn store(&self, plan: StorePlan) -> Result<Arc<Store>> {
        Ok(Arc::new(match self {
            Backend::Gpu(device) => Store::on_device(device, plan)?,
            Backend::Reference => Store::in_f32(plan),
            Backend::Oracle => Store::in_f64(plan),
        }))
    }

    /// Allocates a planned graph whose weights are in `store`, which this backend made.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if memory runs out.
    pub fn execute(&self, graph: &Graph, plan: Plan, store: &Arc<Store>) -> Result<Box<dyn Executor>> {
        Ok(match (self, store.memory()) {
            (Backend::Gpu(device), Memory::Device(_)) => {
                Box::new(GpuExecutor::new(device.clone(), graph, plan, store.clone())?)
            }
            (Backend::Reference, Memory::F32(memory)) => {
                Box::new(ReferenceExecutor::<f32>::new(graph.clone(), memory.clone(), store.clone()))
            }
            (Backend::Oracle, Memory::F64(memory)) => {
                Box::new(ReferenceExecutor::<f64>::new(graph.clone(), memory.clone(), store.clone()))
            }
            _ => panic!("the store is another backend's"),
        })
    }

    /// Plans and allocates a graph, with a store of its own for its weights.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if memory runs out.
    pub fn execute_alone(&self, graph: &Graph) -> Result<Box<dyn Executor>> {
        let store = StorePlan::new(&[graph], &self.caps());
        let plan = Plan::new(graph, &self.caps(), &store);
        self.execute(graph, plan, &self.store(store)?)
    }
}
