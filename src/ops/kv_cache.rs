//! Key/value cache of generation: rows of new keys (or values) are stored at their positions.
//! x [N, W] holds N / B new rows of each of B sequences; cache [B C, W] has room for C positions of each; row n goes
//! to position `positions[n]` of its sequence, and nowhere if that is [`ABSENT`] (padding). In place.

use super::reference::Real;
use super::{Caps, Case, Command, Cost, Dispatch, Fill, Io, OpDef, RefIo, Signature, Slot, TensorType, fold};

/// x, positions, cache -> cache. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct KvCache {
    /// C.
    pub capacity: usize,
}

/// Position of a row that is padding: it is not stored and sees nothing.
pub const ABSENT: u32 = u32::MAX;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    /// `Elem`s of x.
    count: u32,
    /// `Elem`s of a row.
    width: u32,
    /// New rows of a sequence.
    rows: u32,
    capacity: u32,
}

impl KvCache {
    fn rows(&self, io: &Io) -> usize {
        io.input(0).rows() * self.capacity / io.input(2).rows()
    }
}

impl OpDef for KvCache {
    fn name(&self) -> &'static str {
        "kv_cache"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let (x, positions, cache) = (&inputs[0], &inputs[1], &inputs[2]);
        assert!(cache.rows().is_multiple_of(self.capacity), "kv_cache: {cache:?} of {}", self.capacity);
        assert!(x.rows().is_multiple_of(cache.rows() / self.capacity), "kv_cache: {x:?} into {cache:?}");
        assert_eq!(x.columns(), cache.columns(), "kv_cache: widths differ");
        assert_eq!(positions.elements(), x.rows(), "kv_cache: one position per row");
        Signature::of([cache.clone()]).updating(0, 2)
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let x = io.input(0);
        let (kernel, width) =
            super::row_kernel("kv_cache", "store", &super::worth_texels(caps, x.elements()), x.columns());
        let count = x.rows() as u32 * width;
        let params = Params { count, width, rows: self.rows(io) as u32, capacity: self.capacity as u32 };
        let bindings = [Slot::In(0).texels(), Slot::In(1).into(), Slot::Out(0).into()];
        vec![Dispatch::command(
            kernel,
            bindings,
            &params,
            fold(count.div_ceil(super::ELEMENT_GROUP) as usize),
        )]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 0.0, bytes: 2.0 * io.input(0).bytes() as f64 }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (x, positions, width, rows) =
            (io.input(0), io.indices(1), io.io.input(0).columns(), self.rows(&io.io));
        let cache = io.out(0);
        for (n, (x, &position)) in x.chunks(width).zip(positions).enumerate() {
            if (position as usize) < self.capacity {
                let row = n / rows * self.capacity + position as usize;
                cache[row * width..][..width].copy_from_slice(x);
            }
        }
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let case = |width: usize, capacity: usize, positions: &[&[u32]]| {
        let rows = positions.concat();
        Case::new(KvCache { capacity })
            .fixed(TensorType::f32(&[rows.len(), width]), Fill::Normal(1.0))
            .fixed(TensorType::u32(&[rows.len()]), Fill::Indices(rows))
            .fixed(TensorType::f32(&[positions.len() * capacity, width]), Fill::Normal(1.0))
    };
    vec![
        case(1, 1, &[&[0]]),
        case(7, 5, &[&[4], &[ABSENT], &[0]]),
        case(24, 70, &[&[ABSENT, 0, 1], &[66, 67, 68]]),
    ]
}
