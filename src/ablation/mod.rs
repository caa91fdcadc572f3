//! Ablations: several candidates trained under the same conditions and compared over seeds ([`protocol`], [`candidate`],
//! [`plan`], [`runs`], [`comparison`]), and what the stages of a whole life do to a model ([`effects`]).

pub mod candidate;
pub mod comparison;
pub mod effects;
pub mod estimate;
pub mod plan;
pub mod protocol;
pub mod runs;
pub mod scores;
