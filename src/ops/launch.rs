//! Launch shapes shared by row and elementwise kernels (`shaders/shared/`).

use crate::gpu::kernel::{Caps, Command, Dispatch, Kernel, Slot, fold};

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

/// A kernel of one `Elem` per invocation over tensors of `elements` floats, how many `Elem`s that is, and its grid.
pub fn elementwise_grid(
    shader: &'static str,
    entry: &'static str,
    caps: &Caps,
    elements: usize,
) -> (Kernel, u32, [u32; 3]) {
    let (kernel, count) = row_kernel(shader, entry, &worth_texels(caps, elements), elements);
    (kernel, count, fold((count as usize).div_ceil(ELEMENT_GROUP as usize)))
}

/// One `Elem` per invocation, over tensors of `elements` floats. All inputs are arrays of `Elem`.
pub fn elementwise<const N: usize>(
    shader: &'static str,
    entry: &'static str,
    caps: &Caps,
    elements: usize,
    slots: [Slot; N],
) -> Command {
    let (kernel, count, grid) = elementwise_grid(shader, entry, caps, elements);
    let bindings = slots.map(|slot| if let Slot::In(_) = slot { slot.texels() } else { slot.into() });
    Dispatch::command(kernel, bindings, &count, grid)
}
