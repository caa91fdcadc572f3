//! What people see while they wait.

pub mod progress;
