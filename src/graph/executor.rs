//! What runs a graph: the device, the references on the host, or nothing at all.

use super::ProgramId;
use crate::error::Result;
use crate::ops::ValueId;

/// A read that was asked for and not yet fetched.
#[derive(Debug)]
pub struct Ticket {
    pub(super) value: ValueId,
    /// Which of the value's two staging buffers holds it; or the data itself where there is no device.
    pub(super) slot: usize,
    pub(super) ready: Option<Vec<f32>>,
}

/// Runs the programs of one graph. Weights start at zero; the host writes them.
pub trait Executor {
    /// What runs it, for people.
    fn description(&self) -> String;

    /// Writes a float value. The data must have exactly its size.
    fn write_f32(&mut self, value: ValueId, data: &[f32]);

    /// Writes an index value.
    fn write_u32(&mut self, value: ValueId, data: &[u32]);

    /// Runs a program. A device may return before it is done.
    fn run(&mut self, program: ProgramId) -> Result<()>;

    /// Reads a float value that is kept, waiting for what was submitted.
    fn read(&mut self, value: ValueId) -> Result<Vec<f32>>;

    /// Reads an index value that is kept, waiting for what was submitted.
    fn read_u32(&mut self, value: ValueId) -> Result<Vec<u32>>;

    /// Asks for a small kept float value as it is after the programs run so far. At most two reads of one value may be
    /// open at a time.
    fn read_later(&mut self, value: ValueId) -> Result<Ticket>;

    /// Fetches what [`Executor::read_later`] asked for.
    fn fetch(&mut self, ticket: Ticket) -> Result<Vec<f32>>;

    /// Bytes allocated for the graph.
    fn allocated(&self) -> u64;

    /// Measured device time per node label of a program, in seconds; empty where nothing is measured.
    fn profile(&self, _program: ProgramId) -> Vec<(String, f64)> {
        Vec::new()
    }
}
