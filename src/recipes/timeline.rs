//! When the stages of a recipe train: their steps and tokens, what each goes on from, and its settings.

use std::collections::{BTreeSet, HashMap};

use super::problem::{Check, Problem, key_path, require, suggest};
use super::schema::{Batch, LearningRate, Optimizer, Recipe, ScheduleKind, Stage};
use crate::nn::config::LlamaConfig;
use crate::optim::schedule::Schedule;

/// When one stage trains. Steps are optimizer updates and count over the whole run, stage after stage in the
/// order of [`Recipe::stages`], branches too, so that no two states have the same step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index into [`Recipe::stages`].
    pub stage: usize,
    /// The state that the stage begins with.
    pub origin: Origin,
    /// Steps of the run before the stage's first.
    pub start_step: u64,
    /// Steps of the run after the stage's last; every stage has at least one.
    pub end_step: u64,
    /// Tokens trained on before the stage, along its lineage.
    pub start_tokens: u64,
    /// Sequences of one step, or pairs.
    pub sequences_per_step: usize,
    /// Tokens of one step, padding included.
    pub tokens_per_step: u64,
    /// Steps of the stage's schedule before the stage's first, along its lineage.
    pub schedule_start: u64,
    /// Updates since the moments were zero, before the stage's first.
    pub updates_start: u64,
    /// Whether it trains other parameters than the stage that it goes on from, since one of them trains adapters: then
    /// it begins with the adapters of that one merged, and with moments of zero.
    pub anew: bool,
}

impl Span {
    /// Optimizer updates of the stage.
    pub fn steps(&self) -> u64 {
        self.end_step - self.start_step
    }

    /// Tokens trained on after `step`, a step of the stage or `start_step`, along the lineage.
    pub fn tokens_at(&self, step: u64) -> u64 {
        (step - self.start_step).saturating_mul(self.tokens_per_step).saturating_add(self.start_tokens)
    }
}

/// The state that a stage begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Initial weights.
    Noise,
    /// What an earlier stage had reached.
    Step {
        /// Index into [`Recipe::stages`].
        stage: usize,
        /// Step of the run, one of that stage's.
        step: u64,
    },
}

/// The spans of all stages, or what keeps a stage from having one. The values of each stage on its own must
/// have been checked.
pub(super) fn spans(recipe: &Recipe) -> Check<Vec<Span>> {
    spans_with(recipe, |stage, _| recipe.stages[stage].steps)
}

/// [`spans`], where `steps` gives the steps of a stage, from its index and the tokens of a step, if these do not follow
/// from `tokens`.
fn spans_with(recipe: &Recipe, steps: impl Fn(usize, u64) -> Option<u64>) -> Check<Vec<Span>> {
    let mut spans: Vec<Span> = Vec::with_capacity(recipe.stages.len());
    let mut earlier = HashMap::new();
    for (i, stage) in recipe.stages.iter().enumerate() {
        let origin = origin(recipe, i, &earlier, &spans)?;
        let batch = stage.batch.as_ref().unwrap_or(&recipe.batch);
        let tokens_per_step = (batch.sequences as u64).saturating_mul(stage.window());
        let (start_tokens, schedule_start, updates_start, anew) = match origin {
            Origin::Noise => (0, 0, 0, false),
            Origin::Step { stage: before, step } => {
                let (span, used) = (&spans[before], step - spans[before].start_step);
                let goes_on = recipe.stages[before].schedule == stage.schedule;
                let anew = stage.lora.is_some() || recipe.stages[before].lora.is_some();
                (
                    span.tokens_at(step),
                    if goes_on { span.schedule_start + used } else { 0 },
                    if stage.reset_optimizer || anew { 0 } else { span.updates_start + used },
                    anew,
                )
            }
        };
        let start_step = spans.last().map_or(0, |span| span.end_step);
        let (key, steps) = match (steps(i, tokens_per_step), stage.tokens.unwrap_or(0)) {
            (Some(steps), _) => ("steps", steps),
            (None, tokens) => {
                require(tokens > start_tokens, key_path!["stages", i, "tokens"], || {
                    format!(
                        "is {tokens}, but must be above {start_tokens}: it counts from the start of the run"
                    )
                })?;
                ("tokens", (tokens - start_tokens).div_ceil(tokens_per_step))
            }
        };
        let end_step = start_step.saturating_add(steps);
        let end_tokens = steps.checked_mul(tokens_per_step).and_then(|it| it.checked_add(start_tokens));
        let fits = |count: u64| i64::try_from(count).is_ok();
        require(
            fits(end_step) && (key == "tokens" || end_tokens.is_some_and(fits)),
            key_path!["stages", i, key],
            || format!("makes {end_step} steps of the run, but steps and tokens must be below 2^63"),
        )?;
        spans.push(Span {
            stage: i,
            origin,
            start_step,
            end_step,
            start_tokens,
            sequences_per_step: batch.sequences,
            tokens_per_step,
            schedule_start,
            updates_start,
            anew,
        });
        earlier.insert(stage.name.as_str(), i);
    }
    Ok(spans)
}

/// Writes the lengths of stages as tokens, where they are given in steps or epochs. `tokens` gives those that a dataset
/// has in a stage; lengths in epochs, and in steps of sequences whose length is to be fitted, stay in the recipe unless
/// these are `exact`.
pub(super) fn settle_lengths(
    recipe: &mut Recipe,
    tokens: impl Fn(usize, usize) -> u64,
    exact: bool,
) -> Check {
    let steps = |index: usize, tokens_per_step: u64| {
        let stage = &recipe.stages[index];
        let Some(epochs) = stage.epochs else { return stage.steps };
        let mixed = |i: &usize| stage.mixture.contains_key(&recipe.datasets[*i].name);
        let all: u64 = (0..recipe.datasets.len()).filter(mixed).map(|i| tokens(index, i)).sum();
        // No more than so many epochs; a dataset's cap may be just that.
        Some(((epochs * all as f64 / tokens_per_step as f64) as u64).max(1))
    };
    let spans = spans_with(recipe, steps)?;
    for (stage, span) in recipe.stages.iter_mut().zip(&spans) {
        if stage.steps.is_some() || stage.epochs.is_some() {
            stage.tokens = Some(span.tokens_at(span.end_step));
        }
        stage.epochs = stage.epochs.filter(|_| !exact);
        // How many tokens a step has is known when the length of a sequence is.
        stage.steps = stage.steps.filter(|_| !exact && stage.fit_length);
    }
    Ok(())
}

/// What stage `i` goes on from, given the indices and spans of the stages before it.
fn origin(recipe: &Recipe, i: usize, earlier: &HashMap<&str, usize>, spans: &[Span]) -> Check<Origin> {
    let end_of = |stage: usize| Origin::Step { stage, step: spans[stage].end_step };
    let Some(from) = &recipe.stages[i].from else {
        return Ok(i.checked_sub(1).map_or(Origin::Noise, end_of));
    };
    let place = key_path!["stages", i, "from"];
    require(i > 0, place, || {
        format!(
            "is '{from}', but no stage comes before the first one: leave the key out, or write from = \"FOLDER\" \
             in [model] to begin with a model's weights"
        )
    })?;
    let (name, step) = match from.split_once('@') {
        Some((name, step)) => (name, Some(step)),
        None => (from.as_str(), None),
    };
    let Some(&stage) = earlier.get(name) else {
        let known: Vec<&str> = recipe.stages[..i].iter().map(|stage| stage.name.as_str()).collect();
        let why = format!("is '{from}', but no earlier stage has that name; {}", suggest(name, &known));
        return Err(Problem { path: place.to_vec(), message: why });
    };
    let Some(step) = step else { return Ok(end_of(stage)) };
    let Span { start_step, end_step, .. } = spans[stage];
    match step.parse() {
        Ok(step) if start_step < step && step <= end_step => Ok(Origin::Step { stage, step }),
        _ => {
            let why = format!(
                "is '{from}', but what follows '@' must be a step of '{name}', from {} to {end_step}",
                start_step + 1
            );
            Err(Problem { path: place.to_vec(), message: why })
        }
    }
}

/// Steps of each schedule under its name (`[schedule]` has none): the farthest that any stage takes it.
pub(super) fn schedule_lengths<'a>(recipe: &'a Recipe, spans: &[Span]) -> HashMap<Option<&'a str>, u64> {
    let mut lengths = HashMap::new();
    for span in spans {
        let length = lengths.entry(recipe.stages[span.stage].schedule.as_deref()).or_insert(0);
        *length = (span.schedule_start + span.steps()).max(*length);
    }
    lengths
}

impl LearningRate {
    /// Steps of the decay of a `wsd` schedule of `length` steps; 0 for others.
    pub(super) fn decay_steps(&self, length: u64) -> u64 {
        let fraction = self.decay_fraction.unwrap_or(0.0);
        self.decay_steps.unwrap_or((fraction * length as f64).round() as u64)
    }

    /// Steps of the rise of a schedule of `length` steps.
    pub(super) fn warmup_steps(&self, length: u64) -> u64 {
        let fraction = self.warmup_fraction.unwrap_or(0.0);
        // Rounded, both shares together may be a step too long.
        let room = length.saturating_sub(self.decay_steps(length));
        self.warmup_steps.unwrap_or(((fraction * length as f64).round() as u64).min(room))
    }

    /// The schedule over `length` steps.
    fn over(&self, length: u64) -> Schedule {
        let (peak, min, warmup_steps) = (self.peak_lr, self.min_lr, self.warmup_steps(length));
        match self.kind {
            ScheduleKind::Wsd => {
                let decay_steps = self.decay_steps(length);
                let decay_start = length.saturating_sub(decay_steps);
                Schedule::Wsd { peak, min, warmup_steps, decay_start, decay_steps }
            }
            ScheduleKind::Cosine => Schedule::Cosine { peak, min, warmup_steps, total_steps: length },
            ScheduleKind::Constant => Schedule::Constant { peak, warmup_steps },
        }
    }
}

/// # Panics
/// These methods panic if there is no such stage, or if the recipe was changed into one that [`Recipe::load`]
/// refuses.
impl Recipe {
    /// When each stage trains, in the order of [`Recipe::stages`].
    pub fn spans(&self) -> Vec<Span> {
        spans(self).unwrap_or_else(|it| panic!("recipe {}: {} {}", self.name, it.path.join("."), it.message))
    }

    /// When a stage trains.
    pub fn span_of(&self, stage: usize) -> Span {
        self.spans().swap_remove(stage)
    }

    /// Optimizer updates of the whole run, branches included.
    pub fn total_steps(&self) -> u64 {
        self.spans().last().map_or(0, |span| span.end_step)
    }

    /// Tokens trained on at the end of the last stage, along its lineage: what it asks for, rounded up to
    /// whole steps.
    pub fn total_tokens(&self) -> u64 {
        self.spans().last().map_or(0, |span| span.tokens_at(span.end_step))
    }

    /// Steps whose checkpoints are never deleted, in order: the end of every stage, and where others begin.
    pub fn kept_steps(&self) -> Vec<u64> {
        let mut kept = BTreeSet::new();
        for span in self.spans() {
            kept.insert(span.end_step);
            if let Origin::Step { step, .. } = span.origin {
                kept.insert(step);
            }
        }
        kept.into_iter().collect()
    }

    /// The learning rates of each stage: its update n, counted from 1, is step [`Span::schedule_start`] + n of them.
    pub fn stage_schedules(&self) -> Vec<Schedule> {
        let lengths = schedule_lengths(self, &self.spans());
        let schedule = |stage: &Stage| {
            let name = stage.schedule.as_deref();
            let settings = match name {
                Some(name) => self.schedules.get(name),
                None => self.schedule.as_ref(),
            };
            let missing = || panic!("recipe {}: stage {} has no schedule", self.name, stage.name);
            settings.unwrap_or_else(missing).over(lengths[&name])
        };
        self.stages.iter().map(schedule).collect()
    }

    /// The optimizer's settings in a stage.
    pub fn optimizer_of(&self, stage: usize) -> &Optimizer {
        self.stages[stage].optimizer.as_ref().map_or(&self.optimizer, |name| &self.optimizers[name])
    }

    /// The batch of a stage.
    pub fn batch_of(&self, stage: usize) -> Batch {
        self.stages[stage].batch.as_ref().unwrap_or(&self.batch).clone()
    }

    /// The model's configuration during a stage: with that stage's RoPE base.
    pub fn model_at(&self, stage: usize) -> LlamaConfig {
        let mut model = self.model.clone();
        model.rope_theta = self.stages[stage].rope_theta.unwrap_or(model.rope_theta);
        model
    }

    /// The weights of a stage's mixture in the order of [`Recipe::datasets`]; 0 for those it leaves out.
    pub fn weights_at(&self, stage: usize) -> Vec<f64> {
        let mixture = &self.stages[stage].mixture;
        self.datasets.iter().map(|dataset| mixture.get(&dataset.name).copied().unwrap_or(0.0)).collect()
    }
}

/// The stages before a stage on its lineage, oldest first: (index, how many of its steps were used).
pub(super) fn lineage(spans: &[Span], stage: usize) -> Vec<(usize, u64)> {
    let mut lineage = Vec::new();
    let mut origin = spans[stage].origin;
    while let Origin::Step { stage, step } = origin {
        lineage.push((stage, step - spans[stage].start_step));
        origin = spans[stage].origin;
    }
    lineage.reverse();
    lineage
}
