//! Swiglu: `y = silu(gate) * up` with `silu(x) = x * sigmoid(x)` (Shazeer 2020, arXiv 2002.05202).
//! gate, up, y are [N, F].
//!
//! Backward, with s = sigmoid(gate):
//! `dgate = dy * up * s * (1 + gate * (1 - s))`, `dup = dy * gate * s`. The inputs are kept; y is not needed.

use super::reference::{Real, for_rows};
use super::{Caps, Case, Command, Cost, Fill, Io, NodeIo, OpDef, RefIo, Signature, Slot, Tape, TensorType};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Swiglu;

/// dy, gate, up -> dgate, dup.
#[derive(Clone, Debug, PartialEq)]
pub struct SwigluBackward;

impl OpDef for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        assert_eq!(inputs[0], inputs[1], "swiglu: gate and up differ in shape");
        Signature::of([inputs[0].clone()])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let slots = [Slot::In(0), Slot::In(1), Slot::Out(0)];
        super::elementwise("swiglu", "forward", caps, io.output(0).elements(), slots)
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dy) = tape.grad(node.outputs[0]) else { return };
        let (gate, up) = (node.inputs[0], node.inputs[1]);
        let grads = tape.emit(SwigluBackward.into(), &[dy, gate, up]);
        for (input, grad) in [gate, up].into_iter().zip(grads) {
            if tape.wanted(input) {
                tape.give(input, grad);
            }
        }
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 5.0)
    }

    fn cheap(&self) -> bool {
        true
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (gate, up) = (io.input(0), io.input(1));
        let columns = io.io.output(0).columns();
        for_rows(io.out(0), columns, |row, y| {
            for (i, y) in y.iter_mut().enumerate() {
                let g = gate[row * columns + i];
                *y = g * sigmoid(g) * up[row * columns + i];
            }
        });
    }
}

impl OpDef for SwigluBackward {
    fn name(&self) -> &'static str {
        "swiglu_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        Signature::of([inputs[1].clone(), inputs[2].clone()])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let slots = [Slot::In(0), Slot::In(1), Slot::In(2), Slot::Out(0), Slot::Out(1)];
        super::elementwise("swiglu", "backward", caps, io.output(0).elements(), slots)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 12.0)
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (dy, gate, up) = (io.input(0), io.input(1), io.input(2));
        let one = T::of(1.0);
        let [dgate, dup] = io.outs();
        for_rows(dgate, 256, |block, dgate| {
            for (i, dgate) in dgate.iter_mut().enumerate() {
                let (at, s) = (block * 256 + i, sigmoid(gate[block * 256 + i]));
                *dgate = dy[at] * up[at] * s * (one + gate[at] * (one - s));
            }
        });
        for_rows(dup, 256, |block, dup| {
            for (i, dup) in dup.iter_mut().enumerate() {
                let at = block * 256 + i;
                *dup = dy[at] * gate[at] * sigmoid(gate[at]);
            }
        });
    }
}

fn sigmoid<T: Real>(x: T) -> T {
    T::of(1.0) / (T::of(1.0) + (-x).exp())
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    [[1, 1], [7, 65], [5, 96]]
        .map(|shape| Case::new(Swiglu).with(&shape, Fill::Normal(2.0)).with(&shape, Fill::Normal(1.0)))
        .to_vec()
}
