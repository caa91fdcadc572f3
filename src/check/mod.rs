//! Proofs in the user's hands: that a device computes right ([`doctor`], [`differences`]), that resuming is exact ([`resume`]), and one
//! batch, or rows of any lengths, through a model for comparison with other programs ([`debug`], [`score`]).

pub mod debug;
pub mod differences;
pub mod doctor;
pub mod resume;
pub mod score;
