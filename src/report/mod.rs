//! What people see while they wait.

pub mod profile;
pub mod progress;
