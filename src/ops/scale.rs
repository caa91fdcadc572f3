//! Scale: `y = factor * x`, such as what an adapter adds. x and y have one shape.
//!
//! Backward: `dx = factor * dy`, the op itself; nothing is saved.

use super::launch::{elementwise_kernel, elementwise_parts};
use super::reference::{Real, for_rows};
use super::{
    Caps, Case, Command, Cost, Dispatch, Fill, Io, NodeIo, OpDef, RefIo, Signature, Slot, Tape, TensorType,
};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// What every element is multiplied by.
    pub factor: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    count: u32,
    factor: f32,
}

impl OpDef for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        Signature::of([inputs[0].clone()])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let elements = io.output(0).elements();
        let launch = |(range, count, grid)| {
            let part = |slot: Slot| slot.window(&range, elements, 4);
            let kernel = elementwise_kernel("scale", "forward", caps, elements);
            let params = Params { count, factor: self.factor };
            Dispatch::command(kernel, [part(Slot::In(0)).texels(), part(Slot::Out(0))], &params, grid)
        };
        elementwise_parts(elements).map(launch).collect()
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dy) = tape.grad(node.outputs[0]) else { return };
        if tape.wanted(node.inputs[0]) {
            let dx = tape.emit(self.clone().into(), &[dy])[0];
            tape.give(node.inputs[0], dx);
        }
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 1.0)
    }

    fn cheap(&self) -> bool {
        true
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (x, factor) = (io.input(0), T::of(f64::from(self.factor)));
        let columns = io.io.output(0).columns();
        for_rows(io.out(0), columns, |row, y| {
            for (i, y) in y.iter_mut().enumerate() {
                *y = factor * x[row * columns + i];
            }
        });
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    [([1, 1], 2.0), ([7, 65], -0.5), ([13, 64], 0.75), ([260, 68], 1.5)]
        .map(|(shape, factor)| Case::new(Scale { factor }).with(&shape, Fill::Normal(1.0)))
        .to_vec()
}
