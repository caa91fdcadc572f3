//! Text generation with a key/value cache: the prompt goes through `prefill` in chunks, then `decode` makes one token
//! per sequence and step. Both are programs of one graph, so they share weights and cache; the token that `decode`
//! chooses stays on the device as its next input.

use crate::error::{Error, Result};
use crate::graph::plan::{Plan, too_large};
use crate::graph::{Backend, Executor, Graph, Kind, ProgramId, Store};
use crate::model::ModelFolder;
use crate::nn::Architecture;
use crate::nn::llama::NewTokens;
use crate::ops::kv_cache::ABSENT;
use crate::ops::logits::Layout;
use crate::ops::sample::{Sample, Sampling};
use crate::ops::{TensorType, ValueId};
use std::sync::Arc;

/// Sizes that the graph is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sequences, B.
    pub batch: usize,
    /// Tokens that a sequence may have, prompt included.
    pub context: usize,
    /// Prompt tokens of each sequence that one pass takes.
    pub chunk: usize,
}

/// Prompt tokens of each sequence that one pass takes, at most.
pub const CHUNK: usize = 64;

/// A token and its log-probability (nats) in the model's own distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
}

/// One program's inputs.
struct Pass {
    program: ProgramId,
    ids: ValueId,
    positions: ValueId,
}

/// A generator's graph. Plain data.
pub struct GeneratorGraph {
    /// The graph.
    pub graph: Graph,
    sizes: Sizes,
    prefill: Pass,
    decode: Pass,
    settings: ValueId,
    uniform: ValueId,
    seen: ValueId,
    report: ValueId,
    /// The rotary table and its contents.
    table: (ValueId, Vec<f32>),
    /// Where the logits of a step lie.
    layout: Layout,
}

impl GeneratorGraph {
    /// Builds the programs.
    ///
    /// # Errors
    /// [`Error::Input`] if the sizes exceed the model or a binding.
    pub fn new(architecture: &Architecture, sizes: Sizes) -> Result<Self> {
        let Sizes { batch, context, chunk } = sizes;
        let most = architecture.positions();
        if context > most {
            return Err(Error::input(format!(
                "{context} tokens of context, but the model has {most} positions"
            )));
        }
        let mut graph = Graph::new();
        let decoder = architecture.decoder(&mut graph);
        let cache = decoder.cache(&mut graph, batch, context);
        let layout = decoder.logits_layout(&graph, batch);
        let rope = decoder.rope_input(&mut graph, context);
        let settings = graph.input("sampling settings", TensorType::f32(&[8]));
        let uniform = graph.input("uniform numbers", TensorType::f32(&[batch]));
        let mut state = |name: &str, n: usize| graph.add_value(name, TensorType::u32(&[n]), Kind::State);
        let token = state("tokens chosen", batch);
        let seen = state("tokens seen", batch * architecture.vocab_size());

        let rows = TensorType::u32(&[batch * chunk]);
        let (ids, positions) = (graph.input("prompt", rows.clone()), graph.input("prompt positions", rows));
        let prefill = Pass { program: graph.program("prefill"), ids, positions };
        decoder.hidden_cached(&mut graph, &NewTokens { ids, positions, rope }, &cache);

        let positions = graph.input("positions", TensorType::u32(&[batch]));
        let decode = Pass { program: graph.program("decode"), ids: token, positions };
        let hidden = decoder.hidden_cached(&mut graph, &NewTokens { ids: token, positions, rope }, &cache);
        let logits = decoder.logits(&mut graph, hidden);
        let sample = Sample { shard_rows: layout.shard_rows };
        let report = graph.push(sample, &[logits, settings, uniform, seen, token])[2];
        graph.keep(report);

        if let Some(why) = too_large(&graph) {
            return Err(Error::input(format!(
                "{batch} sequences of {context} tokens: {why}; give fewer sequences or less context"
            )));
        }
        let table = (rope, decoder.rope_table(context));
        Ok(GeneratorGraph { graph, sizes, prefill, decode, settings, uniform, seen, report, table, layout })
    }
}

/// A model on a device, and the sequences that it continues.
pub struct Generator {
    model: GeneratorGraph,
    executor: Box<dyn Executor>,
    store: Arc<Store>,
    /// The weights that made what is in the cache.
    version: u64,
    /// Tokens of each sequence. All but the last are in the cache.
    sequences: Vec<Vec<u32>>,
}

impl Generator {
    /// Allocates a graph whose weights are in `store`.
    ///
    /// # Errors
    /// [`Error::Device`] if memory runs out.
    pub fn new(backend: &Backend, model: GeneratorGraph, store: &Arc<Store>) -> Result<Self> {
        let plan = Plan::new(&model.graph, &backend.caps(), store.plan());
        let mut executor = backend.execute(&model.graph, plan, store)?;
        executor.write(model.table.0, (&model.table.1).into());
        let sequences = vec![Vec::new(); model.sizes.batch];
        Ok(Generator { model, executor, version: store.version(), store: store.clone(), sequences })
    }

    /// A generator with the weights of a model folder.
    ///
    /// # Errors
    /// As [`GeneratorGraph::new`] and [`super::load`].
    pub fn load(backend: &Backend, model: &ModelFolder, sizes: Sizes) -> Result<Self> {
        let graph = GeneratorGraph::new(&model.architecture, sizes)?;
        let store = super::load(backend, model, &[&graph.graph])?;
        Self::new(backend, graph, &store)
    }

    /// Bytes allocated, without the weights.
    pub fn allocated(&self) -> u64 {
        self.executor.allocated()
    }

    /// The graph, for measurements.
    pub fn graph(&self) -> &Graph {
        &self.model.graph
    }

    /// Measured device time per op of a decode step, in the order of its nodes.
    pub fn decode_profile(&self) -> (ProgramId, Vec<(String, f64)>) {
        (self.model.decode.program, self.executor.profile(self.model.decode.program))
    }

    /// Tokens of a sequence so far.
    pub fn tokens(&self, sequence: usize) -> &[u32] {
        &self.sequences[sequence]
    }

    /// Makes the sequences what `prompts` say, one each; what a sequence already has in common with its prompt is
    /// taken from the cache, unless the weights have changed meanwhile. An empty prompt leaves its sequence out. Returns the prompt tokens that the cache had.
    ///
    /// # Errors
    /// [`Error::Input`] if a prompt does not fit the context.
    pub fn prompt(&mut self, prompts: &[Vec<u32>]) -> Result<usize> {
        assert_eq!(prompts.len(), self.model.sizes.batch, "one prompt per sequence");
        if let Some(long) = prompts.iter().find(|prompt| prompt.len() > self.model.sizes.context) {
            let (length, room) = (long.len(), self.model.sizes.context);
            return Err(Error::input(format!("the prompt has {length} tokens, and the context {room}")));
        }
        // Keys and values of other weights are of no use.
        let version = self.store.version();
        if std::mem::replace(&mut self.version, version) != version {
            self.sequences.iter_mut().for_each(Vec::clear);
        }
        // (token, position) of what is not in the cache, without the last token, which `decode` takes.
        let missing: Vec<Vec<(u32, u32)>> = prompts
            .iter()
            .zip(&self.sequences)
            .map(|(prompt, old)| {
                let cached = old.len().saturating_sub(1);
                let common = prompt.iter().zip(&old[..cached]).take_while(|(new, old)| new == old).count();
                let end = prompt.len().saturating_sub(1);
                (common.min(end)..end).map(|i| (prompt[i], i as u32)).collect()
            })
            .collect();
        let chunk = self.model.sizes.chunk;
        let longest = missing.iter().map(Vec::len).max().unwrap_or(0);
        for first in (0..longest).step_by(chunk) {
            let rows = missing.iter().flat_map(|tokens| {
                (first..first + chunk).map(|i| tokens.get(i).copied().unwrap_or((0, ABSENT)))
            });
            let (ids, positions): (Vec<u32>, Vec<u32>) = rows.unzip();
            self.executor.write(self.model.prefill.ids, (&ids).into());
            self.executor.write(self.model.prefill.positions, (&positions).into());
            self.executor.run(self.model.prefill.program)?;
        }
        self.sequences = prompts.to_vec();
        let last: Vec<u32> = prompts.iter().map(|prompt| prompt.last().copied().unwrap_or(0)).collect();
        self.executor.write(self.model.decode.ids, (&last).into());
        self.executor.write(self.model.seen, (&self.occurrences()).into());
        let all: usize = prompts.iter().map(|prompt| prompt.len().saturating_sub(1)).sum();
        Ok(all - missing.iter().map(Vec::len).sum::<usize>())
    }

    /// 1 for every token that a sequence has, in the layout of the logits.
    fn occurrences(&self) -> Vec<u32> {
        let layout = self.model.layout;
        let mut seen = vec![0; layout.rows * layout.classes];
        for (row, sequence) in self.sequences.iter().enumerate() {
            sequence.iter().for_each(|&token| seen[layout.at(row, token as usize)] = 1);
        }
        seen
    }

    /// Chooses the next token of every sequence for which `active` holds, and appends it. `uniform` has a random
    /// number in [0, 1) for each sequence. `None` for the others and for sequences that fill the context.
    pub fn step(
        &mut self,
        sampling: &Sampling,
        uniform: &[f32],
        active: &[bool],
    ) -> Result<Vec<Option<Choice>>> {
        if self.store.version() != self.version {
            self.prompt(&self.sequences.clone())?;
        }
        let room = |sequence: &Vec<u32>| !sequence.is_empty() && sequence.len() < self.model.sizes.context;
        let active: Vec<bool> =
            active.iter().zip(&self.sequences).map(|(&active, sequence)| active && room(sequence)).collect();
        if !active.contains(&true) {
            return Ok(vec![None; active.len()]);
        }
        let positions: Vec<u32> = active
            .iter()
            .zip(&self.sequences)
            .map(|(&active, sequence)| if active { sequence.len() as u32 - 1 } else { ABSENT })
            .collect();
        let GeneratorGraph { settings, uniform: numbers, decode, report, .. } = &self.model;
        self.executor.write(*settings, sampling.settings().as_slice().into());
        self.executor.write(*numbers, uniform.into());
        self.executor.write(decode.positions, (&positions).into());
        self.executor.run(decode.program)?;
        let ticket = self.executor.read_later(*report)?;
        let report = self.executor.fetch(ticket)?.into_f32();
        let choice = |(b, active): (usize, bool)| {
            active.then(|| Choice { token: report[2 * b] as u32, logprob: report[2 * b + 1] })
        };
        let choices: Vec<Option<Choice>> = active.into_iter().enumerate().map(choice).collect();
        for (sequence, choice) in self.sequences.iter_mut().zip(&choices) {
            sequence.extend(choice.map(|choice| choice.token));
        }
        Ok(choices)
    }
}
