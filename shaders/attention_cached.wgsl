// Attention of one query of one head over a key/value cache: online softmax over chunks of WG keys.
//
//   scores    invocation l   <- key first + l               (a row of k each)
//   output    invocation l   <- elements l, l + WG, ...     (a column of v each, weighted by all scores of the chunk)
//
// The scores pass from one side to the other through workgroup memory, or by shuffles where the workgroup is one
// subgroup (software adapters, where workgroup memory is slow). Grid: (H, N).

import package::constants::{HEAD_DIM, WG};
import package::shared::elem::{Elem, total};
import package::shared::rows::{row_sum, row_max};

@if(vec4) const WIDTH = HEAD_DIM / 4u;
@if(!vec4) const WIDTH = HEAD_DIM;
const PARTS = (WIDTH + WG - 1u) / WG;

struct Params { rows: u32, heads: u32, kv_heads: u32, capacity: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> q: array<Elem>; // [N, H, E]
@group(0) @binding(1) var<storage, read> k: array<Elem>; // [B, capacity, K, E]
@group(0) @binding(2) var<storage, read> v: array<Elem>;
@group(0) @binding(3) var<storage, read> positions: array<u32>; // [N]
@group(0) @binding(4) var<storage, read_write> o: array<Elem>;
@group(0) @binding(5) var<uniform> p: Params;

const LOWEST = -3e38;

@if(!subgroups) var<workgroup> weights: array<f32, WG>;

// Largest and sum over the workgroup.
@if(subgroups) fn largest_of(x: f32, lane: u32) -> f32 { return subgroupMax(x); }
@if(!subgroups) fn largest_of(x: f32, lane: u32) -> f32 { return row_max(x, lane); }
@if(subgroups) fn sum_of(x: f32, lane: u32) -> f32 { return subgroupAdd(x); }
@if(!subgroups) fn sum_of(x: f32, lane: u32) -> f32 { return row_sum(x, lane); }

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let n = group.y;
    let kv_head = head / (p.heads / p.kv_heads);
    let base = n / p.rows * p.capacity;
    let query = (n * p.heads + head) * WIDTH;
    let position = positions[n];
    let seen = select(position + 1u, 0u, position >= p.capacity);

    // A part of the query per invocation; loads of the same address by all are not cheaper on a software adapter.
    @if(subgroups) var part: array<Elem, PARTS>;
    @if(subgroups) for (var i = 0u; i < PARTS; i++) { part[i] = q[query + min(i * WG + lane, WIDTH - 1u)]; }

    var sum: array<Elem, PARTS>;
    var peak = LOWEST;
    var mass = 0.0;
    for (var first = 0u; first < seen; first += WG) {
        let row = ((base + min(first + lane, seen - 1u)) * p.kv_heads + kv_head) * WIDTH;
        var dot = Elem(0.0);
        @if(!subgroups) { for (var e = 0u; e < WIDTH; e++) { dot += q[query + e] * k[row + e]; } }
        @if(subgroups) {
            for (var i = 0u; i < PARTS; i++) {
                for (var j = 0u; j < min(WG, WIDTH - i * WG); j++) {
                    dot += subgroupShuffle(part[i], j) * k[row + i * WG + j];
                }
            }
        }
        let score = select(LOWEST, total(dot) * p.scale, first + lane < seen);
        let higher = max(peak, largest_of(score, lane));
        let shrink = exp(peak - higher);
        let weight = exp(score - higher); // 0 beyond the end
        mass = mass * shrink + sum_of(weight, lane);
        peak = higher;
        @if(!subgroups) { weights[lane] = weight; }
        @if(!subgroups) { workgroupBarrier(); }
        for (var i = 0u; i < PARTS; i++) { sum[i] *= shrink; }
        for (var j = 0u; j < min(WG, seen - first); j++) {
            @if(subgroups) let w = subgroupShuffle(weight, j);
            @if(!subgroups) let w = weights[j];
            let value = ((base + first + j) * p.kv_heads + kv_head) * WIDTH;
            for (var i = 0u; i < PARTS; i++) { sum[i] += w * v[value + min(i * WG + lane, WIDTH - 1u)]; }
        }
        @if(!subgroups) { workgroupBarrier(); } // the next chunk overwrites the weights
    }
    for (var i = 0u; i < PARTS; i++) {
        let e = i * WG + lane;
        if (e < WIDTH) { o[query + e] = sum[i] * select(1.0 / mass, 0.0, seen == 0u); }
    }
}
