// y = factor * x. One element per invocation.

import package::constants::EG;
import package::shared::elem::{Elem, flat};

struct Params { count: u32, factor: f32 }

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read_write> y: array<Elem>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(EG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups, lane, EG);
    if (i >= p.count) { return; }
    y[i] = p.factor * x[i];
}
