// Causal grouped-query attention, forward, for software adapters: o = softmax(scale * q k^T) v, never holding more
// of the score matrix than a tile (FlashAttention: online softmax).
//
//   q, o [B,T,H,E]   k, v [B,T,KV,E]   lse [B,H,T] = log sum exp of the scaled scores (natural log), for backward
//
// One workgroup is one subgroup and takes ROWS queries of one head; grid = (ceil(T / ROWS), H, B). It walks over the
// keys in tiles of 4 * LANES:
//
//   scores   s[r]     a lane holds the scores of its own 4 keys for all rows (k is loaded once per tile);
//                     q stays in registers, spread over the lanes along E, and a shuffle hands it out;
//   softmax           per row: maximum across the lanes by butterfly, sums per lane, added up at the end;
//   output   o[r][g]  a lane holds its own 4 columns of v in each of GROUPS groups; a shuffle hands out s.
//
// As in matmul_lanes every loaded vector feeds ROWS rows, because here loads are what costs. A row needs EHEAD
// multiply-adds of code per key quad: ROWS * EHEAD <= 1024 keeps compile time near a second.
// Kinds of operand as in matmul_lanes: `texture`, `vec4` (both need EHEAD % 4 == 0) or `scalar`.
import package::constants::{LANES, ROWS, EHEAD};

struct Params { batch: u32, tokens: u32, heads: u32, kv_heads: u32, scale: f32, quads: u32 } // quads = ceil(EHEAD / 4)

const QUADS = (EHEAD + 3u) / 4u;                // a row of one head, in vec4
const GROUPS = (QUADS + LANES - 1u) / LANES;    // ... in vec4 per lane
const TILE = 4u * LANES;                        // keys
const WIDTH = 1024u;                            // texels per row of a texture
const LOWEST = -1e30;

@if(texture) @group(0) @binding(0) var q: texture_storage_2d<rgba32float, read>;
@if(texture) @group(0) @binding(1) var k: texture_storage_2d<rgba32float, read>;
@if(texture) @group(0) @binding(2) var v: texture_storage_2d<rgba32float, read>;
@if(vec4) @group(0) @binding(0) var<storage, read> q: array<vec4f>;
@if(vec4) @group(0) @binding(1) var<storage, read> k: array<vec4f>;
@if(vec4) @group(0) @binding(2) var<storage, read> v: array<vec4f>;
@if(texture || vec4) @group(0) @binding(3) var<storage, read_write> o: array<vec4f>;
@if(scalar) @group(0) @binding(0) var<storage, read> q: array<f32>;
@if(scalar) @group(0) @binding(1) var<storage, read> k: array<f32>;
@if(scalar) @group(0) @binding(2) var<storage, read> v: array<f32>;
@if(scalar) @group(0) @binding(3) var<storage, read_write> o: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;
@group(0) @binding(5) var<uniform> p: Params;

// Quad number `quad` of a row (token and head) of E elements. Past the end: the last quad, or zeros if scalar.
@if(texture || vec4) fn at(row: u32, quad: u32) -> u32 { return row * QUADS + min(quad, QUADS - 1u); }
@if(texture) fn texel(i: u32) -> vec2u { return vec2u(i % WIDTH, i / WIDTH); }
@if(texture) fn load_q(row: u32, quad: u32) -> vec4f { return textureLoad(q, texel(at(row, quad))); }
@if(texture) fn load_k(row: u32, quad: u32) -> vec4f { return textureLoad(k, texel(at(row, quad))); }
@if(texture) fn load_v(row: u32, quad: u32) -> vec4f { return textureLoad(v, texel(at(row, quad))); }
@if(vec4) fn load_q(row: u32, quad: u32) -> vec4f { return q[at(row, quad)]; }
@if(vec4) fn load_k(row: u32, quad: u32) -> vec4f { return k[at(row, quad)]; }
@if(vec4) fn load_v(row: u32, quad: u32) -> vec4f { return v[at(row, quad)]; }
@if(texture || vec4) fn store_o(row: u32, quad: u32, value: vec4f) { if (quad < QUADS) { o[at(row, quad)] = value; } }

@if(scalar) fn at(row: u32, quad: u32) -> vec4u {
  return row * EHEAD + min(4u * quad + vec4u(0u, 1u, 2u, 3u), vec4u(EHEAD - 1u));
}
@if(scalar) fn inside(quad: u32, value: vec4f) -> vec4f {
  return select(vec4f(), value, 4u * quad + vec4u(0u, 1u, 2u, 3u) < vec4u(EHEAD));
}
@if(scalar) fn load_q(row: u32, quad: u32) -> vec4f {
  let i = at(row, quad);
  return inside(quad, vec4f(q[i.x], q[i.y], q[i.z], q[i.w]));
}
@if(scalar) fn load_k(row: u32, quad: u32) -> vec4f {
  let i = at(row, quad);
  return inside(quad, vec4f(k[i.x], k[i.y], k[i.z], k[i.w]));
}
@if(scalar) fn load_v(row: u32, quad: u32) -> vec4f {
  let i = at(row, quad);
  return inside(quad, vec4f(v[i.x], v[i.y], v[i.z], v[i.w]));
}
@if(scalar) fn store_o(row: u32, quad: u32, value: vec4f) {
  for (var t = 0u; t < 4u; t++) {
    if (4u * quad + t < EHEAD) { o[row * EHEAD + 4u * quad + t] = value[t]; }
  }
}

// The row of a token and head in q and o, or in k and v. Tokens past the end repeat the last one.
fn q_row(batch: u32, token: u32, head: u32) -> u32 {
  return (batch * p.tokens + min(token, p.tokens - 1u)) * p.heads + head;
}
fn kv_row(batch: u32, token: u32, head: u32) -> u32 {
  return (batch * p.tokens + min(token, p.tokens - 1u)) * p.kv_heads + head / (p.heads / p.kv_heads);
}

// Butterflies, written out: subgroupMax and subgroupAdd are serial loops here.
@if(subgroups)
fn max_lanes(x: f32) -> f32 {
  var m = max(x, subgroupShuffleXor(x, 1u));
  m = max(m, subgroupShuffleXor(m, 2u));
  if (LANES > 4u) { m = max(m, subgroupShuffleXor(m, 4u)); }
  if (LANES > 8u) { m = max(m, subgroupShuffleXor(m, 8u)); }
  return m;
}
@if(subgroups)
fn sum_lanes(x: f32) -> f32 {
  var s = x + subgroupShuffleXor(x, 1u);
  s += subgroupShuffleXor(s, 2u);
  if (LANES > 4u) { s += subgroupShuffleXor(s, 4u); }
  if (LANES > 8u) { s += subgroupShuffleXor(s, 8u); }
  return s;
}

@if(subgroups)
@compute @workgroup_size(LANES)
fn attention(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = w.x * ROWS;
  let head = w.y;
  let batch = w.z;
  var x: array<array<vec4f, GROUPS>, ROWS>;    // q, scaled: lane l holds quad g * LANES + l
  for (var r = first; r < first + ROWS; r++) { // rolled: see the end
    for (var i = 1u; i < ROWS; i++) { x[i - 1u] = x[i]; }
    for (var g = 0u; g < GROUPS; g++) { x[ROWS - 1u][g] = p.scale * load_q(q_row(batch, r, head), g * LANES + lane); }
  }
  var out: array<array<vec4f, GROUPS>, ROWS>;
  var top: array<f32, ROWS>;                   // running maximum, the same in all lanes
  var sum: array<f32, ROWS>;                   // running sum over the lane's own keys
  for (var r = 0u; r < ROWS; r++) { top[r] = LOWEST; }

  let end = min(first + ROWS, p.tokens);       // keys that the last row sees
  for (var k0 = 0u; k0 < end; k0 += TILE) {
    let key = k0 + 4u * lane;
    let row = vec4u(kv_row(batch, key, head), kv_row(batch, key + 1u, head),
                    kv_row(batch, key + 2u, head), kv_row(batch, key + 3u, head));
    var s: array<vec4f, ROWS>;
    for (var g = 0u; g < GROUPS; g++) {
      let steps = min(LANES, p.quads - g * LANES);
      for (var j = 0u; j < steps; j++) {
        let e = g * LANES + j;
        let y = transpose(mat4x4f(load_k(row.x, e), load_k(row.y, e), load_k(row.z, e), load_k(row.w, e)));
        for (var r = 0u; r < ROWS; r++) { s[r] += y * subgroupShuffle(x[r][g], j); }
      }
    }
    for (var r = 0u; r < ROWS; r++) {
      let seen = key + vec4u(0u, 1u, 2u, 3u) <= vec4u(min(first + r, p.tokens - 1u));
      let t = select(vec4f(LOWEST), s[r], seen);
      let m = max(top[r], max_lanes(max(max(t.x, t.y), max(t.z, t.w))));
      let shrink = exp(top[r] - m);
      top[r] = m;
      s[r] = exp(t - m);
      sum[r] = sum[r] * shrink + dot(s[r], vec4f(1.0));
      for (var g = 0u; g < GROUPS; g++) { out[r][g] *= shrink; }
    }
    let steps = min(LANES, (end - k0 + 3u) / 4u);
    for (var j = 0u; j < steps; j++) {
      var y: array<mat4x4f, GROUPS>;           // column i is key 4 j + i
      for (var g = 0u; g < GROUPS; g++) {
        for (var i = 0u; i < 4u; i++) { y[g][i] = load_v(kv_row(batch, k0 + 4u * j + i, head), g * LANES + lane); }
      }
      for (var r = 0u; r < ROWS; r++) {
        let t = subgroupShuffle(s[r], j);
        for (var g = 0u; g < GROUPS; g++) { out[r][g] += y[g] * t; }
      }
    }
  }

  // Loads and stores of rows are rolled loops, because unrolled they take long to compile; registers cannot be
  // indexed, so each round handles the row at one end and moves the others up.
  for (var r = first; r < end; r++) {
    let total = sum_lanes(sum[0]);
    for (var g = 0u; g < GROUPS; g++) { store_o(q_row(batch, r, head), g * LANES + lane, out[0][g] / total); }
    if (lane == 0u) { lse[(batch * p.heads + head) * p.tokens + r] = top[0] + log(total); }
    for (var i = 1u; i < ROWS; i++) {
      out[i - 1u] = out[i];
      sum[i - 1u] = sum[i];
      top[i - 1u] = top[i];
    }
  }
}

// Without subgroups: a lane takes ROWS queries of its own, LANES apart, and all lanes load the same key.
// Grid = (ceil(T / (ROWS * LANES)), H, B); ROWS * EHEAD <= 256.
@if(!subgroups)
@compute @workgroup_size(LANES)
fn attention(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = w.x * ROWS * LANES + lane;
  let head = w.y;
  let batch = w.z;
  var x: array<array<vec4f, QUADS>, ROWS>;
  var out: array<array<vec4f, QUADS>, ROWS>;
  var top: array<f32, ROWS>;
  var sum: array<f32, ROWS>;
  let last = first + ROWS * LANES;
  for (var token = first; token < last; token += LANES) {
    for (var i = 1u; i < ROWS; i++) { x[i - 1u] = x[i]; }
    for (var e = 0u; e < QUADS; e++) { x[ROWS - 1u][e] = p.scale * load_q(q_row(batch, token, head), e); }
  }
  for (var r = 0u; r < ROWS; r++) { top[r] = LOWEST; }
  let end = min((w.x + 1u) * ROWS * LANES, p.tokens);
  for (var key = 0u; key < end; key++) {
    let row = kv_row(batch, key, head);
    var s: array<vec4f, ROWS>;
    for (var e = 0u; e < QUADS; e++) {
      let y = load_k(row, e);
      for (var r = 0u; r < ROWS; r++) { s[r] += y * x[r][e]; }
    }
    var prob: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      let t = dot(s[r], vec4f(1.0));
      if (t > top[r]) { // rare once the maximum is found
        let shrink = exp(top[r] - t);
        top[r] = t;
        sum[r] *= shrink;
        for (var e = 0u; e < QUADS; e++) { out[r][e] *= shrink; }
      }
      prob[r] = select(0.0, exp(t - top[r]), key <= first + r * LANES);
      sum[r] += prob[r];
    }
    for (var e = 0u; e < QUADS; e++) {
      let y = load_v(row, e);
      for (var r = 0u; r < ROWS; r++) { out[r][e] += prob[r] * y; }
    }
  }
  for (var token = first; token < min(last, p.tokens); token += LANES) {
    for (var e = 0u; e < QUADS; e++) { store_o(q_row(batch, token, head), e, out[0][e] / sum[0]); }
    lse[(batch * p.heads + head) * p.tokens + token] = top[0] + log(sum[0]);
    for (var i = 1u; i < ROWS; i++) {
      out[i - 1u] = out[i];
      sum[i - 1u] = sum[i];
      top[i - 1u] = top[i];
    }
  }
}
