//! How the launches of a graph bind its values: what they read as textures on software adapters, and what as buffers.

use super::Graph;
use crate::gpu::kernel::{Caps, Command};
use crate::ops::{Io, ValueId};
use std::collections::BTreeSet;

/// The bindings of all launches of a graph.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// Launches of all programs.
    pub launches: u64,
    /// What is read as a texture: which of a launch's textures, the value, and how many bytes of it.
    pub textures: Vec<(usize, ValueId, u64)>,
    /// Values that some launch binds as a buffer, writes, or reads a part of.
    pub buffers: BTreeSet<ValueId>,
}

impl Reads {
    /// Collects the bindings of kernels chosen by `caps`.
    pub fn of(graph: &Graph, caps: &Caps) -> Reads {
        let mut reads = Reads::default();
        for node in graph.nodes() {
            reads.buffers.extend(node.outputs.iter().map(|&id| graph.value(id).root));
            let (inputs, signature) = graph.types(node);
            for command in node.op.def().lower(&Io { inputs: &inputs, signature: &signature }, caps) {
                let Command::Dispatch(dispatch) = command else { continue };
                reads.launches += 1;
                for (i, binding) in dispatch.bindings.iter().enumerate() {
                    let id = node.operand(binding.slot);
                    let whole = graph.value(id).ty.bytes();
                    let bytes = binding.bytes.unwrap_or(whole - binding.offset);
                    let texture = dispatch.kernel.texture(i);
                    reads.textures.extend(texture.map(|texture| (texture, id, bytes)));
                    if texture.is_none() || bytes < whole {
                        reads.buffers.insert(id);
                    }
                }
            }
        }
        reads
    }
}
