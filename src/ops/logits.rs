//! Scores of every class for a few rows: the output head, whose rows may be split into shards.
//! x [N, D]; shards [R, D] of equal height R but for the last one; logits [N, V], stored shard after shard: a dense
//! [N, R] block for each, so that every block is the result of one matmul. With one shard that is plain [N, V].

use super::matmul::{Form, Product};
use super::reference::Real;
use super::{Caps, Case, Command, Cost, Fill, Io, OpDef, RefIo, Signature, Slot, TensorType};

/// x, head shards -> logits. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits;

/// (first class, product) of every shard.
fn products<'a>(io: &Io<'a>) -> impl Iterator<Item = (usize, Product)> + use<'a> {
    let (inputs, mut first) = (io.inputs, 0);
    inputs[1..].iter().map(move |shard| {
        let (m, n, k) = (inputs[0].rows(), shard.rows(), shard.columns());
        first += n;
        (first - n, Product { form: Form::NT, accumulate: false, m, n, k })
    })
}

/// How logits lie in memory: where the head has shards, as dense [rows, shard] blocks one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// N.
    pub rows: usize,
    /// V.
    pub classes: usize,
    /// Classes of every shard but the last one.
    pub shard_rows: usize,
}

impl Layout {
    /// Index of a row's logit of a class.
    pub fn at(&self, row: usize, class: usize) -> usize {
        let first = class / self.shard_rows * self.shard_rows;
        let width = self.shard_rows.min(self.classes - first);
        self.rows * first + row * width + class - first
    }

    /// Dense rows [N, V] from what the op stores.
    pub fn dense(&self, stored: &[f32]) -> Vec<f32> {
        let row = |row| (0..self.classes).map(move |class| stored[self.at(row, class)]);
        (0..self.rows).flat_map(row).collect()
    }
}

impl OpDef for Logits {
    fn name(&self) -> &'static str {
        "logits"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let (x, shards) = (&inputs[0], &inputs[1..]);
        assert!(shards.iter().all(|w| w.columns() == x.columns()), "logits: {x:?} and {shards:?}");
        let (last, others) = shards.split_last().expect("the head has a shard");
        assert!(
            others
                .iter()
                .all(|w| w.rows() == others[0].rows() && w.rows() >= last.rows() && w.rows() % 64 == 0),
            "logits: shards {shards:?} differ in height or break alignment"
        );
        let classes = shards.iter().map(TensorType::rows).sum();
        Signature::of([TensorType::f32(&[x.rows(), classes])])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let launch = |(s, (first, product)): (usize, (usize, Product))| {
            let column_bytes = product.m as u64 * io.output(0).element.bytes();
            let block = Slot::Out(0).rows(first, product.n, column_bytes);
            product.launch(caps, Slot::In(0).into(), Slot::In(1 + s).into(), block)
        };
        products(io).enumerate().map(launch).collect()
    }

    fn cost(&self, io: &Io) -> Cost {
        let flops = products(io).map(|(_, product)| product.flops()).sum();
        Cost { flops, ..Cost::elementwise(io, 0.0) }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let x = io.input(0);
        for (s, (first, product)) in products(&io.io).enumerate() {
            let w = io.input(1 + s);
            product.reference(x, w, &mut io.out(0)[first * product.m..][..product.m * product.n]);
        }
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let case = |rows: usize, d: usize, shards: &[usize]| {
        let x = Case::new(Logits).fixed(TensorType::f32(&[rows, d]), Fill::Normal(1.0));
        shards.iter().fold(x, |case, &r| case.fixed(TensorType::f32(&[r, d]), Fill::Normal(1.0)))
    };
    vec![case(1, 1, &[1]), case(3, 7, &[65]), case(1, 24, &[192]), case(5, 36, &[128, 128, 60])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_rows() {
        // Classes 0 1 | 2 of two rows.
        let layout = Layout { rows: 2, classes: 3, shard_rows: 2 };
        assert_eq!(layout.dense(&[0.0, 1.0, 10.0, 11.0, 2.0, 12.0]), [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]);
    }
}
