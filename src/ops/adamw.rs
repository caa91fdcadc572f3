//! AdamW: one step of one tensor (Loshchilov & Hutter 2019, arXiv 1711.05101; as `torch.optim.AdamW`), with the
//! gradient scaled by `min(1, clip / (norm + 1e-6))` as `torch.nn.utils.clip_grad_norm_` does.
//!
//! ```text
//! m = m + (1 - beta1) (g - m)         v = beta2 v + (1 - beta2) g^2
//! w = w (1 - lr decay) - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//! ```
//! Where the norm is not finite nothing changes: the host learns of it a step later, and the weights are still good.

use super::reference::Real;
use super::{
    Binding, Caps, Case, Command, Cost, Dispatch, Fill, Io, OpDef, RefIo, Signature, Slot, TensorType, fold,
};

/// g, hyper [8], norm [1], w, m, v -> w, m, v in place. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Whether the weight decays.
    pub decayed: bool,
}

/// Names of m and v: the optimizer state that a checkpoint holds per trained parameter.
pub const STATES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Params {
    /// In elements of the shader's `Elem`.
    count: u32,
    decayed: u32,
}

/// The step's scalars, in the order of the `hyper` input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyper {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest gradient norm; 0 for no clipping.
    pub clip: f64,
}

impl Hyper {
    /// Contents of the `hyper` input at step `t`, counted from 1.
    pub fn at_step(&self, t: u64) -> [f32; 8] {
        let correction = |beta: f64| 1.0 - beta.powf(t as f64);
        [
            self.lr,
            self.beta1,
            self.beta2,
            self.eps,
            self.weight_decay,
            correction(self.beta1),
            correction(self.beta2),
            self.clip,
        ]
        .map(|x| x as f32)
    }
}

impl OpDef for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn infer(&self, inputs: &[TensorType]) -> Signature {
        let g = &inputs[0];
        assert!(inputs[3..].iter().all(|x| x.elements() == g.elements()), "adamw: sizes differ");
        Signature::of(inputs[3..].to_vec()).updating(0, 3).updating(1, 4).updating(2, 5)
    }

    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command> {
        let (kernel, count) = super::row_kernel("adamw", "step", caps, io.input(0).elements());
        let state = [Slot::Out(0), Slot::Out(1), Slot::Out(2)];
        let mut bindings = vec![Slot::In(0).texels(), Slot::In(1).into(), Slot::In(2).into()];
        bindings.extend(state.map(Binding::from));
        if kernel.flags.contains(&"texels") {
            bindings.extend(state.map(Slot::texels));
        }
        const PER_GROUP: usize = 8 * super::ELEMENT_GROUP as usize; // PER_INVOCATION in the shader
        vec![Dispatch::command(
            kernel,
            bindings,
            &Params { count, decayed: self.decayed as u32 },
            fold((count as usize).div_ceil(PER_GROUP)),
        )]
    }

    fn cost(&self, io: &Io) -> Cost {
        // What is updated is read and written.
        Cost::elementwise(io, 15.0)
    }

    fn reference<T: Real>(&self, io: &mut RefIo<T>) {
        let (g, hyper, norm) = (io.input(0), io.input(1), io.input(2)[0]);
        let [lr, beta1, beta2, eps, decay, c1, c2, clip] = std::array::from_fn(|i| hyper[i]);
        let (zero, one) = (T::of(0.0), T::of(1.0));
        if !norm.f64().is_finite() {
            return;
        }
        let decay = if self.decayed { decay } else { zero };
        let unclipped = clip / (norm + T::of(1e-6));
        let scale = if clip > zero && unclipped < one { unclipped } else { one };
        let [w, m, v] = io.outs();
        for i in 0..g.len() {
            let grad = g[i] * scale;
            m[i] = m[i] + (one - beta1) * (grad - m[i]);
            v[i] = beta2 * v[i] + (one - beta2) * grad * grad;
            let step = lr / c1 * m[i] / (v[i].sqrt() / c2.sqrt() + eps);
            w[i] = w[i] * (one - lr * decay) - step;
        }
    }
}

/// See [`super::all_cases`].
pub fn cases() -> Vec<Case> {
    let hyper = Hyper { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
    let case = |decayed: bool, n: usize, norm: f64| {
        let x = || TensorType::f32(&[n]);
        Case::new(AdamW { decayed })
            .fixed(x(), Fill::Normal(0.3))
            .fixed(TensorType::f32(&[8]), Fill::Floats(hyper.at_step(3).map(f64::from).to_vec()))
            .fixed(TensorType::f32(&[1]), Fill::Floats(vec![norm]))
            .fixed(x(), Fill::Normal(1.0))
            .fixed(x(), Fill::Normal(0.1))
            .fixed(x(), Fill::Squares(0.2))
    };
    vec![
        case(true, 1, 0.5),
        case(false, 65, 7.0),
        case(true, 2051, 3.0),
        case(true, 4096, 0.1),
        case(false, 260, 0.1),
        // A step whose gradient is not finite changes nothing.
        case(true, 66, f64::INFINITY),
        case(true, 64, f64::NAN),
    ]
}
