//! Add: `y = a + b`, the residual connection. a, b, y have one shape.
//!
//! Backward: both inputs receive dy itself; nothing is computed or saved.

use super::reference::{Real, for_rows};
use super::{Caps, Case, Command, Cost, Fill, Io, NodeIo, OpDef, RefIo, Signature, Slot, Tape, TensorType};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Add;

impl OpDef for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        assert_eq!(inputs[0], inputs[1], "add: shapes differ");
        Signature::of([inputs[0].clone()])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let slots = [Slot::In(0), Slot::In(1), Slot::Out(0)];
        super::elementwise("add", "forward", caps, io.output(0).elements(), slots)
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dy) = tape.grad(node.outputs[0]) else { return };
        for &input in &node.inputs {
            if tape.wanted(input) {
                tape.share(input, dy);
            }
        }
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 1.0)
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (a, b) = (io.input(0), io.input(1));
        let columns = io.io.output(0).columns();
        for_rows(io.out(0), columns, |row, y| {
            let at = row * columns;
            for (i, y) in y.iter_mut().enumerate() {
                *y = a[at + i] + b[at + i];
            }
        });
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    [[1, 1], [7, 65], [13, 64]]
        .map(|shape| Case::new(Add).with(&shape, Fill::Normal(1.0)).with(&shape, Fill::Normal(1.0)))
        .to_vec()
}
