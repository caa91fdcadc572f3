//! A static graph: `build -> backward -> recompute -> plan -> record -> replay`.
//!
//! Shapes are fixed, so a graph is built once: a table of values and a list of nodes, both plain data. Nodes are
//! grouped into programs (a micro-batch, the optimizer step) that run whole. Weights and optimizer state lie in a
//! [`Store`], which graphs of training, scoring and generation bind alike.

pub mod backend;
pub mod backward;
pub mod check;
pub mod executor;
pub mod gpu;
pub mod layout;
pub mod null;
pub mod parameter;
pub mod plan;
mod reads;
pub mod recompute;
pub mod reference;
pub mod store;

pub use backend::Backend;
pub use executor::Executor;
pub use parameter::{Initial, Parameter, ParameterSpec};
pub use plan::Plan;
pub use store::{Store, StorePlan};

use crate::ops::{Cost, ElementType, Io, Op, Signature, Slot, TensorType, ValueId};

/// Index of a program in its graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ProgramId(pub u32);

/// What a value is, and with that where it lives and how long.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A parameter, or a shard of it; in a [`Store`].
    Weight,
    /// Optimizer state of a trained parameter; in a [`Store`].
    OptimizerState,
    /// A gradient of a parameter, kept until the optimizer has used it.
    Gradient,
    /// Kept from program to program: caches, the tokens last chosen.
    State,
    /// Written by the host before a program runs, or once (tables).
    Input,
    /// Kept for the host to read, or for another program.
    Result,
    /// Lives from the node that makes it to the last one that reads it.
    Temporary,
}

impl Kind {
    /// Whether it lies in a store, which several graphs bind, and not in the graph's own memory.
    pub fn is_stored(self) -> bool {
        matches!(self, Kind::Weight | Kind::OptimizerState)
    }
}

/// A tensor of the graph.
#[derive(Clone, Debug)]
pub struct Value {
    /// What it is called in plans and errors; the Hugging Face key for weights.
    pub name: String,
    /// Element type and shape.
    pub ty: TensorType,
    /// What it is.
    pub kind: Kind,
    /// The value whose memory this one updates in place; itself otherwise.
    pub root: ValueId,
}

/// One op with its tensors.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<ValueId>,
    /// Results.
    pub outputs: Vec<ValueId>,
    /// Working memory.
    pub scratch: Vec<ValueId>,
    /// Program it belongs to.
    pub program: ProgramId,
    /// Transformer block whose forward pass it is part of; recomputation works on whole blocks.
    pub block: Option<usize>,
    /// Whether `backward` made it.
    pub backward: bool,
}

impl Node {
    /// The value that a kernel binds in a slot.
    pub fn operand(&self, slot: Slot) -> ValueId {
        match slot {
            Slot::In(i) => self.inputs[i],
            Slot::Out(i) => self.outputs[i],
            Slot::Scratch(i) => self.scratch[i],
        }
    }
}

/// Values and nodes; see the module.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    values: Vec<Value>,
    nodes: Vec<Node>,
    programs: Vec<String>,
    parameters: Vec<Parameter>,
    block: Option<usize>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// All values.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// All nodes, in the order in which they run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Parameters in the order of their creation.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The value whose memory `id` uses.
    pub fn root(&self, id: ValueId) -> &Value {
        self.value(self.value(id).root)
    }

    /// Name of a program.
    pub fn program_name(&self, id: ProgramId) -> &str {
        &self.programs[id.0 as usize]
    }

    /// Programs in order.
    pub fn programs(&self) -> impl Iterator<Item = ProgramId> + use<> {
        (0..self.programs.len() as u32).map(ProgramId)
    }

    /// Whether a program changes what lies in the store.
    pub fn changes_store(&self, program: ProgramId) -> bool {
        let mut nodes = self.nodes.iter().filter(|node| node.program == program);
        nodes.any(|node| node.outputs.iter().any(|&id| self.root(id).kind.is_stored()))
    }

    /// Starts a program: nodes pushed from now on belong to it.
    pub fn program(&mut self, name: &str) -> ProgramId {
        self.programs.push(name.into());
        self.block = None;
        ProgramId(self.programs.len() as u32 - 1)
    }

    /// Says which transformer block the next nodes belong to.
    pub fn set_block(&mut self, block: Option<usize>) {
        self.block = block;
    }

    /// A value that no node makes.
    pub fn add_value(&mut self, name: impl Into<String>, ty: TensorType, kind: Kind) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.values.push(Value { name: name.into(), ty, kind, root: id });
        id
    }

    /// A value that the host writes.
    pub fn input(&mut self, name: &str, ty: TensorType) -> ValueId {
        self.add_value(name, ty, Kind::Input)
    }

    /// A parameter [rows, ...], split by rows where it exceeds a binding.
    pub fn parameter(&mut self, spec: ParameterSpec) -> Parameter {
        let shards = parameter::shards(&spec.name, &spec.shape, ElementType::F32)
            .into_iter()
            .map(|(name, ty)| self.add_value(name, ty, Kind::Weight))
            .collect();
        let parameter = Parameter { spec, shards };
        self.parameters.push(parameter.clone());
        parameter
    }

    /// Keeps a value for the host to read after its program.
    pub fn keep(&mut self, id: ValueId) {
        let root = self.value(id).root;
        self.set_kind(root, Kind::Result);
    }

    pub(crate) fn set_kind(&mut self, id: ValueId, kind: Kind) {
        self.values[id.0 as usize].kind = kind;
    }

    /// Appends a node to the current program and returns its outputs.
    pub fn push(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Vec<ValueId> {
        let node = self.make_node(op.into(), inputs);
        let outputs = node.outputs.clone();
        self.nodes.push(node);
        outputs
    }

    /// Makes a node and its values without placing it.
    fn make_node(&mut self, op: Op, inputs: &[ValueId]) -> Node {
        let types: Vec<TensorType> = inputs.iter().map(|&id| self.value(id).ty.clone()).collect();
        let signature = op.def().infer(&types);
        let program = ProgramId(self.programs.len().checked_sub(1).expect("a program was started") as u32);
        let name = op.def().name();
        let mut make = |ty: &TensorType, suffix: &str| {
            self.add_value(format!("{name}{suffix}"), ty.clone(), Kind::Temporary)
        };
        let outputs: Vec<ValueId> = signature.outputs.iter().map(|ty| make(ty, "")).collect();
        let scratch = signature.scratch.iter().map(|ty| make(ty, ".scratch")).collect();
        for &(output, input) in &signature.in_place {
            self.values[outputs[output].0 as usize].root = self.value(inputs[input]).root;
        }
        Node { op, inputs: inputs.to_vec(), outputs, scratch, program, block: self.block, backward: false }
    }

    /// Types of a node's inputs and what its op infers from them.
    pub fn types(&self, node: &Node) -> (Vec<TensorType>, Signature) {
        let types: Vec<TensorType> = node.inputs.iter().map(|&id| self.value(id).ty.clone()).collect();
        let signature = node.op.def().infer(&types);
        (types, signature)
    }

    /// Work of a node.
    pub fn node_cost(&self, node: &Node) -> Cost {
        let (inputs, signature) = self.types(node);
        node.op.def().cost(&Io { inputs: &inputs, signature: &signature })
    }

    /// Work of a program.
    pub fn cost(&self, program: ProgramId) -> Cost {
        self.nodes
            .iter()
            .filter(|node| node.program == program)
            .fold(Cost::default(), |sum, node| sum + self.node_cost(node))
    }
}
