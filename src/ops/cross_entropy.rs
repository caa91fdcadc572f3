//! Cross-entropy of given logits: `nll[n] = logsumexp(logits[n]) - logits[n, label[n]]`, 0 where the label is
//! ignored (-100). logits [N, V], labels [N]; nll [N], lse [N] (the logsumexp, saved). Softmax runs in f32.
//!
//! Backward: `dlogits = dnll (softmax(logits) - one_hot(label))`, 0 in ignored rows.
//!
//! Training uses `linear_cross_entropy`, which never stores the logits; both share these kernels.

use super::host::IGNORE;
use super::reference::{Real, for_rows};
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, Fill, Io, NodeIo, OpDef, RefIo, Signature, Slot, Tape,
    TensorType, fold, row_grid, row_kernel,
};

/// logits, labels -> nll, lse. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy;

/// dnll, logits, labels, lse -> dlogits.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropyBackward;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    rows: u32,
    columns: u32,
    first: u32,
}

/// A chunk of the classes: its logits are a dense [rows, columns] tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub rows: usize,
    pub columns: usize,
    /// Class of the first column.
    pub first: usize,
}

impl Chunk {
    fn launch(
        &self,
        caps: &Caps,
        entry: &'static str,
        flag: &'static str,
        bindings: Vec<Binding>,
    ) -> Command {
        let (kernel, _) = row_kernel("cross_entropy", entry, caps, self.columns);
        let params =
            Params { rows: self.rows as u32, columns: self.columns as u32, first: self.first as u32 };
        Dispatch::command(kernel.flag(flag, !flag.is_empty()), bindings, &params, row_grid(caps, self.rows))
    }

    /// Folds the chunk into the running state [rows, 4].
    pub fn scan(&self, caps: &Caps, logits: Binding, labels: Slot, state: Slot) -> Command {
        self.launch(caps, "scan", "", vec![logits.texels(), labels.into(), state.into()])
    }

    /// Replaces the chunk's logits by their gradient.
    pub fn gradient_in_place(
        &self,
        caps: &Caps,
        labels: Slot,
        lse: Slot,
        dnll: Slot,
        logits: Binding,
    ) -> Command {
        self.launch(caps, "gradient", "in_place", vec![labels.into(), lse.into(), dnll.into(), logits])
    }
}

/// Turns the running state into nll and lse.
pub(super) fn finish(caps: &Caps, rows: usize, state: Slot, labels: Slot, nll: Slot, lse: Slot) -> Command {
    let (kernel, _) = row_kernel("cross_entropy", "finish", caps, 4);
    let params = Params { rows: rows as u32, columns: 0, first: 0 };
    let grid = fold(rows.div_ceil(super::ELEMENT_GROUP as usize));
    Dispatch::command(kernel, [state.texels(), labels.into(), nll.into(), lse.into()], &params, grid)
}

/// (logsumexp, nll) of one row.
pub(super) fn row_loss<T: Real>(logits: &[T], label: u32) -> (T, T) {
    let peak = logits.iter().copied().fold(logits[0], T::larger);
    let sum: T = logits.iter().map(|&x| (x - peak).exp()).sum();
    let lse = peak + sum.ln();
    (lse, if label == IGNORE { T::of(0.0) } else { lse - logits[label as usize] })
}

/// Turns a row of logits into its gradient.
pub(super) fn row_gradient<T: Real>(logits: &mut [T], label: u32, lse: T, dnll: T) {
    let scale = if label == IGNORE { T::of(0.0) } else { dnll };
    for (class, x) in logits.iter_mut().enumerate() {
        let hit = T::of((class as u32 == label) as u32 as f64);
        *x = scale * ((*x - lse).exp() - hit);
    }
}

impl OpDef for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let rows = TensorType::f32(&[inputs[0].rows()]);
        assert_eq!(inputs[1].shape, rows.shape, "cross_entropy: one label per row");
        let state = TensorType::f32(&[inputs[0].rows(), 4]);
        Signature::of([rows.clone(), rows]).with_scratch([state])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let logits = io.input(0);
        let chunk = Chunk { rows: logits.rows(), columns: logits.columns(), first: 0 };
        vec![
            chunk.scan(caps, Slot::In(0).into(), Slot::In(1), Slot::Scratch(0)),
            finish(caps, chunk.rows, Slot::Scratch(0), Slot::In(1), Slot::Out(0), Slot::Out(1)),
        ]
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dnll) = tape.grad(node.outputs[0]) else { return };
        let inputs = [dnll, node.inputs[0], node.inputs[1], node.outputs[1]];
        let dlogits = tape.emit(CrossEntropyBackward.into(), &inputs)[0];
        tape.give(node.inputs[0], dlogits);
    }

    fn cost(&self, io: &Io) -> Cost {
        let logits = io.input(0);
        Cost { flops: 4.0 * logits.elements() as f64, bytes: 2.0 * logits.bytes() as f64 }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (logits, labels) = (io.input(0), io.indices(1));
        let columns = io.io.input(0).columns();
        let [nll, lse] = io.outs();
        for (n, row) in logits.chunks(columns).enumerate() {
            (lse[n], nll[n]) = row_loss(row, labels[n]);
        }
    }
}

impl OpDef for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        Signature::of([inputs[1].clone()])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let logits = io.input(1);
        let chunk = Chunk { rows: logits.rows(), columns: logits.columns(), first: 0 };
        let mut bindings = [Slot::In(2), Slot::In(3), Slot::In(0)].map(Binding::from).to_vec();
        bindings.extend([Slot::In(1).texels(), Slot::Out(0).into()]);
        vec![chunk.launch(caps, "gradient", "", bindings)]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 4.0)
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (dnll, logits, labels, lse) = (io.input(0), io.input(1), io.indices(2), io.input(3));
        let columns = io.io.input(1).columns();
        for_rows(io.out(0), columns, |n, row| {
            row.copy_from_slice(&logits[n * columns..][..columns]);
            row_gradient(row, labels[n], lse[n], dnll[n]);
        });
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    [(1, 1), (7, 65), (13, 128), (70, 30)]
        .map(|(rows, vocab)| {
            Case::new(CrossEntropy)
                .with(&[rows, vocab], Fill::Normal(3.0))
                .fixed(TensorType::u32(&[rows]), Fill::Labels(vocab as u32))
        })
        .to_vec()
}
