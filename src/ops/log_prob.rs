//! Log-probability of sequences: `logp[s] = - sum of nll[n] over the positions of sequence s`. nll [N] is a
//! cross-entropy's, 0 where the label is ignored, so only judged tokens count. ranges [S, 2], u32: sequence s is the
//! positions `ranges[s, 0]..ranges[s, 1]`, maybe none; no two sequences share one, and some may belong to none.
//!
//! logp [S, 2] is in two parts that add up to it, a whole number and a rest in (-1, 0]: losses are of small differences of
//! such sums, which an f32 for both would round away.
//!
//! Backward: `dnll[n] = - dlogp[s, 1]` for the positions of sequence s, 0 for those of none; the whole number is constant.

use super::reference::Real;
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, Fill, Io, NodeIo, OpDef, RefIo, Signature, Slot, Tape,
    TensorType, row_grid, row_kernel,
};
use std::ops::Range;

/// nll, ranges -> logp. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProb;

/// dlogp, ranges -> dnll [N].
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbBackward {
    /// N.
    pub positions: usize,
}

/// The two parts of a log-probability.
pub fn parts(logp: f64) -> [f64; 2] {
    [logp.ceil(), logp - logp.ceil()]
}

/// A launch over sequences.
fn launch(caps: &Caps, entry: &'static str, sequences: usize) -> Command {
    let (kernel, _) = row_kernel("log_prob", entry, caps, 1);
    let bindings = [Slot::In(0), Slot::In(1), Slot::Out(0)].map(Binding::from);
    Dispatch::command(kernel, bindings, &(sequences as u32), row_grid(caps, sequences))
}

/// Positions of each sequence.
fn sequences(ranges: &[u32]) -> impl Iterator<Item = Range<usize>> {
    ranges.chunks(2).map(|range| range[0] as usize..range[1] as usize)
}

impl OpDef for LogProb {
    fn name(&self) -> &'static str {
        "log_prob"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let sequences = inputs[1].elements() / 2;
        assert_eq!(inputs[1], TensorType::u32(&[sequences, 2]), "log_prob: ranges");
        Signature::of([TensorType::f32(&[sequences, 2])])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        vec![launch(caps, "forward", io.output(0).rows())]
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dlogp) = tape.grad(node.outputs[0]) else { return };
        let (nll, ranges) = (node.inputs[0], node.inputs[1]);
        let positions = tape.ty(nll).elements();
        let dnll = tape.emit(LogProbBackward { positions }.into(), &[dlogp, ranges])[0];
        tape.give(nll, dnll);
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: io.input(0).elements() as f64, ..Cost::elementwise(io, 0.0) }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (nll, ranges) = (io.input(0), io.indices(1));
        for (logp, sequence) in io.out(0).chunks_mut(2).zip(sequences(ranges)) {
            let sum: f64 = nll[sequence].iter().map(|x| x.f64()).sum();
            logp.copy_from_slice(&parts(-sum).map(T::of));
        }
    }
}

impl OpDef for LogProbBackward {
    fn name(&self) -> &'static str {
        "log_prob_backward"
    }

    fn infer(&self, _inputs: &[TensorType]) -> Signature {
        Signature::of([TensorType::f32(&[self.positions])])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        vec![Command::Clear(Slot::Out(0)), launch(caps, "backward", io.input(0).rows())]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 1.0)
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (dlogp, ranges) = (io.input(0), io.indices(1));
        for (d, sequence) in dlogp.chunks(2).zip(sequences(ranges)) {
            io.out(0)[sequence].fill(-d[1]);
        }
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let case = |positions: usize, ranges: &[[u32; 2]]| {
        Case::new(LogProb)
            .with(&[positions], Fill::Normal(3.0))
            .fixed(TensorType::u32(&[ranges.len(), 2]), Fill::Indices(ranges.as_flattened().to_vec()))
    };
    vec![
        case(1, &[[0, 1]]),
        // Empty sequences, positions of none, and no order.
        case(80, &[[0, 0], [0, 7], [30, 72], [7, 29], [9, 9]]),
        case(4200, &[[0, 65], [65, 66], [66, 131], [131, 4160]]),
        case(90, &(0..90).map(|n| [n, n + 1]).collect::<Vec<_>>()),
    ]
}
