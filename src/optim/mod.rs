//! From gradients to weights: the one place where gradients meet the optimizer, and the learning rate over time.

pub mod schedule;
pub mod update;
