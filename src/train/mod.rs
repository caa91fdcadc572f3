//! Training: one stage as a graph on an executor, the loop over steps, data, evaluation, checkpoints, resume.
//!
//! Reading order: [`trainer`] (the loop), [`engine`] (a stage's programs), [`corpus`] (its data).

pub mod corpus;
pub mod debug;
pub mod doctor;
pub mod engine;
pub mod fit;
pub mod measure;
pub mod metrics;
pub mod run;
pub mod saved;
pub mod trainer;
