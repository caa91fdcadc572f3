//! The device: adapter choice, shader linking, pipelines, buffers, recorded replay, profiling.

pub mod shader;
