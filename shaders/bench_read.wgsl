// Reads four buffers from end to end and adds everything up: how fast a kernel can read memory.
// A workgroup reads a contiguous piece of every buffer, neighbouring invocations neighbouring elements.

import package::constants::WG;
import package::shared::elem::{Elem, total};

// each: elements of a buffer per invocation; rounds: how often all is read.
struct Params { each: u32, rounds: u32 }

@group(0) @binding(0) var<storage, read> a: array<Elem>;
@group(0) @binding(1) var<storage, read> b: array<Elem>;
@group(0) @binding(2) var<storage, read> c: array<Elem>;
@group(0) @binding(3) var<storage, read> d: array<Elem>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>; // one per invocation
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn stream(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * WG * p.each + lane;
    var sum = array<Elem, 4>();
    for (var round = 0u; round < p.rounds; round++) {
        for (var i = first; i < first + WG * p.each; i += WG) {
            sum[0] += a[i];
            sum[1] += b[i];
            sum[2] += c[i];
            sum[3] += d[i];
        }
    }
    sums[group.x * WG + lane] = total((sum[0] + sum[1]) + (sum[2] + sum[3]));
}
