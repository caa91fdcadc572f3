//! Proofs in the user's hands: that a device computes right ([`doctor`]), that resuming is exact ([`resume`]), and one
//! batch through a model for comparison with other programs ([`debug`]).

pub mod debug;
pub mod doctor;
pub mod resume;
