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

/// Logits of a batch as dense rows [N, V], from what the op stores.
pub fn rows_of(stored: &[f32], rows: usize, shard_rows: usize) -> Vec<f32> {
    let classes = stored.len() / rows;
    let mut dense = vec![0.0; stored.len()];
    for first in (0..classes).step_by(shard_rows) {
        let width = shard_rows.min(classes - first);
        for row in 0..rows {
            dense[row * classes + first..][..width]
                .copy_from_slice(&stored[rows * first + row * width..][..width]);
        }
    }
    dense
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
            let block = Slot::Out(0).rows(first, product.n, 4 * product.m as u64);
            product.launch(caps, Slot::In(0).into(), Slot::In(1 + s).into(), block)
        };
        products(io).enumerate().map(launch).collect()
    }

    fn cost(&self, io: &Io) -> Cost {
        products(io).fold(Cost::default(), |sum, (_, product)| sum + product.cost())
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
        assert_eq!(rows_of(&[0.0, 1.0, 10.0, 11.0, 2.0, 12.0], 2, 2), [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]);
    }
}
