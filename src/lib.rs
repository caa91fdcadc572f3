//! smolter trains SmolLM2 language models on any GPU.

pub mod ablation;
pub mod bench;
pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod error;
pub mod eval;
pub mod files;
pub mod gpu;
pub mod graph;
pub mod hub;
pub mod infer;
pub mod model;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod panics;
pub mod recipes;
pub mod report;
pub mod tokenizer;
pub mod train;

pub use error::{Error, Result};
