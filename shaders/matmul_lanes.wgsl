// Matrix multiplication for adapters whose "GPU" is a CPU: one workgroup is one subgroup (LANES wide).
//
//   matmul_nt   C[M,N] = A[M,K]  B[N,K]^T    linear layer, forward
//   matmul_nn   C[M,N] = A[M,K]  B[K,N]      gradient of the input
//   matmul_tn   C[M,N] = A[K,M]^T B[K,N]     gradient of the weight
//   accumulate != 0: C += ... instead. All row-major; grid = (ceil(M / TM), ceil(N / (TN * LANES)), 1).
//
// Here a buffer load costs as much as 10 to 100 multiply-adds, and workgroup memory costs the same, so the kernel
// loads each element once per workgroup and keeps everything in (spilled) registers:
//
//               TN/4 groups of LANES x 4 columns          A block: lane l holds its own K-slice of all TM rows;
//              lane 0  lane 1  ...   | lane 0 ...         lane j's slice reaches the others by subgroupShuffle.
//   TM rows   [x x x x|x x x x|      |x x x x|  ]         B block: every lane loads what its own columns need.
//             [x x x x|x x x x|      |x x x x|  ]         C: lane l accumulates its 4-column groups of all rows.
//
// Per step of j the lane does TM * TN multiply-adds per K index for TN loads of B and TM / LANES of A.
// The loop over j stays rolled: unrolled code takes seconds to compile. Edges: loads clamp their index to the
// matrix (a clamped row or column is computed and thrown away), stores are guarded.
import package::constants::{LANES, TM, TN};

struct Params { m: u32, n: u32, k: u32, accumulate: u32 }

const TQ = TN / 4u;

// vec4: the contiguous dimension of A, B and C is a multiple of 4.
@if(vec4) @group(0) @binding(0) var<storage, read> a: array<vec4f>;
@if(vec4) @group(0) @binding(1) var<storage, read> b: array<vec4f>;
@if(vec4) @group(0) @binding(2) var<storage, read_write> c: array<vec4f>;
@if(!vec4) @group(0) @binding(0) var<storage, read> a: array<f32>;
@if(!vec4) @group(0) @binding(1) var<storage, read> b: array<f32>;
@if(!vec4) @group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;

// Elements col .. col + 3 of a row of A [rows, cols]; col is a multiple of 4. Past the last column: zeros,
// so that a ragged K adds nothing (B then repeats its last element, which the same sum already contains).
@if(vec4) fn load_a(row: u32, col: u32, rows: u32, cols: u32) -> vec4f {
  return a[(min(row, rows - 1u) * cols + min(col, cols - 4u)) / 4u];
}
@if(!vec4) fn load_a(row: u32, col: u32, rows: u32, cols: u32) -> vec4f {
  let base = min(row, rows - 1u) * cols;
  let at = vec4u(col, col + 1u, col + 2u, col + 3u);
  let i = base + min(at, vec4u(cols - 1u));
  return select(vec4f(), vec4f(a[i.x], a[i.y], a[i.z], a[i.w]), at < vec4u(cols));
}

// Elements col .. col + 3 of a row of B [rows, cols]; past an edge it repeats the last row or element.
@if(vec4) fn load_b(row: u32, col: u32, rows: u32, cols: u32) -> vec4f {
  return b[(min(row, rows - 1u) * cols + min(col, cols - 4u)) / 4u];
}
@if(!vec4) fn load_b(row: u32, col: u32, rows: u32, cols: u32) -> vec4f {
  let base = min(row, rows - 1u) * cols;
  let i = base + min(vec4u(col, col + 1u, col + 2u, col + 3u), vec4u(cols - 1u));
  return vec4f(b[i.x], b[i.y], b[i.z], b[i.w]);
}

@if(vec4) fn store_c(row: u32, col: u32, value: vec4f) {
  if (row < p.m && col < p.n) {
    let i = (row * p.n + col) / 4u;
    if (p.accumulate != 0u) { c[i] += value; } else { c[i] = value; }
  }
}
@if(!vec4) fn store_c(row: u32, col: u32, value: vec4f) {
  if (row < p.m) {
    for (var t = 0u; t < min(4u, p.n - min(col, p.n)); t++) {
      let i = row * p.n + col + t;
      if (p.accumulate != 0u) { c[i] += value[t]; } else { c[i] = value[t]; }
    }
  }
}

// The first column of the lane's group q.
fn column(w: vec3u, q: u32, lane: u32) -> u32 {
  return w.y * TN * LANES + (q * LANES + lane) * 4u;
}

@compute @workgroup_size(LANES)
fn matmul_nt(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = w.x * TM;
  var acc: array<array<vec4f, TQ>, TM>;
  for (var k0 = 0u; k0 < p.k; k0 += 4u * LANES) {
    var x: array<vec4f, TM>;
    for (var i = 0u; i < TM; i++) { x[i] = load_a(row + i, k0 + 4u * lane, p.m, p.k); }
    let steps = min(LANES, (p.k - k0 + 3u) / 4u);
    for (var j = 0u; j < steps; j++) {
      let k = k0 + 4u * j;
      var y: array<mat4x4f, TQ>; // one matrix column per column of C, along K
      for (var q = 0u; q < TQ; q++) {
        let n = column(w, q, lane);
        y[q] = mat4x4f(load_b(n, k, p.n, p.k), load_b(n + 1u, k, p.n, p.k),
                       load_b(n + 2u, k, p.n, p.k), load_b(n + 3u, k, p.n, p.k));
      }
      for (var i = 0u; i < TM; i++) {
        let s = subgroupShuffle(x[i], j);
        for (var q = 0u; q < TQ; q++) { acc[i][q] += s * y[q]; }
      }
    }
  }
  for (var i = 0u; i < TM; i++) {
    for (var q = 0u; q < TQ; q++) { store_c(row + i, column(w, q, lane), acc[i][q]); }
  }
}

@compute @workgroup_size(LANES)
fn matmul_nn(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = w.x * TM;
  var acc: array<array<vec4f, TQ>, TM>;
  for (var k0 = 0u; k0 < p.k; k0 += 4u * LANES) {
    var x: array<vec4f, TM>;
    for (var i = 0u; i < TM; i++) { x[i] = load_a(row + i, k0 + 4u * lane, p.m, p.k); }
    let steps = min(LANES, (p.k - k0 + 3u) / 4u);
    for (var j = 0u; j < steps; j++) {
      let k = k0 + 4u * j;
      var y: array<mat4x4f, TQ>; // one matrix column per index of K, along the columns of C
      for (var q = 0u; q < TQ; q++) {
        let n = column(w, q, lane);
        y[q] = mat4x4f(load_b(k, n, p.k, p.n), load_b(k + 1u, n, p.k, p.n),
                       load_b(k + 2u, n, p.k, p.n), load_b(k + 3u, n, p.k, p.n));
      }
      for (var i = 0u; i < TM; i++) {
        let s = subgroupShuffle(x[i], j);
        for (var q = 0u; q < TQ; q++) { acc[i][q] += y[q] * s; }
      }
    }
  }
  for (var i = 0u; i < TM; i++) {
    for (var q = 0u; q < TQ; q++) { store_c(row + i, column(w, q, lane), acc[i][q]); }
  }
}

// Here lane l holds the TM elements of A's row k0 + l.
@compute @workgroup_size(LANES)
fn matmul_tn(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  const TR = TM / 4u;
  let row = w.x * TM;
  var acc: array<array<mat4x4f, TQ>, TR>; // acc[r][q][i]: row 4r + i, four columns
  for (var k0 = 0u; k0 < p.k; k0 += LANES) {
    var x: array<vec4f, TR>;
    for (var r = 0u; r < TR; r++) { x[r] = load_a(k0 + lane, row + 4u * r, p.k, p.m); }
    let steps = min(LANES, p.k - k0);
    for (var j = 0u; j < steps; j++) {
      var y: array<vec4f, TQ>;
      for (var q = 0u; q < TQ; q++) { y[q] = load_b(k0 + j, column(w, q, lane), p.k, p.n); }
      for (var r = 0u; r < TR; r++) {
        let s = subgroupShuffle(x[r], j);
        for (var q = 0u; q < TQ; q++) {
          acc[r][q] += mat4x4f(s.x * y[q], s.y * y[q], s.z * y[q], s.w * y[q]);
        }
      }
    }
  }
  for (var r = 0u; r < TR; r++) {
    for (var q = 0u; q < TQ; q++) {
      for (var i = 0u; i < 4u; i++) { store_c(row + 4u * r + i, column(w, q, lane), acc[r][q][i]); }
    }
  }
}
