//! Embedding: row `ids[n]` of the table for each of N tokens. ids [N]; table [V, D], possibly split into row
//! shards so that each fits one storage binding; y [N, D].
//!
//! Backward: row v of the table's gradient is the sum of dy over the tokens with id v. Tokens come sorted by id
//! (`order`, made on the host), so that each row has one writer and a fixed order of addition.

use super::reference::Real;
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, Fill, Io, Kernel, NodeIo, OpDef, RefIo, Signature, Slot,
    Tape, TensorType, WeightGradient, fold, take_partials,
};

/// ids, [order], table shards -> y. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Whether a gradient will be wanted: input 1 is then `order` [N].
    pub trainable: bool,
}

/// ids, order, dy, [gradient so far per shard] -> gradient per shard.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingBackward {
    /// Rows of each shard.
    pub shard_rows: Vec<usize>,
    /// Whether the shards' gradients are new or added to.
    pub table: WeightGradient,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    tokens: u32,
    columns: u32,
    first: u32,
    rows: u32,
}

/// A launch per shard; `bindings(s)` are the shard's.
fn per_shard<const N: usize>(
    caps: &Caps,
    entry: &'static str,
    tokens: usize,
    columns: usize,
    shard_rows: impl Iterator<Item = usize>,
    bindings: impl Fn(usize) -> [Binding; N],
) -> Vec<Command> {
    let mut first = 0;
    let launch = |(shard, rows): (usize, usize)| {
        let (kernel, width): (Kernel, u32) = super::row_kernel("embedding", entry, caps, columns);
        let params = Params { tokens: tokens as u32, columns: width, first: first as u32, rows: rows as u32 };
        first += rows;
        Dispatch::command(kernel, bindings(shard), &params, fold(tokens))
    };
    shard_rows.enumerate().map(launch).collect()
}

impl Embedding {
    fn shards(&self) -> usize {
        1 + self.trainable as usize
    }
}

impl OpDef for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let width = inputs[self.shards()].columns();
        assert!(
            inputs[self.shards()..].iter().all(|w| w.columns() == width),
            "embedding: shards differ in width"
        );
        Signature::of([TensorType::f32(&[inputs[0].elements(), width])])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let base = self.shards();
        let shard_rows = io.inputs[base..].iter().map(TensorType::rows);
        let y = io.output(0);
        per_shard(caps, "forward", y.rows(), y.columns(), shard_rows, |shard| {
            [Slot::In(0).into(), Slot::In(base + shard).texels(), Slot::Out(0).into()]
        })
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dy) = tape.grad(node.outputs[0]) else { return };
        assert!(self.trainable, "embedding: built without `order`, so it has no gradient");
        let shards = &node.inputs[2..];
        let (table, partials) = take_partials(tape, shards);
        let shard_rows = shards.iter().map(|&w| tape.ty(w).rows()).collect();
        let columns = tape.ty(shards[0]).columns();
        let inputs: Vec<_> = [node.inputs[0], node.inputs[1], dy].into_iter().chain(partials).collect();
        assert_eq!(columns, tape.ty(dy).columns());
        let grads = tape.emit(EmbeddingBackward { shard_rows, table }.into(), &inputs);
        for (&shard, grad) in shards.iter().zip(grads) {
            tape.give(shard, grad);
        }
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 0.0, bytes: 2.0 * io.output(0).bytes() as f64 }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let ids = io.indices(0);
        let columns = io.io.output(0).columns();
        for (n, &id) in ids.iter().enumerate() {
            let mut row = id as usize;
            let mut shard = self.shards();
            while row >= io.io.input(shard).rows() {
                row -= io.io.input(shard).rows();
                shard += 1;
            }
            let from = &io.input(shard)[row * columns..][..columns];
            io.out(0)[n * columns..][..columns].copy_from_slice(from);
        }
    }
}

impl OpDef for EmbeddingBackward {
    fn name(&self) -> &'static str {
        "embedding_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let columns = inputs[2].columns();
        let shards: Vec<_> = self.shard_rows.iter().map(|&rows| TensorType::f32(&[rows, columns])).collect();
        let mut signature = Signature::of(shards);
        if self.table.accumulates() {
            signature.in_place = (0..self.shard_rows.len()).map(|s| (s, 3 + s)).collect();
        }
        signature
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let dy = io.input(2);
        let clears = (0..self.shard_rows.len())
            .filter(|_| !self.table.accumulates())
            .map(|s| Command::Clear(Slot::Out(s)));
        let sums =
            per_shard(caps, "backward", dy.rows(), dy.columns(), self.shard_rows.iter().copied(), |shard| {
                [Slot::In(0).into(), Slot::In(1).into(), Slot::In(2).texels(), Slot::Out(shard).into()]
            });
        clears.chain(sums).collect()
    }

    fn cost(&self, io: &Io) -> Cost {
        let dy = io.input(2);
        Cost { flops: dy.elements() as f64, bytes: 3.0 * dy.bytes() as f64 }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (ids, dy) = (io.indices(0), io.input(2));
        let columns = io.io.input(2).columns();
        for (n, &id) in ids.iter().enumerate() {
            let (mut row, mut shard) = (id as usize, 0);
            while row >= self.shard_rows[shard] {
                row -= self.shard_rows[shard];
                shard += 1;
            }
            let sum = &mut io.out(shard)[row * columns..][..columns];
            for (s, &d) in sum.iter_mut().zip(&dy[n * columns..][..columns]) {
                *s += d;
            }
        }
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let case = |tokens: usize, shards: &[usize], columns: usize| {
        let vocab: usize = shards.iter().sum();
        let case = Case::new(Embedding { trainable: true })
            .fixed(TensorType::u32(&[tokens]), Fill::Ids(vocab as u32))
            .fixed(TensorType::u32(&[tokens]), Fill::OrderOf(0));
        shards.iter().fold(case, |case, &rows| case.with(&[rows, columns], Fill::Normal(1.0)))
    };
    vec![case(1, &[1], 1), case(7, &[5], 65), case(65, &[31], 64), case(40, &[16, 16, 3], 20)]
}
