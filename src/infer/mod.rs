//! A model in use: probabilities of given tokens ([`scorer`]), new tokens with a cache ([`generator`]), and on that text
//! ([`writer`]) and conversations ([`chat`]).
//!
//! Scorer and generator bind the weights of a [`Store`], be it one that a training run is changing or one that was
//! loaded for them.

pub mod chat;
pub mod generator;
pub mod scorer;
pub mod writer;

pub use generator::Generator;
pub use scorer::Scorer;

use crate::error::Result;
use crate::graph::{Backend, Graph, Store, StorePlan};
use crate::model::ModelFolder;
use std::sync::Arc;

/// The weights of a model folder on a backend, for `graphs` to bind.
///
/// # Errors
/// [`Error::Input`](crate::Error::Input) or [`Error::Io`](crate::Error::Io) if a weight cannot be read,
/// [`Error::Device`](crate::Error::Device) if memory runs out.
pub fn load(backend: &Backend, model: &ModelFolder, graphs: &[&Graph]) -> Result<Arc<Store>> {
    let store = backend.store(StorePlan::new(graphs, &backend.caps()))?;
    load_into(&store, model)?;
    Ok(store)
}

/// The weights of a model folder, its adapter merged, into a store that was planned for its shapes.
///
/// # Errors
/// If a weight cannot be read.
pub fn load_into(store: &Store, model: &ModelFolder) -> Result<()> {
    for (name, shape) in model.architecture.shapes() {
        store.write(&name, &model.read_f32(&name, &shape)?);
    }
    Ok(())
}

/// The weights of a model folder on a backend, and its adapter beside them as it is trained.
///
/// # Errors
/// As [`load`].
pub fn load_unmerged(backend: &Backend, model: &ModelFolder, graphs: &[&Graph]) -> Result<Arc<Store>> {
    let store = backend.store(StorePlan::new(graphs, &backend.caps()))?;
    for (name, shape) in model.architecture.shapes() {
        store.write(&name, &model.tensors.read_f32(&name, &shape)?);
    }
    if let Some(adapter) = &model.adapter {
        for (name, shape) in model.adapted().trained_shapes() {
            store.write(&name, &adapter.read_f32(&name, &shape)?);
        }
    }
    Ok(store)
}
