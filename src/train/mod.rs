//! Training: one stage as a graph, the loop over steps, data, evaluation, checkpoints, resume.

pub mod debug;
pub mod engine;
