//! Executor on the host, by the ops' references: the f64 oracle, or in f32 the fallback without an adapter.

use super::executor::{Executor, Ticket};
use super::{Graph, Kind, ProgramId};
use crate::error::Result;
use crate::ops::reference::Real;
use crate::ops::{DType, Data, Io, RefIo, TensorType, ValueId};

/// A graph on the host, computed in `T`.
pub struct ReferenceExecutor<T> {
    graph: Graph,
    /// Contents per root; `None` while a temporary is not alive.
    data: Vec<Option<Data<T>>>,
    /// Last node that touches each root.
    last: Vec<usize>,
}

fn zeros<T: Real>(ty: &TensorType) -> Data<T> {
    match ty.dtype {
        DType::F32 => Data::Float(vec![T::default(); ty.elements()]),
        DType::U32 => Data::Index(vec![0; ty.elements()]),
    }
}

impl<T: Real> ReferenceExecutor<T> {
    /// Takes the graph; weights, inputs and results start at zero.
    pub fn new(graph: Graph) -> Self {
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
                let kept = value.kind != Kind::Temporary && value.root.0 as usize == i;
                kept.then(|| zeros(&value.ty))
            })
            .collect();
        ReferenceExecutor { graph, data, last }
    }

    fn root(&self, id: ValueId) -> usize {
        self.graph.value(id).root.0 as usize
    }

    /// Writes floats at full precision.
    pub fn write(&mut self, value: ValueId, data: Data<T>) {
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
                    _ => zeros(&self.graph.value(id).ty),
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

    fn floats(&self, value: ValueId) -> Vec<f32> {
        self.contents(value).floats().iter().map(|x| x.f64() as f32).collect()
    }
}

impl<T: Real> Executor for ReferenceExecutor<T> {
    fn description(&self) -> String {
        let bits = 8 * size_of::<T>();
        format!("reference (f{bits} on {} CPU threads)", rayon::current_num_threads())
    }

    fn write_f32(&mut self, value: ValueId, data: &[f32]) {
        assert_eq!(data.len(), self.graph.value(value).ty.elements(), "a write must fill the value");
        self.write(value, Data::Float(data.iter().map(|&x| T::of(x as f64)).collect()));
    }

    fn write_u32(&mut self, value: ValueId, data: &[u32]) {
        assert_eq!(data.len(), self.graph.value(value).ty.elements(), "a write must fill the value");
        self.write(value, Data::Index(data.to_vec()));
    }

    fn run(&mut self, program: ProgramId) -> Result<()> {
        for index in 0..self.graph.nodes().len() {
            if self.graph.nodes()[index].program == program {
                self.run_node(index);
            }
        }
        Ok(())
    }

    fn read(&mut self, value: ValueId) -> Result<Vec<f32>> {
        Ok(self.floats(value))
    }

    fn read_u32(&mut self, value: ValueId) -> Result<Vec<u32>> {
        Ok(self.contents(value).indices().to_vec())
    }

    fn read_later(&mut self, value: ValueId) -> Result<Ticket> {
        Ok(Ticket { value, slot: 0, ready: Some(self.floats(value)) })
    }

    fn fetch(&mut self, ticket: Ticket) -> Result<Vec<f32>> {
        Ok(ticket.ready.expect("the host reads at once"))
    }

    fn allocated(&self) -> u64 {
        let bytes = |data: &Data<T>| match data {
            Data::Float(x) => x.len() * size_of::<T>(),
            Data::Index(x) => x.len() * 4,
        };
        self.data.iter().flatten().map(|data| bytes(data) as u64).sum()
    }
}
