//! Linear + cross-entropy: the loss of hidden states x [N, D] through the output head w [V, D], without ever
//! storing the logits [N, V]. The head may be split into row shards, and each shard is walked in chunks of classes:
//! a chunk's logits live in scratch, are folded into the running logsumexp of each row, and are forgotten.
//! nll [N] (0 where the label is ignored) and lse [N], saved.
//!
//! Backward computes each chunk's logits again, turns them into `d = dnll (softmax - one hot)`, and adds `d w` to
//! dx and `d^T x` to dw: 2 N V D more operations instead of N V floats of memory.

use super::cross_entropy::{Chunk, finish, row_gradient, row_loss};
use super::matmul::{Form, Product};
use super::reference::Real;
use super::{
    Binding, Caps, Case, Command, Cost, Fill, Io, NodeIo, OpDef, RefIo, Signature, Slot, Tape, TensorType,
    ValueId, WeightGradient, take_partials,
};

/// x, labels, head shards -> nll, lse. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearCrossEntropy {
    /// Most classes whose logits exist at one time; a multiple of 64 so that windows of the head are aligned.
    pub chunk: usize,
}

/// dnll, x, labels, lse, head shards, [gradient so far per shard] -> [dx], [gradient per shard].
#[derive(Clone, Debug, PartialEq)]
pub struct LinearCrossEntropyBackward {
    /// See [`LinearCrossEntropy`].
    pub chunk: usize,
    /// Number of head shards.
    pub shards: usize,
    /// Whether dx is wanted.
    pub hidden: bool,
    /// What becomes of the head's gradient.
    pub head: WeightGradient,
}

/// A chunk of classes: rows `start..start + count` of `shard`, whose first row is class `first` + `start`.
struct Window {
    shard: usize,
    start: usize,
    count: usize,
    first: usize,
}

/// The chunks of all shards in order.
fn windows(shards: &[TensorType], chunk: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut first = 0;
    for (shard, ty) in shards.iter().enumerate() {
        for start in (0..ty.rows()).step_by(chunk) {
            windows.push(Window { shard, start, count: chunk.min(ty.rows() - start), first });
        }
        first += ty.rows();
    }
    windows
}

/// Scratch for the logits of the largest chunk.
fn chunk_type(x: &TensorType, shards: &[TensorType], chunk: usize) -> TensorType {
    let widest = shards.iter().map(TensorType::rows).max().expect("the head has a shard");
    TensorType::f32(&[x.rows(), widest.min(chunk)])
}

impl Window {
    fn chunk(&self, x: &TensorType) -> Chunk {
        Chunk { rows: x.rows(), columns: self.count, first: self.first + self.start }
    }

    /// The chunk's rows of a tensor shaped like its head shard.
    fn head(&self, slot: Slot, x: &TensorType) -> Binding {
        slot.rows(self.start, self.count, x.row_bytes())
    }

    /// The used part of the logits scratch.
    fn logits(&self, slot: Slot, x: &TensorType) -> Binding {
        slot.rows(0, x.rows(), self.count as u64 * x.element.bytes())
    }

    fn product(&self, x: &TensorType) -> Product {
        Product { form: Form::NT, accumulate: false, m: x.rows(), n: self.count, k: x.columns() }
    }
}

impl OpDef for LinearCrossEntropy {
    fn name(&self) -> &'static str {
        "linear_cross_entropy"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let (x, shards) = (&inputs[0], &inputs[2..]);
        assert!(self.chunk.is_multiple_of(64), "linear_cross_entropy: chunk {} breaks alignment", self.chunk);
        assert!(
            shards.iter().all(|w| w.columns() == x.columns()),
            "linear_cross_entropy: {x:?} and {shards:?}"
        );
        let rows = TensorType::f32(&[x.rows()]);
        let state = TensorType::f32(&[x.rows(), 4]);
        Signature::of([rows.clone(), rows]).with_scratch([chunk_type(x, shards, self.chunk), state])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let x = io.input(0);
        let mut commands = Vec::new();
        for window in windows(&io.inputs[2..], self.chunk) {
            let logits = window.logits(Slot::Scratch(0), x);
            let head = window.head(Slot::In(2 + window.shard), x);
            commands.push(window.product(x).launch(caps, Slot::In(0).into(), head, logits));
            commands.push(window.chunk(x).scan(caps, logits, Slot::In(1), Slot::Scratch(1)));
        }
        commands.push(finish(caps, x.rows(), Slot::Scratch(1), Slot::In(1), Slot::Out(0), Slot::Out(1)));
        commands
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dnll) = tape.grad(node.outputs[0]) else { return };
        let (x, labels, shards) = (node.inputs[0], node.inputs[1], &node.inputs[2..]);
        let (head, partials) = take_partials(tape, shards);
        let (hidden, shard_count) = (tape.wanted(x), shards.len());
        let op = LinearCrossEntropyBackward { chunk: self.chunk, shards: shard_count, hidden, head };
        let inputs: Vec<ValueId> = [dnll, x, labels, node.outputs[1]]
            .into_iter()
            .chain(shards.iter().copied())
            .chain(partials)
            .collect();
        let mut grads = tape.emit(op.into(), &inputs).into_iter().peekable();
        if let Some(dx) = grads.next_if(|_| hidden) {
            tape.give(x, dx);
        }
        for (&shard, grad) in shards.iter().zip(grads) {
            tape.give(shard, grad);
        }
    }

    fn cost(&self, io: &Io) -> Cost {
        pass_cost(io.input(0), &io.inputs[2..])
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (x, labels) = (io.input(0), io.indices(1));
        let shards: Vec<&[T]> = (2..io.inputs.len()).map(|i| io.input(i)).collect();
        let types = &io.io.inputs[2..];
        let vocab = types.iter().map(TensorType::rows).sum();
        let d = io.io.input(0).columns();
        let [nll, lse] = io.outs();
        for_row_blocks(x, d, |first, block| {
            let logits = block_logits(block, d, &shards, types, vocab);
            for (i, row) in logits.chunks(vocab).enumerate() {
                (lse[first + i], nll[first + i]) = row_loss(row, labels[first + i]);
            }
        });
    }
}

impl OpDef for LinearCrossEntropyBackward {
    fn name(&self) -> &'static str {
        "linear_cross_entropy_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let (x, shards) = (&inputs[1], &inputs[4..4 + self.shards]);
        let mut outputs = Vec::new();
        outputs.extend(self.hidden.then(|| x.clone()));
        outputs.extend(shards.iter().filter(|_| self.head.wanted()).cloned());
        let mut signature = Signature::of(outputs).with_scratch([chunk_type(x, shards, self.chunk)]);
        if self.head.accumulates() {
            signature.in_place =
                (0..self.shards).map(|s| (self.hidden as usize + s, 4 + self.shards + s)).collect();
        }
        signature
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let x = io.input(1);
        let accumulate = self.head.accumulates();
        let mut commands = Vec::new();
        for (i, window) in windows(&io.inputs[4..4 + self.shards], self.chunk).iter().enumerate() {
            let logits = window.logits(Slot::Scratch(0), x);
            let head = window.head(Slot::In(4 + window.shard), x);
            let (m, d) = (x.rows(), x.columns());
            commands.push(window.product(x).launch(caps, Slot::In(1).into(), head, logits));
            commands.push(window.chunk(x).gradient_in_place(
                caps,
                Slot::In(2),
                Slot::In(3),
                Slot::In(0),
                logits,
            ));
            if self.hidden {
                let dx = Product { form: Form::NN, accumulate: i > 0, m, n: d, k: window.count };
                commands.push(dx.launch(caps, logits, head, Slot::Out(0).into()));
            }
            if self.head.wanted() {
                let dw = Product { form: Form::TN, accumulate, m: window.count, n: d, k: m };
                let dhead = window.head(Slot::Out(self.hidden as usize + window.shard), x);
                commands.push(dw.launch(caps, logits, Slot::In(1).into(), dhead));
            }
        }
        commands
    }

    fn cost(&self, io: &Io) -> Cost {
        let x = io.input(1);
        let once = pass_cost(x, &io.inputs[4..4 + self.shards]);
        let products = 1 + self.hidden as u32 + self.head.wanted() as u32;
        Cost { flops: products as f64 * once.flops, bytes: products as f64 * once.bytes }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (dnll, x, labels, lse) = (io.input(0), io.input(1), io.indices(2), io.input(3));
        let shards: Vec<&[T]> = (0..self.shards).map(|s| io.input(4 + s)).collect();
        let types = &io.io.inputs[4..4 + self.shards];
        let vocab = types.iter().map(TensorType::rows).sum();
        let d = io.io.input(1).columns();
        let (dx, dshards) = io.outputs.split_at_mut(self.hidden as usize);
        for_row_blocks(x, d, |first, block| {
            let rows = block.len() / d;
            let mut logits = block_logits(block, d, &shards, types, vocab);
            for (i, row) in logits.chunks_mut(vocab).enumerate() {
                row_gradient(row, labels[first + i], lse[first + i], dnll[first + i]);
            }
            let mut class = 0;
            for (s, ty) in types.iter().enumerate() {
                let mut part = vec![T::default(); rows * ty.rows()];
                for (part, row) in part.chunks_mut(ty.rows()).zip(logits.chunks(vocab)) {
                    part.copy_from_slice(&row[class..class + ty.rows()]);
                }
                class += ty.rows();
                if let [dx] = &mut *dx {
                    let to_x = Product { form: Form::NN, accumulate: s > 0, m: rows, n: d, k: ty.rows() };
                    to_x.reference(&part, shards[s], &mut dx.floats_mut()[first * d..(first + rows) * d]);
                }
                if self.head.wanted() {
                    let to_w = Product { form: Form::TN, accumulate: true, m: ty.rows(), n: d, k: rows };
                    to_w.reference(&part, block, dshards[s].floats_mut());
                }
            }
        });
    }
}

/// Work of one product of the rows with the whole head.
fn pass_cost(x: &TensorType, shards: &[TensorType]) -> Cost {
    let classes: usize = shards.iter().map(TensorType::rows).sum();
    let logits = (x.rows() * classes) as f64;
    let head: u64 = shards.iter().map(TensorType::bytes).sum();
    let bytes = (x.bytes() + head) as f64 + logits * x.element.bytes() as f64;
    Cost { flops: 2.0 * logits * x.columns() as f64, bytes }
}

/// Calls `f(first row, rows)` for blocks of x that keep the reference's logits small.
fn for_row_blocks<T>(x: &[T], d: usize, mut f: impl FnMut(usize, &[T])) {
    const ROWS: usize = 256;
    for (i, block) in x.chunks(ROWS * d).enumerate() {
        f(i * ROWS, block);
    }
}

/// Logits [rows, V] of a block of x over all shards.
fn block_logits<T: Real>(x: &[T], d: usize, shards: &[&[T]], types: &[TensorType], vocab: usize) -> Vec<T> {
    let rows = x.len() / d;
    let mut logits = vec![T::default(); rows * vocab];
    let mut class = 0;
    for (w, ty) in shards.iter().zip(types) {
        let mut part = vec![T::default(); rows * ty.rows()];
        let product = Product { form: Form::NT, accumulate: false, m: rows, n: ty.rows(), k: d };
        product.reference(x, w, &mut part);
        for (row, part) in logits.chunks_mut(vocab).zip(part.chunks(ty.rows())) {
            row[class..class + ty.rows()].copy_from_slice(part);
        }
        class += ty.rows();
    }
    logits
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let case = |rows: usize, d: usize, shards: &[usize], chunk: usize| {
        let vocab: usize = shards.iter().sum();
        let case = Case::new(LinearCrossEntropy { chunk })
            .with(&[rows, d], Fill::Normal(1.0))
            .fixed(TensorType::u32(&[rows]), Fill::Labels(vocab as u32));
        shards.iter().fold(case, |case, &shard| case.with(&[shard, d], Fill::Normal(0.3)))
    };
    // Only the hidden states' gradient is wanted, or only the head's.
    let frozen = |case: Case, trained: fn(usize) -> bool| {
        let differentiable = case.differentiable.iter().copied().filter(|&i| trained(i)).collect();
        Case { differentiable, ..case }
    };
    vec![
        frozen(case(9, 24, &[64, 31], 64), |input| input == 0),
        frozen(case(9, 24, &[64, 31], 64), |input| input > 0),
        case(1, 1, &[1], 64),
        case(7, 65, &[131], 64),
        case(13, 32, &[64, 64, 7], 64),
        case(70, 20, &[200], 128),
    ]
}
