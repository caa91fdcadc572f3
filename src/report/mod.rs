//! What people see: progress while they wait, tables in the end.

pub mod profile;
pub mod progress;
mod table;

pub use table::table;
