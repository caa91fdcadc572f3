// One AdamW step of one tensor (Loshchilov & Hutter 2019), gradients clipped by their global norm.
// Each invocation walks several elements, so that the step's scalars are loaded once for all of them.

import package::constants::EG;
import package::shared::elem::{Elem, flat};

const PER_INVOCATION = 8u;

struct Params { count: u32, decayed: u32 }

@group(0) @binding(0) var<storage, read> g: array<Elem>;
// lr, beta1, beta2, eps, weight decay, 1 - beta1^t, 1 - beta2^t, clip (0: none)
@group(0) @binding(1) var<storage, read> hyper: array<f32>;
@group(0) @binding(2) var<storage, read> norm: array<f32>;
@group(0) @binding(3) var<storage, read_write> w: array<Elem>;
@group(0) @binding(4) var<storage, read_write> m: array<Elem>;
@group(0) @binding(5) var<storage, read_write> v: array<Elem>;
// Where inputs are read as textures, the state before the step comes that way too.
@if(texels) @group(0) @binding(6) var<storage, read> old_w: array<Elem>;
@if(texels) @group(0) @binding(7) var<storage, read> old_m: array<Elem>;
@if(texels) @group(0) @binding(8) var<storage, read> old_v: array<Elem>;
@if(texels) @group(0) @binding(9) var<uniform> p: Params;
@if(!texels) @group(0) @binding(6) var<uniform> p: Params;

@compute @workgroup_size(EG)
fn step(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    // By its bits: compilers may take floats for finite.
    if ((bitcast<u32>(norm[0]) & 0x7f800000u) == 0x7f800000u) { return; }
    let lr = hyper[0];
    let beta1 = hyper[1];
    let beta2 = hyper[2];
    let eps = hyper[3];
    let keep = 1.0 - select(0.0, lr * hyper[4], p.decayed != 0u);
    let rate = lr / hyper[5];
    let root = sqrt(hyper[6]);
    let clip = hyper[7];
    var scale = 1.0;
    if (clip > 0.0) { scale = min(1.0, clip / (norm[0] + 1e-6)); }
    let first = (group.x + group.y * groups.x) * EG * PER_INVOCATION + lane;
    for (var k = 0u; k < PER_INVOCATION; k++) {
        let i = first + k * EG;
        if (i >= p.count) { return; }
        @if(texels) let weight = old_w[i];
        @if(texels) let m_before = old_m[i];
        @if(texels) let v_before = old_v[i];
        @if(!texels) let weight = w[i];
        @if(!texels) let m_before = m[i];
        @if(!texels) let v_before = v[i];
        let grad = g[i] * scale;
        let mean = m_before + (grad - m_before) * (1.0 - beta1);
        let square = beta2 * v_before + (1.0 - beta2) * grad * grad;
        m[i] = mean;
        v[i] = square;
        w[i] = weight * keep - rate * mean / (sqrt(square) / root + eps);
    }
}
