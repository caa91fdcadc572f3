// Losses of pairs of sequences, and their gradients by the log-probabilities of both; an invocation per pair. The
// formulas stand in src/ops/preference_loss.rs. Conditions: one of sigmoid, hinge, ipo, orpo, simpo; reference, where
// log-probabilities count relative to a frozen model's.

import package::constants::EG;

// mean: whether log-probabilities count per judged token.
struct Params { pairs: u32, mean: u32, beta: f32, label_smoothing: f32, gamma: f32, lambda: f32 }

@group(0) @binding(0) var<storage, read> log_prob: array<f32>; // per pair: chosen, rejected, two parts each
@group(0) @binding(1) var<storage, read> counts: array<u32>;   // judged tokens: chosen, rejected
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
@if(reference) @group(0) @binding(3) var<storage, read> reference: array<f32>;
@if(reference) @group(0) @binding(4) var<uniform> p: Params;
@if(!reference) @group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(2) var<storage, read_write> d_log_prob: array<f32>;
@group(0) @binding(3) var<storage, read> d_loss: array<f32>;
@if(reference) @group(0) @binding(4) var<storage, read> b_reference: array<f32>;
@if(reference) @group(0) @binding(5) var<uniform> b_p: Params;
@if(!reference) @group(0) @binding(4) var<uniform> b_p: Params;

// Both parts of the log-probabilities of chosen and rejected.
fn parts_of(pair: u32) -> vec4f {
    return vec4f(log_prob[4u * pair], log_prob[4u * pair + 1u], log_prob[4u * pair + 2u], log_prob[4u * pair + 3u]);
}

// What the two sums of log-probabilities are divided by.
fn divisors(pair: u32, s: Params) -> vec2f {
    let judged = vec2u(counts[2u * pair], counts[2u * pair + 1u]);
    return select(vec2f(1.0), vec2f(max(judged, vec2u(1u))), s.mean != 0u);
}

// ln(1 + e^x), exact to the last bits where it is small too.
fn softplus(x: f32) -> f32 {
    let e = exp(-abs(x));
    let small = e * (1.0 - e * (1.0 / 2.0 - e * (1.0 / 3.0 - e / 4.0)));
    return max(x, 0.0) + select(log(1.0 + e), small, e < 0.01);
}

// 1 / (1 + e^-x), without overflow.
fn logistic(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(e, 1.0, x > 0.0) / (1.0 + e);
}

// 1 - e^x, the probability of anything else; a series where the difference would cancel.
fn rest(log_mean: f32) -> f32 {
    let x = max(-log_mean, 5.9604645e-8);
    var sum = 1.0;
    for (var k = 8.0; k > 1.0; k -= 1.0) { sum = 1.0 - x / k * sum; }
    return select(1.0 - exp(-x), x * sum, x < 0.5);
}

@if(orpo) fn odds(chosen: f32, rejected: f32) -> f32 {
    return chosen - rejected - (log(rest(chosen)) - log(rest(rejected)));
}

@if(simpo) fn margin(chosen: f32, rejected: f32, s: Params) -> f32 { return s.beta * (chosen - rejected) - s.gamma; }
@if(sigmoid || hinge) fn margin(chosen: f32, rejected: f32, s: Params) -> f32 { return s.beta * (chosen - rejected); }

fn loss_of(chosen: f32, rejected: f32, s: Params) -> f32 {
    @if(sigmoid || simpo) {
        let m = margin(chosen, rejected, s);
        return (1.0 - s.label_smoothing) * softplus(-m) + s.label_smoothing * softplus(m);
    }
    @if(hinge) { return max(1.0 - margin(chosen, rejected, s), 0.0); }
    @if(ipo) {
        let off = chosen - rejected - 0.5 / s.beta;
        return off * off;
    }
    @if(orpo) { return s.lambda * softplus(-odds(chosen, rejected)) - chosen; }
}

// Derivatives by chosen and rejected.
fn slopes(chosen: f32, rejected: f32, s: Params) -> vec2f {
    @if(sigmoid || simpo) {
        let m = margin(chosen, rejected, s);
        let slope = s.beta * ((1.0 - s.label_smoothing) * logistic(-m) - s.label_smoothing * logistic(m));
        return vec2f(-slope, slope);
    }
    @if(hinge) {
        let slope = select(0.0, s.beta, margin(chosen, rejected, s) < 1.0);
        return vec2f(-slope, slope);
    }
    @if(ipo) {
        let off = chosen - rejected - 0.5 / s.beta;
        return vec2f(2.0 * off, -2.0 * off);
    }
    @if(orpo) {
        let slope = s.lambda * logistic(-odds(chosen, rejected));
        return vec2f(-1.0 - slope / rest(chosen), slope / rest(rejected));
    }
}

fn invocation(group: vec3u, groups: vec3u, lane: u32) -> u32 { return (group.x + group.y * groups.x) * EG + lane; }

@compute @workgroup_size(EG)
fn forward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let pair = invocation(group, groups, lane);
    if (pair >= p.pairs) { return; }
    var parts = parts_of(pair);
    @if(reference) parts -= vec4f(
        reference[4u * pair], reference[4u * pair + 1u], reference[4u * pair + 2u], reference[4u * pair + 3u],
    );
    let logp = (parts.xz + parts.yw) / divisors(pair, p);
    loss[pair] = loss_of(logp.x, logp.y, p);
}

@compute @workgroup_size(EG)
fn backward(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let pair = invocation(group, groups, lane);
    if (pair >= b_p.pairs) { return; }
    var parts = parts_of(pair);
    @if(reference) parts -= vec4f(
        b_reference[4u * pair], b_reference[4u * pair + 1u], b_reference[4u * pair + 2u], b_reference[4u * pair + 3u],
    );
    let divisor = divisors(pair, b_p);
    let logp = (parts.xz + parts.yw) / divisor;
    let d = slopes(logp.x, logp.y, b_p) * d_loss[pair] / divisor;
    d_log_prob[4u * pair] = d.x;
    d_log_prob[4u * pair + 1u] = d.x;
    d_log_prob[4u * pair + 2u] = d.y;
    d_log_prob[4u * pair + 3u] = d.y;
}
