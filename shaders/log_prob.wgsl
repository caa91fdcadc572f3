// Log-probability of sequences: minus the sum of nll over the positions of each, as a whole number and a rest in
// (-1, 0]. Rows of the launch are sequences; sequence s is the positions ranges[2 s]..ranges[2 s + 1].

import package::constants::WG;
import package::shared::rows::{row_of, first_of, STRIDE, leads, row_sum};

struct Params { sequences: u32 }

@group(0) @binding(0) var<storage, read> nll: array<f32>;
@group(0) @binding(1) var<storage, read> ranges: array<u32>; // [S, 2]
@group(0) @binding(2) var<storage, read_write> log_prob: array<f32>; // [S, 2]
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let sequence = row_of(group, groups, lane);
    if (sequence >= p.sequences) { return; }
    let end = ranges[2u * sequence + 1u];
    // Whole numbers add up exactly, and what is below 1 rounds little.
    var whole = 0.0;
    var rest = 0.0;
    for (var n = ranges[2u * sequence] + first_of(lane); n < end; n += STRIDE) {
        let sum = rest + fract(nll[n]);
        whole += floor(nll[n]) + floor(sum);
        rest = fract(sum);
    }
    let all_whole = row_sum(whole, lane);
    let all_rest = row_sum(rest, lane);
    if (leads(lane)) {
        log_prob[2u * sequence] = -(all_whole + floor(all_rest));
        log_prob[2u * sequence + 1u] = -fract(all_rest);
    }
}

@group(0) @binding(0) var<storage, read> d_log_prob: array<f32>; // [S, 2]
@group(0) @binding(2) var<storage, read_write> d_nll: array<f32>; // zero so far

@compute @workgroup_size(WG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let sequence = row_of(group, groups, lane);
    if (sequence >= p.sequences) { return; }
    let end = ranges[2u * sequence + 1u];
    for (var n = ranges[2u * sequence] + first_of(lane); n < end; n += STRIDE) { d_nll[n] = -d_log_prob[2u * sequence + 1u]; }
}
