//! The one integration-test binary: what needs a device, the program itself, or the whole source tree.

mod bench;
mod chat;
mod corpus;
mod damaged;
mod doctor;
mod eval;
mod export;
mod floors;
mod fuzz;
mod generation;
mod hf_parity;
mod hostile;
mod hub;
mod ops_on_device;
mod output;
mod plan;
mod recipe_docs;
mod recipes;
mod robustness;
mod runs;
mod scoring;
mod stages;
mod support;
mod tokens;
mod training;
