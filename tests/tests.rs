//! The one integration-test binary: what needs a device, the program itself, or the whole source tree.

mod ops_on_device;
mod support;
