//! Places in buffers: tensors packed into slabs, a slab being one or more buffers of at most [`MAX_BUFFER`].

/// Largest buffer that WebGPU guarantees, in bytes.
pub const MAX_BUFFER: u64 = 256 << 20;

/// Alignment of offsets in bytes: WebGPU's default for storage bindings.
pub const ALIGNMENT: u64 = 256;

/// Staging for blocking reads, in bytes.
pub const STAGING: u64 = 8 << 20;

/// Where a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the buffer.
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

/// First and last node that touch a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The first.
    pub first: usize,
    /// The last.
    pub last: usize,
}

impl Life {
    /// From before the first node to after the last one.
    pub const ALWAYS: Life = Life { first: 0, last: usize::MAX };

    fn overlaps(self, other: Life) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Gives each tensor (bytes, life) of a slab its place, in new buffers at the end of `buffers`. Tensors whose lives do
/// not overlap share memory.
pub fn lay_out(buffers: &mut Vec<BufferPlan>, slab: &str, tensors: &[(u64, Life)]) -> Vec<Place> {
    let base = buffers.len();
    let place = |(&(bytes, _), offset): (&(u64, Life), u64)| {
        let (page, offset) = ((offset / MAX_BUFFER) as usize, offset % MAX_BUFFER);
        while buffers.len() <= base + page {
            let name = format!("{slab} {}", buffers.len() - base);
            buffers.push(BufferPlan { name, bytes: 0 });
        }
        let end = (offset + bytes).next_multiple_of(ALIGNMENT);
        let buffer = &mut buffers[base + page].bytes;
        *buffer = end.max(*buffer);
        Place { buffer: base + page, offset, bytes }
    };
    tensors.iter().zip(pack(tensors)).map(place).collect()
}

/// Bytes per slab of `buffers`, in order.
pub fn slabs(buffers: &[BufferPlan]) -> Vec<(String, u64)> {
    let mut slabs: Vec<(String, u64)> = Vec::new();
    for buffer in buffers {
        let name = buffer.name.rsplit_once(' ').map_or(buffer.name.as_str(), |(slab, _)| slab);
        match slabs.last_mut() {
            Some((last, bytes)) if last == name => *bytes += buffer.bytes,
            _ => slabs.push((name.into(), buffer.bytes)),
        }
    }
    slabs
}

/// Offsets: largest first, each at the lowest place that is free during its life and does not straddle two buffers.
fn pack(tensors: &[(u64, Life)]) -> Vec<u64> {
    let bytes = |i: usize| tensors[i].0.next_multiple_of(ALIGNMENT).max(ALIGNMENT);
    let life = |i: usize| tensors[i].1;
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(bytes(i)), life(i).first, i));
    let mut offsets = vec![0; tensors.len()];
    let mut placed: Vec<usize> = Vec::new(); // by offset
    for i in order {
        let size = bytes(i);
        assert!(size <= MAX_BUFFER, "a tensor of {size} bytes exceeds a buffer");
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
