//! Reverse-mode differentiation: appends to a program the ops that carry gradients from its losses to its weights.

use super::{Graph, Kind, Node};
use crate::ops::add::Add;
use crate::ops::{NodeIo, Op, Tape, TensorType, ValueId};
use std::collections::{HashMap, HashSet};

/// How gradients meet those of earlier micro-batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accumulate {
    /// One micro-batch per step: gradients are overwritten.
    No,
    /// Several: gradients are added to, and something must zero them first.
    Yes,
}

/// A gradient as far as it is summed up.
#[derive(Clone, Copy)]
struct Partial {
    value: ValueId,
    /// Whether nothing else reads its memory, so that it may be overwritten.
    owned: bool,
}

struct Builder<'a> {
    graph: &'a mut Graph,
    gradients: HashMap<ValueId, Partial>,
    wanted: HashSet<ValueId>,
    /// Inputs whose partial gradient the op being differentiated has taken into its own.
    taken: HashSet<ValueId>,
    appended: Vec<Node>,
}

impl Tape for Builder<'_> {
    fn grad(&self, output: ValueId) -> Option<ValueId> {
        self.gradients.get(&output).map(|partial| partial.value)
    }

    fn ty(&self, value: ValueId) -> &TensorType {
        &self.graph.value(value).ty
    }

    fn wanted(&self, input: ValueId) -> bool {
        self.wanted.contains(&input)
    }

    fn emit(&mut self, op: Op, inputs: &[ValueId]) -> Vec<ValueId> {
        let node = self.graph.make_node(op, inputs);
        let outputs = node.outputs.clone();
        self.appended.push(Node { backward: true, ..node });
        outputs
    }

    fn partial(&mut self, input: ValueId) -> Option<ValueId> {
        let partial = self.gradients.get(&input)?.value;
        self.taken.insert(input);
        Some(partial)
    }

    fn partial_in_place(&mut self, input: ValueId) -> Option<ValueId> {
        let owned = self.gradients.get(&input)?.owned;
        if owned { self.partial(input) } else { None }
    }

    fn give(&mut self, input: ValueId, gradient: ValueId) {
        self.contribute(input, Partial { value: gradient, owned: true });
    }

    fn share(&mut self, input: ValueId, gradient: ValueId) {
        self.contribute(input, Partial { value: gradient, owned: false });
    }
}

impl Builder<'_> {
    fn contribute(&mut self, input: ValueId, new: Partial) {
        if !self.wanted.contains(&input) {
            return;
        }
        let taken = self.taken.remove(&input);
        let sum = match self.gradients.get(&input) {
            Some(old) if !taken => {
                let value = self.emit(Add.into(), &[old.value, new.value])[0];
                Partial { value, owned: true }
            }
            _ => new,
        };
        self.gradients.insert(input, sum);
    }
}

/// Differentiates the nodes of the current (last) program. `seeds` pairs outputs with their given gradients;
/// `inputs` are further values, besides weights, whose gradients are wanted. Returns the gradient of each wanted
/// value; a weight's is of kind `Gradient` and stays after the program.
///
/// A weight that no seed depends on is an error of the graph's author and panics.
pub fn backward(
    graph: &mut Graph,
    seeds: &[(ValueId, ValueId)],
    inputs: &[ValueId],
    accumulate: Accumulate,
) -> HashMap<ValueId, ValueId> {
    let program = graph.programs().last().expect("a program was started");
    let forward: Vec<Node> = graph.nodes.iter().filter(|node| node.program == program).cloned().collect();

    let mut leaves: Vec<ValueId> = inputs.to_vec();
    for &id in forward.iter().flat_map(|node| &node.inputs) {
        if graph.value(id).kind == Kind::Weight && !leaves.contains(&id) {
            leaves.push(id);
        }
    }
    let mut wanted: HashSet<ValueId> = leaves.iter().copied().collect();
    for node in &forward {
        if node.inputs.iter().any(|id| wanted.contains(id)) {
            wanted.extend(&node.outputs);
        }
    }

    let mut gradients: HashMap<ValueId, Partial> =
        seeds.iter().map(|&(output, seed)| (output, Partial { value: seed, owned: false })).collect();
    if accumulate == Accumulate::Yes {
        for &leaf in &leaves {
            let (name, ty) = (format!("grad {}", graph.value(leaf).name), graph.value(leaf).ty.clone());
            let value = graph.add_value(name, ty, Kind::Gradient);
            gradients.insert(leaf, Partial { value, owned: true });
        }
    }

    graph.set_block(None);
    let mut tape = Builder { graph, gradients, wanted, taken: HashSet::new(), appended: Vec::new() };
    for node in forward.iter().rev() {
        if node.outputs.iter().any(|id| tape.gradients.contains_key(id)) {
            let io = NodeIo { inputs: node.inputs.clone(), outputs: node.outputs.clone() };
            node.op.def().backward(&mut tape, &io);
        }
    }
    let (gradients, appended) = (tape.gradients, tape.appended);
    graph.nodes.extend(appended);
    leaves
        .into_iter()
        .map(|leaf| {
            let name = graph.value(leaf).name.clone();
            let gradient = gradients.get(&leaf).unwrap_or_else(|| panic!("no loss depends on {name}")).value;
            let root = graph.value(gradient).root;
            graph.set_kind(root, Kind::Gradient);
            graph.values[root.0 as usize].name = format!("grad {name}");
            (leaf, gradient)
        })
        .collect()
}
