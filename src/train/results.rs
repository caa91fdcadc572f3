//! What comes back from the device: losses and gradient norms of steps that are under way, added up when they are there.

use super::dpo::reward;
use super::engine::{Engine, Ticket};
use super::metrics::{Preference, Rewards};
use super::objective::Batch;
use super::spikes::Part;
use crate::error::Result;
use crate::ops::preference_loss::PreferenceLoss;
use crate::recipes::{Dataset, Recipe};
use std::collections::VecDeque;
use std::time::Instant;

/// A result that was asked for and not yet looked at.
enum Pending {
    /// Nll of a micro-batch, with the weight of each position and the dataset of each of its sequences; or losses of
    /// pairs, with those of each pair.
    Losses { ticket: Ticket, weights: Vec<f32>, datasets: Vec<usize>, pairs: Option<PairResults> },
    /// Gradient norm, the last result of its step, and when it was first seen to be there.
    Norm { ticket: Ticket, step: u64, lr: f64, done: Option<Instant> },
}

/// What else a micro-batch of pairs brings.
struct PairResults {
    log_probs: Ticket,
    /// Per sequence: judged tokens.
    judged: Vec<u32>,
    /// Per sequence: log-probability under the frozen model, if there is one.
    reference: Vec<f64>,
}

/// A dataset's part of a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Positions that count, or judged tokens of pairs.
    pub tokens: u64,
    /// Sum of weights.
    pub weight: f64,
    /// Weighted sum of losses.
    pub nll: f64,
}

/// A step whose results are all there.
pub struct StepResults {
    /// The step.
    pub step: u64,
    /// Its learning rate.
    pub lr: f64,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// When it was done.
    pub done: Instant,
    /// Passes that it took.
    pub passes: usize,
    /// By dataset.
    pub sums: Vec<Sum>,
    /// What its pairs earned.
    pub preference: Option<Preference>,
}

impl StepResults {
    /// The mean loss.
    pub fn loss(&self) -> f64 {
        let weight: f64 = self.sums.iter().map(|sum| sum.weight).sum();
        self.sums.iter().map(|sum| sum.nll).sum::<f64>() / weight
    }

    /// The loss of each dataset that has weight in the step.
    pub fn parts<'r>(&self, recipe: &'r Recipe) -> Vec<Part<'r>> {
        let parts = recipe.datasets.iter().zip(&self.sums).filter(|(_, sum)| sum.weight > 0.0);
        let part = |(dataset, sum): (&'r Dataset, &Sum)| Part {
            dataset: &dataset.name,
            weight: sum.weight,
            loss: sum.nll / sum.weight,
        };
        parts.map(part).collect()
    }
}

/// Results that are outstanding, and sums of the step that is coming in.
pub struct Results {
    pending: VecDeque<Pending>,
    sums: Vec<Sum>,
    rewards: Rewards,
    passes: usize,
}

impl Results {
    /// Of steps on `datasets` datasets.
    pub fn new(datasets: usize) -> Self {
        Results {
            pending: VecDeque::new(),
            sums: vec![Sum::default(); datasets],
            rewards: Rewards::default(),
            passes: 0,
        }
    }

    /// Hands a micro-batch over whose weights count as they are, times `scale`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device is lost.
    pub fn submit(&mut self, engine: &mut Engine, batch: Batch, scale: f64) -> Result<()> {
        let ticket = engine.micro_batch(&batch, scale)?;
        let (log_probs, judged) = (engine.log_probs_later()?, batch.judged());
        let Batch { weights, datasets, reference, .. } = batch;
        let pairs = log_probs.map(|log_probs| PairResults { log_probs, judged, reference });
        self.pending.push_back(Pending::Losses { ticket, weights, datasets, pairs });
        Ok(())
    }

    /// The gradient norm of a step is on its way.
    pub fn expect_norm(&mut self, ticket: Ticket, step: u64, lr: f64) {
        self.pending.push_back(Pending::Norm { ticket, step, lr, done: None });
    }

    /// Notes which steps are done. A device that is quicker than the host is done before its results are fetched.
    pub fn look_for_norms(&mut self, engine: &Engine) {
        for pending in &mut self.pending {
            if let Pending::Norm { ticket, done, .. } = pending
                && done.is_none()
                && engine.is_done(ticket)
            {
                *done = Some(Instant::now());
            }
        }
    }

    /// Looks at results until at most `open` are outstanding or a step has all of its own, which is returned. `loss` is
    /// that of pairs, if they are some.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device is lost.
    pub fn next_step(
        &mut self,
        open: usize,
        engine: &mut Engine,
        loss: Option<&PreferenceLoss>,
    ) -> Result<Option<StepResults>> {
        while self.pending.len() > open {
            match self.pending.pop_front().expect("the queue is not empty") {
                Pending::Losses { ticket, weights, datasets, pairs } => {
                    self.passes += 1;
                    let nll = engine.fetch(ticket)?;
                    match (pairs, loss) {
                        (Some(PairResults { log_probs, judged, reference }), Some(loss)) => {
                            let log_probs = engine.fetch(log_probs)?;
                            self.add_pairs(loss, &datasets, &log_probs, &judged, &reference);
                        }
                        _ => self.count_tokens(&weights, &datasets),
                    }
                    // Of pairs there may be fewer than there is room for.
                    let length = if loss.is_some() { 1 } else { nll.len() / datasets.len() };
                    let rows = nll.chunks(length).zip(weights.chunks(length));
                    for (dataset, (nll, weights)) in datasets.into_iter().zip(rows) {
                        let sum = &mut self.sums[dataset];
                        sum.weight += weights.iter().map(|&w| w as f64).sum::<f64>();
                        sum.nll += nll.iter().zip(weights).map(|(&x, &w)| x as f64 * w as f64).sum::<f64>();
                    }
                }
                Pending::Norm { ticket, step, lr, done } => {
                    let grad_norm = engine.fetch(ticket)?[0] as f64;
                    let none = vec![Sum::default(); self.sums.len()];
                    return Ok(Some(StepResults {
                        step,
                        lr,
                        grad_norm,
                        done: done.unwrap_or_else(Instant::now),
                        passes: std::mem::take(&mut self.passes),
                        sums: std::mem::replace(&mut self.sums, none),
                        preference: std::mem::take(&mut self.rewards).mean(),
                    }));
                }
            }
        }
        Ok(None)
    }

    fn count_tokens(&mut self, weights: &[f32], datasets: &[usize]) {
        for (dataset, weights) in datasets.iter().zip(weights.chunks(weights.len() / datasets.len())) {
            self.sums[*dataset].tokens += weights.iter().filter(|&&weight| weight > 0.0).count() as u64;
        }
    }

    /// Adds up what the pairs of a micro-batch have earned, and their judged tokens.
    fn add_pairs(
        &mut self,
        loss: &PreferenceLoss,
        datasets: &[usize],
        log_probs: &[f32],
        judged: &[u32],
        reference: &[f64],
    ) {
        let logps: Vec<f64> =
            log_probs.chunks(2).map(|parts| parts.iter().map(|&x| f64::from(x)).sum()).collect();
        for (i, &dataset) in datasets.iter().enumerate() {
            let side = |of: &[f64]| [0, 1].map(|side| of.get(2 * i + side).copied().unwrap_or(0.0));
            let counts = [judged[2 * i], judged[2 * i + 1]];
            reward(&mut self.rewards, loss, side(&logps), side(reference), counts);
            self.sums[dataset].tokens += u64::from(counts[0] + counts[1]);
        }
    }
}
