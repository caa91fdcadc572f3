// Split-half rotation: elements i and i + half of a head turn by the angle in the table.
// sign = -1 turns back (the backward pass). One pair of elements per invocation.

import package::constants::EG;
import package::shared::elem::{Elem, flat};

struct Params { pairs: u32, half: u32, heads: u32, positions: u32, sign: f32 }

@group(0) @binding(0) var<storage, read> x: array<Elem>;
@group(0) @binding(1) var<storage, read> table: array<Elem>; // per position: half cosines, half sines
@group(0) @binding(2) var<storage, read_write> y: array<Elem>;
@if(placed) @group(0) @binding(3) var<storage, read> positions: array<u32>; // one per row
@if(placed) @group(0) @binding(4) var<uniform> p: Params;
@if(!placed) @group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(EG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let pair = flat(group, groups, lane, EG);
    if (pair >= p.pairs) { return; }
    let i = pair % p.half;
    let head = pair / p.half; // row * heads + head
    @if(placed) let position = min(positions[head / p.heads], p.positions - 1u);
    @if(!placed) let position = (head / p.heads) % p.positions;
    let turn = position * 2u * p.half + i;
    let low = head * 2u * p.half + i;
    let cosine = table[turn];
    let sine = table[turn + p.half] * p.sign;
    let a = x[low];
    let b = x[low + p.half];
    y[low] = a * cosine - b * sine;
    y[low + p.half] = b * cosine + a * sine;
}
