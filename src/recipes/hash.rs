//! What of a recipe affects the weights, as a hash: of the whole run, and of the state in one stage.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64;

use super::schema::{Batch, Evaluation, HeldOutText, OnExhausted, Optimizer, Recipe, Sample, Saving, Spikes};
use super::timeline::{Origin, lineage};
use crate::hub;

impl Recipe {
    /// Hash of what affects the weights, 16 hexadecimal digits.
    ///
    /// Not in it: the name, how often to save, evaluate and sample, the micro-batches, and the folders (but
    /// the names) of files, so that a run may move to another machine.
    pub fn hash(&self) -> String {
        hash_of(self.clone())
    }

    /// [`key_at`](Self::key_at) the end of a stage.
    ///
    /// # Panics
    /// As [`Recipe::spans`].
    pub fn key(&self, stage: usize) -> String {
        self.key_at(stage, self.span_of(stage).end_step)
    }

    /// [`hash`](Self::hash) of what has affected the state after `step`, a step of the run in `stage`: without the stages that
    /// are not on its lineage, and without what only they use, or only later steps. That may change, and the state is still
    /// one of the recipe.
    ///
    /// That a longer later stage changes the learning rates behind it is for
    /// [`Schedule::differs_before`](crate::optim::schedule::Schedule::differs_before) to say.
    ///
    /// # Panics
    /// As [`Recipe::spans`].
    pub fn key_at(&self, stage: usize, step: u64) -> String {
        let spans = self.spans();
        let used =
            lineage(&spans, stage).into_iter().chain([(stage, step.saturating_sub(spans[stage].start_step))]);
        let kept = used.map(|(i, steps)| {
            let mut kept = self.stages[i].clone();
            // Data that lies behind the last step has been left out of nothing yet.
            let data_steps = kept.data_steps(steps);
            kept.skip.retain(|skip| skip.step < data_steps);
            kept.from = match spans[i].origin {
                Origin::Step { stage, step }
                    if step != spans[stage].end_step || step != spans[i].start_step =>
                {
                    // The steps of the run are names of states, and do not follow from the stages kept.
                    Some(format!("{}@{step}, {}", self.stages[stage].name, spans[i].start_step))
                }
                _ => None,
            };
            kept
        });
        hash_of(without_unused(Recipe { stages: kept.collect(), ..self.clone() }))
    }
}

/// The recipe without the tables that none of its stages uses.
fn without_unused(mut recipe: Recipe) -> Recipe {
    let stages = &recipe.stages;
    let used: BTreeSet<&String> = stages.iter().flat_map(|stage| stage.mixture.keys()).collect();
    let learns = |name: &str| recipe.tokenizer.train.as_ref().is_some_and(|train| train.learns_from(name));
    recipe.datasets.retain(|dataset| used.contains(&dataset.name) || learns(&dataset.name));
    if let Some(train) = &mut recipe.tokenizer.train
        && recipe.datasets.iter().all(|dataset| train.learns_from(&dataset.name))
    {
        // As if there were no others.
        train.datasets = None;
    }
    let schedules: BTreeSet<Option<&str>> = stages.iter().map(|stage| stage.schedule.as_deref()).collect();
    recipe.schedules.retain(|name, _| schedules.contains(&Some(name)));
    recipe.schedule = recipe.schedule.filter(|_| schedules.contains(&None));
    let optimizers: BTreeSet<Option<&str>> = stages.iter().map(|stage| stage.optimizer.as_deref()).collect();
    recipe.optimizers.retain(|name, _| optimizers.contains(&Some(name)));
    if !optimizers.contains(&None) {
        recipe.optimizer = Optimizer::default();
    }
    recipe
}

fn hash_of(mut recipe: Recipe) -> String {
    recipe.name.clear();
    recipe.held_out = HeldOutText { fraction: recipe.held_out.fraction, ..HeldOutText::default() };
    recipe.checkpoint = Saving::default();
    recipe.sample = Sample::default();
    recipe.evaluation = Evaluation::default();
    recipe.stages.iter_mut().for_each(|stage| stage.evaluate.clear());
    // What they have made of the data stands in the stages.
    recipe.spikes = Spikes::default();
    for dataset in &mut recipe.datasets {
        // What is known of a dataset, and what is done where that does not do, changes no token.
        (dataset.tokens, dataset.on_exhausted) = (None, OnExhausted::default());
    }
    let paths = recipe.datasets.iter_mut().flat_map(|it| it.paths.iter_mut().chain(&mut it.decontaminate));
    for path in paths.chain(&mut recipe.tokenizer.path).filter(|path| !hub::is_remote(path)) {
        *path = path.file_name().unwrap_or_default().to_string_lossy().into_owned().into();
    }
    // It does not matter which stages say their batch themselves: [batch] is taken to be the first one's.
    let sizes: Vec<usize> = (0..recipe.stages.len()).map(|i| recipe.batch_of(i).sequences).collect();
    let batch = |sequences| Batch { sequences, micro_batch: 0 };
    recipe.batch = batch(sizes[0]);
    for (stage, size) in recipe.stages.iter_mut().zip(&sizes) {
        stage.batch = (*size != sizes[0]).then(|| batch(*size));
    }
    // From noise the moments start at zero in any case.
    recipe.stages[0].reset_optimizer = false;
    let json = serde_json::to_string(&recipe).unwrap_or_else(|e| unreachable!("a recipe is plain data: {e}"));
    // What the model is that the run begins with counts, and not where it lies.
    let source = recipe.source.and_then(|source| source.hash).unwrap_or_default();
    format!("{:016x}", xxh3_64((json + &source).as_bytes()))
}
