// Cross-entropy of rows of logits, which may arrive in chunks of classes:
// `scan` folds a chunk into the row's running (max, sum of e^(x - max), label's logit), `finish` turns that into
// nll and the log of the denominator, `gradient` maps a chunk of logits to dnll (softmax - one hot).

import package::constants::{WG, EG};
import package::shared::elem::{Elem, total, largest};
import package::shared::rows::{row_of, first_of, STRIDE, leads, row_sum, row_max};

const IGNORE = 0xffffffffu;

@if(vec4) const WIDTH = 4u;
@if(!vec4) const WIDTH = 1u;

// columns and first count single classes: `first` is the class of the chunk's first column.
struct Params { rows: u32, columns: u32, first: u32 }

@group(0) @binding(0) var<storage, read> logits: array<Elem>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> state: array<vec4f>;
@group(0) @binding(3) var<uniform> p: Params;

// The label's logit in this chunk; 0 if it is elsewhere.
fn label_logit(row: u32, class_id: u32) -> f32 {
    let c = class_id - p.first; // wraps below first
    if (c >= p.columns) { return 0.0; }
    @if(vec4) { return logits[(row * p.columns + c) / 4u][c % 4u]; }
    @if(!vec4) { return logits[row * p.columns + c]; }
}

@compute @workgroup_size(WG)
fn scan(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = row_of(group, groups, lane);
    if (row >= p.rows) { return; }
    let width = p.columns / WIDTH;
    var top = Elem(-3.4e38);
    for (var i = first_of(lane); i < width; i += STRIDE) { top = max(top, logits[row * width + i]); }
    var before = vec4f(-3.4e38, 0.0, 0.0, 0.0);
    if (p.first > 0u) { before = state[row]; }
    let peak = max(before.x, row_max(largest(top), lane));
    var sum = Elem(0.0);
    for (var i = first_of(lane); i < width; i += STRIDE) { sum += exp(logits[row * width + i] - Elem(peak)); }
    let added = row_sum(total(sum), lane);
    if (leads(lane)) {
        state[row] = vec4f(peak, before.y * exp(before.x - peak) + added, before.z + label_logit(row, labels[row]), 0.0);
    }
}

@group(0) @binding(0) var<storage, read> f_state: array<vec4f>;
@group(0) @binding(1) var<storage, read> f_labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> f_nll: array<f32>;
@group(0) @binding(3) var<storage, read_write> f_lse: array<f32>;
@group(0) @binding(4) var<uniform> f_p: Params;

@compute @workgroup_size(EG)
fn finish(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = (group.x + group.y * groups.x) * EG + lane;
    if (row >= f_p.rows) { return; }
    let s = f_state[row];
    let lse = s.x + log(s.y);
    f_lse[row] = lse;
    f_nll[row] = select(lse - s.z, 0.0, f_labels[row] == IGNORE);
}

@group(0) @binding(0) var<storage, read> g_labels: array<u32>;
@group(0) @binding(1) var<storage, read> g_lse: array<f32>;
@group(0) @binding(2) var<storage, read> g_dnll: array<f32>;
@if(in_place) @group(0) @binding(3) var<storage, read_write> g_d: array<Elem>;
@if(in_place) @group(0) @binding(4) var<uniform> g_p: Params;
@if(!in_place) @group(0) @binding(3) var<storage, read> g_logits: array<Elem>;
@if(!in_place) @group(0) @binding(4) var<storage, read_write> g_d: array<Elem>;
@if(!in_place) @group(0) @binding(5) var<uniform> g_p: Params;

@compute @workgroup_size(WG)
fn gradient(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = row_of(group, groups, lane);
    if (row >= g_p.rows) { return; }
    let width = g_p.columns / WIDTH;
    let lse = g_lse[row];
    let scale = select(g_dnll[row], 0.0, g_labels[row] == IGNORE);
    let hit = g_labels[row] - g_p.first; // wraps below first
    for (var i = first_of(lane); i < width; i += STRIDE) {
        @if(in_place) let x = g_d[row * width + i];
        @if(!in_place) let x = g_logits[row * width + i];
        var d = exp(x - Elem(lse));
        @if(vec4) { d -= select(vec4f(0.0), vec4f(1.0), vec4u(i * 4u) + vec4u(0u, 1u, 2u, 3u) == vec4u(hit)); }
        @if(!vec4) { d -= select(0.0, 1.0, i == hit); }
        g_d[row * width + i] = d * scale;
    }
}
