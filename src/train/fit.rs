//! The choice of micro-batch and recomputation that fits a given memory.

use super::engine::{Shape, StageGraph};
use crate::gpu::Caps;
use crate::graph::plan::Plan;
use crate::graph::recompute::Policy;
use crate::nn::LlamaConfig;

/// Tokens per pass beyond which a larger micro-batch no longer pays.
const ENOUGH_TOKENS: usize = 2048;

/// One way to run a stage.
pub struct Candidate {
    /// The graph.
    pub stage: StageGraph,
    /// Its memory.
    pub plan: Plan,
}

/// Plans `sequences` x `length` tokens per step with the given micro-batch and policy.
///
/// # Errors
/// Why there is no plan: a tensor exceeds a binding.
pub fn candidate(
    config: &LlamaConfig,
    caps: &Caps,
    sequences: usize,
    length: usize,
    micro_batch: usize,
    recompute: Policy,
) -> Result<Candidate, String> {
    let passes = sequences.div_ceil(micro_batch);
    let stage = StageGraph::new(config, Shape { micro_batch, passes, length, recompute });
    let plan = stage.plan(caps)?;
    Ok(Candidate { stage, plan })
}

/// The candidate to use within `memory` bytes: the least recomputation under which a pass has enough tokens, else
/// the one with the most tokens per pass. `micro_batch` 0 means any divisor of `sequences`.
///
/// # Errors
/// One line that says what the smallest candidate would take.
pub fn choose(
    config: &LlamaConfig,
    caps: &Caps,
    sequences: usize,
    length: usize,
    micro_batch: usize,
    memory: u64,
) -> Result<Candidate, String> {
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
            match candidate(config, caps, sequences, length, size, policy) {
                Ok(found) if found.plan.total() <= memory => {
                    if size == enough {
                        return Ok(found);
                    }
                    if best.as_ref().is_none_or(|best| best.stage.shape.micro_batch < size) {
                        best = Some(found);
                    }
                    break;
                }
                Ok(found) => {
                    smallest = format!(
                        "micro-batch {size} with recomputation '{}' still takes {:.2} GiB",
                        policy.name(),
                        found.plan.total() as f64 / (1u64 << 30) as f64
                    );
                }
                Err(why) => smallest = why,
            }
        }
    }
    best.ok_or(smallest)
}
