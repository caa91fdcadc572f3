//! One op, one file: what it computes, its gradient, its f64 reference, its kernels and its test cases.
//!
//! Shape letters used in every op file:
//! B batch, T tokens of a sequence, N = B T rows, D model width, H query heads, K key/value heads,
//! E head width, F feed-forward width, V vocabulary.
//!
//! Adding an op takes one file here, one shader of the same name, a `mod` line and a line in `ops!`.

pub mod adamw;
pub mod add;
pub mod attention;
pub mod attention_cached;
pub mod cross_entropy;
pub mod embedding;
pub mod global_norm;
pub mod host;
pub mod kv_cache;
mod launch;
pub mod linear_cross_entropy;
pub mod log_prob;
pub mod logits;
pub mod matmul;
pub mod preference_loss;
pub mod random;
pub mod reference;
pub mod rms_norm;
pub mod rope;
pub mod sample;
pub mod scale;
pub mod swiglu;
pub mod testing;
pub mod types;
pub mod zero;

pub use crate::gpu::kernel::{Binding, Caps, Command, Dispatch, Family, Kernel, Slot, fold};
pub use host::HostTensor;
pub use launch::{ELEMENT_GROUP, elementwise, row_grid, row_kernel, worth_texels};
pub use reference::{Data, RefIo};
pub use testing::{Case, Fill};
pub use types::{Cost, ElementType, Io, Signature, TensorType, ValueId};

use reference::Real;

/// Behaviour of one op. Shapes that do not fit are programmer errors and panic in [`OpDef::infer`].
pub trait OpDef {
    /// The one name: shader file, test, benchmark row, profile label.
    fn name(&self) -> &'static str;

    /// Types of the results for these input types.
    fn infer(&self, inputs: &[TensorType]) -> Signature;

    /// The GPU work for these shapes on such a device.
    fn lower(&self, io: &Io, caps: &Caps) -> Vec<Command>;

    /// Appends the ops that carry gradients from the outputs to the inputs.
    fn backward(&self, _tape: &mut dyn Tape, _node: &NodeIo) {
        panic!("{} is not differentiable", self.name());
    }

    /// Work for these shapes.
    fn cost(&self, io: &Io) -> Cost;

    /// Whether computing it again costs less than keeping its result (recomputation policy `cheap`).
    fn cheap(&self) -> bool {
        false
    }

    /// The same mathematics on the host.
    fn reference<T: Real>(&self, io: &mut RefIo<T>)
    where
        Self: Sized;
}

/// Tensors around a node, for [`OpDef::backward`].
pub struct NodeIo {
    /// Inputs in order.
    pub inputs: Vec<ValueId>,
    /// Outputs in order.
    pub outputs: Vec<ValueId>,
}

/// Where gradient ops are appended.
pub trait Tape {
    /// Gradient of an output so far; `None` where nothing depends on it.
    fn grad(&self, output: ValueId) -> Option<ValueId>;

    /// Type of a tensor.
    fn ty(&self, value: ValueId) -> &TensorType;

    /// Whether a gradient for this input is asked for.
    fn wanted(&self, input: ValueId) -> bool;

    /// Appends an op and returns its outputs.
    fn emit(&mut self, op: Op, inputs: &[ValueId]) -> Vec<ValueId>;

    /// The gradient that `input` has from elsewhere, to be added to by the op itself instead of by an `add`.
    fn partial(&mut self, input: ValueId) -> Option<ValueId>;

    /// Like [`Tape::partial`], but only if its memory may be overwritten.
    fn partial_in_place(&mut self, input: ValueId) -> Option<ValueId>;

    /// Contributes `gradient` to `input`; adds it to what is there, unless the op already did through a partial.
    fn give(&mut self, input: ValueId, gradient: ValueId);

    /// Like [`Tape::give`], for a gradient that is itself another tensor's gradient and must not be overwritten.
    fn share(&mut self, input: ValueId, gradient: ValueId);
}

/// What a gradient op does about the gradient of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightGradient {
    /// Does not compute it: the weight is frozen.
    Unwanted,
    /// Writes it.
    Fresh,
    /// Adds to what there is, in place.
    Accumulated,
}

impl WeightGradient {
    /// Whether it is computed.
    pub fn wanted(self) -> bool {
        self != WeightGradient::Unwanted
    }

    /// Whether it is added to.
    pub fn accumulates(self) -> bool {
        self == WeightGradient::Accumulated
    }
}

/// What is to become of the gradient of a weight in `shards`, and the gradients so far that the op must then take as
/// inputs and update.
pub fn take_partials(tape: &mut dyn Tape, shards: &[ValueId]) -> (WeightGradient, Vec<ValueId>) {
    if !shards.iter().any(|&shard| tape.wanted(shard)) {
        return (WeightGradient::Unwanted, Vec::new());
    }
    let partials: Vec<ValueId> = shards.iter().filter_map(|&shard| tape.partial_in_place(shard)).collect();
    match partials.len() {
        0 => (WeightGradient::Fresh, partials),
        n => {
            assert_eq!(n, shards.len(), "the shards of a weight have gradients all or none");
            (WeightGradient::Accumulated, partials)
        }
    }
}

/// Every op by the module that defines it. A module has `cases()`, or this does not compile.
macro_rules! ops {
    ($($module:ident: $($op:ident),+;)*) => {
        /// Every op there is.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            $($(#[doc = concat!("See [`", stringify!($module), "`].")] $op($module::$op),)+)*
        }

        impl Op {
            /// The op's behaviour.
            pub fn def(&self) -> &dyn OpDef {
                match self { $($(Op::$op(op) => op,)+)* }
            }

            /// Runs the op's reference.
            pub fn reference<T: Real>(&self, io: &mut RefIo<T>) {
                match self { $($(Op::$op(op) => op.reference(io),)+)* }
            }
        }

        $($(impl From<$module::$op> for Op {
            fn from(op: $module::$op) -> Op { Op::$op(op) }
        })+)*

        /// The cases of every op, in the order of [`Op`].
        pub fn all_cases() -> Vec<Case> {
            [$($module::cases(),)*].concat()
        }

        /// Number of cases per module.
        #[cfg(test)]
        fn case_counts() -> Vec<(&'static str, usize)> {
            vec![$((stringify!($module), $module::cases().len()),)*]
        }
    };
}

ops! {
    embedding: Embedding, EmbeddingBackward;
    rms_norm: RmsNorm, RmsNormBackward;
    rope: Rope;
    matmul: Matmul;
    attention: Attention, AttentionBackward;
    kv_cache: KvCache;
    attention_cached: AttentionCached;
    swiglu: Swiglu, SwigluBackward;
    add: Add;
    scale: Scale;
    logits: Logits;
    sample: Sample;
    cross_entropy: CrossEntropy, CrossEntropyBackward;
    linear_cross_entropy: LinearCrossEntropy, LinearCrossEntropyBackward;
    log_prob: LogProb, LogProbBackward;
    preference_loss: PreferenceLoss, PreferenceLossBackward;
    global_norm: GlobalNorm;
    adamw: AdamW;
    zero: Zero;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::kernel::MAX_TEXTURES;
    use crate::gpu::shader::{link, validate};

    #[test]
    fn every_op_has_cases() {
        for (module, count) in case_counts() {
            assert!(count >= 3, "{module} has {count} cases");
        }
    }

    /// Every kernel that any case asks for, on every kind of device, is sound WGSL with no more bindings than
    /// WebGPU guarantees, and reads all vectors as textures where that is faster.
    #[test]
    fn every_kernel_links_and_validates() {
        let mut seen = std::collections::HashSet::new();
        for caps in Caps::every() {
            for case in all_cases() {
                let types = case.types();
                let signature = case.op.def().infer(&types);
                for command in case.op.def().lower(&Io { inputs: &types, signature: &signature }, &caps) {
                    let Command::Dispatch(dispatch) = command else { continue };
                    let texels = dispatch.kernel.texels.len();
                    let buffers = dispatch.bindings.len() - texels;
                    assert!(
                        buffers <= 8 && texels <= MAX_TEXTURES,
                        "{}: too many bindings",
                        dispatch.kernel.label()
                    );
                    if seen.insert(dispatch.kernel.clone()) {
                        let linked = link(&dispatch.kernel).unwrap();
                        validate(&dispatch.kernel, &linked).unwrap();
                        let vectors = ["array<Elem>", "array<vec4f>"];
                        let undeclared = linked.lines().filter(|line| {
                            line.contains("var<storage, read> ") && vectors.iter().any(|ty| line.contains(ty))
                        });
                        if dispatch.kernel.flags.contains(&"texels") && dispatch.kernel.shader != "matvec" {
                            assert_eq!(undeclared.count(), 0, "{linked}\nmisses a `.texels()`");
                        }
                    }
                }
            }
        }
        assert!(seen.len() > 30, "only {} kernels", seen.len());
    }
}
