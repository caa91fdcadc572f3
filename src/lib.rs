//! smolter trains SmolLM2 language models on any GPU.

pub mod error;

pub use error::{Error, Result};
