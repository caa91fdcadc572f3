//! One op, one file: what it computes, its gradient, its f64 reference, its kernels and its test cases.
//!
//! Shape letters used in every op file:
//! B batch, T tokens of a sequence, N = B T rows, D model width, H query heads, K key/value heads,
//! E head width, F feed-forward width, V vocabulary.
//!
//! Adding an op takes one file here, one shader of the same name, and a line in [`Op`].

pub mod adamw;
pub mod add;
pub mod attention;
pub mod attention_cached;
pub mod cross_entropy;
pub mod embedding;
pub mod global_norm;
pub mod kv_cache;
mod launch;
pub mod linear_cross_entropy;
pub mod logits;
pub mod matmul;
pub mod reference;
pub mod rms_norm;
pub mod rope;
pub mod sample;
pub mod swiglu;
pub mod testing;
pub mod types;
pub mod zero;

pub use crate::gpu::kernel::{Binding, Caps, Command, Dispatch, Family, Kernel, Slot, fold};
pub use launch::{ELEMENT_GROUP, elementwise, row_grid, row_kernel, worth_texels};
pub use reference::{Data, RefIo};
pub use testing::{Case, Fill};
pub use types::{Cost, DType, Io, Signature, TensorType, ValueId};

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

macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident($path:path),)*) => {
        /// Every op there is.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op { $($(#[$doc])* $variant($path),)* }

        impl Op {
            /// The op's behaviour.
            pub fn def(&self) -> &dyn OpDef {
                match self { $(Op::$variant(op) => op,)* }
            }

            /// Runs the op's reference.
            pub fn reference<T: Real>(&self, io: &mut RefIo<T>) {
                match self { $(Op::$variant(op) => op.reference(io),)* }
            }
        }

        $(impl From<$path> for Op {
            fn from(op: $path) -> Op { Op::$variant(op) }
        })*
    };
}

ops! {
    /// Token ids to rows of the embedding table.
    Embedding(embedding::Embedding),
    /// Gradient of the table.
    EmbeddingBackward(embedding::EmbeddingBackward),
    /// Root-mean-square normalisation.
    RmsNorm(rms_norm::RmsNorm),
    /// Its gradients.
    RmsNormBackward(rms_norm::RmsNormBackward),
    /// Rotary position embedding and its inverse.
    Rope(rope::Rope),
    /// Matrix product: NT, NN, TN.
    Matmul(matmul::Matmul),
    /// Causal grouped-query attention.
    Attention(attention::Attention),
    /// Its gradients.
    AttentionBackward(attention::AttentionBackward),
    /// Storing new keys and values for generation.
    KvCache(kv_cache::KvCache),
    /// Attention over them.
    AttentionCached(attention_cached::AttentionCached),
    /// silu(gate) * up.
    Swiglu(swiglu::Swiglu),
    /// Its gradients.
    SwigluBackward(swiglu::SwigluBackward),
    /// Elementwise sum.
    Add(add::Add),
    /// Scores of every class, for the choice of the next token.
    Logits(logits::Logits),
    /// The next token.
    Sample(sample::Sample),
    /// Loss of given logits.
    CrossEntropy(cross_entropy::CrossEntropy),
    /// Its gradient.
    CrossEntropyBackward(cross_entropy::CrossEntropyBackward),
    /// Loss of hidden states, logits never stored.
    LinearCrossEntropy(linear_cross_entropy::LinearCrossEntropy),
    /// Its gradients.
    LinearCrossEntropyBackward(linear_cross_entropy::LinearCrossEntropyBackward),
    /// Norm of all gradients together.
    GlobalNorm(global_norm::GlobalNorm),
    /// Optimizer step of one tensor, with clipping.
    AdamW(adamw::AdamW),
    /// Sets a tensor to zero.
    Zero(zero::Zero),
}

/// The cases of every op, in the order of [`Op`].
pub fn all_cases() -> Vec<Case> {
    [
        embedding::cases(),
        rms_norm::cases(),
        rope::cases(),
        matmul::cases(),
        attention::cases(),
        kv_cache::cases(),
        attention_cached::cases(),
        swiglu::cases(),
        add::cases(),
        logits::cases(),
        sample::cases(),
        cross_entropy::cases(),
        linear_cross_entropy::cases(),
        global_norm::cases(),
        adamw::cases(),
        zero::cases(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::kernel::MAX_TEXTURES;
    use crate::gpu::shader::{link, validate};

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
