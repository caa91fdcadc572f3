//! Recomputation: instead of keeping forward results for the backward pass, compute some of them again there.
//! A rewrite of the node list; values come out bit for bit the same because the same kernels run on the same inputs.

use super::{Graph, Node, ProgramId};
use crate::ops::ValueId;
use std::collections::{HashMap, HashSet};

/// What is computed again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Policy {
    /// Nothing: least time, most memory.
    None,
    /// Cheap ops: normalisation and activation.
    Cheap,
    /// Whole transformer blocks; only each block's input is kept.
    Block,
}

impl Policy {
    /// All, from least time to least memory.
    pub const ALL: [Policy; 3] = [Policy::None, Policy::Cheap, Policy::Block];

    /// Its name in recipes and plans.
    pub fn name(self) -> &'static str {
        match self {
            Policy::None => "none",
            Policy::Cheap => "cheap",
            Policy::Block => "block",
        }
    }
}

/// Rewrites one program under `policy`. Must run after `backward`.
pub fn recompute(graph: &mut Graph, program: ProgramId, policy: Policy) {
    if policy == Policy::None {
        return;
    }
    let nodes = std::mem::take(&mut graph.nodes);
    let repeats = |node: &Node| match policy {
        Policy::None => false,
        Policy::Cheap => node.op.def().cheap(),
        Policy::Block => node.block.is_some(),
    };
    // What makes each value that may be computed again.
    let makers: HashMap<ValueId, Node> = nodes
        .iter()
        .filter(|node| node.program == program && !node.backward && repeats(node))
        .flat_map(|node| node.outputs.iter().map(|&id| (id, node.clone())))
        .collect();
    let block_outputs = block_outputs(&nodes, program);
    let mut again = Again { graph, makers, kept: block_outputs, copies: HashMap::new(), nodes: Vec::new() };
    for mut node in nodes {
        if node.program == program && node.backward {
            for input in &mut node.inputs {
                *input = again.value(*input);
            }
        }
        again.nodes.push(node);
    }
    let nodes = again.nodes;
    graph.nodes = nodes;
}

/// Values that cross from one block to the next: these are what block recomputation starts from.
fn block_outputs(nodes: &[Node], program: ProgramId) -> HashSet<ValueId> {
    let mut block_of: HashMap<ValueId, Option<usize>> = HashMap::new();
    let mut crossing = HashSet::new();
    for node in nodes.iter().filter(|node| node.program == program && !node.backward) {
        for id in &node.inputs {
            if block_of.get(id).is_some_and(|&block| block != node.block) {
                crossing.insert(*id);
            }
        }
        block_of.extend(node.outputs.iter().map(|&id| (id, node.block)));
    }
    crossing
}

struct Again<'a> {
    graph: &'a mut Graph,
    makers: HashMap<ValueId, Node>,
    kept: HashSet<ValueId>,
    copies: HashMap<ValueId, ValueId>,
    nodes: Vec<Node>,
}

impl Again<'_> {
    /// The value to use in the backward pass for `id`: a fresh copy, made just before its first use there.
    fn value(&mut self, id: ValueId) -> ValueId {
        if let Some(&copy) = self.copies.get(&id) {
            return copy;
        }
        if self.kept.contains(&id) {
            return id;
        }
        let Some(maker) = self.makers.get(&id).cloned() else { return id };
        let inputs: Vec<ValueId> = maker.inputs.iter().map(|&input| self.value(input)).collect();
        let copy = self.graph.make_node(maker.op.clone(), &inputs);
        for (&old, &new) in maker.outputs.iter().zip(&copy.outputs) {
            self.copies.insert(old, new);
        }
        self.nodes.push(Node { backward: true, program: maker.program, block: None, ..copy });
        self.copies[&id]
    }
}
