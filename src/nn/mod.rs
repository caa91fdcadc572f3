//! The Llama model: its shape, its initial weights, its graph. Parameters carry their Hugging Face names.

pub mod config;
pub mod init;
pub mod llama;

pub use config::LlamaConfig;
pub use llama::{Llama, Tokens};
