//! Models: their sizes, their parameters, their graphs. Parameters carry their Hugging Face names.

pub mod architecture;
pub mod config;
pub mod init;
pub mod llama;

pub use architecture::Architecture;
pub use config::LlamaConfig;
pub use llama::{Llama, Tokens};
