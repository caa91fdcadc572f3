//! Parts of buffers.

/// A window of a buffer.
#[derive(Clone, PartialEq)]
pub struct Window {
    /// The buffer.
    pub buffer: wgpu::Buffer,
    /// Start in bytes, a multiple of 256.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl Window {
    pub(super) fn overlaps(&self, other: &Window) -> bool {
        self.buffer == other.buffer
            && self.offset < other.offset + other.bytes
            && other.offset < self.offset + self.bytes
    }
}

/// `bytes` in whole words, the unit of bindings, copies and clears. Since windows start at multiples of 256 bytes,
/// nothing else is in a window's last word.
pub(super) fn in_words(bytes: u64) -> u64 {
    bytes.next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT)
}
