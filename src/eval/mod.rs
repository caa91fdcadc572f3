//! How good a model is: tasks with exact answers as data ([`task`]), those about the generated village ([`village`]),
//! what runs them ([`runner`]), baselines that a model must beat ([`ngram`], [`loss`]), and what of this the models of a
//! run are given ([`suite`]).

pub mod loss;
pub mod ngram;
pub mod runner;
pub mod suite;
pub mod task;
pub mod village;
