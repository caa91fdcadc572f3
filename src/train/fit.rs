//! The choice of micro-batch and recomputation that fits a given memory.

use super::engine::TrainGraph;
use super::kinds::Objective;
use super::objective::Shape;
use crate::gpu::Caps;
use crate::graph::recompute::Policy;
use crate::graph::{Plan, StorePlan};
use crate::infer::scorer::{Bucket, Output, ScorerGraph, buckets};
use crate::nn::Architecture;
use crate::recipes::Recipe;

/// Tokens per pass beyond which a larger micro-batch no longer pays.
const ENOUGH_TOKENS: usize = 2048;

/// The work of a stage's step, before it is cut into passes.
pub struct Work {
    /// The model.
    pub architecture: Architecture,
    /// What is computed.
    pub objective: Objective,
    /// Sequences per step, or pairs.
    pub sequences: usize,
    /// Tokens per sequence.
    pub length: usize,
}

/// One way to run a stage.
pub struct Candidate {
    /// The graph.
    pub training: TrainGraph,
    /// Weights and optimizer state.
    pub store: StorePlan,
    /// The graph's memory.
    pub plan: Plan,
    /// Memory of the scorer that measures the held-out loss meanwhile.
    pub scorer: Plan,
}

impl Candidate {
    /// Everything that will be allocated, in bytes.
    pub fn total(&self) -> u64 {
        self.store.total() + self.plan.total() + self.scorer.total()
    }

    /// Bytes per slab.
    pub fn slabs(&self) -> Vec<(String, u64)> {
        let scorer = ("held-out loss".to_string(), self.scorer.total());
        self.store.slabs().into_iter().chain(self.plan.slabs()).chain([scorer]).collect()
    }
}

/// The scorer's graph for held-out text of a stage of `shape`: as many rows at a time as training takes. Pairs have
/// sequences of any length.
pub fn held_out_scorer(work: &Work, shape: Shape) -> ScorerGraph {
    let Shape { micro_batch, length, .. } = shape;
    let buckets = match work.objective {
        Objective::NextToken { .. } => vec![Bucket { length, rows: micro_batch }],
        Objective::Preference(_) => buckets(length, work.objective.rows() * micro_batch * length),
    };
    ScorerGraph::new(&work.architecture, &buckets, Output::Nll)
}

impl Work {
    /// That of a recipe's stage.
    pub fn of(recipe: &Recipe, stage: usize) -> Work {
        Work {
            architecture: recipe.model_at(stage).into(),
            objective: Objective::of(recipe, stage),
            sequences: recipe.batch_of(stage).sequences,
            length: recipe.stages[stage].sequence_length,
        }
    }

    /// The graph of its passes.
    pub fn graph(&self, shape: Shape) -> TrainGraph {
        let add_loss = |graph: &mut _, model: &_, shape| self.objective.add_loss(graph, model, shape);
        TrainGraph::new(&self.architecture, add_loss, shape)
    }

    /// Plans it with the given micro-batch and policy.
    ///
    /// # Errors
    /// Why there is no plan: a tensor exceeds a binding.
    pub fn candidate(&self, caps: &Caps, micro_batch: usize, recompute: Policy) -> Result<Candidate, String> {
        let passes = self.sequences.div_ceil(micro_batch);
        let shape = Shape { micro_batch, passes, length: self.length, recompute };
        let training = self.graph(shape);
        let store = StorePlan::new(&[&training.graph], caps);
        let plan = Plan::checked(&training.graph, caps, &store)?;
        let scorer = Plan::checked(&held_out_scorer(self, shape).graph, caps, &store)?;
        Ok(Candidate { training, store, plan, scorer })
    }

    /// The candidate to use within `memory` bytes: the least recomputation under which a pass has enough tokens, else
    /// the one with the most tokens per pass. `micro_batch` 0 means any divisor of the sequences.
    ///
    /// # Errors
    /// One line that says what the smallest candidate would take.
    pub fn choose(&self, caps: &Caps, micro_batch: usize, memory: u64) -> Result<Candidate, String> {
        let (sequences, length) = (self.sequences, self.objective.rows() * self.length);
        let sizes: Vec<usize> = match micro_batch {
            0 => (1..=sequences).rev().filter(|size| sequences.is_multiple_of(*size)).collect(),
            given => vec![given],
        };
        // Larger passes than enough are never better; the smallest size that has enough tokens is the first to try.
        let enough =
            sizes.iter().copied().filter(|size| size * length >= ENOUGH_TOKENS).min().unwrap_or(sizes[0]);
        let mut best: Option<Candidate> = None;
        let mut smallest = String::new();
        for policy in Policy::ALL {
            for &size in sizes.iter().filter(|&&size| size <= enough) {
                match self.candidate(caps, size, policy) {
                    Ok(found) if found.total() <= memory => {
                        if size == enough {
                            return Ok(found);
                        }
                        if best.as_ref().is_none_or(|best| best.training.shape.micro_batch < size) {
                            best = Some(found);
                        }
                        break;
                    }
                    Ok(found) => {
                        smallest = format!(
                            "micro-batch {size} with recomputation '{}' still takes {:.2} GiB",
                            policy.name(),
                            found.total() as f64 / (1u64 << 30) as f64
                        );
                    }
                    Err(why) => smallest = why,
                }
            }
        }
        best.ok_or(smallest)
    }
}
