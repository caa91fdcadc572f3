//! The device: adapter choice, shader linking, pipelines, buffers, recorded replay, measured submissions.

pub mod device;
pub mod kernel;
mod patience;
pub mod recording;
pub mod shader;
mod syntax;
pub mod texels;
mod window;

pub use device::Device;
pub use kernel::Caps;
pub use window::Window;
