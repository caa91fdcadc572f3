//! Proofs in the user's hands: that a device computes right ([`doctor`]), that resuming is exact ([`resume`]), and one
//! batch, pairs, or rows of any lengths, through a model for comparison with other programs ([`debug`], [`preference`],
//! [`score`]).

pub mod batch;
pub mod debug;
pub mod doctor;
pub mod preference;
pub mod resume;
pub mod score;
