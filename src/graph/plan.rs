//! Memory plan: a place for every value before anything is allocated.
//!
//! wgpu tracks the use of whole buffers: no dispatch may read one part of a buffer and write another. So values are
//! coloured such that no node reads and writes values of one colour; each colour is a slab, and within a slab values
//! whose lifetimes do not overlap share memory. Gradients and inputs have slabs of their own; weights and optimizer
//! state lie in a [`Store`](super::Store), which several graphs bind.

use super::layout::{BufferPlan, Life, MAX_BUFFER, Place, STAGING, lay_out, slabs};
use super::parameter::MAX_BINDING;
use super::reads::Reads;
use super::{Graph, Kind, Node, StorePlan};
use crate::gpu::kernel::{Caps, Command};
use crate::gpu::recording::PARAMS_STRIDE;
use crate::gpu::texels::{TEXEL_ROW_BYTES, texel_rows};
use crate::ops::{Io, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Kept values up to this size can be read without waiting; each has two staging buffers.
pub const DEFERRED_MAX: u64 = 1 << 20;

/// The plan of one graph. Plain data; executors allocate exactly this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Buffers for tensors.
    pub buffers: Vec<BufferPlan>,
    /// Place of each value, by index; in no buffer for those of the store.
    pub places: Vec<Place>,
    /// Params of all recorded dispatches, in bytes.
    pub params: u64,
    /// Staging for reads, in bytes.
    pub staging: u64,
    /// Rows of each texture that launches fill in turn with what they read, on software adapters; none elsewhere.
    pub texel_rows: Vec<u32>,
}

impl Plan {
    /// Plans `graph` for kernels chosen by `caps` (only launches and textures depend on them), with weights where
    /// `store` has them.
    ///
    /// # Panics
    /// If a value exceeds a storage binding ([`too_large`] finds such a value first), or if the store was planned for
    /// other graphs and has a texture where this one binds a buffer.
    pub fn new(graph: &Graph, caps: &Caps, store: &StorePlan) -> Plan {
        let reads = Reads::of(graph, caps);
        let lives = lifetimes(graph);
        let colours = colour(graph, &lives);
        let mut groups: BTreeMap<(Kind, usize), Vec<ValueId>> = BTreeMap::new();
        for (i, value) in graph.values().iter().enumerate() {
            let id = ValueId(i as u32);
            if value.root == id && !value.kind.is_stored() {
                groups.entry(slab_of(value.kind, colours[i])).or_default().push(id);
            }
        }
        let mut buffers = Vec::new();
        let nowhere = |value: &super::Value| Place { buffer: usize::MAX, offset: 0, bytes: value.ty.bytes() };
        let mut places: Vec<Place> = graph.values().iter().map(nowhere).collect();
        for ((kind, colour), values) in groups {
            let tensors: Vec<(u64, Life)> =
                values.iter().map(|&id| (graph.value(id).ty.bytes(), lives[id.0 as usize])).collect();
            let found = lay_out(&mut buffers, &slab_name(kind, colour), &tensors);
            values.iter().zip(found).for_each(|(id, place)| places[id.0 as usize] = place);
        }
        for (i, value) in graph.values().iter().enumerate() {
            places[i] = places[value.root.0 as usize];
        }
        if let Some(&id) = reads.buffers.iter().find(|&&id| store.is_texture(&graph.root(id).name)) {
            panic!(
                "'{}' is a texture in the store, which was planned without this graph",
                graph.root(id).name
            );
        }
        let mut rows = Vec::new();
        for (texture, id, bytes) in reads.textures {
            rows.resize(rows.len().max(texture + 1), 1);
            if !store.is_texture(&graph.root(id).name) {
                rows[texture] = rows[texture].max(texel_rows(bytes));
            }
        }
        let deferred: u64 = deferrable(graph).map(|id| 2 * graph.value(id).ty.bytes()).sum();
        let params = reads.launches * PARAMS_STRIDE;
        Plan { buffers, places, params, staging: STAGING + deferred, texel_rows: rows }
    }

    /// As [`Plan::new`], or the reason why no plan fits the limits of bindings.
    pub fn checked(graph: &Graph, caps: &Caps, store: &StorePlan) -> Result<Plan, String> {
        too_large(graph).map_or(Ok(()), Err)?;
        Ok(Plan::new(graph, caps, store))
    }

    /// Everything that will be allocated, in bytes.
    pub fn total(&self) -> u64 {
        self.slabs().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes per slab, in order.
    pub fn slabs(&self) -> Vec<(String, u64)> {
        let mut all = slabs(&self.buffers);
        all.push(("params of launches".into(), self.params));
        all.push(("staging for reads".into(), self.staging));
        let texels: u64 = self.texel_rows.iter().map(|&rows| rows as u64 * TEXEL_ROW_BYTES).sum();
        if texels > 0 {
            all.push(("textures for inputs".into(), texels));
        }
        all
    }

    /// Place of a value that is not in the store.
    pub fn place(&self, id: ValueId) -> Place {
        self.places[id.0 as usize]
    }
}

/// Why no plan fits the limits of bindings, if none does: the first value that exceeds one. Temporary values may, up to a
/// buffer, where every launch binds a part.
pub fn too_large(graph: &Graph) -> Option<String> {
    let exceeds = |id: ValueId| graph.value(id).ty.bytes() > MAX_BINDING;
    let mut large = (0..graph.values().len() as u32).map(ValueId).filter(|&id| exceeds(id)).peekable();
    large.peek()?;
    let fits =
        |id: &ValueId| graph.value(*id).kind == Kind::Temporary && graph.value(*id).ty.bytes() <= MAX_BUFFER;
    // Which rows a launch takes does not depend on the kernel.
    let bound = |node: &Node| {
        let (inputs, signature) = graph.types(node);
        node.op.def().lower(&Io { inputs: &inputs, signature: &signature }, &Caps::baseline())
    };
    let whole = |node: &Node| -> Option<ValueId> {
        let touched = || node.inputs.iter().chain(&node.outputs).chain(&node.scratch).copied();
        touched().any(exceeds).then(|| bound(node)).into_iter().flatten().find_map(|command| match command {
            Command::Clear(slot) => Some(node.operand(slot)).filter(|&id| exceeds(id)),
            Command::Dispatch(dispatch) => dispatch.bindings.iter().find_map(|binding| {
                let id = node.operand(binding.slot);
                let bytes = binding.bytes.unwrap_or(graph.value(id).ty.bytes());
                (bytes > MAX_BINDING).then_some(id)
            }),
        })
    };
    let id = large.find(|id| !fits(id)).or_else(|| graph.nodes().iter().find_map(whole))?;
    let value = graph.value(id);
    let mib = value.ty.bytes() >> 20;
    Some(format!("'{}' {:?} takes {mib} MiB, and a binding holds 128", value.name, value.ty))
}

/// Kept values that are small enough to be read without waiting.
pub fn deferrable(graph: &Graph) -> impl Iterator<Item = ValueId> {
    graph.values().iter().enumerate().filter_map(|(i, value)| {
        let own = value.root.0 as usize == i;
        (own && value.kind == Kind::Result && value.ty.bytes() <= DEFERRED_MAX).then_some(ValueId(i as u32))
    })
}

/// Kept and temporary values are coloured; every other kind has one slab.
fn slab_of(kind: Kind, colour: usize) -> (Kind, usize) {
    match kind {
        Kind::Temporary | Kind::Result => (Kind::Temporary, colour),
        other => (other, 0),
    }
}

fn slab_name(kind: Kind, colour: usize) -> String {
    match kind {
        Kind::Weight | Kind::OptimizerState => unreachable!("the store has them"),
        Kind::Gradient => "gradients".into(),
        Kind::State => "state".into(),
        Kind::Input => "inputs".into(),
        Kind::Temporary | Kind::Result => format!("activations {}", (b'a' + colour as u8) as char),
    }
}

/// Lifetime per root; values that outlive programs live from start to end.
fn lifetimes(graph: &Graph) -> Vec<Life> {
    let mut lives: Vec<Life> = graph
        .values()
        .iter()
        .map(|value| match value.kind {
            Kind::Temporary => Life { first: usize::MAX, last: 0 },
            _ => Life::ALWAYS,
        })
        .collect();
    for (i, node) in graph.nodes().iter().enumerate() {
        for &id in node.inputs.iter().chain(&node.outputs).chain(&node.scratch) {
            let root = graph.value(id).root.0 as usize;
            let life = &mut lives[root];
            *life = Life { first: life.first.min(i), last: life.last.max(i) };
        }
    }
    lives
}

/// Roots that a node binds for reading only, and those that it writes.
pub(super) fn touched(graph: &Graph, node: &Node) -> (Vec<ValueId>, Vec<ValueId>) {
    let roots = |ids: &[ValueId]| ids.iter().map(|&id| graph.value(id).root).collect::<Vec<_>>();
    let written = roots(&node.outputs);
    let read = roots(&node.inputs).into_iter().filter(|id| !written.contains(id)).collect();
    (read, written)
}

/// A colour per root such that no node reads and writes one colour. Scratch differs from everything in its node,
/// since an op may first write and then read it.
fn colour(graph: &Graph, lives: &[Life]) -> Vec<usize> {
    let mut conflicts: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); graph.values().len()];
    let mut clash = |a: ValueId, b: ValueId| {
        conflicts[a.0 as usize].insert(b.0 as usize);
        conflicts[b.0 as usize].insert(a.0 as usize);
    };
    for node in graph.nodes() {
        let (read, written) = touched(graph, node);
        for &r in &read {
            written.iter().for_each(|&w| clash(r, w));
        }
        for (i, &s) in node.scratch.iter().enumerate() {
            read.iter().chain(&written).chain(&node.scratch[i + 1..]).for_each(|&other| clash(s, other));
        }
    }
    let mut order: Vec<usize> = (0..graph.values().len()).collect();
    order.sort_by_key(|&i| lives[i].first);
    let mut colours = vec![usize::MAX; graph.values().len()];
    for i in order {
        if slab_of(graph.values()[i].kind, 0).0 == Kind::Temporary {
            let taken: BTreeSet<usize> = conflicts[i].iter().map(|&other| colours[other]).collect();
            colours[i] = (0..).find(|colour| !taken.contains(colour)).expect("colours are endless");
        }
    }
    colours
}
