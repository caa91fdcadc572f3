// Causal grouped-query attention, forward, for software adapters: online softmax, so that no T x T matrix exists
// (Dao et al. 2022, arXiv 2205.14135). Saves lse, the logsumexp of the scaled scores.
//
//              key 0, 1, 2, ...       one loop over the keys, one key at a time
//   query 0   [x                ]
//   query 1   [x x              ]     a lane takes ROWS queries, LANES apart, and keeps their q, o and softmax state
//   ...       [x x x            ]     in (spilled) registers; the key and value are loaded once for all of them
//
// Here a load costs a hundred multiply-adds and workgroup memory is no cheaper, while a shuffle costs about one: so
// each lane loads a slice of the key, and shuffles hand the slices out. Compile time grows with ROWS * HEAD_DIM (128:
// a third of a second): ROWS = clamp(128 / HEAD_DIM, 1, 4).
// Grid: (ceil(T / (ROWS * LANES)), H, B).
// `segments`: a query sees no key before the start of its document.
// `cached`: T new queries of each sequence over a cache with room for C keys; query n sees those up to positions[n], and
// gives 0 where that is no place in the cache. No lse.

import package::constants::{HEAD_DIM, LANES, ROWS};
import package::shared::elem::{Elem, total};

@if(vec4) const WIDTH = HEAD_DIM / 4u;
@if(!vec4) const WIDTH = HEAD_DIM;

@if(!cached) struct Params { batch: u32, tokens: u32, heads: u32, kv_heads: u32, scale: f32 }
@if(cached) struct Params { tokens: u32, heads: u32, kv_heads: u32, capacity: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> q: array<Elem>;   // [B, T, H, E]
@group(0) @binding(1) var<storage, read> k: array<Elem>;   // [B, T, K, E], cached: [B, C, K, E]
@group(0) @binding(2) var<storage, read> v: array<Elem>;
@if(!cached) @group(0) @binding(3) var<storage, read_write> o: array<Elem>;
@if(!cached) @group(0) @binding(4) var<storage, read_write> lse: array<f32>; // [B, H, T]
@if(cached) @group(0) @binding(3) var<storage, read> positions: array<u32>; // [B, T]
@if(cached) @group(0) @binding(4) var<storage, read_write> o: array<Elem>;
@if(segments) @group(0) @binding(5) var<storage, read> starts: array<u32>; // [B, T], in tokens of the sequence
@if(segments) @group(0) @binding(6) var<uniform> p: Params;
@if(!segments) @group(0) @binding(5) var<uniform> p: Params;

// Keys that there are for each sequence, and how many of them query t of one sees.
@if(!cached) fn room() -> u32 { return p.tokens; }
@if(!cached) fn seen_by(batch: u32, t: u32) -> u32 { return t + 1u; }
@if(cached) fn room() -> u32 { return p.capacity; }
@if(cached) fn seen_by(batch: u32, t: u32) -> u32 {
    let position = positions[batch * p.tokens + min(t, p.tokens - 1u)];
    return select(0u, position + 1u, position < p.capacity);
}

const LOWEST = -3e38;

// A row of the other side is spread over the lanes, PARTS elements in each, and a shuffle hands out element e; without
// subgroups every lane loads it all.
@if(subgroups) const PARTS = (WIDTH + LANES - 1u) / LANES;
@if(subgroups) fn part(i: u32, lane: u32) -> u32 { return min(i * LANES + lane, WIDTH - 1u); }
@if(subgroups) fn element(row: ptr<function, array<Elem, PARTS>>, e: u32) -> Elem {
    return subgroupShuffle((*row)[e / LANES], e % LANES);
}
@if(!subgroups) const PARTS = WIDTH;
@if(!subgroups) fn part(i: u32, lane: u32) -> u32 { return i; }
@if(!subgroups) fn element(row: ptr<function, array<Elem, PARTS>>, e: u32) -> Elem { return (*row)[e]; }

@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let kv_head = head / (p.heads / p.kv_heads);
    let batch = group.z;
    let first = group.x * ROWS * LANES + lane;
    let last = first + ROWS * LANES;

    // Rows are loaded and stored in rolled loops, because unrolled ones take long to compile. Registers cannot be
    // indexed, so each round handles the row at one end and moves the others up.
    var query: array<array<Elem, WIDTH>, ROWS>;
    @if(segments) var start: array<u32, ROWS>;
    var seen: array<u32, ROWS>;
    for (var t = first; t < last; t += LANES) {
        for (var r = 1u; r < ROWS; r++) {
            query[r - 1u] = query[r];
            seen[r - 1u] = seen[r];
        }
        seen[ROWS - 1u] = seen_by(batch, t);
        @if(segments) for (var r = 1u; r < ROWS; r++) { start[r - 1u] = start[r]; }
        @if(segments) start[ROWS - 1u] = starts[batch * p.tokens + min(t, p.tokens - 1u)];
        let row = ((batch * p.tokens + min(t, p.tokens - 1u)) * p.heads + head) * WIDTH;
        for (var e = 0u; e < WIDTH; e++) { query[ROWS - 1u][e] = q[row + e] * p.scale; }
    }

    var sum: array<array<Elem, WIDTH>, ROWS>;
    var peak: array<f32, ROWS>;
    var mass: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { peak[r] = LOWEST; }

    // The most that a query of the workgroup sees.
    @if(!cached) let end = min((group.x + 1u) * ROWS * LANES, p.tokens);
    @if(cached) var end = 0u;
    @if(cached) for (var t = 0u; t < ROWS * LANES; t++) { end = max(end, seen_by(batch, group.x * ROWS * LANES + t)); }
    @if(segments) let begin = starts[batch * p.tokens + group.x * ROWS * LANES]; // the least of the workgroup
    for (var s = 0u; s < end; s++) {
        @if(segments) s = max(s, begin);
        let row = ((batch * room() + s) * p.kv_heads + kv_head) * WIDTH;
        var key_row: array<Elem, PARTS>;
        for (var i = 0u; i < PARTS; i++) { key_row[i] = k[row + part(i, lane)]; }
        var dot: array<Elem, ROWS>;
        for (var e = 0u; e < WIDTH; e++) {
            let key = element(&key_row, e);
            for (var r = 0u; r < ROWS; r++) { dot[r] += query[r][e] * key; }
        }
        var weight: array<f32, ROWS>;
        var shrink: array<f32, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
            @if(!segments) let score = select(LOWEST, total(dot[r]), s < seen[r]);
            // A key before the first one seen weighs 1 until that one's score shrinks it to 0.
            @if(segments) let score = select(LOWEST, total(dot[r]), start[r] <= s && s < seen[r]);
            let higher = max(peak[r], score);
            shrink[r] = exp(peak[r] - higher);
            weight[r] = exp(score - higher); // 0 for keys that are not seen
            mass[r] = mass[r] * shrink[r] + weight[r];
            peak[r] = higher;
        }
        var value_row: array<Elem, PARTS>;
        for (var i = 0u; i < PARTS; i++) { value_row[i] = v[row + part(i, lane)]; }
        for (var e = 0u; e < WIDTH; e++) {
            let value = element(&value_row, e);
            for (var r = 0u; r < ROWS; r++) { sum[r][e] = sum[r][e] * shrink[r] + weight[r] * value; }
        }
    }

    for (var t = first; t < min(last, p.tokens); t += LANES) {
        let row = ((batch * p.tokens + t) * p.heads + head) * WIDTH;
        let share = select(1.0 / mass[0], 0.0, seen[0] == 0u);
        for (var e = 0u; e < WIDTH; e++) { o[row + e] = sum[0][e] * share; }
        @if(!cached) lse[(batch * p.heads + head) * p.tokens + t] = peak[0] + log(mass[0]);
        for (var r = 1u; r < ROWS; r++) {
            sum[r - 1u] = sum[r];
            seen[r - 1u] = seen[r];
            peak[r - 1u] = peak[r];
            mass[r - 1u] = mass[r];
        }
    }
}
