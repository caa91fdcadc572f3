//! Files that hold tensors, and folders that hold a training run's state.
//!
//! Knows nothing of models or devices: a tensor here is a name, a shape and numbers.

mod disk;
pub mod folder;
pub mod hub;
mod manifest;
pub mod safetensors;

pub use folder::{Checkpoint, Contents, Part, TrainerState};
pub use manifest::verify;
pub use safetensors::{Dtype, TensorFile};
