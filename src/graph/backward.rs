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
/// `inputs` are further values, besides the weights that are trained, whose gradients are wanted. Returns the gradient
/// of each wanted value; it is of kind `Gradient` and stays after the program.
///
/// # Panics
/// On mistakes of the graph's author: a trained weight that no seed depends on; with [`Accumulate::Yes`] one whose
/// gradient some op gives without adding to what is there, so that only the last pass would count.
pub fn backward(
    graph: &mut Graph,
    seeds: &[(ValueId, ValueId)],
    inputs: &[ValueId],
    accumulate: Accumulate,
) -> HashMap<ValueId, ValueId> {
    let program = graph.programs().last().expect("a program was started");
    let forward: Vec<Node> = graph.nodes.iter().filter(|node| node.program == program).cloned().collect();

    let trained = graph.parameters.iter().filter(|parameter| parameter.spec.trained);
    let trained: HashSet<ValueId> = trained.flat_map(|parameter| parameter.shards.clone()).collect();
    let mut leaves: Vec<ValueId> = inputs.to_vec();
    for &id in forward.iter().flat_map(|node| &node.inputs) {
        if trained.contains(&id) && !leaves.contains(&id) {
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
    let sums: HashMap<ValueId, ValueId> = gradients.iter().map(|(&leaf, sum)| (leaf, sum.value)).collect();

    graph.set_block(None);
    let mut tape = Builder { graph, gradients, wanted, taken: HashSet::new(), appended: Vec::new() };
    for node in forward.iter().rev() {
        let reached = node.outputs.iter().any(|id| tape.gradients.contains_key(id));
        if reached && node.inputs.iter().any(|id| tape.wanted.contains(id)) {
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
            if accumulate == Accumulate::Yes {
                assert_eq!(root, sums[&leaf], "the gradient of {name} is not added up in place");
            }
            graph.set_kind(root, Kind::Gradient);
            graph.values[root.0 as usize].name = format!("grad {name}");
            (leaf, gradient)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Initial, ParameterSpec};
    use crate::ops::matmul::{Form, Matmul};
    use crate::ops::rms_norm::RmsNorm;
    use crate::ops::swiglu::Swiglu;

    /// A program `y = build(x, w)` with weights w of `shape`, and a given gradient of y.
    fn graph(
        shape: &[usize],
        trained: bool,
        build: impl FnOnce(&mut Graph, ValueId, ValueId) -> ValueId,
    ) -> (Graph, ValueId, [(ValueId, ValueId); 1]) {
        let mut graph = Graph::new();
        let x = graph.input("x", TensorType::f32(&[8, 8]));
        let spec = ParameterSpec {
            name: "w".into(),
            shape: shape.to_vec(),
            initial: Initial::Ones,
            trained,
            decayed: true,
        };
        let w = graph.parameter(spec).whole();
        graph.program("test");
        let y = build(&mut graph, x, w);
        let seed = graph.input("seed", graph.value(y).ty.clone());
        (graph, x, [(y, seed)])
    }

    /// Op names of the gradient nodes.
    fn appended(graph: &Graph) -> Vec<&'static str> {
        graph.nodes().iter().filter(|node| node.backward).map(|node| node.op.def().name()).collect()
    }

    #[test]
    fn nothing_is_computed_for_frozen_weights() {
        let norm = |graph: &mut Graph, x, w| graph.push(RmsNorm { eps: 1e-5 }, &[x, w])[0];
        let (mut frozen, x, seeds) = graph(&[8], false, norm);
        assert!(backward(&mut frozen.clone(), &seeds, &[], Accumulate::Yes).is_empty());
        let found = backward(&mut frozen, &seeds, &[x], Accumulate::No);
        let last = frozen.nodes().last().expect("a gradient node");
        assert_eq!((found.len(), last.outputs.len(), last.scratch.len()), (1, 1, 0), "dw is computed");
        let (mut trained, x, seeds) = graph(&[8], true, norm);
        assert_eq!(backward(&mut trained.clone(), &seeds, &[], Accumulate::Yes).len(), 1);
        assert_eq!(backward(&mut trained, &seeds, &[x], Accumulate::No).len(), 2);
        assert_eq!(appended(&trained).last(), Some(&"rms_norm_backward"));
    }

    #[test]
    #[should_panic(expected = "the gradient of w is not added up in place")]
    fn a_gradient_that_would_lose_all_passes_but_the_last_is_seen() {
        // Swiglu gives its inputs' gradients without adding to what they have.
        let (mut graph, _, seeds) = graph(&[8, 8], true, |graph, x, w| graph.push(Swiglu, &[x, w])[0]);
        backward(&mut graph, &seeds, &[], Accumulate::Yes);
    }

    #[test]
    #[should_panic(expected = "is not differentiable")]
    fn a_product_added_in_place_has_no_gradient() {
        let (mut graph, _, seeds) = graph(&[8, 8], true, |graph, x, w| {
            let y = graph.push(Matmul::linear(), &[x, w])[0];
            graph.push(Matmul { form: Form::NT, accumulate: true }, &[x, w, y])[0]
        });
        backward(&mut graph, &seeds, &[], Accumulate::No);
    }
}
