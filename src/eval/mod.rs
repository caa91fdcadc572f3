//! How good a model is: tasks with exact answers as data ([`task`]), those about the generated village ([`village`]),
//! what runs them ([`runner`]), and baselines that a model must beat ([`ngram`], [`loss`]).

pub mod loss;
pub mod ngram;
pub mod runner;
pub mod task;
pub mod village;
