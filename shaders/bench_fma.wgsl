// Multiply-adds on registers alone: how fast an adapter can compute. An invocation works on CHAINS independent
// vectors, which hide the latency of an operation behind the others.

import package::constants::{WG, CHAINS};

@if(f16) enable f16;

@if(f16) alias Number = f16;
@if(!f16) alias Number = f32;

// Each chain tends to shift / (1 - scale): no overflow and nothing subnormal.
struct Params { rounds: u32, scale: f32, shift: f32 }

@group(0) @binding(0) var<storage, read_write> sums: array<f32>; // one per invocation
@group(0) @binding(1) var<uniform> p: Params;

// Two spellings: compilers differ in which becomes one instruction.
@if(fused) fn step(x: vec4<Number>, scale: vec4<Number>, shift: vec4<Number>) -> vec4<Number> { return fma(x, scale, shift); }
@if(!fused) fn step(x: vec4<Number>, scale: vec4<Number>, shift: vec4<Number>) -> vec4<Number> { return x * scale + shift; }

// Steps of each chain per round.
const STEPS = 16u;

@compute @workgroup_size(WG)
fn multiply_add(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let scale = vec4<Number>(Number(p.scale));
    let shift = vec4<Number>(Number(p.shift));
    var x: array<vec4<Number>, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) { x[c] = vec4<Number>(Number(lane + c)); }
    for (var round = 0u; round < p.rounds; round++) {
        for (var s = 0u; s < STEPS; s++) {
            for (var c = 0u; c < CHAINS; c++) { x[c] = step(x[c], scale, shift); }
        }
    }
    var sum = x[0];
    for (var c = 1u; c < CHAINS; c++) { sum += x[c]; }
    sums[group.x * WG + lane] = f32(sum.x + sum.y + sum.z + sum.w);
}
