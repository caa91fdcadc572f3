//! Proofs in the user's hands: that a device computes right ([`doctor`], [`differences`]), that resuming is exact
//! ([`resume`]), and one batch, pairs, or rows of any lengths, through a model for comparison with other programs
//! ([`debug`], [`preference`], [`score`]); and what a stage learns from ([`batch`]).

pub mod batch;
pub mod debug;
pub mod differences;
pub mod doctor;
pub mod preference;
pub mod resume;
pub mod score;
