//! How many tokens the stages take from each dataset, and whether that is more than its cap of epochs allows.

use super::problem::{Problem, Problems, key_path};
use super::schema::{Dataset, OnExhausted, Recipe, Stage, StageKind};
use super::timeline::{Origin, Span};
use crate::data::mixture::{Mixture, MixtureDataset};
use crate::error::{Error, Result};

/// Tokens of a dataset of which nobody said how many it has: more than anybody trains on.
const UNKNOWN: u64 = 1 << 56;

/// What is taken beyond the need, as a share of it: what is fetched must not run out a little too early.
const RESERVE: f64 = 0.01;

impl Recipe {
    /// The order of a stage's sequences, where the datasets have `tokens` each in it, of which the stages before took
    /// `consumed`.
    ///
    /// # Errors
    /// As [`Mixture::new`].
    pub fn mixture(&self, stage: usize, tokens: &[u64], consumed: &[u64]) -> Result<Mixture> {
        self.mixture_within(stage, tokens, consumed, |dataset| dataset.max_epochs)
    }

    fn mixture_within(
        &self,
        stage: usize,
        tokens: &[u64],
        consumed: &[u64],
        cap: impl Fn(&Dataset) -> Option<f64>,
    ) -> Result<Mixture> {
        let weights = self.weights_at(stage);
        let dataset = |i: usize| MixtureDataset {
            name: self.datasets[i].name.clone(),
            weight: weights[i],
            max_epochs: cap(&self.datasets[i]),
            tokens: tokens[i],
            consumed: consumed[i],
        };
        let datasets = (0..self.datasets.len()).map(dataset).collect();
        Mixture::new(datasets, self.stages[stage].window(), self.data_seed)
    }

    /// Checks that `sequences` of a stage exceed no cap that must not be exceeded. Arguments as in [`Recipe::mixture`].
    ///
    /// # Errors
    /// [`Error::Input`] naming the dataset and the stage, and those of [`Recipe::mixture`].
    pub fn check_caps(&self, stage: usize, tokens: &[u64], consumed: &[u64], sequences: u64) -> Result<()> {
        let Some((dataset, why)) = self.exceeded(stage, tokens, consumed, sequences)? else { return Ok(()) };
        let name = &self.datasets[dataset].name;
        Err(Error::input(format!("recipe {}: datasets.{name}.max_epochs {why}", self.name)))
    }

    /// The first dataset whose cap would be exceeded and must not be, and why.
    fn exceeded(
        &self,
        stage: usize,
        tokens: &[u64],
        consumed: &[u64],
        sequences: u64,
    ) -> Result<Option<(usize, String)>> {
        let strict = |dataset: &Dataset| dataset.max_epochs.filter(|_| refuses(dataset));
        if self.datasets.iter().all(|dataset| strict(dataset).is_none()) {
            return Ok(None);
        }
        let shares = self.mixture_within(stage, tokens, consumed, lenient_cap)?.shares(sequences)?;
        let exceeded = shares.iter().zip(&self.datasets).enumerate().find(|(_, (share, dataset))| {
            share.sequences > 0 && strict(dataset).is_some_and(|cap| share.epochs > cap)
        });
        Ok(exceeded.map(|(i, (share, dataset))| {
            let (cap, name) = (dataset.max_epochs.unwrap_or_default(), &self.stages[stage].name);
            let why = format!(
                "is {cap}, but up to the end of stage {name} the stages take {:.2} epochs of the {} tokens of {}: \
                 raise it, lower the dataset's weight, or write on_exhausted = \"redistribute\"",
                share.epochs, tokens[i], dataset.name
            );
            (i, why)
        }))
    }

    /// Tokens that must be there of each dataset, so that the stages repeat it no more often than they would repeat all
    /// of it; `None` where that may be all. A little more than the stages take.
    ///
    /// # Panics
    /// As [`Recipe::spans`].
    pub fn needs(&self) -> Vec<Option<u64>> {
        let whole = vec![None; self.datasets.len()];
        if is_estimated(self) {
            return whole;
        }
        let mut most = vec![0; self.datasets.len()];
        let walked = self.walk(&self.spans(), |_, _, _, after| {
            most.iter_mut().zip(after).for_each(|(most, &after)| *most = after.max(*most));
            Ok(())
        });
        // Where the declared sizes do not last, all is needed that there is.
        if walked.is_err() {
            return whole;
        }
        let longest = self.stages.iter().map(|stage| stage.sequence_length as u64).max().unwrap_or(0);
        let need = |(i, taken): (usize, u64)| {
            let dataset = &self.datasets[i];
            let in_whole = self
                .stages
                .iter()
                .any(|stage| !is_packed(stage) && stage.mixture.contains_key(&dataset.name));
            // A cap below one epoch is a share of the whole, so more of it must be there.
            let share = dataset.max_epochs.unwrap_or(1.0).min(1.0);
            let need = (taken as f64 * (1.0 + RESERVE) / share) as u64;
            // A window and its label, at every border of stages.
            (!in_whole).then(|| need + (longest + 1) * (1 + self.stages.len() as u64))
        };
        most.into_iter().enumerate().map(need).collect()
    }

    /// Goes through the stages that read token streams with the sizes that the recipe declares: `visit` gets the stage,
    /// its sequences, and what was taken from each dataset before and after it.
    fn walk(
        &self,
        spans: &[Span],
        mut visit: impl FnMut(usize, u64, &[u64], &[u64]) -> Result<()>,
    ) -> Result<()> {
        let tokens = self.declared_tokens();
        let mixture = |stage, consumed: &[u64]| self.mixture_within(stage, &tokens, consumed, lenient_cap);
        let mut before: Vec<Vec<u64>> = Vec::new();
        for span in spans {
            let consumed = match span.origin {
                Origin::Noise => vec![0; tokens.len()],
                Origin::Step { stage, step } if is_packed(&self.stages[stage]) => {
                    let sequences = self.sequences_until(&spans[stage], step);
                    mixture(stage, &before[stage])?.consumed(sequences)?
                }
                Origin::Step { stage, .. } => before[stage].clone(),
            };
            before.push(consumed.clone());
            if is_packed(&self.stages[span.stage]) {
                let sequences = self.sequences_until(span, span.end_step);
                let after = mixture(span.stage, &consumed)?.consumed(sequences)?;
                visit(span.stage, sequences, &consumed, &after)?;
            }
        }
        Ok(())
    }

    /// Sequences (or pairs) of a stage's data up to `step` of the run, which lies in it: those that are left out included.
    pub fn sequences_until(&self, span: &Span, step: u64) -> u64 {
        let steps = self.stages[span.stage].data_steps(step - span.start_step);
        steps.saturating_mul(span.sequences_per_step as u64)
    }

    fn declared_tokens(&self) -> Vec<u64> {
        self.datasets.iter().map(|dataset| dataset.tokens.unwrap_or(UNKNOWN)).collect()
    }
}

/// Whether a dataset's cap must not be exceeded.
fn refuses(dataset: &Dataset) -> bool {
    dataset.on_exhausted == OnExhausted::Refuse
}

/// The cap of a dataset behind which others take over; how far a cap that must not be exceeded would be is to be seen.
fn lenient_cap(dataset: &Dataset) -> Option<f64> {
    dataset.max_epochs.filter(|_| !refuses(dataset))
}

/// Whether it is not known yet how much the stages take of their text.
pub(super) fn is_estimated(recipe: &Recipe) -> bool {
    recipe.stages.iter().any(|stage| is_packed(stage) && stage.epochs.is_some())
}

/// Whether a stage reads its datasets as streams of tokens, in windows.
fn is_packed(stage: &Stage) -> bool {
    matches!(stage.kind, StageKind::Pretrain | StageKind::ExtendContext)
}

/// Adds the caps that declared sizes show to be exceeded. Everything else about the recipe must have been checked.
pub(super) fn check(problems: &mut Problems, recipe: &Recipe, spans: &[Span]) {
    let can_tell = |i: &usize| {
        let dataset = &recipe.datasets[*i];
        dataset.tokens.is_some()
            && dataset.max_epochs.is_some()
            && dataset.on_exhausted == OnExhausted::Refuse
    };
    if !(0..recipe.datasets.len()).any(|i| can_tell(&i)) {
        return;
    }
    let tokens = recipe.declared_tokens();
    // A mixture that cannot be made is told when the sizes are known.
    let _ = recipe.walk(spans, |stage, sequences, before, _| {
        let Some((dataset, why)) = recipe.exceeded(stage, &tokens, before, sequences)? else { return Ok(()) };
        let path = key_path!["datasets", dataset, "max_epochs"].to_vec();
        problems.add(Problem { path, message: why });
        Ok(())
    });
}
