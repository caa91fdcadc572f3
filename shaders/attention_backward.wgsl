// Gradients of causal grouped-query attention, for hardware GPUs. The weights w = e^(score - lse) are computed
// again from the saved lse. With delta = dot(do, o) per query:
//   ds = w (dot(do, v) - delta),  dq = scale sum_s ds k,  dk = scale sum_t ds q,  dv = sum_t w do.
// `queries`: one invocation per query over tiles of keys. `keys`: one invocation per key over tiles of queries of
// every head in its group; nothing is added atomically.
// `segments`: a query sees no key before the start of its document. Eight buffers are all that WebGPU guarantees, so
// `delta` copies the starts behind its own [B, H, T], as floats: [B, T].

import package::constants::{HEAD_DIM, QUERIES, KEYS};
import package::shared::elem::{Elem, total};

@if(vec4) const WIDTH = HEAD_DIM / 4u;
@if(!vec4) const WIDTH = HEAD_DIM;

struct Params { batch: u32, tokens: u32, heads: u32, kv_heads: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> delta_o: array<Elem>;
@group(0) @binding(1) var<storage, read> delta_do: array<Elem>;
@group(0) @binding(2) var<storage, read_write> delta_out: array<f32>; // [B, H, T]
@if(segments) @group(0) @binding(3) var<storage, read> starts: array<u32>; // [B, T], in tokens of the sequence
@if(segments) @group(0) @binding(4) var<uniform> delta_p: Params;
@if(!segments) @group(0) @binding(3) var<uniform> delta_p: Params;

// delta = dot(do, o); one invocation per query, of head y and batch z.
@compute @workgroup_size(QUERIES)
fn delta(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let t = group.x * QUERIES + lane;
    if (t >= delta_p.tokens) { return; }
    let row = ((group.z * delta_p.tokens + t) * delta_p.heads + group.y) * WIDTH;
    var dot = Elem(0.0);
    for (var e = 0u; e < WIDTH; e++) { dot += delta_o[row + e] * delta_do[row + e]; }
    delta_out[(group.z * delta_p.heads + group.y) * delta_p.tokens + t] = total(dot);
    @if(segments) if (group.y == 0u) {
        let start = starts[group.z * delta_p.tokens + t];
        delta_out[(delta_p.batch * delta_p.heads + group.z) * delta_p.tokens + t] = f32(start);
    }
}

var<workgroup> tile_a: array<Elem, KEYS * WIDTH>;
var<workgroup> tile_b: array<Elem, KEYS * WIDTH>;

@group(0) @binding(0) var<storage, read> q: array<Elem>;    // [B, T, H, E]
@group(0) @binding(1) var<storage, read> k: array<Elem>;    // [B, T, K, E]
@group(0) @binding(2) var<storage, read> v: array<Elem>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;   // [B, H, T]
@group(0) @binding(4) var<storage, read> d_o: array<Elem>;
@group(0) @binding(5) var<storage, read> dot_o: array<f32>; // delta
@group(0) @binding(6) var<storage, read_write> dq: array<Elem>;
@group(0) @binding(7) var<uniform> p: Params;

@compute @workgroup_size(QUERIES)
fn queries(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let kv_head = head / (p.heads / p.kv_heads);
    let batch = group.z;
    let t = group.x * QUERIES + lane;
    let near = min(t, p.tokens - 1u);
    let row = ((batch * p.tokens + near) * p.heads + head) * WIDTH;
    let scalar = (batch * p.heads + head) * p.tokens + near;

    var query: array<Elem, WIDTH>;
    var gradient: array<Elem, WIDTH>;
    var sum: array<Elem, WIDTH>;
    for (var e = 0u; e < WIDTH; e++) {
        query[e] = q[row + e] * p.scale;
        gradient[e] = d_o[row + e];
    }
    let log_mass = lse[scalar];
    let mean = dot_o[scalar];
    @if(segments) let starts_at = (p.batch * p.heads + batch) * p.tokens;
    @if(segments) let start = u32(dot_o[starts_at + near]);
    @if(segments) let begin = u32(dot_o[starts_at + group.x * QUERIES]); // the least of the workgroup

    let end = min((group.x + 1u) * QUERIES, p.tokens);
    for (var first = 0u; first < end; first += KEYS) {
        @if(segments) first = max(first, begin);
        for (var i = lane; i < KEYS * WIDTH; i += QUERIES) {
            let s = min(first + i / WIDTH, p.tokens - 1u);
            let source = ((batch * p.tokens + s) * p.kv_heads + kv_head) * WIDTH + i % WIDTH;
            tile_a[i] = k[source];
            tile_b[i] = v[source];
        }
        workgroupBarrier();
        for (var j = 0u; j < KEYS; j++) {
            @if(segments) if (first + j < start) { continue; }
            if (first + j <= t && t < p.tokens) {
                var score = Elem(0.0);
                var along = Elem(0.0);
                for (var e = 0u; e < WIDTH; e++) {
                    score += query[e] * tile_a[j * WIDTH + e];
                    along += gradient[e] * tile_b[j * WIDTH + e];
                }
                let ds = exp(total(score) - log_mass) * (total(along) - mean) * p.scale;
                for (var e = 0u; e < WIDTH; e++) { sum[e] += ds * tile_a[j * WIDTH + e]; }
            }
        }
        workgroupBarrier();
    }
    if (t < p.tokens) {
        for (var e = 0u; e < WIDTH; e++) { dq[row + e] = sum[e]; }
    }
}

@group(0) @binding(6) var<storage, read_write> dk: array<Elem>;
@group(0) @binding(7) var<storage, read_write> dv: array<Elem>;
@group(0) @binding(8) var<uniform> key_p: Params;

@compute @workgroup_size(QUERIES)
fn keys(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let kv_head = group.y;
    let batch = group.z;
    let group_size = key_p.heads / key_p.kv_heads;
    let s = group.x * QUERIES + lane;
    let row = ((batch * key_p.tokens + min(s, key_p.tokens - 1u)) * key_p.kv_heads + kv_head) * WIDTH;

    var key: array<Elem, WIDTH>;
    var value: array<Elem, WIDTH>;
    var sum_k: array<Elem, WIDTH>;
    var sum_v: array<Elem, WIDTH>;
    for (var e = 0u; e < WIDTH; e++) {
        key[e] = k[row + e];
        value[e] = v[row + e];
    }
    @if(segments) let starts_at = (key_p.batch * key_p.heads + batch) * key_p.tokens;
    for (var head = kv_head * group_size; head < (kv_head + 1u) * group_size; head++) {
        let scalars = (batch * key_p.heads + head) * key_p.tokens;
        // Queries from the first key of the workgroup on: a bound that all invocations share.
        for (var first = group.x * QUERIES; first < key_p.tokens; first += KEYS) {
            // Queries of documents that begin behind the workgroup's keys see none of them.
            @if(segments) if (u32(dot_o[starts_at + first]) >= (group.x + 1u) * QUERIES) { break; }
            for (var i = lane; i < KEYS * WIDTH; i += QUERIES) {
                let t = min(first + i / WIDTH, key_p.tokens - 1u);
                let source = ((batch * key_p.tokens + t) * key_p.heads + head) * WIDTH + i % WIDTH;
                tile_a[i] = q[source];
                tile_b[i] = d_o[source];
            }
            workgroupBarrier();
            for (var j = 0u; j < KEYS; j++) {
                let t = first + j;
                @if(segments) if (s < u32(dot_o[starts_at + min(t, key_p.tokens - 1u)])) { continue; }
                if (s <= t && t < key_p.tokens) {
                    var score = Elem(0.0);
                    var along = Elem(0.0);
                    for (var e = 0u; e < WIDTH; e++) {
                        score += key[e] * tile_a[j * WIDTH + e];
                        along += value[e] * tile_b[j * WIDTH + e];
                    }
                    let weight = exp(total(score) * key_p.scale - lse[scalars + t]);
                    let ds = weight * (total(along) - dot_o[scalars + t]) * key_p.scale;
                    for (var e = 0u; e < WIDTH; e++) {
                        sum_k[e] += ds * tile_a[j * WIDTH + e];
                        sum_v[e] += weight * tile_b[j * WIDTH + e];
                    }
                }
            }
            workgroupBarrier();
        }
    }
    if (s < key_p.tokens) {
        for (var e = 0u; e < WIDTH; e++) {
            dk[row + e] = sum_k[e];
            dv[row + e] = sum_v[e];
        }
    }
}
