//! The update program: global norm, clipping and AdamW over all parameters. Gradients come here and nowhere else.

use crate::graph::{Graph, Kind, ProgramId};
use crate::ops::adamw::AdamW;
use crate::ops::global_norm::GlobalNorm;
use crate::ops::zero::Zero;
use crate::ops::{TensorType, ValueId};
use std::collections::HashMap;

/// The optimizer's part of a graph.
pub struct Update {
    /// Clip and step.
    pub program: ProgramId,
    /// Sets all gradients to zero.
    pub zero: ProgramId,
    /// The step's scalars, see [`crate::ops::adamw::Hyper`].
    pub hyper: ValueId,
    /// Norm of all gradients before clipping, [1].
    pub norm: ValueId,
    /// First and second moment per weight value.
    pub moments: HashMap<ValueId, [ValueId; 2]>,
}

impl Update {
    /// Appends the programs; `gradients` pairs every weight value of the graph with its gradient.
    pub fn new(graph: &mut Graph, gradients: &HashMap<ValueId, ValueId>) -> Self {
        let weights: Vec<ValueId> = graph.parameters().iter().flat_map(|p| p.shards.clone()).collect();
        let all: Vec<ValueId> = weights.iter().map(|w| gradients[w]).collect();
        let hyper = graph.input("hyperparameters", TensorType::f32(&[8]));
        let mut moments = HashMap::new();
        for &w in &weights {
            let (name, ty) = (graph.value(w).name.clone(), graph.value(w).ty.clone());
            let pair = ["exp_avg", "exp_avg_sq"]
                .map(|moment| graph.add_value(format!("{moment} {name}"), ty.clone(), Kind::Moment));
            moments.insert(w, pair);
        }
        let program = graph.program("update");
        let norm = graph.push(GlobalNorm, &all)[0];
        graph.keep(norm);
        for (&w, &g) in weights.iter().zip(&all) {
            let [m, v] = moments[&w];
            graph.push(AdamW, &[g, hyper, norm, w, m, v]);
        }
        let zero = graph.program("zero gradients");
        for g in all {
            graph.push(Zero, &[g]);
        }
        Update { program, zero, hyper, norm, moments }
    }
}
