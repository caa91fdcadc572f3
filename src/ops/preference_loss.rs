//! Losses of pairs of sequences, one of which is preferred. Inputs: log-probabilities [2 B, 2] of the judged tokens,
//! pair by pair (chosen, rejected), in the two parts of [`log_prob`](super::log_prob); counts [2 B], u32, of judged tokens;
//! the same log-probabilities under a frozen model, reference [2 B, 2], where the variant has one. loss [B]. Named as TRL
//! names them. With c, r the chosen's and the rejected's log-probability less the reference's, or where the variant says
//! so their means per judged token:
//!
//! ```text
//! sigmoid  m = beta (c - r)            (1 - e) softplus(-m) + e softplus(m)            arXiv 2305.18290; e: 2403.00409
//! hinge    m = beta (c - r)            max(0, 1 - m)                                   arXiv 2305.10425
//! ipo      means                       (c - r - 1 / (2 beta))^2                        arXiv 2310.12036
//! orpo     means, no reference         lambda softplus(-o) - c                         arXiv 2403.07691
//!          o = c - r - (ln(1 - e^c) - ln(1 - e^r))
//! simpo    means, no reference         (1 - e) softplus(-m) + e softplus(m)            arXiv 2405.14734
//!          m = beta (c - r) - gamma
//! ```
//! e is the label smoothing. Means divide by at least 1; the odds of orpo take means as at most -2^-24, since f32 makes 0
//! of the log-probability of a certain token, whose odds are infinite.
//!
//! Backward: dloss [B] -> dlogp [2 B, 2], the same for both parts; nothing is saved.

use super::log_prob::parts;
use super::reference::Real;
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, ELEMENT_GROUP, Fill, Io, Kernel, NodeIo, Op, OpDef, RefIo,
    Signature, Slot, Tape, TensorType, fold,
};

/// Which loss. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Direct preference optimization.
    Sigmoid,
    /// Sequence likelihood calibration.
    Hinge,
    /// Identity preference optimization.
    Ipo,
    /// Odds ratio preference optimization.
    Orpo,
    /// Simple preference optimization.
    Simpo,
}

impl Variant {
    /// All of them.
    pub const ALL: [Variant; 5] =
        [Variant::Sigmoid, Variant::Hinge, Variant::Ipo, Variant::Orpo, Variant::Simpo];

    /// Its name in recipes, flags and shaders.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Sigmoid => "sigmoid",
            Variant::Hinge => "hinge",
            Variant::Ipo => "ipo",
            Variant::Orpo => "orpo",
            Variant::Simpo => "simpo",
        }
    }

    /// Whether log-probabilities count relative to those of a frozen model.
    pub fn has_reference(self) -> bool {
        matches!(self, Variant::Sigmoid | Variant::Hinge | Variant::Ipo)
    }

    /// Whether log-probabilities count per judged token.
    pub fn is_mean(self) -> bool {
        matches!(self, Variant::Ipo | Variant::Orpo | Variant::Simpo)
    }
}

/// logp, counts, [reference] -> loss. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct PreferenceLoss {
    /// Which loss.
    pub variant: Variant,
    /// How much a margin counts; ipo: a margin of 1 / (2 beta) is aimed at.
    pub beta: f64,
    /// Share of labels taken to be wrong: sigmoid and simpo.
    pub label_smoothing: f64,
    /// Margin aimed at: simpo.
    pub gamma: f64,
    /// Weight of the odds beside the chosen's negative log-likelihood: orpo.
    pub lambda: f64,
}

/// dloss, logp, counts, [reference] -> dlogp.
#[derive(Clone, Debug, PartialEq)]
pub struct PreferenceLossBackward(pub PreferenceLoss);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    pairs: u32,
    mean: u32,
    beta: f32,
    label_smoothing: f32,
    gamma: f32,
    lambda: f32,
}

/// ln(1 + e^x).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + e^-x).
fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl PreferenceLoss {
    /// A sequence's part in the loss: its log-probability less the reference's (0 where there is none), as the variant
    /// counts it.
    fn counted(&self, logp: f64, reference: f64, count: u32) -> f64 {
        (logp - reference) / self.divisor(count)
    }

    fn divisor(&self, count: u32) -> f64 {
        if self.variant.is_mean() { count.max(1) as f64 } else { 1.0 }
    }

    /// What a sequence earns, as TRL logs it: `beta` times its log-probability less the reference's (0 where there is
    /// none). Without a reference it is the mean per judged token that counts; orpo weighs it with `lambda`, which TRL
    /// calls beta there.
    pub fn reward(&self, logp: f64, reference: f64, count: u32) -> f64 {
        match self.variant {
            Variant::Sigmoid | Variant::Hinge | Variant::Ipo => self.beta * (logp - reference),
            Variant::Simpo => self.beta * self.counted(logp, reference, count),
            Variant::Orpo => self.lambda * self.counted(logp, reference, count),
        }
    }

    /// The loss of a pair, chosen and rejected, on the host: log-probabilities, the reference's (0 where there is none),
    /// and how many tokens were judged.
    pub fn loss(&self, logps: [f64; 2], reference: [f64; 2], counts: [u32; 2]) -> f64 {
        let [chosen, rejected] = [0, 1].map(|side| self.counted(logps[side], reference[side], counts[side]));
        self.of_pair(chosen, rejected).0
    }

    /// The loss of a pair from its counted log-probabilities, and its derivatives by them.
    fn of_pair(&self, chosen: f64, rejected: f64) -> (f64, [f64; 2]) {
        let margin = self.beta * (chosen - rejected);
        match self.variant {
            Variant::Sigmoid => self.smoothed(margin),
            Variant::Simpo => self.smoothed(margin - self.gamma),
            Variant::Hinge => {
                let slope = if margin < 1.0 { self.beta } else { 0.0 };
                ((1.0 - margin).max(0.0), [-slope, slope])
            }
            Variant::Ipo => {
                let off = chosen - rejected - 0.5 / self.beta;
                (off * off, [2.0 * off, -2.0 * off])
            }
            Variant::Orpo => {
                // 1 - e^x, the probability of anything else.
                let rest = |x: f64| -x.min(ALMOST_CERTAIN).exp_m1();
                let odds = chosen - rejected - (rest(chosen).ln() - rest(rejected).ln());
                let slope = self.lambda * logistic(-odds);
                let loss = self.lambda * softplus(-odds) - chosen;
                (loss, [-1.0 - slope / rest(chosen), slope / rest(rejected)])
            }
        }
    }

    /// The logistic loss of a margin, and its derivatives by the two log-probabilities.
    fn smoothed(&self, margin: f64) -> (f64, [f64; 2]) {
        let wrong = self.label_smoothing;
        let loss = (1.0 - wrong) * softplus(-margin) + wrong * softplus(margin);
        let slope = self.beta * ((1.0 - wrong) * logistic(-margin) - wrong * logistic(margin));
        (loss, [-slope, slope])
    }

    /// Loss and gradients [2] of each pair on the host.
    fn pairs<T: Real>(
        &self,
        logp: &[T],
        counts: &[u32],
        reference: Option<&[T]>,
    ) -> impl Iterator<Item = (f64, [f64; 2])> {
        let counted = move |i: usize| {
            let sum = |logp: &[T]| logp[2 * i].f64() + logp[2 * i + 1].f64();
            self.counted(sum(logp), reference.map_or(0.0, sum), counts[i])
        };
        (0..counts.len() / 2).map(move |pair| {
            let (loss, slopes) = self.of_pair(counted(2 * pair), counted(2 * pair + 1));
            (loss, [0, 1].map(|side| slopes[side] / self.divisor(counts[2 * pair + side])))
        })
    }

    /// `inputs`: logp, counts, [reference].
    fn check(&self, inputs: &[TensorType]) {
        let (logp, counts) = (&inputs[0], &inputs[1]);
        let n = counts.elements();
        assert_eq!(*counts, TensorType::u32(&[n]), "preference_loss: a count per sequence");
        assert!(n.is_multiple_of(2) && *logp == TensorType::f32(&[n, 2]), "preference_loss: {logp:?}");
        assert_eq!(inputs.len(), 2 + self.variant.has_reference() as usize, "preference_loss: reference");
        assert!(inputs[2..].iter().all(|reference| reference == logp), "preference_loss: {inputs:?}");
    }

    /// A launch over pairs. Small tensors: always buffers.
    fn launch(&self, entry: &'static str, pairs: usize, slots: Vec<Slot>) -> Command {
        let kernel = Kernel::new("preference_loss", entry)
            .constant("EG", ELEMENT_GROUP)
            .flag(self.variant.name(), true)
            .flag("reference", self.variant.has_reference());
        let params = Params {
            pairs: pairs as u32,
            mean: self.variant.is_mean() as u32,
            beta: self.beta as f32,
            label_smoothing: self.label_smoothing as f32,
            gamma: self.gamma as f32,
            lambda: self.lambda as f32,
        };
        let grid = fold(pairs.div_ceil(ELEMENT_GROUP as usize));
        Dispatch::command(kernel, slots.into_iter().map(Binding::from), &params, grid)
    }
}

/// The largest log-probability that has odds; see the module.
const ALMOST_CERTAIN: f64 = -1.0 / (1u32 << 24) as f64;

impl OpDef for PreferenceLoss {
    fn name(&self) -> &'static str {
        "preference_loss"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        self.check(inputs);
        Signature::of([TensorType::f32(&[inputs[0].rows() / 2])])
    }

    fn lower(&self, io: &Io, _caps: &Caps) -> Vec<Command> {
        let mut slots = vec![Slot::In(0), Slot::In(1), Slot::Out(0)];
        slots.extend(self.variant.has_reference().then_some(Slot::In(2)));
        vec![self.launch("forward", io.output(0).elements(), slots)]
    }

    fn backward(&self, tape: &mut dyn Tape, node: &NodeIo) {
        let Some(dloss) = tape.grad(node.outputs[0]) else { return };
        let inputs = [&[dloss], node.inputs.as_slice()].concat();
        let dlogp = tape.emit(PreferenceLossBackward(self.clone()).into(), &inputs)[0];
        tape.give(node.inputs[0], dlogp);
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 16.0)
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (logp, counts) = (io.input(0), io.indices(1));
        let reference = self.variant.has_reference().then(|| io.input(2));
        for (out, (loss, _)) in io.out(0).iter_mut().zip(self.pairs(logp, counts, reference)) {
            *out = T::of(loss);
        }
    }
}

impl OpDef for PreferenceLossBackward {
    fn name(&self) -> &'static str {
        "preference_loss_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        self.0.check(&inputs[1..]);
        Signature::of([inputs[1].clone()])
    }

    fn lower(&self, io: &Io, _caps: &Caps) -> Vec<Command> {
        let mut slots = vec![Slot::In(1), Slot::In(2), Slot::Out(0), Slot::In(0)];
        slots.extend(self.0.variant.has_reference().then_some(Slot::In(3)));
        vec![self.0.launch("backward", io.input(0).elements(), slots)]
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost::elementwise(io, 8.0)
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (dloss, logp, counts) = (io.input(0), io.input(1), io.indices(2));
        let reference = self.0.variant.has_reference().then(|| io.input(3));
        let pairs = self.0.pairs(logp, counts, reference).zip(dloss);
        for (out, ((_, slopes), d)) in io.out(0).chunks_mut(4).zip(pairs) {
            let [chosen, rejected] = slopes.map(|slope| T::of(slope * d.f64()));
            out.copy_from_slice(&[chosen, chosen, rejected, rejected]);
        }
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let op = |variant: Variant, label_smoothing: f64| PreferenceLoss {
        variant,
        beta: 0.5,
        label_smoothing,
        gamma: 1.0,
        lambda: 0.3,
    };
    // The inputs after those of `case` for pairs whose means per token are given.
    let inputs = |case: Case, means: &[[f64; 2]], differentiable: bool| {
        let variant = match &case.op {
            Op::PreferenceLoss(op) | Op::PreferenceLossBackward(PreferenceLossBackward(op)) => op.variant,
            _ => unreachable!("cases of this module"),
        };
        let n = 2 * means.len();
        let counts: Vec<u32> = (0..n as u32).map(|i| [1, 7, 65, 2][i as usize / 2 % 4] + i % 2).collect();
        let sums = |share: f64| -> Vec<f64> {
            let sums = means.as_flattened().iter().zip(&counts).map(|(x, &n)| share * x * n as f64);
            sums.flat_map(parts).collect()
        };
        let case = match differentiable {
            true => case.with(&[n, 2], Fill::Floats(sums(1.0))),
            false => case.fixed(TensorType::f32(&[n, 2]), Fill::Floats(sums(1.0))),
        };
        let case = case.fixed(TensorType::u32(&[n]), Fill::Indices(counts.clone()));
        match variant.has_reference() {
            true => case.fixed(TensorType::f32(&[n, 2]), Fill::Floats(sums(0.7))),
            false => case,
        }
    };
    // Margins on both sides, away from the kink of hinge.
    let usual: Vec<[f64; 2]> =
        (0..70).map(|i| [i * 37 % 71, i * 53 % 67].map(|x| -0.1 - x as f64 / 30.0)).collect();
    // Certain tokens, hopeless ones, and huge margins either way: values only.
    let extreme = [[0.0, -1e-6], [-1e-6, 0.0], [-80.0, -1e-3], [-1e-3, -80.0], [-0.49, -0.51], [0.0, 0.0]];
    let mut cases = Vec::new();
    for variant in Variant::ALL {
        for (label_smoothing, pairs) in [(0.0, 1), (0.0, 70), (0.2, 7)] {
            let case = Case::new(op(variant, label_smoothing));
            cases.push(inputs(case, &usual[..pairs], true));
        }
        cases.push(inputs(Case::new(op(variant, 0.1)), &extreme, false));
        let backward = Case::new(PreferenceLossBackward(op(variant, 0.1)))
            .fixed(TensorType::f32(&[extreme.len()]), Fill::Normal(1.0));
        cases.push(inputs(backward, &extreme, false));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(variant: Variant, label_smoothing: f64, chosen: f64, rejected: f64) -> f64 {
        let op = PreferenceLoss { variant, beta: 0.5, label_smoothing, gamma: 1.0, lambda: 0.1 };
        op.of_pair(chosen, rejected).0
    }

    #[test]
    fn losses_are_those_of_the_papers() {
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} instead of {want}");
        let log_logistic = |x: f64| -(1.0 + (-x).exp()).ln();
        near(loss(Variant::Sigmoid, 0.0, -1.0, -3.0), -log_logistic(1.0));
        near(loss(Variant::Sigmoid, 0.2, -1.0, -3.0), -0.8 * log_logistic(1.0) - 0.2 * log_logistic(-1.0));
        near(loss(Variant::Hinge, 0.0, -1.0, -2.5), 0.25);
        near(loss(Variant::Hinge, 0.0, -1.0, -4.0), 0.0);
        near(loss(Variant::Ipo, 0.0, -1.0, -3.0), 1.0);
        near(loss(Variant::Simpo, 0.0, -1.0, -3.0), -log_logistic(0.0));
        let odds = |x: f64| x.exp() / (1.0 - x.exp());
        near(loss(Variant::Orpo, 0.0, -1.0, -3.0), 1.0 - 0.1 * log_logistic((odds(-1.0) / odds(-3.0)).ln()));
        // What f32 takes for certain has a finite loss.
        assert!(Variant::ALL.iter().all(|&it| loss(it, 0.1, 0.0, 0.0).is_finite()));
    }
}
