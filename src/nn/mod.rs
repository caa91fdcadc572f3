//! Models: their sizes, their parameters, their graphs. Parameters carry their Hugging Face names.

pub mod architecture;
pub mod config;
pub mod init;
pub mod llama;
pub mod lora;

pub use architecture::{Architecture, Base};
pub use config::LlamaConfig;
pub use llama::{Llama, Tokens};
pub use lora::Lora;
