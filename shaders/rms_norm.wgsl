// y = x r w with r = 1 / sqrt(mean(x^2) + eps), and its gradients. Formulas in src/ops/rms_norm.rs.

import package::constants::{WG, EG};
import package::shared::elem::{Elem, total};
import package::shared::rows::{row_of, first_of, STRIDE, leads, row_sum};

struct Params { rows: u32, columns: u32, blocks: u32, rows_per_block: u32, eps: f32 }

@if(vec4) const WIDTH = 4u;
@if(!vec4) const WIDTH = 1u;

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read> w: array<Elem>;
@group(0) @binding(2) var<storage, read_write> y: array<Elem>;
@group(0) @binding(3) var<storage, read_write> r: array<f32>;
@group(0) @binding(4) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = row_of(group, groups, lane);
    if (row >= p.rows) { return; }
    let at = row * p.columns;
    var square = Elem(0.0);
    for (var i = first_of(lane); i < p.columns; i += STRIDE) {
        let e = x[at + i];
        square += e * e;
    }
    let mean = row_sum(total(square), lane) / f32(p.columns * WIDTH);
    let scale = 1.0 / sqrt(mean + p.eps); // inverseSqrt may be a coarse estimate
    for (var i = first_of(lane); i < p.columns; i += STRIDE) {
        y[at + i] = x[at + i] * scale * w[i];
    }
    if (leads(lane)) { r[row] = scale; }
}

@group(0) @binding(0) var<storage, read> b_dy: array<Elem>;
@group(0) @binding(1) var<storage, read> b_x: array<Elem>;
@group(0) @binding(2) var<storage, read> b_w: array<Elem>;
@group(0) @binding(3) var<storage, read> b_r: array<f32>;
@if(residual) @group(0) @binding(4) var<storage, read> b_residual: array<Elem>;
@if(residual) @group(0) @binding(5) var<storage, read_write> b_dx: array<Elem>;
@if(residual) @group(0) @binding(6) var<uniform> b_p: Params;
@if(!residual) @group(0) @binding(4) var<storage, read_write> b_dx: array<Elem>;
@if(!residual) @group(0) @binding(5) var<uniform> b_p: Params;

@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = row_of(group, groups, lane);
    if (row >= b_p.rows) { return; }
    let at = row * b_p.columns;
    let scale = b_r[row];
    var dot = Elem(0.0);
    for (var i = first_of(lane); i < b_p.columns; i += STRIDE) {
        dot += b_dy[at + i] * b_w[i] * b_x[at + i];
    }
    let mean = row_sum(total(dot), lane) * scale / f32(b_p.columns * WIDTH);
    for (var i = first_of(lane); i < b_p.columns; i += STRIDE) {
        var dx = scale * (b_dy[at + i] * b_w[i] - b_x[at + i] * (scale * mean));
        @if(residual) { dx += b_residual[at + i]; }
        b_dx[at + i] = dx;
    }
}

// First stage of dw: one partial sum per block of rows and column.
@group(0) @binding(0) var<storage, read> s_dy: array<Elem>;
@group(0) @binding(1) var<storage, read> s_x: array<Elem>;
@group(0) @binding(2) var<storage, read> s_r: array<f32>;
@group(0) @binding(3) var<storage, read_write> s_partials: array<Elem>;
@group(0) @binding(4) var<uniform> s_p: Params;

@compute @workgroup_size(EG)
fn weight_partials(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = group.x * EG + lane;
    if (column >= s_p.columns) { return; }
    var sum = Elem(0.0);
    let first = group.y * s_p.rows_per_block;
    for (var row = first; row < min(first + s_p.rows_per_block, s_p.rows); row++) {
        let at = row * s_p.columns + column;
        sum += s_dy[at] * s_x[at] * s_r[row];
    }
    s_partials[group.y * s_p.columns + column] = sum;
}

// Second stage: the blocks are added in order.
@group(0) @binding(0) var<storage, read> t_partials: array<Elem>;
@group(0) @binding(1) var<storage, read_write> t_dw: array<Elem>;
@group(0) @binding(2) var<uniform> t_p: Params;

@compute @workgroup_size(EG)
fn weight_sum(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = group.x * EG + lane;
    if (column >= t_p.columns) { return; }
    var sum = Elem(0.0);
    for (var block = 0u; block < t_p.blocks; block++) {
        sum += t_partials[block * t_p.columns + column];
    }
    @if(accumulate) { sum += t_dw[column]; }
    t_dw[column] = sum;
}
