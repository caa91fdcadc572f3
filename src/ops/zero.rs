//! Zero: `x = 0`, in place; opens a step whose gradients are accumulated over several micro-batches.

use super::reference::Real;
use super::{Caps, Case, Command, Cost, Fill, Io, OpDef, RefIo, Signature, Slot, TensorType};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Zero;

impl OpDef for Zero {
    fn name(&self) -> &'static str {
        "zero"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        Signature::of([inputs[0].clone()]).updating(0, 0)
    }

    fn lower(&self, _io: &Io, _caps: &Caps) -> Vec<Command> {
        vec![Command::Clear(Slot::Out(0))]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 0.0, bytes: io.output(0).bytes() as f64 }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        io.out(0).fill(T::default());
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    [1, 65, 300].map(|n| Case::new(Zero).fixed(TensorType::f32(&[n]), Fill::Normal(1.0))).to_vec()
}
