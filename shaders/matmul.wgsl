// y = op(a) op(b) or y += op(a) op(b) for hardware GPUs; forms in src/ops/matmul.rs.
// A workgroup of 16 x 16 invocations makes a 64 x 64 tile of y, each invocation 4 x 4 of it. Slices of 16 of the
// inner dimension pass through workgroup memory, zero beyond the edges, so that the inner loop needs no guards.

const TILE = 64u;
const DEPTH = 16u;

struct Params { m: u32, n: u32, k: u32, accumulate: u32 }

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;

// Both slices lie with the inner dimension outermost: the 4 values that an invocation needs are one vector.
var<workgroup> slice_a: array<vec4f, 256>; // [DEPTH][TILE / 4]
var<workgroup> slice_b: array<vec4f, 256>;

fn load_a(row: u32, k: u32) -> f32 {
    if (row >= p.m || k >= p.k) { return 0.0; }
    @if(a_transposed) { return a[k * p.m + row]; }
    @if(!a_transposed) { return a[row * p.k + k]; }
}

fn load_b(k: u32, column: u32) -> f32 {
    if (column >= p.n || k >= p.k) { return 0.0; }
    @if(b_transposed) { return b[column * p.k + k]; }
    @if(!b_transposed) { return b[k * p.n + column]; }
}

@compute @workgroup_size(16, 16)
fn matmul(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_id) local: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row0 = group.y * TILE;
    let column0 = group.x * TILE;
    // Neighbouring lanes read neighbouring addresses: along k where the operand is stored so, else along its
    // other dimension.
    let by_k = vec2u(lane % DEPTH, (lane / DEPTH) * 4u);
    let by_row = vec2u(lane / 16u, (lane % 16u) * 4u);
    var place_a = by_k;
    @if(a_transposed) { place_a = by_row; }
    var place_b = by_row;
    @if(b_transposed) { place_b = by_k; }

    var sum: array<vec4f, 4>;
    for (var k0 = 0u; k0 < p.k; k0 += DEPTH) {
        let ka = k0 + place_a.x;
        let ra = row0 + place_a.y;
        slice_a[place_a.x * 16u + place_a.y / 4u] =
            vec4f(load_a(ra, ka), load_a(ra + 1u, ka), load_a(ra + 2u, ka), load_a(ra + 3u, ka));
        let kb = k0 + place_b.x;
        let cb = column0 + place_b.y;
        slice_b[place_b.x * 16u + place_b.y / 4u] =
            vec4f(load_b(kb, cb), load_b(kb, cb + 1u), load_b(kb, cb + 2u), load_b(kb, cb + 3u));
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let rows = slice_a[k * 16u + local.y];
            let columns = slice_b[k * 16u + local.x];
            sum[0] += rows.x * columns;
            sum[1] += rows.y * columns;
            sum[2] += rows.z * columns;
            sum[3] += rows.w * columns;
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        let row = row0 + local.y * 4u + i;
        for (var j = 0u; j < 4u; j++) {
            let column = column0 + local.x * 4u + j;
            if (row < p.m && column < p.n) {
                let at = row * p.n + column;
                var value = sum[i][j];
                if (p.accumulate != 0u) { value += y[at]; }
                y[at] = value;
            }
        }
    }
}
