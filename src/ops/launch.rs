//! Launch shapes shared by row and elementwise kernels (`shaders/shared/`).

use crate::gpu::kernel::{Caps, Command, Dispatch, Kernel, MAX_BINDING, Slot, fold};
use std::ops::Range;

/// Invocations of an elementwise workgroup: constant `EG`.
pub const ELEMENT_GROUP: u32 = 64;

/// Invocations of a row workgroup: constant `WG`.
fn row_group(caps: &Caps) -> u32 {
    if caps.is_lanes() { caps.lane_count() } else { 64 }
}

/// `caps` for a launch that reads `elements` floats once or twice. Few of them are not worth a texture: the copy
/// ends a compute pass, which costs more than some slow loads. The bound is an estimate.
pub fn worth_texels(caps: &Caps, elements: usize) -> Caps {
    Caps { texels: caps.texels && elements >= 1 << 14, ..*caps }
}

/// A kernel over rows of `columns` elements, and how many `Elem`s (four floats where possible) that is.
pub fn row_kernel(shader: &'static str, entry: &'static str, caps: &Caps, columns: usize) -> (Kernel, u32) {
    let vec4 = columns.is_multiple_of(4);
    let kernel = Kernel::new(shader, entry)
        .constant("WG", row_group(caps))
        .constant("EG", ELEMENT_GROUP)
        .flag("tiled", !caps.is_lanes())
        .flag("vec4", vec4)
        .flag("texels", vec4 && caps.texels);
    (kernel, if vec4 { columns / 4 } else { columns } as u32)
}

/// Workgroups for `rows` rows: one each, or one per `WG` rows in the `lanes` family.
pub fn row_grid(caps: &Caps, rows: usize) -> [u32; 3] {
    fold(if caps.is_lanes() { rows.div_ceil(row_group(caps) as usize) } else { rows })
}

/// The ranges of `count` rows of `row_bytes` bytes that bindings hold: all rows at once where that is possible. Others
/// begin at multiples of 64 rows, and so at offsets that bindings may have.
pub fn windows(count: usize, row_bytes: u64) -> impl Iterator<Item = Range<usize>> {
    let most = (MAX_BINDING / row_bytes.max(1)) as usize;
    let most = if count <= most { count.max(1) } else { (most / 64 * 64).max(64) };
    (0..count.max(1)).step_by(most).map(move |start| start..(start + most).min(count))
}

/// A kernel of one `Elem` per invocation over tensors of `elements` floats.
pub fn elementwise_kernel(shader: &'static str, entry: &'static str, caps: &Caps, elements: usize) -> Kernel {
    row_kernel(shader, entry, &worth_texels(caps, elements), elements).0
}

/// The parts of such tensors that bindings hold, how many `Elem`s each has, and its grid.
pub fn elementwise_parts(elements: usize) -> impl Iterator<Item = (Range<usize>, u32, [u32; 3])> {
    let floats = if elements.is_multiple_of(4) { 4 } else { 1 };
    windows(elements, 4).map(move |range| {
        let count = range.len() / floats;
        (range, count as u32, fold(count.div_ceil(ELEMENT_GROUP as usize)))
    })
}

/// One `Elem` per invocation, over tensors of `elements` floats. All inputs are arrays of `Elem`.
pub fn elementwise<const N: usize>(
    shader: &'static str,
    entry: &'static str,
    caps: &Caps,
    elements: usize,
    slots: [Slot; N],
) -> Vec<Command> {
    let launch = |(range, count, grid): (Range<usize>, u32, [u32; 3])| {
        let bindings = slots.map(|slot| {
            let binding = slot.window(&range, elements, 4);
            if let Slot::In(_) = slot { binding.texels() } else { binding }
        });
        Dispatch::command(elementwise_kernel(shader, entry, caps, elements), bindings, &count, grid)
    };
    elementwise_parts(elements).map(launch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_all_rows_and_fit_bindings() {
        assert_eq!(windows(0, 4).map(|range| range.len()).collect::<Vec<_>>(), [0]);
        for (count, row_bytes, ranges) in [
            (1, 4, 1),
            (8192, 16_384, 1),
            (8193, 16_384, 2),
            (8192, 32_768, 2),
            (8191, 32_768, 2),
            (12_288, 32_768, 3),
            (1 << 26, 4, 2),
            (1000, 700_000, 8),
        ] {
            let all: Vec<_> = windows(count, row_bytes).collect();
            assert_eq!(all.len(), ranges, "{count} x {row_bytes}");
            let mut end = 0;
            for range in all {
                assert_eq!(range.start, end);
                assert!(range.len() as u64 * row_bytes <= MAX_BINDING);
                assert!((range.start as u64 * row_bytes).is_multiple_of(256));
                end = range.end;
            }
            assert_eq!(end, count);
        }
    }
}
