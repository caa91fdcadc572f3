// The next token of each sequence from its logits.
//
// `adjust` applies penalty and temperature, one logit per invocation. `choose` takes one workgroup per sequence. Its
// cuts need no sorting: floats are mapped to integers of the same order, and the lowest integer that is kept is found
// bit by bit, 32 counts (top-k) or sums (top-p) over the classes.
//
// Logits lie shard after shard, a dense [B, shard] block each; so do `seen` and the adjusted logits.

import package::constants::{EG, SG};
import package::shared::elem::{Elem, total, largest};

@if(vec4) const WIDTH = 4u;
@if(!vec4) const WIDTH = 1u;

struct Params { batch: u32, classes: u32, shard_rows: u32 }

@group(0) @binding(0) var<storage, read> a_logits: array<f32>;
@group(0) @binding(1) var<storage, read> a_settings: array<f32>; // temperature, top-k, top-p, min-p, penalty
@group(0) @binding(2) var<storage, read_write> a_seen: array<u32>;
@group(0) @binding(3) var<storage, read_write> a_adjusted: array<f32>;
@group(0) @binding(4) var<uniform> a_p: Params;

@compute @workgroup_size(EG)
fn adjust(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * EG + lane;
    if (i >= a_p.batch * a_p.classes) { return; }
    let penalty = a_settings[4];
    let temperature = a_settings[0];
    var x = a_logits[i];
    if (a_seen[i] != 0u) { x = select(x * penalty, x / penalty, x > 0.0); }
    if (temperature > 0.0) { x /= temperature; }
    a_adjusted[i] = x;
}

@group(0) @binding(0) var<storage, read> logits: array<Elem>;
@group(0) @binding(1) var<storage, read> adjusted: array<Elem>;
@group(0) @binding(2) var<storage, read> settings: array<f32>;
@group(0) @binding(3) var<storage, read> uniforms: array<f32>;
@group(0) @binding(4) var<storage, read_write> token: array<u32>;
@group(0) @binding(5) var<storage, read_write> seen: array<u32>;
@group(0) @binding(6) var<storage, read_write> report: array<f32>;
@group(0) @binding(7) var<uniform> p: Params;

var<workgroup> parts: array<f32, SG>;

// Sum and largest over the workgroup, the same in every invocation.
fn sum_all(x: f32, lane: u32) -> f32 {
    parts[lane] = x;
    workgroupBarrier();
    for (var half = SG / 2u; half > 0u; half >>= 1u) {
        if (lane < half) { parts[lane] += parts[lane + half]; }
        workgroupBarrier();
    }
    let sum = parts[0];
    workgroupBarrier();
    return sum;
}
fn max_all(x: f32, lane: u32) -> f32 {
    parts[lane] = x;
    workgroupBarrier();
    for (var half = SG / 2u; half > 0u; half >>= 1u) {
        if (lane < half) { parts[lane] = max(parts[lane], parts[lane + half]); }
        workgroupBarrier();
    }
    let top = parts[0];
    workgroupBarrier();
    return top;
}

// Where the i-th Elem of a sequence lies; and where a class lies.
fn place(sequence: u32, i: u32) -> u32 { return locate(sequence, i * WIDTH) / WIDTH; }
fn locate(sequence: u32, class_id: u32) -> u32 {
    let first = class_id / p.shard_rows * p.shard_rows;
    let rows = min(p.shard_rows, p.classes - first);
    return p.batch * first + sequence * rows + class_id - first;
}

// The integer whose order among others is the float's.
@if(vec4) alias Keys = vec4u;
@if(!vec4) alias Keys = u32;
fn keys_of(x: Elem) -> Keys {
    let bits = bitcast<Keys>(x);
    return select(bits | Keys(0x80000000u), ~bits, bits >= Keys(0x80000000u));
}
fn float_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

// Number of classes from `key` on, and mass of those above it among those from `lowest` on.
fn count_from(sequence: u32, key: u32, lane: u32) -> f32 {
    var count = Elem(0.0);
    for (var i = lane; i < p.classes / WIDTH; i += SG) {
        count += select(Elem(0.0), Elem(1.0), keys_of(adjusted[place(sequence, i)]) >= Keys(key));
    }
    return sum_all(total(count), lane);
}
fn mass_above(sequence: u32, key: u32, lowest: u32, peak: f32, lane: u32) -> f32 {
    var mass = Elem(0.0);
    for (var i = lane; i < p.classes / WIDTH; i += SG) {
        let x = adjusted[place(sequence, i)];
        let keys = keys_of(x);
        mass += select(Elem(0.0), exp(x - Elem(peak)), (keys > Keys(key)) & (keys >= Keys(lowest)));
    }
    return sum_all(total(mass), lane);
}

// The first class of [start, end) from which on `rest` is used up by the mass of what is kept; the last one kept if
// none uses it up; none: 0xffffffff.
fn walk(sequence: u32, start: u32, end: u32, lowest: u32, peak: f32, amount: f32) -> u32 {
    var rest = amount;
    var last = 0xffffffffu;
    for (var i = start; i < end; i++) {
        let x = adjusted[place(sequence, i)];
        let keys = keys_of(x);
        for (var c = 0u; c < WIDTH; c++) {
            @if(vec4) let key = keys[c];
            @if(!vec4) let key = keys;
            if (key >= lowest) {
                last = i * WIDTH + c;
                rest -= exp(float_of(key) - peak);
                if (rest < 0.0) { return last; }
            }
        }
    }
    return last;
}

@compute @workgroup_size(SG)
fn choose(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let sequence = group.x;
    let width = p.classes / WIDTH;

    // The model's own distribution, for the log-probability.
    var raw_top = Elem(-3.4e38);
    var top = Elem(-3.4e38);
    for (var i = lane; i < width; i += SG) {
        raw_top = max(raw_top, logits[place(sequence, i)]);
        top = max(top, adjusted[place(sequence, i)]);
    }
    let raw_peak = max_all(largest(raw_top), lane);
    let peak = max_all(largest(top), lane);
    var raw_mass = Elem(0.0);
    for (var i = lane; i < width; i += SG) { raw_mass += exp(logits[place(sequence, i)] - Elem(raw_peak)); }
    let lse = raw_peak + log(sum_all(total(raw_mass), lane));

    // The lowest key that is kept. Greedy keeps the peak alone and takes its first class.
    @if(vec4) let peak_key = keys_of(vec4f(peak)).x;
    @if(!vec4) let peak_key = keys_of(peak);
    let greedy = settings[0] <= 0.0;
    var lowest = select(0u, peak_key, greedy);
    let top_k = settings[1];
    if (!greedy && top_k > 0.0 && top_k < f32(p.classes)) {
        for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
            if (count_from(sequence, lowest | bit, lane) >= top_k) { lowest |= bit; }
        }
    }
    let top_p = settings[2];
    if (!greedy && top_p < 1.0) {
        // The lowest key that has less than the wanted mass above it: one more than the highest that has not.
        let wanted = top_p * mass_above(sequence, 0u, lowest, peak, lane);
        var key = 0u;
        for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
            if (mass_above(sequence, key | bit, lowest, peak, lane) >= wanted) { key |= bit; }
        }
        lowest = max(lowest, min(key, peak_key - 1u) + 1u);
    }
    let min_p = settings[3];
    if (!greedy && min_p > 0.0) {
        @if(vec4) let key = keys_of(vec4f(peak + log(min_p))).x;
        @if(!vec4) let key = keys_of(peak + log(min_p));
        lowest = max(lowest, min(key, peak_key));
    }

    // Each invocation sums a stretch of classes; the first one finds the stretch in which the point lies.
    let stretch = (width + SG - 1u) / SG;
    let start = min(lane * stretch, width);
    let end = min(start + stretch, width);
    var mass = Elem(0.0);
    for (var i = start; i < end; i++) {
        let x = adjusted[place(sequence, i)];
        mass += select(Elem(0.0), exp(x - Elem(peak)), keys_of(x) >= Keys(lowest));
    }
    let all = sum_all(total(mass), lane);
    parts[lane] = total(mass);
    workgroupBarrier();
    if (lane == 0u) {
        var rest = select(uniforms[sequence] * all, 0.0, greedy);
        var part = 0u;
        var last = 0u; // the last stretch that keeps anything, where rounding leaves a rest
        for (; part < SG; part++) {
            if (parts[part] > 0.0) { last = part; }
            if (rest < parts[part]) { break; }
            rest -= parts[part];
        }
        part = min(part, SG - 1u);
        if (parts[part] <= 0.0) { part = last; }
        let begin = min(part * stretch, width);
        let chosen = walk(sequence, begin, min(begin + stretch, width), lowest, peak, rest);
        let found = min(chosen, p.classes - 1u);
        let at = locate(sequence, found);
        @if(vec4) let raw = logits[at / 4u][at % 4u];
        @if(!vec4) let raw = logits[at];
        token[sequence] = found;
        seen[at] = 1u;
        report[2u * sequence] = f32(found);
        report[2u * sequence + 1u] = raw - lse;
    }
}
