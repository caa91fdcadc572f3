// Stores rows of new keys or values at their positions of the cache. One element per invocation.

import package::constants::EG;
import package::shared::elem::{Elem, flat};

// count and width in Elems; rows: new rows of a sequence.
struct Params { count: u32, width: u32, rows: u32, capacity: u32 }

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read> positions: array<u32>; // one per row
@group(0) @binding(2) var<storage, read_write> cache: array<Elem>; // [B, capacity, width]
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(EG)
fn store(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups, lane, EG);
    if (i >= p.count) { return; }
    let row = i / p.width;
    let position = positions[row];
    if (position >= p.capacity) { return; } // padding
    cache[(row / p.rows * p.capacity + position) * p.width + i % p.width] = x[i];
}
