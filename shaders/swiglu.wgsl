// y = silu(gate) * up and its gradient. One element per invocation.

import package::constants::EG;
import package::shared::elem::{Elem, flat};

struct Params { count: u32 }

// A type-generic 1 / (1 + e^-x); e^-x may overflow to infinity, whose reciprocal is the right 0.
fn sigmoid(x: Elem) -> Elem { return Elem(1.0) / (Elem(1.0) + exp(-x)); }

@group(0) @binding(0) var<storage, read> gate: array<Elem>;
@group(0) @binding(1) var<storage, read> up: array<Elem>;
@group(0) @binding(2) var<storage, read_write> y: array<Elem>;
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(EG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups, lane, EG);
    if (i >= p.count) { return; }
    let g = gate[i];
    y[i] = g * sigmoid(g) * up[i];
}

@group(0) @binding(0) var<storage, read> b_dy: array<Elem>;
@group(0) @binding(1) var<storage, read> b_gate: array<Elem>;
@group(0) @binding(2) var<storage, read> b_up: array<Elem>;
@group(0) @binding(3) var<storage, read_write> b_dgate: array<Elem>;
@group(0) @binding(4) var<storage, read_write> b_dup: array<Elem>;
@group(0) @binding(5) var<uniform> b_p: Params;

@compute @workgroup_size(EG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups, lane, EG);
    if (i >= b_p.count) { return; }
    let g = b_gate[i];
    let dy = b_dy[i];
    let s = sigmoid(g);
    b_dgate[i] = dy * b_up[i] * s * (Elem(1.0) + g * (Elem(1.0) - s));
    b_dup[i] = dy * g * s;
}
