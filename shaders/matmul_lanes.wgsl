// Matrix multiplication for software adapters: C[M,N] = op(A) op(B), or C += with accumulate != 0.
//
//   default        A[M,K]   B[K,N]   gradient of the input    dX = dY W
//   b_transposed   A[M,K]   B[N,K]   linear layer             Y  = X W^T
//   a_transposed   A[K,M]   B[K,N]   gradient of the weight   dW = dY^T X
//
// All row-major. One workgroup is one subgroup; grid = (ceil(M / TM), ceil(N / (TN * LANES)), 1): neighbours in x
// share the columns of B, the larger operand. TM and TN are multiples of 4.
//
//               TN/4 groups of LANES x 4 columns
//              lane 0  lane 1  ...   | lane 0  lane 1     C: a lane accumulates its own 4-column groups of all rows.
//   TM rows   [x x x x|x x x x|      |x x x x|x x x x     B: a lane loads what its own columns need.
//             [x x x x|x x x x|      |x x x x|x x x x     A: lane l loads the l-th slice of 4 along K of all rows;
//                                                            a shuffle hands slice j to every lane.
//
// Why: on a CPU a storage-buffer load is a scalar loop over the lanes that costs 10 to 100 multiply-adds, and
// workgroup memory costs the same. So every element is loaded once per workgroup and feeds a large register tile.
// `vec4` needs multiples of 4 in N and in the contiguous dimension of A and B, and reads them as textures where the
// `texels` condition holds (a fetch then costs a tenth or less); `scalar` takes any size.
import package::constants::{LANES, TM, TN};

struct Params { m: u32, n: u32, k: u32, accumulate: u32 }

const TR = TM / 4u;
const TQ = TN / 4u;

@if(vec4) @group(0) @binding(0) var<storage, read> a: array<vec4f>;
@if(vec4) @group(0) @binding(1) var<storage, read> b: array<vec4f>;
@if(vec4) @group(0) @binding(2) var<storage, read_write> c: array<vec4f>;
@if(scalar) @group(0) @binding(0) var<storage, read> a: array<f32>;
@if(scalar) @group(0) @binding(1) var<storage, read> b: array<f32>;
@if(scalar) @group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;

@if(vec4) fn fetch_a(i: u32) -> vec4f { return a[i]; }
@if(vec4) fn fetch_b(i: u32) -> vec4f { return b[i]; }

// Elements col .. col + 3 of a row of the stored A [rows, cols]. Indices are clamped, which costs no branch; what
// lies outside is zero, so that a ragged K adds nothing.
@if(vec4)
fn load_a(row: u32, col: u32, rows: u32, cols: u32) -> vec4f {
  let v = fetch_a((min(row, rows - 1u) * cols + min(col, cols - 4u)) / 4u);
  return select(vec4f(), v, row < rows);
}
@if(scalar)
fn load_a(row: u32, col: u32, rows: u32, cols: u32) -> vec4f {
  let at = col + vec4u(0u, 1u, 2u, 3u);
  let i = min(row, rows - 1u) * cols + min(at, vec4u(cols - 1u));
  let inside = at < vec4u(select(0u, cols, row < rows));
  return select(vec4f(), vec4f(a[i.x], a[i.y], a[i.z], a[i.w]), inside);
}

// The same for B, where what lies outside repeats the edge: it meets a zero of A or a column that is not stored.
@if(vec4)
fn load_b(row: u32, col: u32, rows: u32, cols: u32) -> vec4f {
  return fetch_b((min(row, rows - 1u) * cols + min(col, cols - 4u)) / 4u);
}
@if(scalar)
fn load_b(row: u32, col: u32, rows: u32, cols: u32) -> vec4f {
  let i = min(row, rows - 1u) * cols + min(col + vec4u(0u, 1u, 2u, 3u), vec4u(cols - 1u));
  return vec4f(b[i.x], b[i.y], b[i.z], b[i.w]);
}

// A 4 x 4 block of op(A): column i is row + i, along K.
@if(!a_transposed)
fn block_a(row: u32, k: u32) -> mat4x4f {
  return mat4x4f(load_a(row, k, p.m, p.k), load_a(row + 1u, k, p.m, p.k),
                 load_a(row + 2u, k, p.m, p.k), load_a(row + 3u, k, p.m, p.k));
}
@if(a_transposed)
fn block_a(row: u32, k: u32) -> mat4x4f {
  return transpose(mat4x4f(load_a(k, row, p.k, p.m), load_a(k + 1u, row, p.k, p.m),
                           load_a(k + 2u, row, p.k, p.m), load_a(k + 3u, row, p.k, p.m)));
}

// A 4 x 4 block of op(B): column i is index k + i, along N.
@if(!b_transposed)
fn block_b(k: u32, col: u32) -> mat4x4f {
  return mat4x4f(load_b(k, col, p.k, p.n), load_b(k + 1u, col, p.k, p.n),
                 load_b(k + 2u, col, p.k, p.n), load_b(k + 3u, col, p.k, p.n));
}
@if(b_transposed)
fn block_b(k: u32, col: u32) -> mat4x4f {
  return transpose(mat4x4f(load_b(col, k, p.n, p.k), load_b(col + 1u, k, p.n, p.k),
                           load_b(col + 2u, k, p.n, p.k), load_b(col + 3u, k, p.n, p.k)));
}

@if(vec4)
fn store_c(row: u32, col: u32, value: vec4f) {
  if (row < p.m && col < p.n) {
    let i = (row * p.n + col) / 4u;
    if (p.accumulate != 0u) { c[i] += value; } else { c[i] = value; }
  }
}
@if(scalar)
fn store_c(row: u32, col: u32, value: vec4f) {
  if (row < p.m) {
    for (var t = 0u; t < min(4u, p.n - min(col, p.n)); t++) {
      let i = row * p.n + col + t;
      if (p.accumulate != 0u) { c[i] += value[t]; } else { c[i] = value[t]; }
    }
  }
}

// SLICES slices of A along K are in flight, one per lane. Without subgroups all lanes load the same one.
@if(subgroups) const SLICES = LANES;
@if(!subgroups) const SLICES = 1u;
@if(subgroups) fn slices(k: u32) -> u32 { return min(SLICES, (p.k - k + 3u) / 4u); } // from k to the end
@if(!subgroups) fn slices(k: u32) -> u32 { return 1u; }
@if(subgroups) fn from_lane(v: vec4f, j: u32) -> vec4f { return subgroupShuffle(v, j); }
@if(!subgroups) fn from_lane(v: vec4f, j: u32) -> vec4f { return v; }

@compute @workgroup_size(LANES)
fn matmul(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = w.x * TM;
  let col = (w.y * TQ * LANES + lane) * 4u;
  var acc: array<array<mat4x4f, TQ>, TR>; // acc[r][q][i]: row 4r + i, the four columns of group q
  for (var k0 = 0u; k0 < p.k; k0 += 4u * SLICES) {
    var x: array<mat4x4f, TR>;
    for (var r = 0u; r < TR; r++) { x[r] = block_a(row + 4u * r, k0 + 4u * (lane % SLICES)); }
    // This loop stays rolled: its body is 4 * TM * TN multiply-adds, and code costs compile time.
    for (var j = 0u; j < slices(k0); j++) {
      var y: array<mat4x4f, TQ>;
      for (var q = 0u; q < TQ; q++) { y[q] = block_b(k0 + 4u * j, col + q * LANES * 4u); }
      for (var r = 0u; r < TR; r++) {
        for (var i = 0u; i < 4u; i++) {
          let s = from_lane(x[r][i], j);
          for (var q = 0u; q < TQ; q++) { acc[r][q][i] += y[q] * s; }
        }
      }
    }
  }
  // Rolled as well (unrolled stores take seconds to compile): a round stores the first four rows and moves the
  // others up, because registers cannot be indexed.
  let rows = min(TM, p.m - row);
  for (var done = 0u; done < rows; done += 4u) {
    for (var i = 0u; i < 4u; i++) {
      for (var q = 0u; q < TQ; q++) { store_c(row + done + i, col + q * LANES * 4u, acc[0][q][i]); }
    }
    for (var r = 1u; r < TR; r++) { acc[r - 1u] = acc[r]; }
  }
}
