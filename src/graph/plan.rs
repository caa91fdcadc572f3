//! Memory plan: a place for every value before anything is allocated.
//!
//! wgpu tracks the use of whole buffers: no dispatch may read one part of a buffer and write another. So values are
//! coloured such that no node reads and writes values of one colour; each colour is a slab, and within a slab values
//! whose lifetimes do not overlap share memory. Weights, gradients, moments and inputs have slabs of their own.
//! A slab is one or more buffers of at most [`MAX_BUFFER`].

use super::{Graph, Kind, Node};
use crate::gpu::kernel::{Caps, Command};
use crate::gpu::recording::PARAMS_STRIDE;
use crate::gpu::texels::{TEXEL_ROW_BYTES, texel_rows};
use crate::ops::{Io, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Largest buffer that WebGPU guarantees, in bytes.
pub const MAX_BUFFER: u64 = 256 << 20;

/// Alignment of offsets in bytes: WebGPU's default for storage bindings.
pub const ALIGNMENT: u64 = 256;

/// Staging for blocking reads, in bytes.
pub const STAGING: u64 = 8 << 20;

/// Kept values up to this size can be read without waiting; each has two staging buffers.
pub const DEFERRED_MAX: u64 = 1 << 20;

/// Where a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into [`Plan::buffers`].
    pub buffer: usize,
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A buffer to allocate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferPlan {
    /// Slab and index within it.
    pub name: String,
    /// Size.
    pub bytes: u64,
}

/// The plan of one graph. Plain data; executors allocate exactly this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Buffers for tensors.
    pub buffers: Vec<BufferPlan>,
    /// Place of each value, by index.
    pub places: Vec<Place>,
    /// Params of all recorded dispatches, in bytes.
    pub params: u64,
    /// Staging for reads, in bytes.
    pub staging: u64,
    /// Textures that stand in for inputs, on software adapters; none elsewhere.
    pub texels: TexelPlan,
}

/// Textures of a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TexelPlan {
    /// Rows of each texture that launches fill in turn.
    pub shared_rows: Vec<u32>,
    /// Weights that no program changes and every launch reads as a texture: each has one of its own, and no buffer.
    pub weights: BTreeSet<ValueId>,
}

/// First and last node that touch a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    first: usize,
    last: usize,
}

impl Life {
    fn overlaps(self, other: Life) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl Plan {
    /// Plans `graph` for kernels chosen by `caps` (only launches and textures depend on them).
    ///
    /// Panics if a value exceeds a storage binding; [`too_large`] finds such a value first.
    pub fn new(graph: &Graph, caps: &Caps) -> Plan {
        let (launches, texels) = launches(graph, caps);
        let lives = lifetimes(graph);
        let colours = colour(graph, &lives);
        let mut slabs: BTreeMap<(Kind, usize), Vec<ValueId>> = BTreeMap::new();
        for (i, value) in graph.values().iter().enumerate() {
            let id = ValueId(i as u32);
            if value.root == id && !texels.weights.contains(&id) {
                slabs.entry(slab_of(value.kind, colours[i])).or_default().push(id);
            }
        }
        let mut buffers = Vec::new();
        let nowhere = |value: &super::Value| Place { buffer: usize::MAX, offset: 0, bytes: value.ty.bytes() };
        let mut places: Vec<Place> = graph.values().iter().map(nowhere).collect();
        for ((kind, colour), values) in slabs {
            let offsets = pack(graph, &values, &lives);
            let base = buffers.len();
            for (&id, &offset) in values.iter().zip(&offsets) {
                let bytes = graph.value(id).ty.bytes();
                let (page, offset) = ((offset / MAX_BUFFER) as usize, offset % MAX_BUFFER);
                while buffers.len() <= base + page {
                    let name = format!("{} {}", slab_name(kind, colour), buffers.len() - base);
                    buffers.push(BufferPlan { name, bytes: 0 });
                }
                let end = (offset + bytes).next_multiple_of(ALIGNMENT);
                let buffer = &mut buffers[base + page].bytes;
                *buffer = end.max(*buffer);
                places[id.0 as usize] = Place { buffer: base + page, offset, bytes };
            }
        }
        for (i, value) in graph.values().iter().enumerate() {
            places[i] = places[value.root.0 as usize];
        }
        let deferred: u64 = deferrable(graph).map(|id| 2 * graph.value(id).ty.bytes()).sum();
        Plan { buffers, places, params: launches * PARAMS_STRIDE, staging: STAGING + deferred, texels }
    }

    /// Everything that will be allocated, in bytes.
    pub fn total(&self) -> u64 {
        let buffers: u64 = self.buffers.iter().map(|buffer| buffer.bytes).sum();
        buffers + self.params + self.staging + self.texel_bytes()
    }

    fn texel_bytes(&self) -> u64 {
        let weights = self.texels.weights.iter().map(|&id| texel_rows(self.place(id).bytes));
        self.texels.shared_rows.iter().copied().chain(weights).map(|rows| rows as u64 * TEXEL_ROW_BYTES).sum()
    }

    /// Bytes per slab, in order.
    pub fn slabs(&self) -> Vec<(String, u64)> {
        let mut slabs: Vec<(String, u64)> = Vec::new();
        for buffer in &self.buffers {
            let name = buffer.name.rsplit_once(' ').map_or(buffer.name.as_str(), |(slab, _)| slab);
            match slabs.last_mut() {
                Some((last, bytes)) if last == name => *bytes += buffer.bytes,
                _ => slabs.push((name.into(), buffer.bytes)),
            }
        }
        slabs.push(("params of launches".into(), self.params));
        slabs.push(("staging for reads".into(), self.staging));
        if self.texel_bytes() > 0 {
            slabs.push(("textures for inputs".into(), self.texel_bytes()));
        }
        slabs
    }

    /// Place of a value; one of [`TexelPlan::weights`] is in no buffer.
    pub fn place(&self, id: ValueId) -> Place {
        self.places[id.0 as usize]
    }
}

/// The first value that no storage binding can hold, if there is one.
pub fn too_large(graph: &Graph) -> Option<ValueId> {
    let large = |value: &super::Value| value.ty.bytes() > super::MAX_BINDING;
    graph.values().iter().position(large).map(|i| ValueId(i as u32))
}

/// Kept values that are small enough to be read without waiting.
pub fn deferrable(graph: &Graph) -> impl Iterator<Item = ValueId> {
    graph.values().iter().enumerate().filter_map(|(i, value)| {
        let own = value.root.0 as usize == i;
        (own && value.kind == Kind::Result && value.ty.bytes() <= DEFERRED_MAX).then_some(ValueId(i as u32))
    })
}

/// Launches of all programs, and the textures that they read.
fn launches(graph: &Graph, caps: &Caps) -> (u64, TexelPlan) {
    let mut launches = 0;
    let mut plan = TexelPlan::default();
    let frozen = frozen(graph);
    // Launches that read a texture: which one, what, how much of it. And what is bound otherwise.
    let (mut reads, mut bound) = (Vec::new(), BTreeSet::new());
    for node in graph.nodes() {
        let (inputs, signature) = graph.types(node);
        for command in node.op.def().lower(&Io { inputs: &inputs, signature: &signature }, caps) {
            let Command::Dispatch(dispatch) = command else { continue };
            launches += 1;
            for (i, binding) in dispatch.bindings.iter().enumerate() {
                let id = node.operand(binding.slot);
                let whole = graph.value(id).ty.bytes();
                let bytes = binding.bytes.unwrap_or(whole - binding.offset);
                let texture = dispatch.kernel.texture(i);
                reads.extend(texture.map(|texture| (texture, id, bytes)));
                if texture.is_none() || bytes < whole || !frozen.contains(&id) {
                    bound.insert(id);
                }
            }
        }
    }
    for (texture, id, bytes) in reads {
        let rows = &mut plan.shared_rows;
        rows.resize(rows.len().max(texture + 1), 1);
        if bound.contains(&id) {
            rows[texture] = rows[texture].max(texel_rows(bytes));
        } else {
            plan.weights.insert(id);
        }
    }
    (launches, plan)
}

/// Weights that no program writes.
fn frozen(graph: &Graph) -> BTreeSet<ValueId> {
    let written: BTreeSet<ValueId> =
        graph.nodes().iter().flat_map(|node| &node.outputs).map(|&id| graph.value(id).root).collect();
    let weights = graph.values().iter().filter(|value| value.kind == Kind::Weight).map(|value| value.root);
    weights.filter(|root| !written.contains(root)).collect()
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
        Kind::Weight => "weights".into(),
        Kind::Gradient => "gradients".into(),
        Kind::Moment => "moments".into(),
        Kind::State => "state".into(),
        Kind::Input => "inputs".into(),
        Kind::Temporary | Kind::Result => format!("activations {}", (b'a' + colour as u8) as char),
    }
}

/// Lifetime per root; values that outlive programs live from start to end.
fn lifetimes(graph: &Graph) -> Vec<Life> {
    let end = graph.nodes().len();
    let mut lives: Vec<Life> = graph
        .values()
        .iter()
        .map(|value| match value.kind {
            Kind::Temporary => Life { first: usize::MAX, last: 0 },
            _ => Life { first: 0, last: end },
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

/// Offsets of the values of one slab: largest first, each at the lowest place that is free during its life and
/// does not straddle two buffers.
fn pack(graph: &Graph, values: &[ValueId], lives: &[Life]) -> Vec<u64> {
    let bytes = |i: usize| graph.value(values[i]).ty.bytes().next_multiple_of(ALIGNMENT).max(ALIGNMENT);
    let life = |i: usize| lives[values[i].0 as usize];
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(bytes(i)), life(i).first, i));
    let mut offsets = vec![0; values.len()];
    let mut placed: Vec<usize> = Vec::new(); // by offset
    for i in order {
        let size = bytes(i);
        assert!(size <= MAX_BUFFER, "{} exceeds a buffer", graph.value(values[i]).name);
        let fit = |at: u64| {
            let straddles = at / MAX_BUFFER != (at + size - 1) / MAX_BUFFER;
            if straddles { at.next_multiple_of(MAX_BUFFER) } else { at }
        };
        let mut at = 0;
        for &other in placed.iter().filter(|&&other| life(other).overlaps(life(i))) {
            if fit(at) + size <= offsets[other] {
                break;
            }
            at = at.max(offsets[other] + bytes(other));
        }
        offsets[i] = fit(at);
        let position = placed.partition_point(|&other| offsets[other] <= offsets[i]);
        placed.insert(position, i);
    }
    offsets
}
