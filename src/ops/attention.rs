//! Causal grouped-query attention: `o_t = sum over s <= t of softmax_s(q_t . k_s / sqrt(E)) v_s`; query head h uses
//! key/value head h div (H / K). q, o [N, H E]; k, v [N, K E]; lse [B, H, T], the logsumexp of the scaled scores,
//! is saved. Online softmax in f32: no T x T matrix exists in either direction (Dao 2022, arXiv 2205.14135).
//!
//! With `segments`, documents packed into one sequence do not see each other: the sum begins at `s = starts[n]` of the
//! query's row n, the index in its sequence of its document's first token. starts [N], u32, never falls within a
//! sequence and is at most the token's own index.
//!
//! Backward, with w = e^(score - lse) and delta_t = do_t . o_t:
//! `ds = w (do_t . v_s - delta_t)`, `dq_t = scale sum_s ds k_s`, `dk_s = scale sum_t ds q_t`, `dv_s = sum_t w do_t`;
//! the last two also sum over the heads of the group.

use super::host::segments_of;
use super::reference::Real;
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, Fill, Io, Kernel, NodeIo, OpDef, RefIo, Signature, Slot,
    Tape, TensorType,
};
use rayon::prelude::*;

/// q, k, v, [starts] -> o, lse. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// T, tokens of a sequence; rows of the inputs are B sequences of that length.
    pub tokens: usize,
    /// H.
    pub heads: usize,
    /// K.
    pub kv_heads: usize,
    /// Whether starts are given.
    pub segments: bool,
}

/// q, k, v, o, lse, do, [starts] -> dq, dk, dv.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionBackward(pub Attention);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    batch: u32,
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    scale: f32,
}

impl Attention {
    fn batch(&self, q: &TensorType) -> usize {
        q.rows() / self.tokens
    }

    fn head_dim(&self, q: &TensorType) -> usize {
        q.columns() / self.heads
    }

    fn scale(&self, q: &TensorType) -> f64 {
        1.0 / (self.head_dim(q) as f64).sqrt()
    }

    fn params(&self, q: &TensorType) -> Params {
        Params {
            batch: self.batch(q) as u32,
            tokens: self.tokens as u32,
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            scale: self.scale(q) as f32,
        }
    }

    /// `starts`: which input they are, where they are given.
    fn check(&self, inputs: &[TensorType], starts: usize) {
        let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
        assert_eq!(
            inputs.len(),
            starts + self.segments as usize,
            "attention: starts, where there are segments"
        );
        assert!(
            !self.segments || inputs[starts] == TensorType::u32(&[q.rows()]),
            "attention: a start per row"
        );
        assert!(q.rows().is_multiple_of(self.tokens) && self.heads.is_multiple_of(self.kv_heads));
        assert!(k == v && k.rows() == q.rows(), "attention: k {k:?}, v {v:?}, q {q:?}");
        assert_eq!(k.columns(), self.kv_heads * self.head_dim(q), "attention: heads differ in width");
    }

    /// A launch over blocks of tokens of `heads` heads of every sequence.
    fn launch(
        &self,
        caps: &Caps,
        pass: Pass,
        q: &TensorType,
        heads: usize,
        bindings: Vec<Binding>,
    ) -> Command {
        let e = self.head_dim(q);
        let vec4 = e.is_multiple_of(4);
        let (shader, block) = self.variant(caps, pass, e);
        let kernel = Kernel::new(shader, pass.entry())
            .constant("HEAD_DIM", e as u32)
            .constant("QUERIES", block as u32)
            .constant("KEYS", tile_keys(e) as u32)
            .constant("LANES", caps.lane_count())
            .constant("ROWS", (block as u32 / caps.lane_count()).max(1))
            .flag("subgroups", caps.subgroup.is_some())
            .flag("vec4", vec4)
            .flag("texels", vec4 && caps.texels)
            .flag("segments", self.segments);
        let grid = [self.tokens.div_ceil(block) as u32, heads as u32, self.batch(q) as u32];
        Dispatch::command(kernel, bindings, &self.params(q), grid)
    }

    /// Shader file, and tokens of a workgroup.
    fn variant(&self, caps: &Caps, pass: Pass, e: usize) -> (&'static str, usize) {
        let lanes = caps.lane_count() as usize;
        match pass {
            Pass::Forward if caps.is_lanes() => ("attention_lanes_forward", rows(128, e) * lanes),
            Pass::Queries | Pass::Keys if caps.is_lanes() => {
                ("attention_lanes_backward", rows(64, e) * lanes)
            }
            Pass::Delta if caps.is_lanes() => ("attention_backward", lanes),
            Pass::Forward => ("attention_forward", QUERIES),
            Pass::Delta | Pass::Queries | Pass::Keys => ("attention_backward", QUERIES),
        }
    }

    /// Multiply-adds of one T x T x E product over all heads, half of it masked away, as if a sequence were one
    /// document.
    fn product_flops(&self, q: &TensorType) -> f64 {
        (q.elements() * (self.tokens + 1)) as f64
    }
}

/// Tokens of a `tiled` workgroup.
const QUERIES: usize = 64;

/// Keys that pass through a `tiled` workgroup's memory at a time: a tile of keys and one of values, both of f32, fit
/// the 16 KiB that WebGPU guarantees.
fn tile_keys(e: usize) -> usize {
    let fit = (16 << 10) / (2 * 4 * e);
    match fit {
        32.. => 32,
        _ => 1 << fit.max(1).ilog2(),
    }
}

/// Rows that an invocation of the `lanes` family keeps in registers; more take too long to compile.
fn rows(budget: usize, e: usize) -> usize {
    (budget / e).clamp(1, 4)
}

/// The same of the forward pass, which [`attention_cached`](super::attention_cached) shares.
pub(super) fn forward_rows(e: usize) -> u32 {
    rows(128, e) as u32
}

/// The kernels of this op.
#[derive(Clone, Copy)]
enum Pass {
    Forward,
    /// do . o per query.
    Delta,
    /// dq.
    Queries,
    /// dk and dv.
    Keys,
}

impl Pass {
    fn entry(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::Delta => "delta",
            Pass::Queries => "queries",
            Pass::Keys => "keys",
        }
    }
}

impl OpDef for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        self.check(inputs, 3);
        let q = &inputs[0];
        let lse = TensorType::f32(&[self.batch(q), self.heads, self.tokens]);
        Signature::of([q.clone(), lse])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let mut bindings = [0, 1, 2].map(|i| Slot::In(i).texels()).to_vec();
        bindings.extend([Slot::Out(0), Slot::Out(1)].map(Binding::from));
        bindings.extend(self.segments.then_some(Binding::from(Slot::In(3))));
        vec![self.launch(caps, Pass::Forward, io.input(0), self.heads, bindings)]
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(d_o) = tape.grad(node.outputs[0]) else { return };
        let (q, k, v) = (node.inputs[0], node.inputs[1], node.inputs[2]);
        let inputs = [&[q, k, v, node.outputs[0], node.outputs[1], d_o], &node.inputs[3..]].concat();
        let grads = tape.emit(AttentionBackward(self.clone()).into(), &inputs);
        for (input, grad) in [q, k, v].into_iter().zip(grads) {
            tape.give(input, grad);
        }
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 2.0 * self.product_flops(io.input(0)), ..Cost::elementwise(io, 0.0) }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (q, k, v) = (io.input(0), io.input(1), io.input(2));
        let head = Heads::new(self, io.io.input(0));
        let starts = self.segments.then(|| io.indices(3));
        let [o, lse] = io.outs();
        // One task per sequence: rows of o belong to it alone.
        let tokens = self.tokens;
        o.par_chunks_mut(tokens * head.q_width)
            .zip(lse.par_chunks_mut(self.heads * tokens))
            .enumerate()
            .for_each(|(b, (o, lse))| {
                for h in 0..self.heads {
                    for t in 0..tokens {
                        let query = head.q(q, b, t, h);
                        let start = head.start(starts, b, t);
                        let score = |s: usize| dot(query, head.kv(k, b, s, h)) * T::of(head.scale);
                        let scores: Vec<T> = (start..=t).map(score).collect();
                        let peak = scores.iter().copied().fold(scores[0], T::larger);
                        let mass: T = scores.iter().map(|&x| (x - peak).exp()).sum();
                        lse[h * tokens + t] = peak + mass.ln();
                        let out = &mut o[t * head.q_width + h * head.e..][..head.e];
                        for (i, &x) in scores.iter().enumerate() {
                            add_scaled(out, (x - peak).exp() / mass, head.kv(v, b, start + i, h));
                        }
                    }
                }
            });
    }
}

impl OpDef for AttentionBackward {
    fn name(&self) -> &'static str {
        "attention_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        self.0.check(inputs, 6);
        // Delta per query and head, and the starts behind it.
        let rows = self.0.heads + self.0.segments as usize;
        Signature::of(inputs[..3].to_vec()).with_scratch([TensorType::f32(&[inputs[0].rows() * rows])])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let (ty, op) = (io.input(0), &self.0);
        let [q, k, v, o, d_o] = [0, 1, 2, 3, 5].map(|i| Slot::In(i).texels());
        let (lse, delta) = (Slot::In(4).into(), Slot::Scratch(0).into());
        let starts = op.segments.then_some(Binding::from(Slot::In(6))).into_iter().collect::<Vec<_>>();
        let [dq, dk, dv] = [0, 1, 2].map(|i| Slot::Out(i).into());
        vec![
            op.launch(caps, Pass::Delta, ty, op.heads, [vec![o, d_o, delta], starts].concat()),
            op.launch(caps, Pass::Queries, ty, op.heads, vec![q, k, v, lse, d_o, delta, dq]),
            op.launch(caps, Pass::Keys, ty, op.kv_heads, vec![q, k, v, lse, d_o, delta, dk, dv]),
        ]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: 5.0 * self.0.product_flops(io.input(0)), ..Cost::elementwise(io, 0.0) }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (q, k, v, o) = (io.input(0), io.input(1), io.input(2), io.input(3));
        let (lse, d_o) = (io.input(4), io.input(5));
        let (tokens, heads) = (self.0.tokens, self.0.heads);
        let head = Heads::new(&self.0, io.io.input(0));
        let starts = self.0.segments.then(|| io.indices(6));
        let [dq, dk, dv] = io.outs();
        let kv_width = head.kv_width;
        dq.par_chunks_mut(tokens * head.q_width)
            .zip(dk.par_chunks_mut(tokens * kv_width).zip(dv.par_chunks_mut(tokens * kv_width)))
            .enumerate()
            .for_each(|(b, (dq, (dk, dv)))| {
                for h in 0..heads {
                    for t in 0..tokens {
                        let (query, gradient) = (head.q(q, b, t, h), head.q(d_o, b, t, h));
                        let delta = dot(gradient, head.q(o, b, t, h));
                        for s in head.start(starts, b, t)..=t {
                            let key = head.kv(k, b, s, h);
                            let score = dot(query, key) * T::of(head.scale);
                            let weight = (score - lse[(b * heads + h) * tokens + t]).exp();
                            let ds =
                                weight * (dot(gradient, head.kv(v, b, s, h)) - delta) * T::of(head.scale);
                            let at = s * kv_width + h / head.group * head.e;
                            add_scaled(&mut dq[t * head.q_width + h * head.e..][..head.e], ds, key);
                            add_scaled(&mut dk[at..][..head.e], ds, query);
                            add_scaled(&mut dv[at..][..head.e], weight, gradient);
                        }
                    }
                }
            });
    }
}

/// Where the heads lie in the rows of q, k and v.
struct Heads {
    e: usize,
    tokens: usize,
    group: usize,
    q_width: usize,
    kv_width: usize,
    scale: f64,
}

impl Heads {
    fn new(op: &Attention, q: &TensorType) -> Self {
        let e = op.head_dim(q);
        Heads {
            e,
            tokens: op.tokens,
            group: op.heads / op.kv_heads,
            q_width: q.columns(),
            kv_width: op.kv_heads * e,
            scale: op.scale(q),
        }
    }

    /// Head h of q (or o, do) at token t of sequence b.
    fn q<'a, T>(&self, x: &'a [T], b: usize, t: usize, h: usize) -> &'a [T] {
        &x[(b * self.tokens + t) * self.q_width + h * self.e..][..self.e]
    }

    /// The first key that token t of sequence b sees.
    fn start(&self, starts: Option<&[u32]>, b: usize, t: usize) -> usize {
        starts.map_or(0, |starts| starts[b * self.tokens + t] as usize)
    }

    /// What query head h sees of k or v at token s.
    fn kv<'a, T>(&self, x: &'a [T], b: usize, s: usize, h: usize) -> &'a [T] {
        &x[(b * self.tokens + s) * self.kv_width + h / self.group * self.e..][..self.e]
    }
}

fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).map(|(&a, &b)| a * b).sum()
}

fn add_scaled<T: Real>(sum: &mut [T], scale: T, x: &[T]) {
    for (sum, &x) in sum.iter_mut().zip(x) {
        *sum += scale * x;
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    // batch, tokens, heads, kv heads, head width
    let case = |(batch, tokens, heads, kv_heads, e): (usize, usize, usize, usize, usize), segments: bool| {
        let q = [batch * tokens, heads * e];
        let kv = [batch * tokens, kv_heads * e];
        Case::new(Attention { tokens, heads, kv_heads, segments })
            .with(&q, Fill::Normal(1.5))
            .with(&kv, Fill::Normal(1.5))
            .with(&kv, Fill::Normal(1.0))
    };
    let packed = |shape: (usize, usize, usize, usize, usize), lengths: &[usize]| {
        let starts = segments_of(lengths, shape.1).0;
        case(shape, true).fixed(TensorType::u32(&[starts.len()]), Fill::Indices(starts))
    };
    vec![
        case((1, 1, 1, 1, 2), false),
        case((2, 7, 4, 2, 8), false),
        case((1, 65, 3, 1, 20), false),
        case((2, 33, 2, 2, 64), false),
        case((1, 9, 2, 1, 128), false),
        case((1, 19, 1, 1, 160), false),
        case((1, 5, 2, 1, 256), false),
        case((1, 130, 2, 1, 6), false),
        packed((1, 1, 1, 1, 2), &[1]),
        // A document per token.
        packed((2, 7, 4, 2, 8), &[1; 14]),
        packed((2, 73, 3, 1, 20), &[1, 7, 65, 65, 7, 1]),
        // Documents that end where sequences do not.
        packed((2, 70, 2, 2, 64), &[33, 64, 43]),
        packed((1, 9, 2, 1, 128), &[9]),
        packed((1, 19, 1, 1, 160), &[7, 12]),
        packed((1, 130, 2, 1, 6), &[2, 127, 1]),
    ]
}
