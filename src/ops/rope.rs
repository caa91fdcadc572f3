//! Rotary position embedding, split-half (Su et al. 2021, arXiv 2104.09864; pairing as in `transformers`' Llama):
//! within each head, element i and element i + E/2 turn by the angle `position * theta^(-2i/E)`.
//! x, y [N, H E]; table [T, E] holds E/2 cosines, then E/2 sines per position; row n is at position n mod T, or at
//! `positions[n]` where that input [N] is given (generation: rows of different sequences stand anywhere).
//!
//! Backward: the rotation is orthogonal, so dx is dy turned back; nothing is saved.

use super::reference::{Real, for_rows};
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, Fill, Io, NodeIo, OpDef, RefIo, Signature, Slot, Tape,
    TensorType, fold,
};

/// x, table, [positions] -> y. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// E.
    pub head_dim: usize,
    /// Whether positions are given.
    pub placed: bool,
    /// Turn back instead.
    pub inverse: bool,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    /// Pairs of `Elem` in all.
    pairs: u32,
    /// Pairs of `Elem` in a head.
    half: u32,
    heads: u32,
    positions: u32,
    sign: f32,
}

/// Cosines and sines for positions `0..positions`: [positions, head_dim].
///
/// `transformers` rounds the inverse frequencies and the angles to f32; so do we, and take the cosine of the
/// rounded angle in f64.
pub fn table(positions: usize, head_dim: usize, theta: f64) -> Vec<f32> {
    let half = head_dim / 2;
    let frequency: Vec<f32> =
        (0..half).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32)).collect();
    let angle = |position: usize, i: usize| (position as f32 * frequency[i]) as f64;
    (0..positions)
        .flat_map(|p| {
            let cosines = (0..half).map(move |i| angle(p, i).cos() as f32);
            let sines = (0..half).map(move |i| angle(p, i).sin() as f32);
            cosines.chain(sines).collect::<Vec<_>>()
        })
        .collect()
}

impl OpDef for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let (x, table) = (&inputs[0], &inputs[1]);
        assert!(self.head_dim.is_multiple_of(2) && x.columns().is_multiple_of(self.head_dim), "rope: {x:?}");
        assert_eq!(table.columns(), self.head_dim, "rope: table must be [T, E]");
        match self.placed {
            true => assert_eq!(inputs[2].elements(), x.rows(), "rope: one position per row"),
            false => assert!(x.rows().is_multiple_of(table.rows()), "rope: {x:?} at positions of {table:?}"),
        }
        Signature::of([x.clone()])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let x = io.input(0);
        let caps = super::worth_texels(caps, x.elements());
        let (kernel, half) = super::row_kernel("rope", "forward", &caps, self.head_dim / 2);
        let heads = x.columns() / self.head_dim;
        let pairs = x.rows() * heads * half as usize;
        let params = Params {
            pairs: pairs as u32,
            half,
            heads: heads as u32,
            positions: io.input(1).rows() as u32,
            sign: if self.inverse { -1.0 } else { 1.0 },
        };
        let mut bindings = vec![Slot::In(0).texels(), Slot::In(1).texels(), Slot::Out(0).into()];
        bindings.extend(self.placed.then_some(Binding::from(Slot::In(2))));
        let grid = fold(pairs.div_ceil(super::ELEMENT_GROUP as usize));
        let kernel = kernel.flag("placed", self.placed);
        vec![Dispatch::command(kernel, bindings, &params, grid)]
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dy) = tape.grad(node.outputs[0]) else { return };
        let turned = Rope { inverse: !self.inverse, ..self.clone() };
        let dx = tape.emit(turned.into(), &[&[dy], &node.inputs[1..]].concat())[0];
        tape.give(node.inputs[0], dx);
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 3.0)
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (x, table) = (io.input(0), io.input(1));
        let (e, half) = (self.head_dim, self.head_dim / 2);
        let (heads, positions) = (io.io.input(0).columns() / e, table.len() / e);
        let sign = T::of(if self.inverse { -1.0 } else { 1.0 });
        let placed = self.placed.then(|| io.indices(2));
        let position = |row: usize| match placed {
            Some(all) => (all[row] as usize).min(positions - 1),
            None => row % positions,
        };
        for_rows(io.out(0), e, |block, y| {
            let turn = &table[position(block / heads) * e..][..e];
            let x = &x[block * e..][..e];
            for i in 0..half {
                let (cos, sin) = (turn[i], turn[half + i] * sign);
                y[i] = x[i] * cos - x[half + i] * sin;
                y[half + i] = x[half + i] * cos + x[i] * sin;
            }
        });
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let case = |placed: bool, rows: usize, positions: usize, heads: usize, head_dim: usize, theta: f64| {
        let angles = table(positions, head_dim, theta).iter().map(|&x| x as f64).collect();
        Case::new(Rope { head_dim, placed, inverse: false })
            .with(&[rows, heads * head_dim], Fill::Normal(1.0))
            .fixed(TensorType::f32(&[positions, head_dim]), Fill::Floats(angles))
    };
    let placed = |rows: usize, positions: usize, heads: usize, head_dim: usize| {
        case(true, rows, positions, heads, head_dim, 1e5)
            .fixed(TensorType::u32(&[rows]), Fill::Ids(positions as u32))
    };
    vec![
        case(false, 1, 1, 1, 2, 1e4),
        case(false, 14, 7, 3, 20, 1e4),
        case(false, 33, 33, 2, 64, 1e5),
        placed(3, 7, 3, 20),
        placed(9, 65, 2, 64),
    ]
}
