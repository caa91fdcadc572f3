//! What runs a graph: the device, the references on the host, or nothing at all.

use super::ProgramId;
use crate::error::Result;
use crate::ops::{HostTensor, ValueId};

/// A read that was asked for and not yet fetched.
#[derive(Debug)]
pub struct Ticket {
    pub(super) value: ValueId,
    /// Which of the value's two staging buffers holds it; or the data itself where there is no device.
    pub(super) slot: usize,
    pub(super) ready: Option<HostTensor<'static>>,
}

/// Runs the programs of one graph on the weights of a [`Store`](super::Store). May be handed to another thread.
pub trait Executor: Send {
    /// What runs it, for people.
    fn description(&self) -> String;

    /// Writes a value of the graph's own; weights are written in their store. Type and size must be its own.
    fn write(&mut self, value: ValueId, data: HostTensor);

    /// Runs a program. A device may return before it is done.
    fn run(&mut self, program: ProgramId) -> Result<()>;

    /// Reads a value that is kept, waiting for what was submitted.
    fn read(&mut self, value: ValueId) -> Result<HostTensor<'static>>;

    /// Writes a float value, rounded no more than the executor's own arithmetic rounds.
    fn write_f64(&mut self, value: ValueId, data: &[f64]) {
        self.write(value, HostTensor::F32(data.iter().map(|&x| x as f32).collect()));
    }

    /// Reads a kept float value as exactly as the executor has it.
    fn read_f64(&mut self, value: ValueId) -> Result<Vec<f64>> {
        Ok(self.read(value)?.into_f32().into_iter().map(f64::from).collect())
    }

    /// Asks for a small kept value as it is after the programs run so far.
    ///
    /// # Panics
    /// If two such reads of the value are open already.
    fn read_later(&mut self, value: ValueId) -> Result<Ticket>;

    /// Fetches what [`Executor::read_later`] asked for.
    fn fetch(&mut self, ticket: Ticket) -> Result<HostTensor<'static>>;

    /// Whether what [`Executor::read_later`] asked for is known to be there; does not wait.
    fn is_done(&self, ticket: &Ticket) -> bool {
        ticket.ready.is_some()
    }

    /// Bytes allocated for the graph, without those of the store.
    fn allocated(&self) -> u64;

    /// Measured device time per node label of a program, in seconds; empty where nothing is measured.
    fn profile(&self, _program: ProgramId) -> Vec<(String, f64)> {
        Vec::new()
    }
}
