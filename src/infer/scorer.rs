//! The scorer: negative log-likelihood of given tokens, each given those before it, for rows of any length and number.
//!
//! Rows are padded to the next of a few lengths, the buckets: causal attention never looks at what follows, so padding
//! changes nothing. Each bucket is a program of one graph; they share weights and working memory.

use crate::error::{Error, Result};
use crate::graph::{Backend, Executor, Graph, Plan, ProgramId, Store};
use crate::nn::{Architecture, Tokens};
use crate::ops::host::IGNORE;
use crate::ops::logits::Layout;
use crate::ops::{TensorType, ValueId};
use std::sync::Arc;

/// Tokens that are scored, given those before them.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Which of them are scored. The first has nothing before it and never is.
    pub scored: Vec<bool>,
}

impl Row {
    /// All tokens but the first.
    pub fn whole(tokens: Vec<u32>) -> Row {
        let scored = (0..tokens.len()).map(|i| i > 0).collect();
        Row { tokens, scored }
    }

    /// `ending` after `prefix`.
    pub fn ending(prefix: &[u32], ending: &[u32]) -> Row {
        let tokens = [prefix, ending].concat();
        let scored = (0..tokens.len()).map(|i| i > 0 && i >= prefix.len()).collect();
        Row { tokens, scored }
    }

    /// How many tokens are scored.
    pub fn count(&self) -> u32 {
        self.scored.iter().filter(|&&scored| scored).count() as u32
    }

    /// How many tokens go through the model: all before the last one that is scored.
    fn length(&self) -> usize {
        self.scored.iter().rposition(|&scored| scored).unwrap_or(0)
    }
}

/// Rows of one length that go through the model together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens of each row.
    pub length: usize,
    /// Rows of a pass.
    pub rows: usize,
}

/// Shortest bucket.
const SHORTEST: usize = 16;

/// Buckets of 16, 32, 64, ... up to `longest` tokens, each of about `tokens` per pass.
pub fn buckets(longest: usize, tokens: usize) -> Vec<Bucket> {
    let lengths = std::iter::successors(Some(SHORTEST), |length| Some(2 * length));
    let below = lengths.take_while(|&length| length < longest);
    let bucket = |length| Bucket { length, rows: (tokens / length).max(1) };
    below.chain([longest.max(1)]).map(bucket).collect()
}

/// What a scorer computes of each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The negative log-likelihood of the token that follows, in nats.
    Nll,
    /// The logits of all classes.
    Logits,
}

/// A scorer's graph. Plain data.
pub struct ScorerGraph {
    /// The graph.
    pub graph: Graph,
    passes: Vec<Pass>,
    /// The rotary tables and their contents.
    tables: Vec<(ValueId, Vec<f32>)>,
}

/// The program of a bucket.
struct Pass {
    bucket: Bucket,
    program: ProgramId,
    ids: ValueId,
    labels: Option<ValueId>,
    output: ValueId,
    layout: Layout,
}

impl ScorerGraph {
    /// Builds a program for each bucket; they are sorted by length.
    pub fn new(architecture: &Architecture, buckets: &[Bucket], output: Output) -> Self {
        let mut graph = Graph::new();
        let decoder = architecture.decoder(&mut graph);
        let mut tables = Vec::new();
        let mut pass = |&bucket: &Bucket| {
            let Bucket { length, rows } = bucket;
            let tokens: Tokens = decoder.tokens(&mut graph, rows, length, false);
            tables.push((tokens.rope, decoder.rope_table(length)));
            let labels = TensorType::u32(&[rows * length]);
            let labels = (output == Output::Nll).then(|| graph.input("labels", labels));
            let program = graph.program(&format!("score {rows} x {length}"));
            let hidden = decoder.hidden(&mut graph, &tokens);
            let output = match labels {
                Some(labels) => decoder.nll(&mut graph, hidden, labels),
                None => decoder.logits(&mut graph, hidden),
            };
            graph.keep(output);
            let layout = decoder.logits_layout(&graph, rows * length);
            Pass { bucket, program, ids: tokens.ids, labels, output, layout }
        };
        let mut sorted = buckets.to_vec();
        sorted.sort_by_key(|bucket| bucket.length);
        let passes = sorted.iter().map(&mut pass).collect();
        ScorerGraph { graph, passes, tables }
    }
}

/// A scorer on a device.
pub struct Scorer {
    executor: Box<dyn Executor>,
    passes: Vec<Pass>,
}

impl Scorer {
    /// Allocates a graph whose weights are in `store`.
    ///
    /// # Errors
    /// [`Error::Input`] if a tensor exceeds a binding, [`Error::Device`] if memory runs out.
    pub fn new(backend: &Backend, scorer: ScorerGraph, store: &Arc<Store>) -> Result<Self> {
        let plan = Plan::checked(&scorer.graph, &backend.caps(), store.plan()).map_err(|why| {
            let bucket = scorer.passes.last().expect("a scorer has a bucket").bucket;
            Error::input(format!("{} sequences of {} tokens: {why}", bucket.rows, bucket.length))
        })?;
        let mut executor = backend.execute(&scorer.graph, plan, store)?;
        for (table, contents) in &scorer.tables {
            executor.write(*table, contents.into());
        }
        Ok(Scorer { executor, passes: scorer.passes })
    }

    /// Bytes allocated, without the weights.
    pub fn allocated(&self) -> u64 {
        self.executor.allocated()
    }

    /// Negative log-likelihood in nats of the scored tokens of each row, in order.
    ///
    /// # Errors
    /// [`Error::Input`] if a row is longer than the longest bucket, [`Error::Device`].
    pub fn score(&mut self, rows: &[Row]) -> Result<Vec<Vec<f32>>> {
        let mut of_pass: Vec<Vec<usize>> = vec![Vec::new(); self.passes.len()];
        for (i, row) in rows.iter().enumerate() {
            assert_eq!(row.tokens.len(), row.scored.len(), "a mark per token");
            let length = row.length();
            let longest = self.passes.last().expect("a scorer has a bucket").bucket.length;
            let fits = self.passes.iter().position(|pass| pass.bucket.length >= length);
            let pass = fits.ok_or_else(|| {
                Error::input(format!("a text of {length} tokens is longer than the {longest} that fit"))
            })?;
            if length > 0 {
                of_pass[pass].push(i);
            }
        }
        let mut scores = vec![Vec::new(); rows.len()];
        for (pass, members) in of_pass.iter().enumerate() {
            for group in members.chunks(self.passes[pass].bucket.rows) {
                let group: Vec<(usize, &Row)> = group.iter().map(|&i| (i, &rows[i])).collect();
                self.score_group(pass, &group, &mut scores)?;
            }
        }
        Ok(scores)
    }

    /// Log-probability of the scored tokens of each row, in nats.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    pub fn log_probs(&mut self, rows: &[Row]) -> Result<Vec<f64>> {
        let scores = self.score(rows)?;
        Ok(scores.iter().map(|nll| -nll.iter().map(|&x| f64::from(x)).sum::<f64>()).collect())
    }

    /// Scores rows that fit one pass.
    fn score_group(&mut self, pass: usize, group: &[(usize, &Row)], scores: &mut [Vec<f32>]) -> Result<()> {
        let pass = &self.passes[pass];
        let Bucket { length, rows } = pass.bucket;
        let (mut ids, mut labels) = (vec![0; rows * length], vec![IGNORE; rows * length]);
        for (at, (_, row)) in group.iter().enumerate() {
            let (ids, labels) = (&mut ids[at * length..][..length], &mut labels[at * length..][..length]);
            for t in 0..row.length() {
                ids[t] = row.tokens[t];
                if row.scored[t + 1] {
                    labels[t] = row.tokens[t + 1];
                }
            }
        }
        self.executor.write(pass.ids, (&ids).into());
        self.executor.write(pass.labels.expect("this scorer makes logits"), (&labels).into());
        self.executor.run(pass.program)?;
        let nll = self.executor.read(pass.output)?.into_f32();
        for (at, (i, row)) in group.iter().enumerate() {
            let nll = &nll[at * length..][..length];
            scores[*i] = (0..row.length()).filter(|&t| row.scored[t + 1]).map(|t| nll[t]).collect();
        }
        Ok(())
    }

    /// Logits [B, T, V] of rows of ids [B, T] that fill a bucket.
    pub fn logits(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let pass = &self.passes[0];
        self.executor.write(pass.ids, ids.into());
        self.executor.run(pass.program)?;
        Ok(pass.layout.dense(&self.executor.read(pass.output)?.into_f32()))
    }
}
