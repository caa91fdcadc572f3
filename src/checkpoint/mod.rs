//! Files that hold tensors, and folders that hold a training run's state.
//!
//! Knows nothing of models or devices: a tensor here is a name, a shape and numbers.

mod disk;
mod dtype;
pub mod folder;
pub mod gguf;
mod manifest;
mod publish;
pub mod safetensors;

pub use dtype::{Dtype, Rounding};
pub use folder::{Checkpoint, Contents, Part, TrainerState};
pub use manifest::{verify, verify_model};
pub use publish::{publish, replace, write_file};
pub use safetensors::TensorFile;

/// Takes the next bytes of a file that is being written.
pub type Put<'a> = dyn FnMut(&[u8]) -> crate::error::Result<()> + 'a;
