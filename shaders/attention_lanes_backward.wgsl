// Causal grouped-query attention, backward, for software adapters. The scores are computed again, tile by tile, from
// q, k and the saved lse, so nothing of size T x T is kept:
//
//   p  = exp(scale * q k^T - lse)          dv = p^T d_o
//   ds = p * (d_o v^T - delta)             dq = scale * ds k           dk = scale * ds^T q
//
//   attention_delta   delta[B,H,T] = sum over E of o * d_o, one lane per row; grid (ceil(T * H / LANES), B, 1)
//   attention_dq      a workgroup takes ROWS queries of one head, walks over keys;    grid (ceil(T / ROWS), H, B)
//   attention_dkv     a workgroup takes ROWS keys of one key head, walks over queries of each head of its group, so
//                     that no two workgroups add to the same place;                   grid (ceil(T / ROWS), KV, B)
//
//   q, o, d_o, dq [B,T,H,E]   k, v, dk, dv [B,T,KV,E]   lse, delta [B,H,T]
//
// Both follow attention_lanes_forward: the workgroup's own rows stay in registers, spread over the lanes along E; a
// lane holds the scores of its own four of the 4 * LANES tokens of the other side, then its own columns of the result.
// Set the condition `delta`, `dq` or `dkv` for the entry point that is used: it places the parameters.
import package::constants::{LANES, ROWS, EHEAD};

struct Params { batch: u32, tokens: u32, heads: u32, kv_heads: u32, scale: f32, quads: u32 } // quads = ceil(EHEAD / 4)

const QUADS = (EHEAD + 3u) / 4u;                // a row of one head, in vec4
const GROUPS = (QUADS + LANES - 1u) / LANES;    // ... in vec4 per lane
const TILE = 4u * LANES;                        // tokens of the other side
const WIDTH = 1024u;                            // texels per row of a texture
const NEXT = vec4u(0u, 1u, 2u, 3u);

@if(texture) @group(0) @binding(0) var q: texture_storage_2d<rgba32float, read>;
@if(texture) @group(0) @binding(1) var k: texture_storage_2d<rgba32float, read>;
@if(texture) @group(0) @binding(2) var v: texture_storage_2d<rgba32float, read>;
@if(texture) @group(0) @binding(3) var d_o: texture_storage_2d<rgba32float, read>;
@if(vec4) @group(0) @binding(0) var<storage, read> q: array<vec4f>;
@if(vec4) @group(0) @binding(1) var<storage, read> k: array<vec4f>;
@if(vec4) @group(0) @binding(2) var<storage, read> v: array<vec4f>;
@if(vec4) @group(0) @binding(3) var<storage, read> d_o: array<vec4f>;
@if(scalar) @group(0) @binding(0) var<storage, read> q: array<f32>;
@if(scalar) @group(0) @binding(1) var<storage, read> k: array<f32>;
@if(scalar) @group(0) @binding(2) var<storage, read> v: array<f32>;
@if(scalar) @group(0) @binding(3) var<storage, read> d_o: array<f32>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read> delta: array<f32>;
@if(texture || vec4) @group(0) @binding(6) var<storage, read_write> dq: array<vec4f>;
@if(texture || vec4) @group(0) @binding(6) var<storage, read_write> dk: array<vec4f>;
@if(texture || vec4) @group(0) @binding(7) var<storage, read_write> dv: array<vec4f>;
@if(scalar) @group(0) @binding(6) var<storage, read_write> dq: array<f32>;
@if(scalar) @group(0) @binding(6) var<storage, read_write> dk: array<f32>;
@if(scalar) @group(0) @binding(7) var<storage, read_write> dv: array<f32>;
@if(dq) @group(0) @binding(7) var<uniform> p: Params;
@if(dkv) @group(0) @binding(8) var<uniform> p: Params;

// attention_delta: o, d_o, the result, the parameters.
@if(texture) @group(0) @binding(0) var delta_o: texture_storage_2d<rgba32float, read>;
@if(texture) @group(0) @binding(1) var delta_d_o: texture_storage_2d<rgba32float, read>;
@if(vec4) @group(0) @binding(0) var<storage, read> delta_o: array<vec4f>;
@if(vec4) @group(0) @binding(1) var<storage, read> delta_d_o: array<vec4f>;
@if(scalar) @group(0) @binding(0) var<storage, read> delta_o: array<f32>;
@if(scalar) @group(0) @binding(1) var<storage, read> delta_d_o: array<f32>;
@group(0) @binding(2) var<storage, read_write> delta_out: array<f32>;
@if(delta) @group(0) @binding(3) var<uniform> p: Params;

// Quad number `quad` of a row (token and head) of E elements. Past the end: the last quad, or zeros if scalar.
@if(texture || vec4) fn at(row: u32, quad: u32) -> u32 { return row * QUADS + min(quad, QUADS - 1u); }
@if(texture) fn texel(i: u32) -> vec2u { return vec2u(i % WIDTH, i / WIDTH); }
@if(texture) fn load_q(row: u32, quad: u32) -> vec4f { return textureLoad(q, texel(at(row, quad))); }
@if(texture) fn load_k(row: u32, quad: u32) -> vec4f { return textureLoad(k, texel(at(row, quad))); }
@if(texture) fn load_v(row: u32, quad: u32) -> vec4f { return textureLoad(v, texel(at(row, quad))); }
@if(texture) fn load_d_o(row: u32, quad: u32) -> vec4f { return textureLoad(d_o, texel(at(row, quad))); }
@if(texture) fn load_delta_o(row: u32, quad: u32) -> vec4f { return textureLoad(delta_o, texel(at(row, quad))); }
@if(texture) fn load_delta_d_o(row: u32, quad: u32) -> vec4f { return textureLoad(delta_d_o, texel(at(row, quad))); }
@if(vec4) fn load_q(row: u32, quad: u32) -> vec4f { return q[at(row, quad)]; }
@if(vec4) fn load_k(row: u32, quad: u32) -> vec4f { return k[at(row, quad)]; }
@if(vec4) fn load_v(row: u32, quad: u32) -> vec4f { return v[at(row, quad)]; }
@if(vec4) fn load_d_o(row: u32, quad: u32) -> vec4f { return d_o[at(row, quad)]; }
@if(vec4) fn load_delta_o(row: u32, quad: u32) -> vec4f { return delta_o[at(row, quad)]; }
@if(vec4) fn load_delta_d_o(row: u32, quad: u32) -> vec4f { return delta_d_o[at(row, quad)]; }
@if(texture || vec4) fn store_dq(row: u32, quad: u32, value: vec4f) { if (quad < QUADS) { dq[at(row, quad)] = value; } }
@if(texture || vec4) fn store_dk(row: u32, quad: u32, value: vec4f) { if (quad < QUADS) { dk[at(row, quad)] = value; } }
@if(texture || vec4) fn store_dv(row: u32, quad: u32, value: vec4f) { if (quad < QUADS) { dv[at(row, quad)] = value; } }

@if(scalar) fn at(row: u32, quad: u32) -> vec4u { return row * EHEAD + min(4u * quad + NEXT, vec4u(EHEAD - 1u)); }
@if(scalar) fn inside(quad: u32, value: vec4f) -> vec4f { return select(vec4f(), value, 4u * quad + NEXT < vec4u(EHEAD)); }
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
@if(scalar) fn load_d_o(row: u32, quad: u32) -> vec4f {
  let i = at(row, quad);
  return inside(quad, vec4f(d_o[i.x], d_o[i.y], d_o[i.z], d_o[i.w]));
}
@if(scalar) fn load_delta_o(row: u32, quad: u32) -> vec4f {
  let i = at(row, quad);
  return inside(quad, vec4f(delta_o[i.x], delta_o[i.y], delta_o[i.z], delta_o[i.w]));
}
@if(scalar) fn load_delta_d_o(row: u32, quad: u32) -> vec4f {
  let i = at(row, quad);
  return inside(quad, vec4f(delta_d_o[i.x], delta_d_o[i.y], delta_d_o[i.z], delta_d_o[i.w]));
}
@if(scalar) fn store_dq(row: u32, quad: u32, value: vec4f) {
  for (var t = 0u; t < 4u; t++) { if (4u * quad + t < EHEAD) { dq[row * EHEAD + 4u * quad + t] = value[t]; } }
}
@if(scalar) fn store_dk(row: u32, quad: u32, value: vec4f) {
  for (var t = 0u; t < 4u; t++) { if (4u * quad + t < EHEAD) { dk[row * EHEAD + 4u * quad + t] = value[t]; } }
}
@if(scalar) fn store_dv(row: u32, quad: u32, value: vec4f) {
  for (var t = 0u; t < 4u; t++) { if (4u * quad + t < EHEAD) { dv[row * EHEAD + 4u * quad + t] = value[t]; } }
}

// The row of a token and head in q and d_o, in k and v (of a key head), in lse and delta. Tokens past the end repeat
// the last one.
fn q_row(batch: u32, token: u32, head: u32) -> u32 {
  return (batch * p.tokens + min(token, p.tokens - 1u)) * p.heads + head;
}
fn kv_row(batch: u32, token: u32, kv_head: u32) -> u32 {
  return (batch * p.tokens + min(token, p.tokens - 1u)) * p.kv_heads + kv_head;
}
fn lse_row(batch: u32, token: u32, head: u32) -> u32 {
  return (batch * p.heads + head) * p.tokens + min(token, p.tokens - 1u);
}

@if(delta)
@compute @workgroup_size(LANES)
fn attention_delta(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x; // token * heads + head
  if (i < p.tokens * p.heads) {
    var sum = vec4f();
    for (var e = 0u; e < p.quads; e++) {
      let row = id.y * p.tokens * p.heads + i;
      sum += load_delta_o(row, e) * load_delta_d_o(row, e);
    }
    delta_out[lse_row(id.y, i / p.heads, i % p.heads)] = dot(sum, vec4f(1.0));
  }
}

@if(dq && subgroups)
@compute @workgroup_size(LANES)
fn attention_dq(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = w.x * ROWS;
  let head = w.y;
  let kv_head = head / (p.heads / p.kv_heads);
  let batch = w.z;
  var xq: array<array<vec4f, GROUPS>, ROWS>;   // lane l holds quad g * LANES + l
  var xo: array<array<vec4f, GROUPS>, ROWS>;
  var row_lse: array<f32, ROWS>;
  var row_delta: array<f32, ROWS>;
  for (var r = first; r < first + ROWS; r++) { // rolled: see the end
    for (var i = 1u; i < ROWS; i++) {
      xq[i - 1u] = xq[i];
      xo[i - 1u] = xo[i];
      row_lse[i - 1u] = row_lse[i];
      row_delta[i - 1u] = row_delta[i];
    }
    for (var g = 0u; g < GROUPS; g++) {
      xq[ROWS - 1u][g] = p.scale * load_q(q_row(batch, r, head), g * LANES + lane);
      xo[ROWS - 1u][g] = load_d_o(q_row(batch, r, head), g * LANES + lane);
    }
    row_lse[ROWS - 1u] = lse[lse_row(batch, r, head)];
    row_delta[ROWS - 1u] = delta[lse_row(batch, r, head)];
  }
  var out: array<array<vec4f, GROUPS>, ROWS>;

  let end = min(first + ROWS, p.tokens);       // keys that the last row sees
  for (var k0 = 0u; k0 < end; k0 += TILE) {
    let key = k0 + 4u * lane;
    var s: array<vec4f, ROWS>;                 // scores, then p, then ds
    var ds: array<vec4f, ROWS>;
    for (var g = 0u; g < GROUPS; g++) {
      let steps = min(LANES, p.quads - g * LANES);
      for (var j = 0u; j < steps; j++) {
        var yk: mat4x4f;
        var yv: mat4x4f;
        for (var i = 0u; i < 4u; i++) {
          yk[i] = load_k(kv_row(batch, key + i, kv_head), g * LANES + j);
          yv[i] = load_v(kv_row(batch, key + i, kv_head), g * LANES + j);
        }
        yk = transpose(yk);
        yv = transpose(yv);
        for (var r = 0u; r < ROWS; r++) {
          s[r] += yk * subgroupShuffle(xq[r][g], j);
          ds[r] += yv * subgroupShuffle(xo[r][g], j);
        }
      }
    }
    for (var r = 0u; r < ROWS; r++) {
      let seen = key + NEXT <= vec4u(min(first + r, p.tokens - 1u));
      let prob = select(vec4f(), exp(s[r] - row_lse[r]), seen);
      ds[r] = prob * (ds[r] - row_delta[r]);
    }
    let steps = min(LANES, (end - k0 + 3u) / 4u);
    for (var j = 0u; j < steps; j++) {
      var y: array<mat4x4f, GROUPS>;           // column i is key 4 j + i
      for (var g = 0u; g < GROUPS; g++) {
        for (var i = 0u; i < 4u; i++) { y[g][i] = load_k(kv_row(batch, k0 + 4u * j + i, kv_head), g * LANES + lane); }
      }
      for (var r = 0u; r < ROWS; r++) {
        let t = subgroupShuffle(ds[r], j);
        for (var g = 0u; g < GROUPS; g++) { out[r][g] += y[g] * t; }
      }
    }
  }

  // Loads and stores of rows are rolled loops, because unrolled they take long to compile; registers cannot be
  // indexed, so each round handles the row at one end and moves the others up.
  for (var r = first; r < end; r++) {
    for (var g = 0u; g < GROUPS; g++) { store_dq(q_row(batch, r, head), g * LANES + lane, p.scale * out[0][g]); }
    for (var i = 1u; i < ROWS; i++) { out[i - 1u] = out[i]; }
  }
}

@if(dkv && subgroups)
@compute @workgroup_size(LANES)
fn attention_dkv(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = w.x * ROWS;
  let kv_head = w.y;
  let batch = w.z;
  var xk: array<array<vec4f, GROUPS>, ROWS>;   // lane l holds quad g * LANES + l
  var xv: array<array<vec4f, GROUPS>, ROWS>;
  for (var r = first; r < first + ROWS; r++) {
    for (var i = 1u; i < ROWS; i++) {
      xk[i - 1u] = xk[i];
      xv[i - 1u] = xv[i];
    }
    for (var g = 0u; g < GROUPS; g++) {
      xk[ROWS - 1u][g] = p.scale * load_k(kv_row(batch, r, kv_head), g * LANES + lane);
      xv[ROWS - 1u][g] = load_v(kv_row(batch, r, kv_head), g * LANES + lane);
    }
  }
  var out_k: array<array<vec4f, GROUPS>, ROWS>;
  var out_v: array<array<vec4f, GROUPS>, ROWS>;

  let share = p.heads / p.kv_heads;
  for (var head = kv_head * share; head < (kv_head + 1u) * share; head++) {
    for (var q0 = first; q0 < p.tokens; q0 += TILE) {
      let query = q0 + 4u * lane;
      var s: array<vec4f, ROWS>;               // scores, then p
      var ds: array<vec4f, ROWS>;
      for (var g = 0u; g < GROUPS; g++) {
        let steps = min(LANES, p.quads - g * LANES);
        for (var j = 0u; j < steps; j++) {
          var yq: mat4x4f;
          var yo: mat4x4f;
          for (var i = 0u; i < 4u; i++) {
            yq[i] = load_q(q_row(batch, query + i, head), g * LANES + j);
            yo[i] = load_d_o(q_row(batch, query + i, head), g * LANES + j);
          }
          yq = transpose(yq);
          yo = transpose(yo);
          for (var r = 0u; r < ROWS; r++) {
            s[r] += yq * subgroupShuffle(xk[r][g], j);
            ds[r] += yo * subgroupShuffle(xv[r][g], j);
          }
        }
      }
      var own_lse: vec4f;
      var own_delta: vec4f;
      for (var i = 0u; i < 4u; i++) {
        own_lse[i] = lse[lse_row(batch, query + i, head)];
        own_delta[i] = delta[lse_row(batch, query + i, head)];
      }
      for (var r = 0u; r < ROWS; r++) {
        let seen = (vec4u(first + r) <= query + NEXT) & (query + NEXT < vec4u(p.tokens));
        s[r] = select(vec4f(), exp(s[r] - own_lse), seen);
        ds[r] = s[r] * (ds[r] - own_delta);
      }
      let steps = min(LANES, (p.tokens - q0 + 3u) / 4u);
      for (var j = 0u; j < steps; j++) {
        for (var g = 0u; g < GROUPS; g++) {
          var yq: mat4x4f;                     // column i is query 4 j + i
          var yo: mat4x4f;
          for (var i = 0u; i < 4u; i++) {
            yq[i] = load_q(q_row(batch, q0 + 4u * j + i, head), g * LANES + lane);
            yo[i] = load_d_o(q_row(batch, q0 + 4u * j + i, head), g * LANES + lane);
          }
          for (var r = 0u; r < ROWS; r++) {
            out_v[r][g] += yo * subgroupShuffle(s[r], j);
            out_k[r][g] += yq * subgroupShuffle(ds[r], j);
          }
        }
      }
    }
  }

  for (var r = first; r < min(first + ROWS, p.tokens); r++) {
    for (var g = 0u; g < GROUPS; g++) {
      store_dk(kv_row(batch, r, kv_head), g * LANES + lane, p.scale * out_k[0][g]);
      store_dv(kv_row(batch, r, kv_head), g * LANES + lane, out_v[0][g]);
    }
    for (var i = 1u; i < ROWS; i++) {
      out_k[i - 1u] = out_k[i];
      out_v[i - 1u] = out_v[i];
    }
  }
}

// Without subgroups: a lane takes ROWS rows of its own, LANES apart, and all lanes load the same token of the other
// side. Grid as above with ROWS * LANES for ROWS; ROWS * EHEAD <= 128.
@if(dq && !subgroups)
@compute @workgroup_size(LANES)
fn attention_dq(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = w.x * ROWS * LANES + lane;
  let head = w.y;
  let kv_head = head / (p.heads / p.kv_heads);
  let batch = w.z;
  var xq: array<array<vec4f, QUADS>, ROWS>;
  var xo: array<array<vec4f, QUADS>, ROWS>;
  var out: array<array<vec4f, QUADS>, ROWS>;
  var row_lse: array<f32, ROWS>;
  var row_delta: array<f32, ROWS>;
  let last = first + ROWS * LANES;
  for (var token = first; token < last; token += LANES) {
    for (var i = 1u; i < ROWS; i++) {
      xq[i - 1u] = xq[i];
      xo[i - 1u] = xo[i];
      row_lse[i - 1u] = row_lse[i];
      row_delta[i - 1u] = row_delta[i];
    }
    for (var e = 0u; e < QUADS; e++) {
      xq[ROWS - 1u][e] = p.scale * load_q(q_row(batch, token, head), e);
      xo[ROWS - 1u][e] = load_d_o(q_row(batch, token, head), e);
    }
    row_lse[ROWS - 1u] = lse[lse_row(batch, token, head)];
    row_delta[ROWS - 1u] = delta[lse_row(batch, token, head)];
  }
  let end = min((w.x + 1u) * ROWS * LANES, p.tokens);
  for (var key = 0u; key < end; key++) {
    let row = kv_row(batch, key, kv_head);
    var s: array<vec4f, ROWS>;
    var ds: array<vec4f, ROWS>;
    var yk: array<vec4f, QUADS>;
    for (var e = 0u; e < QUADS; e++) {
      yk[e] = load_k(row, e);
      let yv = load_v(row, e);
      for (var r = 0u; r < ROWS; r++) {
        s[r] += yk[e] * xq[r][e];
        ds[r] += yv * xo[r][e];
      }
    }
    for (var r = 0u; r < ROWS; r++) {
      let prob = select(0.0, exp(dot(s[r], vec4f(1.0)) - row_lse[r]), key <= first + r * LANES);
      let t = prob * (dot(ds[r], vec4f(1.0)) - row_delta[r]);
      for (var e = 0u; e < QUADS; e++) { out[r][e] += t * yk[e]; }
    }
  }
  for (var token = first; token < min(last, p.tokens); token += LANES) {
    for (var e = 0u; e < QUADS; e++) { store_dq(q_row(batch, token, head), e, p.scale * out[0][e]); }
    for (var i = 1u; i < ROWS; i++) { out[i - 1u] = out[i]; }
  }
}

@if(dkv && !subgroups)
@compute @workgroup_size(LANES)
fn attention_dkv(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = w.x * ROWS * LANES + lane;
  let kv_head = w.y;
  let batch = w.z;
  var xk: array<array<vec4f, QUADS>, ROWS>;
  var xv: array<array<vec4f, QUADS>, ROWS>;
  var out_k: array<array<vec4f, QUADS>, ROWS>;
  var out_v: array<array<vec4f, QUADS>, ROWS>;
  let last = first + ROWS * LANES;
  for (var token = first; token < last; token += LANES) {
    for (var i = 1u; i < ROWS; i++) {
      xk[i - 1u] = xk[i];
      xv[i - 1u] = xv[i];
    }
    for (var e = 0u; e < QUADS; e++) {
      xk[ROWS - 1u][e] = p.scale * load_k(kv_row(batch, token, kv_head), e);
      xv[ROWS - 1u][e] = load_v(kv_row(batch, token, kv_head), e);
    }
  }
  let share = p.heads / p.kv_heads;
  for (var head = kv_head * share; head < (kv_head + 1u) * share; head++) {
    for (var query = w.x * ROWS * LANES; query < p.tokens; query++) {
      let row = q_row(batch, query, head);
      var s: array<vec4f, ROWS>;
      var ds: array<vec4f, ROWS>;
      var yq: array<vec4f, QUADS>;
      var yo: array<vec4f, QUADS>;
      for (var e = 0u; e < QUADS; e++) {
        yq[e] = load_q(row, e);
        yo[e] = load_d_o(row, e);
        for (var r = 0u; r < ROWS; r++) {
          s[r] += yq[e] * xk[r][e];
          ds[r] += yo[e] * xv[r][e];
        }
      }
      let own_lse = lse[lse_row(batch, query, head)];
      let own_delta = delta[lse_row(batch, query, head)];
      for (var r = 0u; r < ROWS; r++) {
        let prob = select(0.0, exp(dot(s[r], vec4f(1.0)) - own_lse), first + r * LANES <= query);
        let t = prob * (dot(ds[r], vec4f(1.0)) - own_delta);
        for (var e = 0u; e < QUADS; e++) {
          out_k[r][e] += t * yq[e];
          out_v[r][e] += prob * yo[e];
        }
      }
    }
  }
  for (var token = first; token < min(last, p.tokens); token += LANES) {
    for (var e = 0u; e < QUADS; e++) {
      store_dk(kv_row(batch, token, kv_head), e, p.scale * out_k[0][e]);
      store_dv(kv_row(batch, token, kv_head), e, out_v[0][e]);
    }
    for (var i = 1u; i < ROWS; i++) {
      out_k[i - 1u] = out_k[i];
      out_v[i - 1u] = out_v[i];
    }
  }
}
