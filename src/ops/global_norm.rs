//! Global norm: the Euclidean norm of several tensors taken together; what gradient clipping compares.
//! Inputs of any shape, norm [1]. f32 sums in two stages: 64 partial sums per tensor, then all of them.

use super::reference::Real;
use super::{
    Caps, Case, Command, Cost, Dispatch, Fill, Io, OpDef, RefIo, Signature, Slot, TensorType, row_grid,
    row_kernel,
};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalNorm;

/// Partial sums per tensor: 256 bytes, the alignment that a binding window needs.
const PARTIALS: usize = 64;

impl OpDef for GlobalNorm {
    fn name(&self) -> &'static str {
        "global_norm"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        Signature::of([TensorType::f32(&[1])]).with_scratch([TensorType::f32(&[inputs.len(), PARTIALS])])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let mut commands: Vec<Command> = (0..io.inputs.len())
            .map(|i| {
                let (kernel, count) = row_kernel("global_norm", "squares", caps, io.input(i).elements());
                let window = Slot::Scratch(0).rows(i, 1, io.scratch(0).row_bytes());
                let bindings = [Slot::In(i).texels(), window];
                Dispatch::command(kernel, bindings, &count, row_grid(caps, PARTIALS))
            })
            .collect();
        let (kernel, count) = row_kernel("global_norm", "finish", caps, io.inputs.len() * PARTIALS);
        let bindings = [Slot::Scratch(0).texels(), Slot::Out(0).into()];
        commands.push(Dispatch::command(kernel, bindings, &count, [1, 1, 1]));
        commands
    }

    fn cost(&self, io: &Io) -> Cost {
        let elements: usize = io.inputs.iter().map(TensorType::elements).sum();
        Cost { flops: 2.0 * elements as f64, ..Cost::elementwise(io, 0.0) }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let squares = |x: &[T]| x.iter().map(|&x| x.f64() * x.f64()).sum::<f64>();
        let sum: f64 = (0..io.inputs.len()).map(|i| squares(io.input(i))).sum();
        io.out(0)[0] = T::of(sum.sqrt());
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let case = |shapes: &[&[usize]]| {
        shapes
            .iter()
            .fold(Case::new(GlobalNorm), |case, shape| case.fixed(TensorType::f32(shape), Fill::Normal(3.0)))
    };
    vec![case(&[&[1]]), case(&[&[7, 65], &[64], &[1000]]), case(&[&[300, 17], &[4096]])]
}
