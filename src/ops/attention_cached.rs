//! Attention of new queries over a key/value cache, for generation; no gradient.
//! q, o [N, H E]: N / B queries of each of B sequences; k, v caches [B C, K E]; query n sees the positions
//! `0..=positions[n]` of its sequence, and gives 0 where that is [`ABSENT`](super::kv_cache::ABSENT). Query head h
//! uses key/value head h div (H / K); scores are scaled by 1 / sqrt(E). Online softmax in f32.
//!
//! A workgroup takes one query of one head and walks the cache in chunks of as many keys as it has invocations: first
//! an invocation per key (scores), then an invocation per element of the head (the weighted sum of the values). Where a
//! software adapter reads a prompt, the kernel of [`attention`] takes many queries at a time.

use super::attention;
use super::reference::{Real, for_rows};
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, Fill, Io, Kernel, OpDef, RefIo, Signature, Slot, TensorType,
};

/// q, k cache, v cache, positions -> o. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionCached {
    /// H.
    pub heads: usize,
    /// K.
    pub kv_heads: usize,
    /// C.
    pub capacity: usize,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    /// Queries of a sequence.
    rows: u32,
    heads: u32,
    kv_heads: u32,
    capacity: u32,
    scale: f32,
}

impl AttentionCached {
    fn params(&self, io: &Io) -> Params {
        let (q, k) = (io.input(0), io.input(1));
        Params {
            rows: (q.rows() * self.capacity / k.rows()) as u32,
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            capacity: self.capacity as u32,
            scale: (1.0 / ((q.columns() / self.heads) as f64).sqrt()) as f32,
        }
    }
}

impl OpDef for AttentionCached {
    fn name(&self) -> &'static str {
        "attention_cached"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let (q, k, v, positions) = (&inputs[0], &inputs[1], &inputs[2], &inputs[3]);
        assert!(k == v && self.heads.is_multiple_of(self.kv_heads), "attention_cached: {k:?}, {v:?}");
        assert_eq!(q.columns() / self.heads, k.columns() / self.kv_heads, "attention_cached: head widths");
        assert!(k.rows().is_multiple_of(self.capacity), "attention_cached: {k:?} of {}", self.capacity);
        assert!(q.rows().is_multiple_of(k.rows() / self.capacity), "attention_cached: {q:?} over {k:?}");
        assert_eq!(positions.elements(), q.rows(), "attention_cached: one position per query");
        Signature::of([q.clone()])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let q = io.input(0);
        let e = q.columns() / self.heads;
        let vec4 = e.is_multiple_of(4);
        let params = self.params(io);
        // A texture takes the whole cache, which pays when several queries read it.
        let texels = vec4 && caps.texels && params.rows >= 4;
        let mut bindings = [0, 1, 2].map(|i| Slot::In(i).texels()).to_vec();
        bindings.extend([Slot::In(3), Slot::Out(0)].map(Binding::from));
        if caps.is_lanes() && params.rows >= caps.lane_count() {
            let rows = attention::forward_rows(e);
            let kernel = Kernel::new("attention_lanes_forward", "forward")
                .constant("HEAD_DIM", e as u32)
                .constant("LANES", caps.lane_count())
                .constant("ROWS", rows)
                .flag("subgroups", caps.subgroup.is_some())
                .flag("vec4", vec4)
                .flag("texels", texels)
                .flag("cached", true);
            let blocks = params.rows.div_ceil(rows * caps.lane_count());
            let grid = [blocks, self.heads as u32, q.rows() as u32 / params.rows];
            return vec![Dispatch::command(kernel, bindings, &params, grid)];
        }
        let kernel = Kernel::new("attention_cached", "forward")
            .constant("HEAD_DIM", e as u32)
            .constant("WG", if caps.is_lanes() { caps.lane_count() } else { 64 })
            // A subgroup is the workgroup only in the `lanes` family.
            .flag("subgroups", caps.is_lanes() && caps.subgroup.is_some())
            .flag("tiled", true)
            .flag("vec4", vec4)
            .flag("texels", texels);
        vec![Dispatch::command(kernel, bindings, &params, [self.heads as u32, q.rows() as u32, 1])]
    }

    /// As if every query saw the whole cache.
    fn cost(&self, io: &Io) -> Cost {
        let (q, k) = (io.input(0), io.input(1));
        let flops = 4.0 * (q.elements() * self.capacity) as f64;
        Cost { flops, bytes: 2.0 * (k.bytes() + q.bytes()) as f64 }
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (q, k, v, positions) = (io.input(0), io.input(1), io.input(2), io.indices(3));
        let Params { rows, scale, .. } = self.params(&io.io);
        let e = io.io.input(0).columns() / self.heads;
        for_rows(io.out(0), e, |i, o| {
            let (n, head) = (i / self.heads, i % self.heads);
            let kv_head = head / (self.heads / self.kv_heads);
            let row = |s: usize| ((n / rows as usize * self.capacity + s) * self.kv_heads + kv_head) * e;
            let q = &q[i * e..][..e];
            let seen = if positions[n] as usize >= self.capacity { 0 } else { positions[n] as usize + 1 };
            let score = |s: usize| {
                let dot = q.iter().zip(&k[row(s)..][..e]).fold(T::of(0.0), |sum, (&q, &k)| sum + q * k);
                dot * T::of(scale as f64)
            };
            let scores: Vec<T> = (0..seen).map(score).collect();
            let peak = scores.iter().copied().fold(T::of(f64::NEG_INFINITY), T::larger);
            let weights: Vec<T> = scores.iter().map(|&x| (x - peak).exp()).collect();
            let mass: T = weights.iter().copied().sum();
            o.fill(T::of(0.0));
            for (s, &weight) in weights.iter().enumerate() {
                for (o, &v) in o.iter_mut().zip(&v[row(s)..][..e]) {
                    *o += weight / mass * v;
                }
            }
        });
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    use super::kv_cache::ABSENT;
    let case = |heads: usize, kv_heads: usize, e: usize, capacity: usize, positions: &[&[u32]]| {
        let rows = positions.concat();
        let cache = || TensorType::f32(&[positions.len() * capacity, kv_heads * e]);
        Case::new(AttentionCached { heads, kv_heads, capacity })
            .fixed(TensorType::f32(&[rows.len(), heads * e]), Fill::Normal(1.0))
            .fixed(cache(), Fill::Normal(1.0))
            .fixed(cache(), Fill::Normal(1.0))
            .fixed(TensorType::u32(&[rows.len()]), Fill::Indices(rows))
    };
    vec![
        case(1, 1, 2, 1, &[&[0]]),
        case(6, 2, 7, 9, &[&[8], &[ABSENT], &[3]]),
        case(9, 3, 64, 140, &[&[ABSENT, 0, 1], &[66, 130, 7]]),
        case(2, 2, 128, 65, &[&[64], &[1]]),
        case(2, 1, 160, 20, &[&[19, 3]]),
        case(1, 1, 256, 70, &[&[69], &[2]]),
        // A prompt, as it is read.
        case(
            4,
            2,
            32,
            90,
            &[&(40..77).chain([ABSENT; 4]).collect::<Vec<_>>(), &[(0..41).collect(), Vec::new()].concat()],
        ),
        case(2, 1, 7, 12, &[&[ABSENT; 12], &[3, 11, 0, ABSENT, 5, 6, 7, 8, 9, 2, 1, 4]]),
    ]
}
