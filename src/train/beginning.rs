//! What a stage begins with: its weights, and what the model that they make says of preference pairs.

use super::engine::{initialize, initialize_adapters};
use super::frozen::Frozen;
use super::reference::Reference;
use super::saved;
use super::stages::PlannedStage;
use crate::error::Result;
use crate::graph::{Backend, Store, StorePlan};
use crate::infer;
use crate::model::ModelFolder;
use crate::recipes::{Origin, Recipe};
use crate::report::out;
use std::path::Path;
use std::sync::Arc;

/// Makes `store`, which holds the state of the step before, ready for a stage's first step.
///
/// # Errors
/// Those of reading the checkpoint that the stage goes on from, and [`Error::Device`](crate::Error::Device) if memory
/// runs out.
pub fn enter(
    store: &mut Arc<Store>,
    backend: &Backend,
    run: &Path,
    recipe: &Recipe,
    stage: &PlannedStage,
) -> Result<()> {
    let architecture = &stage.work.architecture;
    let name = &recipe.stages[stage.span.stage].name;
    if stage.begins_from().is_some() {
        if *store.plan() != stage.store {
            // The memory of the old one is given back first.
            *store = backend.store(StorePlan::default())?;
            backend.wait()?;
            *store = backend.store(stage.store.clone())?;
        }
        if let Some(from) = load(store, run, recipe, stage, None)? {
            out::say(format_args!("stage {name}: the adapters of stage {from} are merged into the weights"));
        }
    }
    if let Some(lora) = &architecture.lora {
        out::say(format_args!("stage {name}: {}", lora.describe(architecture.num_trained())));
    }
    if stage.reset_optimizer {
        saved::reset_optimizer(store, architecture);
    }
    Ok(())
}

/// Writes what a stage begins with into the store: noise, the weights of `source`, or a checkpoint. Returns the stage
/// whose adapters were merged into the weights, if there was one.
///
/// # Errors
/// Those of reading them.
pub fn load(
    store: &Store,
    run: &Path,
    recipe: &Recipe,
    stage: &PlannedStage,
    source: Option<&ModelFolder>,
) -> Result<Option<String>> {
    let (span, architecture) = (&stage.span, &stage.work.architecture);
    let seed = recipe.seed.wrapping_add(span.stage as u64);
    let Origin::Step { step, .. } = span.origin else {
        match source {
            Some(source) => {
                infer::load_into(store, source)?;
                initialize_adapters(store, architecture, seed);
            }
            None => initialize(store, architecture, seed),
        }
        return Ok(None);
    };
    let checkpoint = saved::of_step(run, step)?;
    if !span.anew {
        saved::load(store, &checkpoint, architecture)?;
        return Ok(None);
    }
    let merged = saved::begin(store, &checkpoint, architecture)?;
    initialize_adapters(store, architecture, seed);
    Ok(merged.then_some(checkpoint.state.stage))
}

/// What the model that a stage begins with says of its pairs: asked now, if `store` holds that model, or known since then,
/// if the run goes on from the step `resumed`, whose state `store` holds.
///
/// # Errors
/// Those of [`load`] and of [`Frozen`].
pub fn reference(
    store: &Arc<Store>,
    run: &Path,
    frozen: &Frozen,
    resumed: Option<u64>,
) -> Result<Arc<Reference>> {
    let ask = || {
        let key = frozen.key(store)?;
        frozen.find(key).map_or_else(|| frozen.compute(key, store), Ok)
    };
    let Some(step) = resumed else { return ask() };
    let checkpoint = saved::of_step(run, step)?;
    let known = saved::reference_of(&checkpoint);
    if let Some(found) = known.and_then(|key| frozen.find(key)) {
        return Ok(found);
    }
    let Frozen { recipe, stage, .. } = *frozen;
    let name = &recipe.stages[stage.span.stage].name;
    out::warn(format_args!(
        "{name}: what its first model says of the pairs is lost or damaged; it is asked again"
    ));
    let source = match stage.span.origin {
        Origin::Noise => recipe.clone().open_source()?,
        Origin::Step { .. } => None,
    };
    load(store, run, recipe, stage, source.as_ref())?;
    let reference = ask()?;
    if known != Some(reference.key) {
        out::warn(format_args!(
            "{name}: it was asked on another device or by another version, which round otherwise"
        ));
    }
    saved::load(store, &checkpoint, &stage.work.architecture)?;
    Ok(reference)
}
