//! smolter trains SmolLM2 language models on any GPU.

pub mod error;
pub mod gpu;
pub mod graph;
pub mod ops;

pub use error::{Error, Result};
