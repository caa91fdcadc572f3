// Rows of the table by token id, and the table's gradient. The table may be one of several row shards:
// ids outside first .. first + rows are another shard's work. A workgroup per token, its lanes across the row.

import package::constants::WG;
import package::shared::elem::Elem;

struct Params { tokens: u32, columns: u32, first: u32, rows: u32 }

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<Elem>;
@group(0) @binding(2) var<storage, read_write> y: array<Elem>;
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let token = group.x + group.y * groups.x;
    if (token >= p.tokens) { return; }
    let row = ids[token] - p.first; // wraps below first, and is then too large
    if (row >= p.rows) { return; }
    for (var i = lane; i < p.columns; i += WG) {
        y[token * p.columns + i] = table[row * p.columns + i];
    }
}

@group(0) @binding(0) var<storage, read> b_ids: array<u32>;
@group(0) @binding(1) var<storage, read> b_order: array<u32>; // tokens sorted by id
@group(0) @binding(2) var<storage, read> b_dy: array<Elem>;
@group(0) @binding(3) var<storage, read_write> b_table: array<Elem>;
@group(0) @binding(4) var<uniform> b_p: Params;

// The workgroup at the head of a run of equal ids adds up the whole run: one writer per row, in a fixed order.
@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let head = group.x + group.y * groups.x;
    if (head >= b_p.tokens) { return; }
    let id = b_ids[b_order[head]];
    let row = id - b_p.first;
    if (row >= b_p.rows) { return; }
    if (head > 0u && b_ids[b_order[max(head, 1u) - 1u]] == id) { return; }
    for (var i = lane; i < b_p.columns; i += WG) {
        var sum = b_table[row * b_p.columns + i];
        for (var k = head; k < b_p.tokens; k++) {
            let token = b_order[k];
            if (b_ids[token] != id) { break; }
            sum += b_dy[token * b_p.columns + i];
        }
        b_table[row * b_p.columns + i] = sum;
    }
}
