// Causal grouped-query attention, forward, for hardware GPUs: online softmax over tiles of keys, so that no
// T x T matrix exists (Dao et al. 2022, arXiv 2205.14135). One invocation per query; the keys and values of a
// tile pass through workgroup memory. Saves lse, the logsumexp of the scaled scores.
// `segments`: a query sees no key before the start of its document.

import package::constants::{HEAD_DIM, QUERIES, KEYS};
import package::shared::elem::{Elem, total};

@if(vec4) const WIDTH = HEAD_DIM / 4u;
@if(!vec4) const WIDTH = HEAD_DIM;

struct Params { batch: u32, tokens: u32, heads: u32, kv_heads: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> q: array<Elem>;   // [B, T, H, E]
@group(0) @binding(1) var<storage, read> k: array<Elem>;   // [B, T, K, E]
@group(0) @binding(2) var<storage, read> v: array<Elem>;
@group(0) @binding(3) var<storage, read_write> o: array<Elem>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>; // [B, H, T]
@if(segments) @group(0) @binding(5) var<storage, read> starts: array<u32>; // [B, T], in tokens of the sequence
@if(segments) @group(0) @binding(6) var<uniform> p: Params;
@if(!segments) @group(0) @binding(5) var<uniform> p: Params;

var<workgroup> tile_k: array<Elem, KEYS * WIDTH>;
var<workgroup> tile_v: array<Elem, KEYS * WIDTH>;

@compute @workgroup_size(QUERIES)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let kv_head = head / (p.heads / p.kv_heads);
    let batch = group.z;
    let t = group.x * QUERIES + lane;
    let row = (batch * p.tokens + min(t, p.tokens - 1u)) * p.heads + head;

    var query: array<Elem, WIDTH>;
    var sum: array<Elem, WIDTH>;
    for (var e = 0u; e < WIDTH; e++) { query[e] = q[row * WIDTH + e] * p.scale; }
    var peak = -3.4e38;
    var mass = 0.0;
    @if(segments) let start = starts[batch * p.tokens + min(t, p.tokens - 1u)];
    @if(segments) let begin = starts[batch * p.tokens + group.x * QUERIES]; // the least of the workgroup

    // Keys up to the last query of the workgroup: a bound that all invocations share.
    let end = min((group.x + 1u) * QUERIES, p.tokens);
    for (var first = 0u; first < end; first += KEYS) {
        @if(segments) first = max(first, begin);
        for (var i = lane; i < KEYS * WIDTH; i += QUERIES) {
            let s = min(first + i / WIDTH, p.tokens - 1u);
            let source = ((batch * p.tokens + s) * p.kv_heads + kv_head) * WIDTH + i % WIDTH;
            tile_k[i] = k[source];
            tile_v[i] = v[source];
        }
        workgroupBarrier();
        for (var j = 0u; j < KEYS; j++) {
            @if(segments) if (first + j < start) { continue; }
            if (first + j <= t && t < p.tokens) {
                var dot = Elem(0.0);
                for (var e = 0u; e < WIDTH; e++) { dot += query[e] * tile_k[j * WIDTH + e]; }
                let score = total(dot);
                if (score > peak) {
                    let shrink = exp(peak - score);
                    mass *= shrink;
                    for (var e = 0u; e < WIDTH; e++) { sum[e] *= shrink; }
                    peak = score;
                }
                let weight = exp(score - peak);
                mass += weight;
                for (var e = 0u; e < WIDTH; e++) { sum[e] += weight * tile_v[j * WIDTH + e]; }
            }
        }
        workgroupBarrier();
    }
    if (t < p.tokens) {
        for (var e = 0u; e < WIDTH; e++) { o[row * WIDTH + e] = sum[e] / mass; }
        lse[(batch * p.heads + head) * p.tokens + t] = peak + log(mass);
    }
}
