//! How good a model is: baselines that it must beat.

pub mod ngram;
