//! Time per op of a program, and its share of the peak that bounds it.

use super::peaks::Peaks;
use crate::graph::{Graph, ProgramId};
use crate::ops::Cost;
use serde::Serialize;
use std::collections::BTreeMap;

/// All nodes of one op in a program, measured once.
#[derive(Clone, Debug, Serialize)]
pub struct OpTime {
    /// The op.
    pub op: String,
    /// Nodes.
    pub nodes: usize,
    /// Device time of all of them, with the copies that bring operands where kernels read them.
    pub seconds: f64,
    /// Floating-point operations per second.
    pub flops_per_s: f64,
    /// Bytes per second, as if every operand moved once.
    pub bytes_per_s: f64,
    /// What keeps a perfect kernel from being faster: `compute` or `memory`.
    pub bound: &'static str,
    /// Time that a perfect kernel would take over the time taken. Above 1 where operands come from caches, which
    /// are faster than memory; `None` where no time was measured.
    pub share: Option<f64>,
}

/// Sums `profile` (label and seconds of each node of `program`, in order) per op, the slowest first.
pub fn op_times(graph: &Graph, program: ProgramId, profile: &[(String, f64)], peaks: &Peaks) -> Vec<OpTime> {
    let nodes = graph.nodes().iter().filter(|node| node.program == program);
    let mut sums: BTreeMap<&str, (usize, f64, Cost, [f64; 2])> = BTreeMap::new();
    for (node, (name, seconds)) in nodes.zip(profile) {
        let cost = graph.node_cost(node);
        let ideal = [cost.flops / peaks.f32.best, cost.bytes / peaks.read.best];
        let bound = usize::from(ideal[1] > ideal[0]);
        let sum = sums.entry(name).or_default();
        sum.0 += 1;
        sum.1 += seconds;
        sum.2 = sum.2 + cost;
        sum.3[bound] += ideal[bound];
    }
    let mut all: Vec<OpTime> = sums
        .into_iter()
        .map(|(op, (nodes, seconds, cost, ideal))| {
            let per_second = |work: f64| if seconds > 0.0 { work / seconds } else { 0.0 };
            OpTime {
                op: op.into(),
                nodes,
                seconds,
                flops_per_s: per_second(cost.flops),
                bytes_per_s: per_second(cost.bytes),
                bound: if ideal[1] > ideal[0] { "memory" } else { "compute" },
                share: (seconds > 0.0).then(|| (ideal[0] + ideal[1]) / seconds),
            }
        })
        .collect();
    all.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    all
}
