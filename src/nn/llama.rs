//! The Llama decoder as a graph (Touvron et al. 2023, arXiv 2302.13971; SmolLM2, arXiv 2502.02737, appendix A).
//! Per block: x += o_proj(attention(rope(q), rope(k), v)) of the normed x; x += down(silu(gate) * up) of the normed x.

use super::LlamaConfig;
use crate::graph::{Graph, Parameter};
use crate::ops::add::Add;
use crate::ops::attention::Attention;
use crate::ops::embedding::Embedding;
use crate::ops::linear_cross_entropy::LinearCrossEntropy;
use crate::ops::matmul::Matmul;
use crate::ops::rms_norm::RmsNorm;
use crate::ops::rope::{Rope, table};
use crate::ops::swiglu::Swiglu;
use crate::ops::{Op, TensorType, ValueId};

/// Most classes whose logits exist at one time in the loss.
const VOCABULARY_CHUNK: usize = 4096;

/// Parameters of the model, in a graph.
pub struct Llama {
    /// Shape.
    pub config: LlamaConfig,
    embedding: Parameter,
    blocks: Vec<Block>,
    norm: ValueId,
    head: Parameter,
}

struct Block {
    input_norm: ValueId,
    q: ValueId,
    k: ValueId,
    v: ValueId,
    o: ValueId,
    post_norm: ValueId,
    gate: ValueId,
    up: ValueId,
    down: ValueId,
}

/// A batch of token sequences, as graph inputs.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    /// Sequences, B.
    pub batch: usize,
    /// Tokens of each, T.
    pub length: usize,
    /// Token ids [B T].
    pub ids: ValueId,
    /// Positions sorted by id [B T], where the embedding is trained.
    pub order: Option<ValueId>,
    /// Rotary table [T, E], see [`Llama::rope_table`].
    pub rope: ValueId,
}

impl Tokens {
    /// Adds the inputs of a batch of `batch` x `length` tokens to a graph.
    pub fn new(
        graph: &mut Graph,
        config: &LlamaConfig,
        batch: usize,
        length: usize,
        trainable: bool,
    ) -> Self {
        let rows = TensorType::u32(&[batch * length]);
        Tokens {
            batch,
            length,
            ids: graph.input("token ids", rows.clone()),
            order: trainable.then(|| graph.input("token order", rows)),
            rope: graph.input("rotary table", TensorType::f32(&[length, config.head_dim])),
        }
    }
}

impl Llama {
    /// Adds the parameters to a graph.
    pub fn new(graph: &mut Graph, config: &LlamaConfig) -> Self {
        let mut parameters = config
            .parameters()
            .into_iter()
            .map(|(name, shape)| graph.parameter(&name, &shape))
            .collect::<Vec<_>>()
            .into_iter();
        let mut next = || parameters.next().expect("the configuration lists every parameter");
        let embedding = next();
        let blocks = (0..config.num_hidden_layers)
            .map(|_| {
                let [input_norm, q, k, v, o, post_norm, gate, up, down] =
                    std::array::from_fn(|_| next().whole());
                Block { input_norm, q, k, v, o, post_norm, gate, up, down }
            })
            .collect();
        let norm = next().whole();
        let head = if config.tie_word_embeddings { embedding.clone() } else { next() };
        Llama { config: config.clone(), embedding, blocks, norm, head }
    }

    /// Contents of the rotary table for sequences of `length`: [length, E].
    pub fn rope_table(&self, length: usize) -> Vec<f32> {
        table(length, self.config.head_dim, self.config.rope_theta)
    }

    /// Hidden states after the final norm, [B T, D].
    pub fn hidden(&self, graph: &mut Graph, tokens: &Tokens) -> ValueId {
        let mut inputs = vec![tokens.ids];
        inputs.extend(tokens.order);
        inputs.extend(&self.embedding.shards);
        let mut x = graph.push(Embedding { trainable: tokens.order.is_some() }, &inputs)[0];
        for (i, block) in self.blocks.iter().enumerate() {
            graph.set_block(Some(i));
            x = self.block(graph, block, tokens, x);
        }
        graph.set_block(None);
        graph.push(self.rms_norm(), &[x, self.norm])[0]
    }

    fn block(&self, graph: &mut Graph, block: &Block, tokens: &Tokens, x: ValueId) -> ValueId {
        let linear = |graph: &mut Graph, x, w| graph.push(Matmul::linear(), &[x, w])[0];
        let rope = Rope { head_dim: self.config.head_dim, inverse: false };
        let attention = Attention {
            tokens: tokens.length,
            heads: self.config.num_attention_heads,
            kv_heads: self.config.num_key_value_heads,
        };

        let normed = graph.push(self.rms_norm(), &[x, block.input_norm])[0];
        let [q, k, v] = [block.q, block.k, block.v].map(|w| linear(graph, normed, w));
        let [q, k] = [q, k].map(|x| graph.push(rope.clone(), &[x, tokens.rope])[0]);
        let attended = graph.push(attention, &[q, k, v])[0];
        let attended = linear(graph, attended, block.o);
        let x = graph.push(Add, &[x, attended])[0];

        let normed = graph.push(self.rms_norm(), &[x, block.post_norm])[0];
        let [gate, up] = [block.gate, block.up].map(|w| linear(graph, normed, w));
        let activated = graph.push(Swiglu, &[gate, up])[0];
        let fed = linear(graph, activated, block.down);
        graph.push(Add, &[x, fed])[0]
    }

    fn rms_norm(&self) -> Op {
        RmsNorm { eps: self.config.rms_norm_eps as f32 }.into()
    }

    /// Negative log-likelihood of `labels` [B T] (already the next tokens) per position, [B T].
    pub fn nll(&self, graph: &mut Graph, hidden: ValueId, labels: ValueId) -> ValueId {
        let mut inputs = vec![hidden, labels];
        inputs.extend(&self.head.shards);
        graph.push(LinearCrossEntropy { chunk: VOCABULARY_CHUNK }, &inputs)[0]
    }

    /// Logits of every row of `hidden`, [rows, rows of the shard] per shard of the head.
    pub fn logits(&self, graph: &mut Graph, hidden: ValueId) -> Vec<ValueId> {
        self.head.shards.iter().map(|&shard| graph.push(Matmul::linear(), &[hidden, shard])[0]).collect()
    }
}

/// Logits [rows, V] from the shards that [`Llama::logits`] makes.
pub fn join_logits(shards: &[Vec<f32>], rows: usize) -> Vec<f32> {
    if let [only] = shards {
        return only.clone();
    }
    (0..rows)
        .flat_map(|row| {
            shards.iter().flat_map(move |shard| {
                let width = shard.len() / rows;
                shard[row * width..(row + 1) * width].iter().copied()
            })
        })
        .collect()
}
