//! Executor on the host, by the ops' references: the f64 oracle, or in f32 the fallback without an adapter.

use super::executor::{Executor, Ticket};
use super::store::{HostMemory, Store};
use super::{Graph, Kind, ProgramId};
use crate::error::Result;
use crate::ops::reference::Real;
use crate::ops::{Data, HostTensor, Io, RefIo, ValueId};
use std::collections::HashMap;
use std::sync::Arc;

/// A graph on the host, computed in `T`.
pub struct ReferenceExecutor<T> {
    graph: Graph,
    /// Contents per root; `None` while a temporary is not alive, and for what lies in the store.
    data: Vec<Option<Data<T>>>,
    /// Weights and optimizer state, taken from there for the time of a run.
    memory: HostMemory<T>,
    /// The store that they belong to.
    store: Option<Arc<Store>>,
    /// Roots that lie in the store.
    stored: Vec<usize>,
    /// Last node that touches each root.
    last: Vec<usize>,
    /// Reads that were asked for and not fetched, per value.
    open: HashMap<ValueId, usize>,
}

impl<T: Real> ReferenceExecutor<T> {
    /// Takes a graph that binds no weights; inputs and results start at zero.
    pub fn alone(graph: Graph) -> Self {
        Self::build(graph, HostMemory::default(), None)
    }

    /// Takes the graph, whose weights are in `store` with this `memory`; inputs and results start at zero.
    pub(super) fn new(graph: Graph, memory: HostMemory<T>, store: Arc<Store>) -> Self {
        Self::build(graph, memory, Some(store))
    }

    fn build(graph: Graph, memory: HostMemory<T>, store: Option<Arc<Store>>) -> Self {
        let mut last = vec![0; graph.values().len()];
        for (i, node) in graph.nodes().iter().enumerate() {
            for &id in node.inputs.iter().chain(&node.outputs) {
                last[graph.value(id).root.0 as usize] = i;
            }
        }
        let data = graph
            .values()
            .iter()
            .enumerate()
            .map(|(i, value)| {
                let kept = value.kind != Kind::Temporary && !value.kind.is_stored();
                (kept && value.root.0 as usize == i).then(|| Data::zeros(&value.ty))
            })
            .collect();
        let in_store = |&i: &usize| {
            let value = &graph.values()[i];
            value.kind.is_stored() && value.root.0 as usize == i
        };
        let stored = (0..graph.values().len()).filter(in_store).collect();
        ReferenceExecutor { graph, data, memory, store, stored, last, open: HashMap::new() }
    }

    fn root(&self, id: ValueId) -> usize {
        self.graph.value(id).root.0 as usize
    }

    /// Writes floats at full precision.
    pub fn set(&mut self, value: ValueId, data: Data<T>) {
        let root = self.root(value);
        self.data[root] = Some(data);
    }

    /// Contents of a kept value at full precision.
    pub fn contents(&self, value: ValueId) -> &Data<T> {
        self.data[self.root(value)].as_ref().expect("the value is kept")
    }

    fn run_node(&mut self, index: usize) {
        let node = self.graph.nodes()[index].clone();
        let (types, signature) = self.graph.types(&node);
        // Outputs first: those that update an input take its contents along.
        let outputs: Vec<Data<T>> = node
            .outputs
            .iter()
            .enumerate()
            .map(|(i, &id)| {
                let in_place = signature.in_place.iter().any(|&(output, _)| output == i);
                let root = self.root(id);
                match self.data[root].take() {
                    Some(contents) if in_place => contents,
                    _ => Data::zeros(&self.graph.value(id).ty),
                }
            })
            .collect();
        let gone = Data::Float(Vec::new());
        let inputs =
            node.inputs.iter().map(|&id| self.data[self.root(id)].as_ref().unwrap_or(&gone)).collect();
        let mut io = RefIo { io: Io { inputs: &types, signature: &signature }, inputs, outputs };
        node.op.reference(&mut io);
        let outputs = io.outputs;
        for (&id, data) in node.outputs.iter().zip(outputs) {
            let root = self.root(id);
            self.data[root] = Some(data);
        }
        for &id in node.inputs.iter().chain(&node.outputs) {
            let root = self.root(id);
            if self.last[root] == index && self.graph.values()[root].kind == Kind::Temporary {
                self.data[root] = None;
            }
        }
    }
}

impl<T: Real> Executor for ReferenceExecutor<T> {
    fn description(&self) -> String {
        let bits = 8 * size_of::<T>();
        format!("reference (f{bits} on {} CPU threads)", rayon::current_num_threads())
    }

    fn write(&mut self, value: ValueId, data: HostTensor) {
        let ty = &self.graph.value(value).ty;
        assert_eq!(data.element(), ty.element, "a write must have the value's type");
        assert_eq!(data.bytes().len() as u64, ty.bytes(), "a write must fill the value");
        self.set(value, Data::of(&data));
    }

    fn run(&mut self, program: ProgramId) -> Result<()> {
        if let Some(store) = self.store.as_ref().filter(|_| self.graph.changes_store(program)) {
            store.changed();
        }
        let memory = self.memory.clone();
        let mut memory = memory.lock().expect("no thread panics in a run");
        for &root in &self.stored {
            self.data[root] = memory.remove(&self.graph.values()[root].name);
        }
        for index in 0..self.graph.nodes().len() {
            if self.graph.nodes()[index].program == program {
                self.run_node(index);
            }
        }
        for &root in &self.stored {
            memory.extend(self.data[root].take().map(|data| (self.graph.values()[root].name.clone(), data)));
        }
        Ok(())
    }

    fn read(&mut self, value: ValueId) -> Result<HostTensor<'static>> {
        Ok(self.contents(value).to_host())
    }

    fn write_f64(&mut self, value: ValueId, data: &[f64]) {
        assert_eq!(data.len(), self.graph.value(value).ty.elements(), "a write must fill the tensor");
        self.set(value, Data::Float(data.iter().map(|&x| T::of(x)).collect()));
    }

    fn read_f64(&mut self, value: ValueId) -> Result<Vec<f64>> {
        Ok(self.contents(value).floats().iter().map(|x| x.f64()).collect())
    }

    fn read_later(&mut self, value: ValueId) -> Result<Ticket> {
        // The host could do without this rule; but a device keeps it, and not everyone tests on one.
        let open = self.open.entry(value).or_default();
        assert!(*open < 2, "a third read of one value is open at a time");
        *open += 1;
        Ok(Ticket { value, slot: 0, ready: Some(self.read(value)?) })
    }

    fn fetch(&mut self, ticket: Ticket) -> Result<HostTensor<'static>> {
        *self.open.get_mut(&ticket.value).expect("the ticket is of this executor") -= 1;
        Ok(ticket.ready.expect("the host reads at once"))
    }

    fn allocated(&self) -> u64 {
        self.data.iter().flatten().map(Data::bytes).sum()
    }
}
