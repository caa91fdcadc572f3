// Gradients of causal grouped-query attention, for software adapters. The weights w = e^(score - lse) are computed
// again from the saved lse. With delta = dot(do, o) per query (`delta` of attention_backward):
//   ds = w (dot(do, v) - delta),  dq = scale sum_s ds k,  dk = scale sum_t ds q,  dv = sum_t w do.
//
// `queries`: a lane takes ROWS queries and walks over the keys that they see; grid (ceil(T / (ROWS * LANES)), H, B).
// `keys`: a lane takes ROWS keys and walks over the queries that see them, of every head in its group, so nothing is
// added atomically; grid (ceil(T / (ROWS * LANES)), K, B).
// As in attention_lanes_forward a lane's rows lie LANES apart and stay in registers with their gradients, and one row
// of the other side is loaded for all of them, each lane a slice. ROWS = clamp(64 / HEAD_DIM, 1, 4): a third to half a
// second to compile, and more is hardly faster.
// `segments`: a query sees no key before the start of its document; the starts [B, T] stand behind delta, as floats.

import package::constants::{HEAD_DIM, LANES, ROWS};
import package::shared::elem::{Elem, total};

@if(vec4) const WIDTH = HEAD_DIM / 4u;
@if(!vec4) const WIDTH = HEAD_DIM;

struct Params { batch: u32, tokens: u32, heads: u32, kv_heads: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> q: array<Elem>;    // [B, T, H, E]
@group(0) @binding(1) var<storage, read> k: array<Elem>;    // [B, T, K, E]
@group(0) @binding(2) var<storage, read> v: array<Elem>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;   // [B, H, T]
@group(0) @binding(4) var<storage, read> d_o: array<Elem>;
@group(0) @binding(5) var<storage, read> dot_o: array<f32>; // delta
@group(0) @binding(6) var<storage, read_write> dq: array<Elem>;
@group(0) @binding(7) var<uniform> p: Params;

// A row of the other side is spread over the lanes, PARTS elements in each, and a shuffle hands out element e; without
// subgroups every lane loads it all.
@if(subgroups) const PARTS = (WIDTH + LANES - 1u) / LANES;
@if(subgroups) fn part(i: u32, lane: u32) -> u32 { return min(i * LANES + lane, WIDTH - 1u); }
@if(subgroups) fn element(row: ptr<function, array<Elem, PARTS>>, e: u32) -> Elem {
    return subgroupShuffle((*row)[e / LANES], e % LANES);
}
@if(subgroups) const SHARED = LANES; // scalars of the other side that the lanes hold among them
@if(subgroups) fn scalar(own: f32, i: u32) -> f32 { return subgroupShuffle(own, i); }
@if(!subgroups) const SHARED = 1u;
@if(!subgroups) fn scalar(own: f32, i: u32) -> f32 { return own; }
@if(!subgroups) const PARTS = WIDTH;
@if(!subgroups) fn part(i: u32, lane: u32) -> u32 { return i; }
@if(!subgroups) fn element(row: ptr<function, array<Elem, PARTS>>, e: u32) -> Elem { return (*row)[e]; }

@compute @workgroup_size(LANES)
fn queries(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let kv_head = head / (p.heads / p.kv_heads);
    let batch = group.z;
    let first = group.x * ROWS * LANES + lane;
    let last = first + ROWS * LANES;

    // Rows are loaded and stored in rolled loops, because unrolled ones take long to compile. Registers cannot be
    // indexed, so each round handles the row at one end and moves the others up.
    var query: array<array<Elem, WIDTH>, ROWS>;
    var out: array<array<Elem, WIDTH>, ROWS>; // do
    var log_mass: array<f32, ROWS>;
    var delta: array<f32, ROWS>;
    @if(segments) var start: array<u32, ROWS>;
    @if(segments) let starts_at = (p.batch * p.heads + batch) * p.tokens;
    for (var t = first; t < last; t += LANES) {
        for (var r = 1u; r < ROWS; r++) {
            query[r - 1u] = query[r];
            out[r - 1u] = out[r];
            log_mass[r - 1u] = log_mass[r];
            delta[r - 1u] = delta[r];
            @if(segments) start[r - 1u] = start[r];
        }
        let token = min(t, p.tokens - 1u);
        let row = ((batch * p.tokens + token) * p.heads + head) * WIDTH;
        for (var e = 0u; e < WIDTH; e++) {
            query[ROWS - 1u][e] = q[row + e] * p.scale;
            out[ROWS - 1u][e] = d_o[row + e];
        }
        log_mass[ROWS - 1u] = lse[(batch * p.heads + head) * p.tokens + token];
        delta[ROWS - 1u] = dot_o[(batch * p.heads + head) * p.tokens + token];
        @if(segments) start[ROWS - 1u] = u32(dot_o[starts_at + token]);
    }

    var grad: array<array<Elem, WIDTH>, ROWS>;
    let end = min((group.x + 1u) * ROWS * LANES, p.tokens);
    @if(segments) let begin = u32(dot_o[starts_at + group.x * ROWS * LANES]); // the least of the workgroup
    for (var s = 0u; s < end; s++) {
        @if(segments) s = max(s, begin);
        let row = ((batch * p.tokens + s) * p.kv_heads + kv_head) * WIDTH;
        var key_row: array<Elem, PARTS>;
        var value_row: array<Elem, PARTS>;
        for (var i = 0u; i < PARTS; i++) {
            key_row[i] = k[row + part(i, lane)];
            value_row[i] = v[row + part(i, lane)];
        }
        var dot_k: array<Elem, ROWS>;
        var dot_v: array<Elem, ROWS>;
        for (var e = 0u; e < WIDTH; e++) {
            let key = element(&key_row, e);
            let value = element(&value_row, e);
            for (var r = 0u; r < ROWS; r++) {
                dot_k[r] += query[r][e] * key;
                dot_v[r] += out[r][e] * value;
            }
        }
        var ds: array<f32, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
            @if(!segments) let weight = select(0.0, exp(total(dot_k[r]) - log_mass[r]), s <= first + r * LANES);
            @if(segments) let seen = start[r] <= s && s <= first + r * LANES;
            @if(segments) let weight = select(0.0, exp(total(dot_k[r]) - log_mass[r]), seen);
            ds[r] = weight * (total(dot_v[r]) - delta[r]);
        }
        for (var e = 0u; e < WIDTH; e++) {
            let key = element(&key_row, e);
            for (var r = 0u; r < ROWS; r++) { grad[r][e] += ds[r] * key; }
        }
    }

    for (var t = first; t < min(last, p.tokens); t += LANES) {
        let row = ((batch * p.tokens + t) * p.heads + head) * WIDTH;
        for (var e = 0u; e < WIDTH; e++) { dq[row + e] = grad[0][e] * p.scale; }
        for (var r = 1u; r < ROWS; r++) { grad[r - 1u] = grad[r]; }
    }
}

@group(0) @binding(6) var<storage, read_write> dk: array<Elem>;
@group(0) @binding(7) var<storage, read_write> dv: array<Elem>;
@group(0) @binding(8) var<uniform> key_p: Params;

@compute @workgroup_size(LANES)
fn keys(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let kv_head = group.y;
    let batch = group.z;
    let tokens = key_p.tokens;
    let first = group.x * ROWS * LANES + lane;
    let last = first + ROWS * LANES;

    var key: array<array<Elem, WIDTH>, ROWS>;
    var value: array<array<Elem, WIDTH>, ROWS>;
    for (var s = first; s < last; s += LANES) {
        for (var r = 1u; r < ROWS; r++) {
            key[r - 1u] = key[r];
            value[r - 1u] = value[r];
        }
        let row = ((batch * tokens + min(s, tokens - 1u)) * key_p.kv_heads + kv_head) * WIDTH;
        for (var e = 0u; e < WIDTH; e++) {
            key[ROWS - 1u][e] = k[row + e] * key_p.scale;
            value[ROWS - 1u][e] = v[row + e];
        }
    }

    var grad_k: array<array<Elem, WIDTH>, ROWS>;
    var grad_v: array<array<Elem, WIDTH>, ROWS>;
    let share = key_p.heads / key_p.kv_heads;
    let begin = group.x * ROWS * LANES;
    var own_log_mass = 0.0;
    var own_delta = 0.0;
    @if(segments) var own_start = 0.0;
    for (var head = kv_head * share; head < (kv_head + 1u) * share; head++) {
        for (var t = begin; t < tokens; t++) {
            let next = (t - begin) % SHARED;
            if (next == 0u) {
                let at = (batch * key_p.heads + head) * tokens + min(t + lane % SHARED, tokens - 1u);
                own_log_mass = lse[at];
                own_delta = dot_o[at];
                @if(segments) let starts_at = (key_p.batch * key_p.heads + batch) * tokens;
                @if(segments) own_start = dot_o[starts_at + min(t + lane % SHARED, tokens - 1u)];
            }
            // Queries of documents that begin behind the workgroup's keys see none of them.
            @if(segments) let start = u32(scalar(own_start, next));
            @if(segments) if (start >= begin + ROWS * LANES) { break; }
            let row = ((batch * tokens + t) * key_p.heads + head) * WIDTH;
            var query_row: array<Elem, PARTS>;
            var out_row: array<Elem, PARTS>; // do
            for (var i = 0u; i < PARTS; i++) {
                query_row[i] = q[row + part(i, lane)];
                out_row[i] = d_o[row + part(i, lane)];
            }
            var dot_q: array<Elem, ROWS>;
            var dot_do: array<Elem, ROWS>;
            for (var e = 0u; e < WIDTH; e++) {
                let query = element(&query_row, e);
                let out = element(&out_row, e);
                for (var r = 0u; r < ROWS; r++) {
                    dot_q[r] += key[r][e] * query;
                    dot_do[r] += value[r][e] * out;
                }
            }
            var weight: array<f32, ROWS>;
            var ds: array<f32, ROWS>;
            let log_mass = scalar(own_log_mass, next);
            let delta = scalar(own_delta, next);
            for (var r = 0u; r < ROWS; r++) {
                @if(!segments) weight[r] = select(0.0, exp(total(dot_q[r]) - log_mass), first + r * LANES <= t);
                @if(segments) let seen = start <= first + r * LANES && first + r * LANES <= t;
                @if(segments) weight[r] = select(0.0, exp(total(dot_q[r]) - log_mass), seen);
                ds[r] = weight[r] * (total(dot_do[r]) - delta);
            }
            for (var e = 0u; e < WIDTH; e++) {
                let query = element(&query_row, e);
                let out = element(&out_row, e);
                for (var r = 0u; r < ROWS; r++) {
                    grad_k[r][e] += ds[r] * query;
                    grad_v[r][e] += weight[r] * out;
                }
            }
        }
    }

    for (var s = first; s < min(last, tokens); s += LANES) {
        let row = ((batch * tokens + s) * key_p.kv_heads + kv_head) * WIDTH;
        for (var e = 0u; e < WIDTH; e++) {
            dk[row + e] = grad_k[0][e] * key_p.scale;
            dv[row + e] = grad_v[0][e];
        }
        for (var r = 1u; r < ROWS; r++) {
            grad_k[r - 1u] = grad_k[r];
            grad_v[r - 1u] = grad_v[r];
        }
    }
}
