//! Executor without arithmetic: walks the nodes over a simulated memory and checks that the plan holds.
//! No node may read what something else has overwritten, nor read and write one buffer.

use super::plan::{Plan, touched};
use super::{Graph, Kind};
use crate::ops::ValueId;
use std::collections::BTreeMap;

/// What a buffer holds: start -> (end, owner) of what was written last. No two ranges overlap.
type Cells = BTreeMap<u64, (u64, ValueId)>;

/// Checks `plan` against `graph`; the error names the node and the values.
pub fn check(graph: &Graph, plan: &Plan) -> Result<(), String> {
    let mut memory = vec![Cells::new(); plan.buffers.len()];
    let claim = |memory: &mut [Cells], id: ValueId| {
        let place = plan.place(id);
        let (start, end) = (place.offset, place.offset + place.bytes);
        assert!(end <= plan.buffers[place.buffer].bytes, "{} lies outside its buffer", graph.value(id).name);
        let cells = &mut memory[place.buffer];
        // What reaches into the place are the last ranges that begin before its end.
        while let Some((&first, _)) = cells.range(..end).next_back().filter(|(_, (last, _))| *last > start) {
            cells.remove(&first);
        }
        cells.insert(start, (end, id));
    };
    for (i, value) in graph.values().iter().enumerate() {
        let id = ValueId(i as u32);
        if value.kind != Kind::Temporary && !value.kind.is_stored() && value.root == id {
            claim(&mut memory, id);
        }
    }
    for node in graph.nodes() {
        let name = node.op.def().name();
        let (read, written) = touched(graph, node);
        let stored = |id: &&ValueId| graph.value(**id).kind.is_stored();
        for &id in read.iter().filter(stored) {
            let kind = graph.value(id).kind;
            if let Some(&w) = written.iter().find(|w| graph.value(**w).kind == kind) {
                let (a, b) = (&graph.value(id).name, &graph.value(w).name);
                return Err(format!("{name} reads '{a}' and writes '{b}' in one slab of the store"));
            }
        }
        for &id in read.iter().filter(|id| !stored(id)) {
            let place = plan.place(id);
            if memory[place.buffer].get(&place.offset) != Some(&(place.offset + place.bytes, id)) {
                return Err(format!("{name} reads '{}' after it was overwritten", graph.value(id).name));
            }
            let clash = written.iter().chain(&node.scratch).find(|&&w| plan.place(w).buffer == place.buffer);
            if let Some(&w) = clash {
                let (a, b) = (&graph.value(id).name, &graph.value(w).name);
                return Err(format!("{name} reads '{a}' and writes '{b}' in one buffer"));
            }
        }
        for &id in written.iter().chain(&node.scratch).filter(|id| !stored(id)) {
            claim(&mut memory, id);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Caps;
    use crate::graph::StorePlan;
    use crate::ops::add::Add;
    use crate::ops::swiglu::Swiglu;
    use crate::ops::{TensorType, all_cases};

    fn chain(length: usize) -> Graph {
        let mut graph = Graph::new();
        let mut x = graph.input("x", TensorType::f32(&[64, 64]));
        graph.program("chain");
        for _ in 0..length {
            let y = graph.push(Swiglu, &[x, x])[0];
            x = graph.push(Add, &[x, y])[0];
        }
        graph.keep(x);
        graph
    }

    #[test]
    fn a_chain_runs_in_constant_memory() {
        let bytes = |length| {
            Plan::new(&chain(length), &Caps::baseline(), &StorePlan::default())
                .buffers
                .iter()
                .map(|b| b.bytes)
                .sum::<u64>()
        };
        assert_eq!(bytes(10), bytes(100));
        check(&chain(10), &Plan::new(&chain(10), &Caps::baseline(), &StorePlan::default())).unwrap();
    }

    #[test]
    fn a_shared_place_is_caught() {
        let graph = chain(3);
        let mut plan = Plan::new(&graph, &Caps::baseline(), &StorePlan::default());
        let (a, b) = (graph.nodes()[1].outputs[0], graph.nodes()[2].outputs[0]);
        plan.places[b.0 as usize] = plan.place(a);
        assert!(check(&graph, &plan).is_err());
    }

    #[test]
    fn every_case_has_a_sound_plan() {
        for case in all_cases() {
            let built = crate::graph::check::CaseGraph::new(&case);
            let plan = Plan::new(&built.graph, &Caps::baseline(), &StorePlan::default());
            check(&built.graph, &plan).unwrap_or_else(|e| panic!("{}: {e}", case.label()));
        }
    }
}
