//! The update program: global norm, clipping and AdamW over all trained parameters. Gradients come here and nowhere
//! else.

use crate::graph::store::state_name;
use crate::graph::{Graph, Kind, ProgramId};
use crate::ops::adamw::{AdamW, STATES};
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
}

impl Update {
    /// Appends the programs; `gradients` pairs every value of a trained parameter with its gradient.
    pub fn new(graph: &mut Graph, gradients: &HashMap<ValueId, ValueId>) -> Self {
        let trained: Vec<(ValueId, bool)> = graph
            .parameters()
            .iter()
            .filter(|parameter| parameter.spec.trained)
            .flat_map(|parameter| parameter.shards.iter().map(|&shard| (shard, parameter.spec.decayed)))
            .collect();
        let gradient = |(weight, _): &(ValueId, bool)| {
            let name = &graph.value(*weight).name;
            *gradients.get(weight).unwrap_or_else(|| panic!("no loss depends on {name}, but it is trained"))
        };
        let all: Vec<ValueId> = trained.iter().map(gradient).collect();
        let hyper = graph.input("hyperparameters", TensorType::f32(&[8]));
        let states: Vec<[ValueId; 2]> = trained
            .iter()
            .map(|&(weight, _)| {
                let value = graph.value(weight);
                let (name, ty) = (value.name.clone(), value.ty.clone());
                STATES
                    .map(|state| graph.add_value(state_name(state, &name), ty.clone(), Kind::OptimizerState))
            })
            .collect();
        let program = graph.program("update");
        let norm = graph.push(GlobalNorm, &all)[0];
        graph.keep(norm);
        for ((&(weight, decayed), &gradient), [m, v]) in trained.iter().zip(&all).zip(states) {
            graph.push(AdamW { decayed }, &[gradient, hyper, norm, weight, m, v]);
        }
        let zero = graph.program("zero gradients");
        for gradient in all {
            graph.push(Zero, &[gradient]);
        }
        Update { program, zero, hyper, norm }
    }
}
