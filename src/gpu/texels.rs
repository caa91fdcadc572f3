//! Textures that stand in for buffers of vectors: texel `i` of the buffer is at (`i % 1024`, `i / 1024`).

use super::window::Window;

/// Bytes of a texel: four floats.
const TEXEL_BYTES: u64 = 16;

/// Texels per row.
pub const TEXELS_PER_ROW: u32 = 1024;

/// Bytes of a row.
pub const TEXEL_ROW_BYTES: u64 = TEXEL_BYTES * TEXELS_PER_ROW as u64;

/// Rows of a texture that holds `bytes`.
pub fn texel_rows(bytes: u64) -> u32 {
    bytes.div_ceil(TEXEL_ROW_BYTES) as u32
}

/// A texture of `rows` rows that is written by copies and read by kernels.
pub(super) fn descriptor(rows: u32) -> wgpu::TextureDescriptor<'static> {
    wgpu::TextureDescriptor {
        label: Some("texels"),
        size: wgpu::Extent3d { width: TEXELS_PER_ROW, height: rows, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: wgpu::TextureFormat::Rgba32Float,
        usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
        view_formats: &[],
    }
}

/// Fills a texture with `bytes` before the next submission.
pub(super) fn write(queue: &wgpu::Queue, texture: &wgpu::Texture, bytes: &[u8]) {
    for (row, extent) in boxes(bytes.len() as u64) {
        queue.write_texture(from_row(texture, row), bytes, layout(0, row), extent);
    }
}

/// Fills a texture with what a window holds.
pub(super) fn copy(encoder: &mut wgpu::CommandEncoder, window: &Window, texture: &wgpu::Texture) {
    for (row, extent) in boxes(window.bytes) {
        let source = wgpu::TexelCopyBufferInfo { buffer: &window.buffer, layout: layout(window.offset, row) };
        encoder.copy_buffer_to_texture(source, from_row(texture, row), extent);
    }
}

/// The two boxes of a texture that hold `bytes` texel after texel: the whole rows at once, then the rest of the last
/// one. Each is its first row and its extent.
fn boxes(bytes: u64) -> impl Iterator<Item = (u32, wgpu::Extent3d)> {
    debug_assert!(bytes.is_multiple_of(TEXEL_BYTES), "{bytes} bytes are not whole texels");
    let whole = (bytes / TEXEL_ROW_BYTES) as u32;
    let rest = (bytes % TEXEL_ROW_BYTES / TEXEL_BYTES) as u32;
    [(0, TEXELS_PER_ROW, whole), (whole, rest, 1)]
        .into_iter()
        .filter(|&(_, width, height)| width > 0 && height > 0)
        .map(|(row, width, height)| (row, wgpu::Extent3d { width, height, depth_or_array_layers: 1 }))
}

/// The texels from `row` on.
fn from_row(texture: &wgpu::Texture, row: u32) -> wgpu::TexelCopyTextureInfo<'_> {
    let origin = wgpu::Origin3d { x: 0, y: row, z: 0 };
    wgpu::TexelCopyTextureInfo { texture, mip_level: 0, origin, aspect: wgpu::TextureAspect::All }
}

/// Where the rows from `row` on lie in memory that holds the first one at `offset`.
fn layout(offset: u64, row: u32) -> wgpu::TexelCopyBufferLayout {
    wgpu::TexelCopyBufferLayout {
        offset: offset + row as u64 * TEXEL_ROW_BYTES,
        bytes_per_row: Some(TEXEL_ROW_BYTES as u32),
        rows_per_image: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_cover_every_texel_once() {
        let sizes = |texels: u64| -> Vec<(u32, u32, u32)> {
            boxes(texels * TEXEL_BYTES).map(|(row, extent)| (row, extent.width, extent.height)).collect()
        };
        assert!(sizes(0).is_empty());
        assert_eq!(sizes(1), [(0, 1, 1)]);
        assert_eq!(sizes(1024), [(0, 1024, 1)]);
        assert_eq!(sizes(3 * 1024 + 7), [(0, 1024, 3), (3, 7, 1)]);
        assert_eq!(texel_rows(3 * TEXEL_ROW_BYTES + 1), 4);
    }
}
