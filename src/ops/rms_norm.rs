//! RMS norm: `y = x * r * w` with `r = 1 / sqrt(mean(x^2) + eps)` per row (Zhang & Sennrich 2019, arXiv 1910.07467).
//! x, y [N, D], w [D]; r [N] is saved. Sums run in f32.
//!
//! Backward, with `h = x r` and `g = dy * w`:
//! `dx = r (g - h mean(g h))` (+ the residual branch's gradient, so that no `add` is needed) and
//! `dw = sum over rows of dy * h`, in two stages because float atomics would not repeat bit for bit.

use super::reference::{Real, for_rows, sum_rows};
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, Fill, Io, Kernel, NodeIo, OpDef, RefIo, Signature, Slot,
    Tape, TensorType, WeightGradient, take_partials,
};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f32,
}

/// dy, x, w, r, [residual gradient], [dw so far] -> dx, [dw].
#[derive(Clone, Debug, PartialEq)]
pub struct RmsNormBackward {
    /// Whether a gradient is added to dx.
    pub residual: bool,
    /// What becomes of dw.
    pub weight: WeightGradient,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    rows: u32,
    /// In elements of the shader's `Elem`.
    columns: u32,
    blocks: u32,
    rows_per_block: u32,
    eps: f32,
}

/// Row blocks whose partial sums of dw are added in a second stage.
fn blocks(rows: usize) -> usize {
    rows.div_ceil(32).min(64)
}

impl OpDef for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        assert_eq!(inputs[1].shape, [inputs[0].columns()], "rms_norm: weight must be [D]");
        Signature::of([inputs[0].clone(), TensorType::f32(&[inputs[0].rows()])])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let x = io.input(0);
        let (kernel, width) =
            super::row_kernel("rms_norm", "forward", &super::worth_texels(caps, x.elements()), x.columns());
        let params =
            Params { rows: x.rows() as u32, columns: width, blocks: 0, rows_per_block: 0, eps: self.eps };
        let bindings = [Slot::In(0).texels(), Slot::In(1).texels(), Slot::Out(0).into(), Slot::Out(1).into()];
        vec![Dispatch::command(kernel, bindings, &params, super::row_grid(caps, x.rows()))]
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dy) = tape.grad(node.outputs[0]) else { return };
        let (x, w) = (node.inputs[0], node.inputs[1]);
        let residual = tape.partial(x);
        let (weight, dw) = take_partials(tape, &[w]);
        let op = RmsNormBackward { residual: residual.is_some(), weight };
        let inputs: Vec<_> = [dy, x, w, node.outputs[1]].into_iter().chain(residual).chain(dw).collect();
        let grads = tape.emit(op.into(), &inputs);
        tape.give(x, grads[0]);
        if weight.wanted() {
            tape.give(w, grads[1]);
        }
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 4.0)
    }

    fn cheap(&self) -> bool {
        true
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (x, w) = (io.input(0), io.input(1));
        let d = w.len();
        let eps = T::of(self.eps as f64);
        let [y, r] = io.outs();
        for_rows(r, 1, |row, r| {
            let square: T = x[row * d..(row + 1) * d].iter().map(|&x| x * x).sum();
            r[0] = T::of(1.0) / (square / T::of(d as f64) + eps).sqrt();
        });
        for_rows(y, d, |row, y| {
            for (i, y) in y.iter_mut().enumerate() {
                *y = x[row * d + i] * r[row] * w[i];
            }
        });
    }
}

impl OpDef for RmsNormBackward {
    fn name(&self) -> &'static str {
        "rms_norm_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let (x, w) = (&inputs[1], &inputs[2]);
        if !self.weight.wanted() {
            return Signature::of([x.clone()]);
        }
        let partials = TensorType::f32(&[blocks(x.rows()), x.columns()]);
        let signature = Signature::of([x.clone(), w.clone()]).with_scratch([partials]);
        if self.weight.accumulates() { signature.updating(1, inputs.len() - 1) } else { signature }
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let (rows, columns) = (io.input(1).rows(), io.input(1).columns());
        let blocks = blocks(rows);
        let (dx, width) = super::row_kernel("rms_norm", "backward", caps, columns);
        let params = Params {
            rows: rows as u32,
            columns: width,
            blocks: blocks as u32,
            rows_per_block: rows.div_ceil(blocks) as u32,
            eps: 0.0,
        };
        let [dy, x, w] = [0, 1, 2].map(|i| Slot::In(i).texels());
        let r = Slot::In(3).into();
        let mut bindings = vec![dy, x, w, r];
        bindings.extend(self.residual.then_some(Slot::In(4).texels()));
        bindings.push(Slot::Out(0).into());
        let across = |kernel: Kernel, bindings: &[Binding], y: usize| {
            let groups = (width as usize).div_ceil(super::ELEMENT_GROUP as usize);
            Dispatch::command(kernel, bindings.iter().copied(), &params, [groups as u32, y as u32, 1])
        };
        let column_kernel = |entry| super::row_kernel("rms_norm", entry, caps, columns).0;
        let mut commands = vec![Dispatch::command(
            dx.flag("residual", self.residual),
            bindings,
            &params,
            super::row_grid(caps, rows),
        )];
        if self.weight.wanted() {
            let partials = [dy, x, r, Slot::Scratch(0).into()];
            commands.push(across(column_kernel("weight_partials"), &partials, blocks));
            commands.push(across(
                column_kernel("weight_sum").flag("accumulate", self.weight.accumulates()),
                &[Slot::Scratch(0).texels(), Slot::Out(1).into()],
                1,
            ));
        }
        commands
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 10.0)
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (dy, x, w, r) = (io.input(0), io.input(1), io.input(2), io.input(3));
        let residual = self.residual.then(|| io.input(4));
        let d = w.len();
        for_rows(io.out(0), d, |row, dx| {
            let at = row * d;
            let dot: T = (0..d).map(|i| dy[at + i] * w[i] * x[at + i] * r[row]).sum();
            let mean = dot / T::of(d as f64);
            for (i, dx) in dx.iter_mut().enumerate() {
                *dx = r[row] * (dy[at + i] * w[i] - x[at + i] * r[row] * mean);
                if let Some(residual) = residual {
                    *dx += residual[at + i];
                }
            }
        });
        if !self.weight.wanted() {
            return;
        }
        let sum = sum_rows(x.len() / d, d, |row, sum| {
            for (i, sum) in sum.iter_mut().enumerate() {
                *sum += dy[row * d + i] * x[row * d + i] * r[row];
            }
        });
        for (dw, s) in io.out(1).iter_mut().zip(sum) {
            *dw += s;
        }
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let case = |shape: [usize; 2]| Case::new(RmsNorm { eps: 1e-5 }).with(&shape, Fill::Normal(1.5));
    let trained =
        [[1, 2], [7, 65], [70, 64], [2100, 12]].map(|shape| case(shape).with(&shape[1..], Fill::AroundOne));
    let frozen =
        [[7, 65], [70, 64]].map(|shape| case(shape).fixed(TensorType::f32(&shape[1..]), Fill::AroundOne));
    [trained.to_vec(), frozen.to_vec()].concat()
}
