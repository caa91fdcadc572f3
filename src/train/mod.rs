//! Training: stages on an executor, the loop over steps, data, evaluation, checkpoints, resume.
//!
//! Reading order: [`trainer`] (the loop), [`objective`], [`pretrain`] and [`dpo`] (what is learnt from which data), [`engine`] (a
//! stage's programs), [`stages`] (what is decided before the first step).

pub mod beginning;
pub mod begun;
pub mod comparison;
pub mod corpus;
pub mod dpo;
pub mod engine;
pub mod evaluation;
pub mod events;
pub mod fit;
pub mod frozen;
pub mod held_out;
pub mod history;
pub mod intervention;
mod journal;
pub mod kinds;
pub mod made;
pub mod measure;
pub mod metrics;
pub mod objective;
pub mod overview;
mod pace;
mod packing;
pub mod pretrain;
pub mod records;
pub mod reference;
mod results;
pub mod rewind;
pub mod run;
pub mod run_folder;
pub mod samples;
pub mod saved;
mod score_table;
pub mod scores;
pub mod sft;
pub mod sitting;
pub mod spikes;
pub mod stages;
pub mod trainer;
pub mod watch;
