//! The next token of each sequence, chosen on the device from its logits. No gradient.
//!
//! logits [B, V] as [`logits`](super::logits) stores them; settings [8], see [`Sampling`]; uniform [B], a random
//! number in [0, 1) per sequence; seen [B V], in the layout of the logits, 1 where a token has occurred; token [B].
//! The token is chosen as `transformers` does: logits of seen tokens are divided by the repetition penalty (multiplied
//! where negative; Keskar et al. 2019, arXiv 1909.05858), then divided by the temperature; top-k keeps the k
//! likeliest, top-p the smallest set of at least that mass among those (Holtzman et al. 2020, arXiv 1904.09751), min-p
//! all with at least that share of the likeliest one's probability; equals stay together. What is kept is drawn by
//! inverse transform in order of the classes. Temperature 0 takes the likeliest, the first of equals.
//!
//! token and seen are updated in place; report [B, 2] holds the token and its log-probability in the model's own
//! distribution, before any of the above.

use super::logits::Layout;
use super::reference::Real;
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, Fill, Io, OpDef, RefIo, Signature, Slot, TensorType, fold,
};

/// logits, settings, uniform, seen, token -> token, seen, report. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Classes of every shard of the logits but the last one.
    pub shard_rows: usize,
}

/// How tokens are drawn. The default draws from the model's own distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keep so many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens up to this mass; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens of at least this share of the likeliest one's probability; 0 keeps all.
    pub min_p: f32,
    /// Divides the logits of tokens that have occurred; 1 does nothing.
    pub repetition_penalty: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

impl Sampling {
    /// Always the likeliest token.
    pub const fn greedy() -> Self {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }

    /// Contents of the `settings` input.
    pub fn settings(&self) -> [f32; 8] {
        [self.temperature, self.top_k as f32, self.top_p, self.min_p, self.repetition_penalty, 0.0, 0.0, 0.0]
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    batch: u32,
    classes: u32,
    shard_rows: u32,
}

/// Invocations that choose together; one workgroup per sequence.
fn group(caps: &Caps) -> u32 {
    if caps.is_lanes() { caps.lane_count() } else { 256 }
}

impl OpDef for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let (logits, seen, token) = (&inputs[0], &inputs[3], &inputs[4]);
        assert_eq!(logits.elements(), seen.elements(), "sample: {logits:?} and seen {seen:?}");
        assert!(
            self.shard_rows >= logits.columns() || self.shard_rows.is_multiple_of(4),
            "sample: shards of {} rows break vectors",
            self.shard_rows
        );
        let batch = logits.rows();
        assert!(
            inputs[2].elements() == batch && token.elements() == batch,
            "sample: one number per sequence"
        );
        Signature::of([token.clone(), seen.clone(), TensorType::f32(&[batch, 2])])
            .updating(0, 4)
            .updating(1, 3)
            .with_scratch([logits.clone()])
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let logits = io.input(0);
        let (batch, classes) = (logits.rows(), logits.columns());
        let params = Params {
            batch: batch as u32,
            classes: classes as u32,
            shard_rows: self.shard_rows.min(classes) as u32,
        };
        let kernel = |entry| super::row_kernel("sample", entry, caps, classes).0;
        let adjust = [Slot::In(0), Slot::In(1), Slot::Out(1), Slot::Scratch(0)];
        let mut choose = vec![Slot::In(0).texels(), Slot::Scratch(0).texels()];
        let others = [Slot::In(1), Slot::In(2), Slot::Out(0), Slot::Out(1), Slot::Out(2)];
        choose.extend(others.map(Binding::from));
        let choosing = kernel("choose").constant("SG", group(caps));
        vec![
            Dispatch::command(
                kernel("adjust").constant("SG", group(caps)),
                adjust.map(Into::into),
                &params,
                fold(logits.elements().div_ceil(super::ELEMENT_GROUP as usize)),
            ),
            Dispatch::command(choosing, choose, &params, [batch as u32, 1, 1]),
        ]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 8.0)
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (logits, settings, uniform) = (io.input(0), io.input(1), io.input(2));
        let (batch, classes) = (io.io.input(0).rows(), io.io.input(0).columns());
        let [temperature, top_k, top_p, min_p, penalty] = std::array::from_fn(|i| settings[i].f64());
        let layout = Layout { rows: batch, classes, shard_rows: self.shard_rows };
        for b in 0..batch {
            let at = |class: usize| layout.at(b, class);
            let raw: Vec<f64> = (0..classes).map(|class| logits[at(class)].f64()).collect();
            let seen = io.outputs[1].indices_mut();
            let scale = if temperature > 0.0 { temperature } else { 1.0 };
            let adjusted: Vec<f64> = raw
                .iter()
                .enumerate()
                .map(|(class, &x)| match seen[at(class)] {
                    0 => x / scale,
                    _ if x > 0.0 => x / penalty / scale,
                    _ => x * penalty / scale,
                })
                .collect();
            let token = match temperature > 0.0 {
                true => draw(&adjusted, top_k as usize, top_p, min_p, uniform[b].f64()),
                false => first_largest(&adjusted),
            };
            seen[at(token)] = 1;
            io.outputs[0].indices_mut()[b] = token as u32;
            let peak = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let lse = peak + raw.iter().map(|x| (x - peak).exp()).sum::<f64>().ln();
            let report = io.out(2);
            (report[2 * b], report[2 * b + 1]) = (T::of(token as f64), T::of(raw[token] - lse));
        }
    }
}

fn first_largest(x: &[f64]) -> usize {
    (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}

/// Sorts, cuts and draws: the textbook way, which the kernel does by bisection.
fn draw(x: &[f64], top_k: usize, top_p: f64, min_p: f64, uniform: f64) -> usize {
    let mut sorted = x.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let peak = sorted[0];
    let mut lowest = if top_k == 0 { f64::NEG_INFINITY } else { sorted[top_k.min(x.len()) - 1] };
    let mass = |above: f64| x.iter().filter(|&&x| x >= above).map(|x| (x - peak).exp()).sum::<f64>();
    if top_p < 1.0 {
        let wanted = top_p * mass(lowest);
        let mut before = 0.0;
        for &x in sorted.iter().take_while(|&&x| x >= lowest).collect::<Vec<_>>() {
            if before >= wanted && x < peak {
                break;
            }
            lowest = x;
            before += (x - peak).exp();
        }
    }
    if min_p > 0.0 {
        lowest = lowest.max(peak + min_p.ln());
    }
    let mut rest = uniform * mass(lowest);
    let kept = |&class: &usize| x[class] >= lowest;
    for class in (0..x.len()).filter(kept) {
        rest -= (x[class] - peak).exp();
        if rest < 0.0 {
            return class;
        }
    }
    (0..x.len()).rfind(kept).unwrap_or_else(|| first_largest(x))
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let case = |batch: usize, classes: usize, shard_rows: usize, sampling: Sampling| {
        let settings = sampling.settings().map(f64::from).to_vec();
        let uniform = (0..batch).map(|b| (0.137 + 0.311 * b as f64).fract()).collect();
        Case::new(Sample { shard_rows })
            .fixed(TensorType::f32(&[batch, classes]), Fill::Normal(2.0))
            .fixed(TensorType::f32(&[8]), Fill::Floats(settings))
            .fixed(TensorType::f32(&[batch]), Fill::Floats(uniform))
            .fixed(TensorType::u32(&[batch * classes]), Fill::Ids(2))
            .fixed(TensorType::u32(&[batch]), Fill::Ids(2))
    };
    let plain = Sampling::default();
    vec![
        case(1, 1, 1, plain),
        case(3, 65, 65, Sampling::greedy()),
        case(2, 300, 128, Sampling { repetition_penalty: 1.3, ..Sampling::greedy() }),
        case(5, 1000, 1000, plain),
        case(4, 67, 67, Sampling { top_k: 5, temperature: 0.7, ..plain }),
        case(3, 1000, 384, Sampling { top_p: 0.8, repetition_penalty: 1.1, ..plain }),
        case(3, 257, 257, Sampling { min_p: 0.05, temperature: 1.5, ..plain }),
        case(2, 97, 97, Sampling { top_p: 0.0, ..plain }),
        case(7, 1024, 1024, Sampling { top_k: 50, top_p: 0.9, min_p: 0.01, ..plain }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_keep_what_they_say() {
        let x = [0.4f64, 0.3, 0.2, 0.1].map(f64::ln);
        let last = |top_k, top_p, min_p| draw(&x, top_k, top_p, min_p, 0.999_999);
        assert_eq!(last(0, 1.0, 0.0), 3);
        assert_eq!(last(2, 1.0, 0.0), 1);
        assert_eq!((last(0, 0.65, 0.0), last(0, 0.75, 0.0)), (1, 2));
        assert_eq!((last(0, 1.0, 0.6), last(0, 1.0, 0.4)), (1, 2));
        assert_eq!(last(0, 0.0, 0.0), 0);
        // top-p works on what top-k has left: 0.4 of 0.9 is already 0.44.
        assert_eq!(last(3, 0.44, 0.0), 0);
    }
}
