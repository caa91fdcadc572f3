// How a kernel that reduces rows is spread over invocations. `tiled`: one workgroup per row and a tree in
// workgroup memory. Otherwise (software adapters, where barriers and workgroup memory are slow): one invocation
// per row, and nothing to combine.

import package::constants::WG;

@if(tiled) var<workgroup> tree: array<f32, WG>;

// The row of this invocation.
@if(tiled) fn row_of(group: vec3u, groups: vec3u, lane: u32) -> u32 { return group.x + group.y * groups.x; }
@if(!tiled) fn row_of(group: vec3u, groups: vec3u, lane: u32) -> u32 {
    return (group.x + group.y * groups.x) * WG + lane;
}

// First element of the row for this invocation, and the distance to its next one.
@if(tiled) fn first_of(lane: u32) -> u32 { return lane; }
@if(!tiled) fn first_of(lane: u32) -> u32 { return 0u; }
@if(tiled) const STRIDE = WG;
@if(!tiled) const STRIDE = 1u;

// Whether this invocation writes the row's scalars.
@if(tiled) fn leads(lane: u32) -> bool { return lane == 0u; }
@if(!tiled) fn leads(lane: u32) -> bool { return true; }

// Sum over the invocations of a row; all of them must call it.
@if(tiled) fn row_sum(x: f32, lane: u32) -> f32 {
    tree[lane] = x;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half >>= 1u) {
        if (lane < half) { tree[lane] += tree[lane + half]; }
        workgroupBarrier();
    }
    let sum = tree[0];
    workgroupBarrier(); // the next reduction overwrites the tree
    return sum;
}
@if(!tiled) fn row_sum(x: f32, lane: u32) -> f32 { return x; }

// Largest over the invocations of a row; all of them must call it.
@if(tiled) fn row_max(x: f32, lane: u32) -> f32 {
    tree[lane] = x;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half >>= 1u) {
        if (lane < half) { tree[lane] = max(tree[lane], tree[lane + half]); }
        workgroupBarrier();
    }
    let largest = tree[0];
    workgroupBarrier();
    return largest;
}
@if(!tiled) fn row_max(x: f32, lane: u32) -> f32 { return x; }
