//! Text generation with a key/value cache: the prompt goes through `prefill` in chunks, then `decode` makes one token
//! per sequence and step. Both are programs of one graph, so they share weights and cache; the token that `decode`
//! chooses stays on the device as its next input.

use crate::error::{Error, Result};
use crate::graph::plan::{Plan, too_large};
use crate::graph::{Backend, Executor, Graph, Kind, ProgramId};
use crate::model::ModelFolder;
use crate::nn::LlamaConfig;
use crate::nn::llama::{Llama, NewTokens};
use crate::ops::kv_cache::ABSENT;
use crate::ops::sample::{Sample, Sampling};
use crate::ops::{TensorType, ValueId};

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

/// A model on a device, and the sequences that it continues.
pub struct Generator {
    sizes: Sizes,
    graph: Graph,
    executor: Box<dyn Executor>,
    prefill: Pass,
    decode: Pass,
    settings: ValueId,
    uniform: ValueId,
    seen: ValueId,
    report: ValueId,
    shard_rows: usize,
    vocab: usize,
    /// Tokens of each sequence. All but the last are in the cache.
    sequences: Vec<Vec<u32>>,
}

impl Generator {
    /// Builds and allocates the graph; weights come by [`Generator::write_weight`].
    ///
    /// # Errors
    /// [`Error::Input`] if the sizes exceed the model or a binding, [`Error::Device`] if memory runs out.
    pub fn new(backend: &Backend, config: &LlamaConfig, sizes: Sizes) -> Result<Self> {
        let Sizes { batch, context, chunk } = sizes;
        if context > config.max_position_embeddings {
            let most = config.max_position_embeddings;
            return Err(Error::input(format!(
                "{context} tokens of context, but the model has {most} positions"
            )));
        }
        let mut graph = Graph::new();
        let llama = Llama::new(&mut graph, config);
        let cache = llama.cache(&mut graph, batch, context);
        let shard_rows = llama.logits_shard(&graph);
        let rope = graph.input("rotary table", TensorType::f32(&[context, config.head_dim]));
        let settings = graph.input("sampling settings", TensorType::f32(&[8]));
        let uniform = graph.input("uniform numbers", TensorType::f32(&[batch]));
        let mut state = |name: &str, n: usize| graph.add_value(name, TensorType::u32(&[n]), Kind::State);
        let token = state("tokens chosen", batch);
        let seen = state("tokens seen", batch * config.vocab_size);

        let rows = TensorType::u32(&[batch * chunk]);
        let (ids, positions) = (graph.input("prompt", rows.clone()), graph.input("prompt positions", rows));
        let prefill = Pass { program: graph.program("prefill"), ids, positions };
        llama.hidden_cached(&mut graph, &NewTokens { ids, positions, rope }, &cache);

        let positions = graph.input("positions", TensorType::u32(&[batch]));
        let decode = Pass { program: graph.program("decode"), ids: token, positions };
        let hidden = llama.hidden_cached(&mut graph, &NewTokens { ids: token, positions, rope }, &cache);
        let logits = llama.logits(&mut graph, hidden);
        let report = graph.push(Sample { shard_rows }, &[logits, settings, uniform, seen, token])[2];
        graph.keep(report);

        if let Some(id) = too_large(&graph) {
            let (name, mib) = (&graph.value(id).name, graph.value(id).ty.bytes() >> 20);
            return Err(Error::input(format!(
                "{batch} sequences of {context} tokens: '{name}' takes {mib} MiB, and a binding holds 128; \
                 give fewer sequences or less context"
            )));
        }
        let plan = Plan::new(&graph, &backend.caps());
        let mut executor = backend.execute(&graph, plan)?;
        executor.write_f32(rope, &llama.rope_table(context));
        Ok(Generator {
            sizes,
            graph,
            executor,
            prefill,
            decode,
            settings,
            uniform,
            seen,
            report,
            shard_rows,
            vocab: config.vocab_size,
            sequences: vec![Vec::new(); batch],
        })
    }

    /// As [`Generator::new`], with the weights of a model folder.
    ///
    /// # Errors
    /// As [`Generator::new`], and [`Error::Input`] or [`Error::Io`] if a weight cannot be read.
    pub fn load(backend: &Backend, model: &ModelFolder, sizes: Sizes) -> Result<Self> {
        let mut generator = Self::new(backend, &model.config, sizes)?;
        for (name, shape) in model.config.parameters() {
            generator.write_weight(&name, &model.tensors.read_f32(&name, &shape)?);
        }
        Ok(generator)
    }

    /// Writes a weight by its Hugging Face name.
    pub fn write_weight(&mut self, name: &str, values: &[f32]) {
        let parameter = self.graph.parameters().iter().find(|p| p.name == name);
        let mut rest = values;
        for &shard in &parameter.unwrap_or_else(|| panic!("the model has no parameter {name}")).shards {
            let (now, later) = rest.split_at(self.graph.value(shard).ty.elements());
            self.executor.write_f32(shard, now);
            rest = later;
        }
    }

    /// The graph, for measurements.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Measured device time per op of a decode step, in the order of its nodes.
    pub fn decode_profile(&self) -> (ProgramId, Vec<(String, f64)>) {
        (self.decode.program, self.executor.profile(self.decode.program))
    }

    /// Tokens of a sequence so far.
    pub fn tokens(&self, sequence: usize) -> &[u32] {
        &self.sequences[sequence]
    }

    /// Makes the sequences what `prompts` say, one each; what a sequence already has in common with its prompt is
    /// taken from the cache. An empty prompt leaves its sequence out. Returns the prompt tokens that the cache had.
    ///
    /// # Errors
    /// [`Error::Input`] if a prompt does not fit the context.
    pub fn prompt(&mut self, prompts: &[Vec<u32>]) -> Result<usize> {
        assert_eq!(prompts.len(), self.sizes.batch, "one prompt per sequence");
        if let Some(long) = prompts.iter().find(|prompt| prompt.len() > self.sizes.context) {
            let (length, room) = (long.len(), self.sizes.context);
            return Err(Error::input(format!("the prompt has {length} tokens, and the context {room}")));
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
        let chunk = self.sizes.chunk;
        let longest = missing.iter().map(Vec::len).max().unwrap_or(0);
        for first in (0..longest).step_by(chunk) {
            let rows = missing.iter().flat_map(|tokens| {
                (first..first + chunk).map(|i| tokens.get(i).copied().unwrap_or((0, ABSENT)))
            });
            let (ids, positions): (Vec<u32>, Vec<u32>) = rows.unzip();
            self.executor.write_u32(self.prefill.ids, &ids);
            self.executor.write_u32(self.prefill.positions, &positions);
            self.executor.run(self.prefill.program)?;
        }
        self.sequences = prompts.to_vec();
        let last: Vec<u32> = prompts.iter().map(|prompt| prompt.last().copied().unwrap_or(0)).collect();
        self.executor.write_u32(self.decode.ids, &last);
        self.executor.write_u32(self.seen, &self.occurrences());
        let all: usize = prompts.iter().map(|prompt| prompt.len().saturating_sub(1)).sum();
        Ok(all - missing.iter().map(Vec::len).sum::<usize>())
    }

    /// 1 for every token that a sequence has, in the layout of the logits.
    fn occurrences(&self) -> Vec<u32> {
        let (batch, rows) = (self.sizes.batch, self.shard_rows);
        let mut seen = vec![0; batch * self.vocab];
        for (b, sequence) in self.sequences.iter().enumerate() {
            for &token in sequence {
                let first = token as usize / rows * rows;
                let width = rows.min(self.vocab - first);
                seen[batch * first + b * width + token as usize - first] = 1;
            }
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
        let room = |sequence: &Vec<u32>| !sequence.is_empty() && sequence.len() < self.sizes.context;
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
        self.executor.write_f32(self.settings, &sampling.settings());
        self.executor.write_f32(self.uniform, uniform);
        self.executor.write_u32(self.decode.positions, &positions);
        self.executor.run(self.decode.program)?;
        let ticket = self.executor.read_later(self.report)?;
        let report = self.executor.fetch(ticket)?;
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
