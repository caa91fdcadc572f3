//! The stages of a run as they will be trained: everything that they need is found, and checked, before the first step.

use super::corpus::Corpus;
use super::fit::Work;
use super::kinds::most_of_a_pass;
use super::objective::Shape;
use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::graph::StorePlan;
use crate::ops::adamw::Hyper;
use crate::optim::schedule::Schedule;
use crate::recipes::{Batch, Origin, Recipe, Span};
use crate::report;
use std::sync::Arc;

/// A stage with what was chosen for it.
pub struct PlannedStage {
    /// Its place in the run.
    pub span: Span,
    /// The work of its steps.
    pub work: Work,
    /// The micro-batch that was asked for, 0 for any.
    given: usize,
    /// The most sequences of a pass that are worth having.
    most: usize,
    /// How the work is cut.
    pub shape: Shape,
    /// Where weights and optimizer state lie; the same for every stage that trains the same parameters.
    pub store: StorePlan,
    /// Bytes that it takes, by what they are for.
    pub slabs: Vec<(String, u64)>,
    /// The learning rate over the steps of its schedule.
    pub schedule: Schedule,
    /// Tokens that were taken from each dataset before it.
    pub consumed: Vec<u64>,
    /// Whether moments start at zero.
    pub reset_optimizer: bool,
    /// The optimizer's settings; the learning rate is that of the schedule.
    hyper: Hyper,
}

impl PlannedStage {
    /// The step whose checkpoint the stage begins with, unless it just goes on with what is in memory after the step
    /// before it.
    pub fn begins_from(&self) -> Option<u64> {
        match self.span.origin {
            Origin::Step { step, .. } if self.span.anew || step != self.span.start_step => Some(step),
            _ => None,
        }
    }

    /// The optimizer's scalars for the run's update `step`, and how many updates the moments will then have had.
    pub fn update(&self, step: u64) -> (Hyper, u64) {
        let done = step - self.span.start_step;
        let lr = self.schedule.lr(self.span.schedule_start + done);
        (Hyper { lr, ..self.hyper }, self.span.updates_start + done)
    }
}

/// Tokens that were taken from each dataset before each stage.
///
/// # Errors
/// [`Error::Input`] if the data of a stage ends before it does.
pub fn consumed_before(recipe: &Recipe, corpus: &Corpus) -> Result<Vec<Vec<u64>>> {
    let spans = recipe.spans();
    let mut consumed: Vec<Vec<u64>> = Vec::new();
    for span in &spans {
        let before = match span.origin {
            Origin::Noise => vec![0; recipe.datasets.len()],
            Origin::Step { stage: parent, step } => {
                let sequences = recipe.sequences_until(&spans[parent], step);
                corpus.mixture(recipe, parent, &consumed[parent])?.consumed(sequences)?
            }
        };
        consumed.push(before);
    }
    Ok(consumed)
}

/// Checks that the data of every stage lasts to its end, and that no cap of epochs is exceeded that must not be.
///
/// # Errors
/// [`Error::Input`] naming the stage or the dataset.
pub fn check_data(recipe: &Recipe, corpus: &Corpus) -> Result<()> {
    for (span, before) in recipe.spans().iter().zip(consumed_before(recipe, corpus)?) {
        check_stage(recipe, corpus, span, &before)?;
    }
    Ok(())
}

fn check_stage(recipe: &Recipe, corpus: &Corpus, span: &Span, before: &[u64]) -> Result<()> {
    let sequences = recipe.sequences_until(span, span.end_step);
    recipe.check_caps(span.stage, &corpus.sizes(recipe, span.stage)?, before, sequences)?;
    // Fails here if the data does not last.
    corpus.mixture(recipe, span.stage, before)?.consumed(sequences).map(drop)
}

/// Plans the stages that have steps left after `step`, or the last one, whose state may still be evaluated. `begun` is
/// a stage that a checkpoint lies in, with its micro-batch, which must not change on the way.
///
/// What is chosen goes into `recipe`, so that a resumed run finds the same.
///
/// # Errors
/// [`Error::Input`] naming the stage, if its data ends before it does, a cap of epochs that must not be exceeded is, or it
/// does not fit `memory` bytes.
pub fn plan_stages(
    recipe: &mut Recipe,
    corpus: &Arc<Corpus>,
    caps: &Caps,
    memory: u64,
    step: u64,
    begun: Option<(usize, usize)>,
) -> Result<Vec<PlannedStage>> {
    let mut planned: Vec<PlannedStage> = Vec::new();
    let (spans, schedules) = (recipe.spans(), recipe.stage_schedules());
    for ((stage, span), before) in spans.iter().enumerate().zip(consumed_before(recipe, corpus)?) {
        if span.end_step <= step && stage + 1 < recipe.stages.len() {
            continue;
        }
        check_stage(recipe, corpus, span, &before)?;
        let work = Work::of(recipe, stage);
        let batch = recipe.batch_of(stage);
        let given = begun.filter(|&(it, _)| it == stage).map_or(batch.micro_batch, |(_, given)| given);
        let most = most_of_a_pass(recipe, stage, &before, corpus)?;
        let same = planned.iter().find(|it| (&it.work, it.given, it.most) == (&work, given, most));
        let (shape, store, slabs) = match same {
            Some(it) => (it.shape, it.store.clone(), it.slabs.clone()),
            None => {
                let fit = work.choose_up_to(caps, given, most, memory).map_err(|why| {
                    let memory = report::size(memory);
                    let (recipe, stage) = (&recipe.name, &recipe.stages[stage].name);
                    Error::input(format!(
                        "recipe {recipe}: stage {stage} does not fit {memory}: {why}; give more with --memory"
                    ))
                })?;
                let slabs = fit.slabs();
                (fit.training.shape, fit.store, slabs)
            }
        };
        recipe.stages[stage].batch = Some(Batch { micro_batch: shape.micro_batch, ..batch });
        let optimizer = recipe.optimizer_of(stage);
        planned.push(PlannedStage {
            span: span.clone(),
            work,
            given,
            most,
            shape,
            store,
            slabs,
            schedule: schedules[stage].clone(),
            consumed: before,
            reset_optimizer: recipe.stages[stage].reset_optimizer,
            hyper: Hyper {
                lr: 0.0,
                beta1: optimizer.betas[0],
                beta2: optimizer.betas[1],
                eps: optimizer.eps,
                weight_decay: optimizer.weight_decay,
                clip: optimizer.clip_norm,
            },
        });
    }
    Ok(planned)
}
