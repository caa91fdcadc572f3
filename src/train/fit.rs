//! The choice of micro-batch and recomputation that fits a given memory.

use super::engine::TrainGraph;
use super::kinds::Objective;
use super::objective::Shape;
use crate::gpu::Caps;
use crate::gpu::kernel::MAX_GROUPS;
use crate::graph::parameter::MAX_BINDING;
use crate::graph::recompute::Policy;
use crate::graph::{Plan, StorePlan};
use crate::infer::scorer::{Bucket, Output, ScorerGraph, buckets};
use crate::nn::Architecture;
use crate::recipes::Recipe;
use crate::report;

/// Tokens per pass that are worth computing things again for.
const ENOUGH_TOKENS: usize = 2048;

/// Tokens per pass beyond which a larger micro-batch no longer pays. A software adapter is busy with few; on hardware
/// four times as many give even a 576 wide product over a thousand workgroups of 64 x 64.
fn plenty_of_tokens(caps: &Caps) -> usize {
    if caps.is_lanes() { ENOUGH_TOKENS } else { 4 * ENOUGH_TOKENS }
}

/// Most tokens of a pass: their ids fill a binding.
const MOST_TOKENS: usize = (MAX_BINDING / 4) as usize;

/// Most sequences of a pass: attention has a row of workgroups for each.
const MOST_SEQUENCES: usize = MAX_GROUPS as usize;

/// The work of a stage's step, before it is cut into passes.
#[derive(Clone, PartialEq)]
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
        Objective::Preference { .. } => buckets(length, work.objective.rows() * micro_batch * length),
    };
    ScorerGraph::new(&work.architecture, &buckets, Output::Nll)
}

impl Work {
    /// That of a recipe's stage.
    pub fn of(recipe: &Recipe, stage: usize) -> Work {
        Work {
            architecture: Architecture::from(recipe.model_at(stage))
                .with_lora(recipe.stages[stage].lora.clone()),
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
        let tokens = self.tokens(micro_batch);
        if tokens > MOST_TOKENS {
            return Err(format!("{tokens} tokens per pass are more than the {MOST_TOKENS} of a binding"));
        }
        let rows = tokens / self.length;
        if rows > MOST_SEQUENCES {
            return Err(format!("{rows} sequences per pass are more than {MOST_SEQUENCES} workgroups"));
        }
        let passes = self.sequences.div_ceil(micro_batch);
        let shape = Shape { micro_batch, passes, length: self.length, recompute };
        let training = self.graph(shape);
        let store = StorePlan::new(&[&training.graph], caps);
        let plan = Plan::checked(&training.graph, caps, &store)?;
        let scorer = Plan::checked(&held_out_scorer(self, shape).graph, caps, &store)?;
        Ok(Candidate { training, store, plan, scorer })
    }

    /// Micro-batches that a pass may have: the divisors of the sequences, the smallest first.
    pub fn micro_batches(&self) -> Vec<usize> {
        let most = (MOST_TOKENS / self.length).min(MOST_SEQUENCES) / self.objective.rows();
        let most = most.clamp(1, self.sequences);
        (1..=most).filter(|&size| self.sequences.is_multiple_of(size)).collect()
    }

    fn tokens(&self, micro_batch: usize) -> usize {
        micro_batch.saturating_mul(self.objective.rows() * self.length)
    }

    /// The candidate to use within `memory` bytes: the least recomputation under which a pass has enough tokens, and
    /// with it as many tokens as pay; else the one with the most tokens per pass. `micro_batch` 0 means any divisor of
    /// the sequences.
    ///
    /// # Errors
    /// One line that says what the smallest candidate would take.
    pub fn choose(&self, caps: &Caps, micro_batch: usize, memory: u64) -> Result<Candidate, String> {
        self.choose_up_to(caps, micro_batch, self.sequences, memory)
    }

    /// [`Work::choose`], where a micro-batch that is not given has at most `most` sequences, at least 1.
    ///
    /// # Errors
    /// As [`Work::choose`].
    pub fn choose_up_to(
        &self,
        caps: &Caps,
        micro_batch: usize,
        most: usize,
        memory: u64,
    ) -> Result<Candidate, String> {
        let mut sizes = if micro_batch == 0 { self.micro_batches() } else { vec![micro_batch] };
        sizes.retain(|&size| size == micro_batch || size <= most);
        let first = |tokens: usize| sizes.iter().position(|&size| self.tokens(size) >= tokens);
        let (last, largest) = (sizes.len() - 1, first(plenty_of_tokens(caps)));
        let enough = sizes[first(ENOUGH_TOKENS).unwrap_or(last)];
        let mut best: Option<Candidate> = None;
        let mut smallest = String::new();
        for policy in Policy::ALL {
            for &size in sizes[..=largest.unwrap_or(last)].iter().rev() {
                match self.candidate(caps, size, policy) {
                    Ok(found) if found.total() <= memory => {
                        if size >= enough {
                            return Ok(found);
                        }
                        if best.as_ref().is_none_or(|best| best.training.shape.micro_batch < size) {
                            best = Some(found);
                        }
                        break;
                    }
                    Ok(found) => {
                        smallest = format!(
                            "micro-batch {size} with recomputation '{}' still takes {}",
                            policy.name(),
                            report::size(found.total())
                        );
                    }
                    Err(why) => smallest = why,
                }
            }
        }
        best.ok_or(smallest)
    }

    /// Why [`Work::choose`] takes `shape`, given the same `caps` and `micro_batch`, in one line.
    pub fn reason(&self, caps: &Caps, micro_batch: usize, shape: Shape) -> String {
        let (tokens, plenty) = (self.tokens(shape.micro_batch), plenty_of_tokens(caps));
        let next = self.micro_batches().into_iter().find(|&size| size > shape.micro_batch);
        let size = match next {
            _ if micro_batch != 0 => "batch.micro_batch says so".to_string(),
            _ if tokens >= plenty => format!("{tokens} tokens per pass; more than {plenty} no longer pay"),
            None => format!("{tokens} tokens per pass, no more are possible"),
            Some(next) => {
                let why = match self.candidate(caps, next, shape.recompute) {
                    Ok(found) => format!("takes {}", report::size(found.total())),
                    Err(why) => format!("does not fit: {why}"),
                };
                format!("{tokens} tokens per pass; the next divisor of {}, {next}, {why}", self.sequences)
            }
        };
        let policy = match shape.recompute {
            Policy::None => "nothing is computed again".to_string(),
            policy if micro_batch != 0 => format!("'{}' is the least recomputation that fits", policy.name()),
            policy if tokens >= ENOUGH_TOKENS => {
                format!("'{}' is the least recomputation with {ENOUGH_TOKENS} or more", policy.name())
            }
            policy => format!("'{}' allows the most", policy.name()),
        };
        format!("{size}; {policy}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::LlamaConfig;
    use std::time::{Duration, Instant};

    fn work(sequences: usize, length: usize) -> Work {
        let architecture = LlamaConfig::smollm2_135m().into();
        Work { architecture, objective: Objective::NextToken { document_mask: false }, sequences, length }
    }

    #[test]
    fn hardware_takes_more_tokens_per_pass_where_they_cost_no_recomputation() {
        let shape = |caps: &Caps, gib: u64| {
            let work = work(512, 2048);
            let shape = work.choose(caps, 0, gib << 30).expect("it fits").training.shape;
            ((shape.micro_batch, shape.recompute), work.reason(caps, 0, shape))
        };
        let (hardware, software) = (Caps::baseline(), Caps::lanes(Some(8)));
        let (chosen, reason) = shape(&hardware, 80);
        assert_eq!(chosen, (4, Policy::None));
        assert!(reason.contains("8192 tokens per pass; more than 8192 no longer pay"), "{reason}");
        let (chosen, reason) = shape(&hardware, 8);
        assert_eq!(chosen, (2, Policy::None));
        assert!(reason.contains("the next divisor of 512, 4, takes "), "{reason}");
        let (chosen, reason) = shape(&hardware, 3);
        assert_eq!(chosen.1, Policy::Block);
        assert!(reason.contains("'block' is the least recomputation with 2048 or more"), "{reason}");
        assert_eq!(shape(&software, 80).0, (1, Policy::None));
    }

    #[test]
    fn huge_batches_are_planned_at_once() {
        let begun = Instant::now();
        for sequences in [1_000_003, 1 << 40, usize::MAX >> 1] {
            for length in [1, 256] {
                let work = work(sequences, length);
                let chosen = work.choose(&Caps::baseline(), 0, 80 << 30).expect("it fits").training.shape;
                assert!(sequences.is_multiple_of(chosen.micro_batch));
                let whole = work.choose(&Caps::baseline(), sequences, 80 << 30);
                assert!(whole.is_err(), "{sequences} x {length} fit no binding");
            }
        }
        // A search among all numbers up to the batch would not end.
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}
