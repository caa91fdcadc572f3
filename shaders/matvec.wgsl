// y[M, N] = a[M, K] b[N, K]^T for up to TM rows of a, as in decoding: bound by reading b, so b is read once and in order.
//
// A workgroup makes ROWS columns of y: its invocations lie along K, four elements each, and their sums meet in the end.
// `subgroups`: the workgroup is one subgroup (software adapters), and lane r keeps column r. Otherwise
// they meet in workgroup memory. K is a multiple of 4. Grid: one workgroup per ROWS columns, folded.

import package::constants::{WG, TM, ROWS};

struct Params { m: u32, n: u32, k: u32, accumulate: u32 }

@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;

@if(!subgroups) var<workgroup> partial: array<f32, TOGETHER * WG>;

// Columns that are finished together: one per invocation.
const TOGETHER = min(ROWS, WG);

// The sums over the workgroup from column `first` on, one in each invocation.
@if(subgroups)
fn meet(sums: array<f32, ROWS>, first: u32, lane: u32) -> f32 {
    var mine = 0.0;
    for (var r = 0u; r < TOGETHER; r++) { mine = select(mine, subgroupAdd(sums[first + r]), lane == r); }
    return mine;
}
@if(!subgroups)
fn meet(sums: array<f32, ROWS>, first: u32, lane: u32) -> f32 {
    for (var r = 0u; r < TOGETHER; r++) { partial[r * WG + lane] = sums[first + r]; }
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            for (var r = 0u; r < TOGETHER; r++) { partial[r * WG + lane] += partial[r * WG + lane + half]; }
        }
    }
    workgroupBarrier();
    let mine = partial[min(lane, TOGETHER - 1u) * WG];
    workgroupBarrier(); // the next columns overwrite them
    return mine;
}

@compute @workgroup_size(WG)
fn matvec(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.x + group.y * groups.x) * ROWS;
    let width = p.k / 4u;
    var sums: array<array<f32, ROWS>, TM>;
    for (var k = 0u; k < width; k += WG) {
        let at = min(k + lane, width - 1u);
        var w: array<vec4f, ROWS>;
        for (var r = 0u; r < ROWS; r++) { w[r] = b[min(first + r, p.n - 1u) * width + at]; }
        for (var m = 0u; m < TM; m++) {
            let x = select(vec4f(), a[min(m, p.m - 1u) * width + at], k + lane < width);
            for (var r = 0u; r < ROWS; r++) { sums[m][r] += dot(x, w[r]); }
        }
    }
    for (var m = 0u; m < TM; m++) {
        for (var part = 0u; part < ROWS; part += TOGETHER) {
            let sum = meet(sums[m], part, lane);
            let column = first + part + lane;
            if (m < p.m && lane < TOGETHER && column < p.n) {
                let i = m * p.n + column;
                if (p.accumulate != 0u) { y[i] += sum; } else { y[i] = sum; }
            }
        }
    }
}
