//! The `smolter` binary.
fn main() {}
