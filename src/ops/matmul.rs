//! Matmul in the three forms that a linear layer needs, all row-major, accumulated in f32:
//! `NT` y[M,N] = a[M,K] b[N,K]^T (forward, b the weight), `NN` y = a[M,K] b[K,N] (its dx), `TN` y = a[K,M]^T b[K,N]
//! (its dw).
//!
//! Backward of each form is another of them: NT: da = dy b (NN), db = dy^T a (TN); NN: da = dy b^T (NT),
//! db = a^T dy (TN); TN: da = b dy^T (NT), db = a dy (NN). Gradients that an input already has are added to in
//! place.

use super::launch::windows;
use super::reference::{Mat, Real, gemm};
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, Fill, Io, Kernel, NodeIo, OpDef, RefIo, Signature, Slot,
    Tape, TensorType, ValueId, fold,
};
use std::ops::Range;

/// Which operands are transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// a b
    NN,
    /// a b^T
    NT,
    /// a^T b
    TN,
}

/// a, b, [y so far] -> y. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Matmul {
    /// Which operands are transposed.
    pub form: Form,
    /// Whether y is added to.
    pub accumulate: bool,
}

/// Sizes of a product: y is [m, n], the inner size is k.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub form: Form,
    pub accumulate: bool,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    m: u32,
    n: u32,
    k: u32,
    accumulate: u32,
}

impl Product {
    /// The launch that computes it.
    pub fn launch(&self, caps: &Caps, a: Binding, b: Binding, y: Binding) -> Command {
        let params = Params {
            m: self.m as u32,
            n: self.n as u32,
            k: self.k as u32,
            accumulate: self.accumulate as u32,
        };
        let few_rows = self.few_rows(caps);
        // A few rows are small and read often: not worth a copy to a texture.
        let a = if few_rows.is_some() { a } else { a.texels() };
        let (kernel, grid) = match few_rows {
            Some(launch) => launch,
            None if caps.is_lanes() => self.lanes(caps),
            None => self.tiled(),
        };
        let kernel =
            kernel.flag("a_transposed", self.form == Form::TN).flag("b_transposed", self.form == Form::NT);
        Dispatch::command(kernel, [a, b.texels(), y], &params, grid)
    }

    /// A row or a few, as in decoding, where reading b is all that counts.
    fn few_rows(&self, caps: &Caps) -> Option<(Kernel, [u32; 3])> {
        // In the `lanes` family each row of a costs slow buffer loads beside the fetches of b, so more rows go elsewhere.
        let most = if !caps.is_lanes() {
            8
        } else if caps.subgroup.is_some() {
            1
        } else {
            0
        };
        if self.form != Form::NT || self.m > most || !self.k.is_multiple_of(4) {
            return None;
        }
        let (wg, rows) = if caps.is_lanes() { (caps.lane_count(), 8) } else { (64, 4) };
        let kernel = Kernel::new("matvec", "matvec")
            .constant("WG", wg)
            .constant("TM", self.m.next_power_of_two() as u32)
            .constant("ROWS", rows)
            .flag("subgroups", caps.is_lanes())
            .flag("texels", caps.texels);
        Some((kernel, fold(self.n.div_ceil(rows as usize))))
    }

    /// 64 x 64 tile in workgroup memory, 4 x 4 per invocation.
    fn tiled(&self) -> (Kernel, [u32; 3]) {
        (Kernel::new("matmul", "matmul"), [self.n.div_ceil(64) as u32, self.m.div_ceil(64) as u32, 1])
    }

    /// TM x (TN LANES) tile in registers, one subgroup.
    fn lanes(&self, caps: &Caps) -> (Kernel, [u32; 3]) {
        // Measured: with b along its rows the wider tile spills registers.
        let tn = if self.form == Form::NN { 4 } else { 8 };
        // A product of a few rows is bound by the loads of b: more rows of the tile would only add zeros.
        let tm = match self.m {
            ..=4 => 4,
            5..=16 => 16,
            _ => 32,
        };
        // Rows of a vec4 kernel's operands and result are whole vectors.
        let contiguous = match self.form {
            Form::NN => [self.k, self.n],
            Form::NT => [self.k, self.n],
            Form::TN => [self.m, self.n],
        };
        let vec4 = contiguous.iter().all(|size| size.is_multiple_of(4));
        let kernel = Kernel::new("matmul_lanes", "matmul")
            .constant("LANES", caps.lane_count())
            .constant("TM", tm)
            .constant("TN", tn)
            .flag("subgroups", caps.subgroup.is_some())
            .flag(if vec4 { "vec4" } else { "scalar" }, true)
            .flag("texels", vec4 && caps.texels);
        let columns = (tn * caps.lane_count()) as usize;
        (kernel, [self.m.div_ceil(tm as usize) as u32, self.n.div_ceil(columns) as u32, 1])
    }

    /// Multiply-adds count two.
    pub fn flops(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }

    /// The same on the host.
    pub fn reference<T: Real>(&self, a: &[T], b: &[T], y: &mut [T]) {
        let Product { m, n, k, .. } = *self;
        let (a, b) = match self.form {
            Form::NN => (Mat::new(a, k), Mat::new(b, n)),
            Form::NT => (Mat::new(a, k), Mat::new(b, k).t()),
            Form::TN => (Mat::new(a, m).t(), Mat::new(b, n)),
        };
        gemm(y, self.accumulate, a, b, m, n, k);
    }
}

impl Matmul {
    /// A linear layer: y = x w^T.
    pub fn linear() -> Self {
        Matmul { form: Form::NT, accumulate: false }
    }

    fn product(&self, a: &TensorType, b: &TensorType) -> Product {
        let (a, b) = ([a.rows(), a.columns()], [b.rows(), b.columns()]);
        let ([m, k], [inner, n]) = match self.form {
            Form::NN => (a, b),
            Form::NT => (a, [b[1], b[0]]),
            Form::TN => ([a[1], a[0]], b),
        };
        assert_eq!(k, inner, "matmul {:?}: inner sizes of {a:?} and {b:?} differ", self.form);
        Product { form: self.form, accumulate: self.accumulate, m, n, k }
    }
}

/// Gives `input` the gradient `a b` in `form`, adding to what it has.
fn give_product(tape: &mut dyn Tape, input: ValueId, form: Form, a: ValueId, b: ValueId) {
    if !tape.wanted(input) {
        return;
    }
    let partial = tape.partial_in_place(input);
    let op = Matmul { form, accumulate: partial.is_some() };
    let inputs: Vec<ValueId> = [a, b].into_iter().chain(partial).collect();
    let gradient = tape.emit(op.into(), &inputs)[0];
    tape.give(input, gradient);
}

impl OpDef for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let product = self.product(&inputs[0], &inputs[1]);
        let signature = Signature::of([TensorType::f32(&[product.m, product.n])]);
        if self.accumulate { signature.updating(0, 2) } else { signature }
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let product = self.product(io.input(0), io.input(1));
        let Product { m, n, k, .. } = product;
        let (a, b, y) = (Slot::In(0), Slot::In(1), Slot::Out(0));
        // What has a row per token may exceed a binding: several launches then share these rows out.
        let (rows, widest) = if self.form == Form::TN { (k, m.max(n)) } else { (m, k.max(n)) };
        let launch = |range: Range<usize>| {
            let part = |slot: Slot, columns: usize| slot.window(&range, rows, 4 * columns as u64);
            match self.form {
                Form::NN | Form::NT => {
                    Product { m: range.len(), ..product }.launch(caps, part(a, k), b.into(), part(y, n))
                }
                Form::TN => {
                    let accumulate = self.accumulate || range.start > 0;
                    let product = Product { k: range.len(), accumulate, ..product };
                    product.launch(caps, part(a, m), part(b, n), y.into())
                }
            }
        };
        windows(rows, 4 * widest as u64).map(launch).collect()
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dy) = tape.grad(node.outputs[0]) else { return };
        // Its third input has lost its place to y, and the gradient of that would be lost too.
        assert!(!self.accumulate, "matmul: a product that is added in place is not differentiable");
        let (a, b) = (node.inputs[0], node.inputs[1]);
        match self.form {
            Form::NT => {
                give_product(tape, a, Form::NN, dy, b);
                give_product(tape, b, Form::TN, dy, a);
            }
            Form::NN => {
                give_product(tape, a, Form::NT, dy, b);
                give_product(tape, b, Form::TN, a, dy);
            }
            Form::TN => {
                give_product(tape, a, Form::NT, b, dy);
                give_product(tape, b, Form::NN, a, dy);
            }
        }
    }

    fn cost(&self, io: &Io) -> Cost {
        let bytes = io.input(0).bytes() + io.input(1).bytes() + io.output(0).bytes();
        Cost { flops: self.product(io.input(0), io.input(1)).flops(), bytes: bytes as f64 }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let product = self.product(io.io.input(0), io.io.input(1));
        let (a, b) = (io.input(0), io.input(1));
        product.reference(a, b, io.out(0));
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let sizes = [
        (1, 1, 1),
        (1, 65, 36),
        (1, 7, 260),
        (3, 67, 24),
        (8, 33, 300),
        (7, 65, 33),
        (70, 24, 65),
        (33, 140, 64),
        (130, 68, 132),
    ];
    let case = |form: Form, (m, n, k): (usize, usize, usize)| {
        let (a, b) = match form {
            Form::NN => ([m, k], [k, n]),
            Form::NT => ([m, k], [n, k]),
            Form::TN => ([k, m], [k, n]),
        };
        Case::new(Matmul { form, accumulate: false }).with(&a, Fill::Normal(1.0)).with(&b, Fill::Normal(1.0))
    };
    [Form::NN, Form::NT, Form::TN].into_iter().flat_map(|form| sizes.map(|size| case(form, size))).collect()
}
