//! What people see: progress while they wait, lines that stay, tables and curves in the end.

pub mod curve;
pub mod out;
pub mod profile;
pub mod progress;
mod quote;
mod table;

pub use quote::quoted;
pub use table::table;
