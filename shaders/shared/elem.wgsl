// The element that row and elementwise kernels move: four floats where the row length allows it, else one.

@if(vec4) alias Elem = vec4f;
@if(!vec4) alias Elem = f32;

// Sum of an element's components.
@if(vec4) fn total(e: Elem) -> f32 { return (e.x + e.y) + (e.z + e.w); }
@if(!vec4) fn total(e: Elem) -> f32 { return e; }

// Largest component.
@if(vec4) fn largest(e: Elem) -> f32 { return max(max(e.x, e.y), max(e.z, e.w)); }
@if(!vec4) fn largest(e: Elem) -> f32 { return e; }

// Index of an element among workgroups of `size` folded into two dimensions.
fn flat(group: vec3u, groups: vec3u, lane: u32, size: u32) -> u32 {
    return (group.x + group.y * groups.x) * size + lane;
}
