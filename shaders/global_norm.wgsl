// Euclidean norm of all gradients together, in two stages: 64 partial sums of squares per tensor, then their sum.

import package::constants::WG;
import package::shared::elem::{Elem, total};
import package::shared::rows::{row_of, first_of, STRIDE, leads, row_sum};

const PARTIALS = 64u;

struct Params { count: u32 }

@group(0) @binding(0) var<storage, read> g: array<Elem>;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>; // this tensor's 64
@group(0) @binding(2) var<uniform> p: Params;

// "Rows" are the partial sums: each takes every 64th span of STRIDE elements.
@compute @workgroup_size(WG)
fn squares(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let part = row_of(group, groups, lane);
    if (part >= PARTIALS) { return; }
    var sum = Elem(0.0);
    for (var i = part * STRIDE + first_of(lane); i < p.count; i += PARTIALS * STRIDE) {
        sum += g[i] * g[i];
    }
    let all = row_sum(total(sum), lane);
    if (leads(lane)) { partials[part] = all; }
}

@group(0) @binding(0) var<storage, read> f_partials: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> f_norm: array<f32>;
@group(0) @binding(2) var<uniform> f_p: Params;

@compute @workgroup_size(WG)
fn finish(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    if (row_of(group, groups, lane) > 0u) { return; }
    var sum = vec4f(0.0);
    for (var i = first_of(lane); i < f_p.count; i += STRIDE) { sum += f_partials[i]; }
    let all = row_sum((sum.x + sum.y) + (sum.z + sum.w), lane);
    if (leads(lane)) { f_norm[0] = sqrt(all); }
}
