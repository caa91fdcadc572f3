//! The Llama decoder as a graph (Touvron et al. 2023, arXiv 2302.13971; SmolLM2, arXiv 2502.02737, appendix A).
//! Per block: x += o_proj(attention(rope(q), rope(k), v)) of the normed x; x += down(silu(gate) * up) of the normed x.

use super::{LlamaConfig, Lora};
use crate::graph::{Graph, Kind, Parameter, ParameterSpec};
use crate::ops::add::Add;
use crate::ops::attention::Attention;
use crate::ops::attention_cached::AttentionCached;
use crate::ops::embedding::Embedding;
use crate::ops::kv_cache::KvCache;
use crate::ops::linear_cross_entropy::LinearCrossEntropy;
use crate::ops::logits::{Layout, Logits};
use crate::ops::matmul::Matmul;
use crate::ops::rms_norm::RmsNorm;
use crate::ops::rope::{Rope, table};
use crate::ops::scale::Scale;
use crate::ops::swiglu::Swiglu;
use crate::ops::{Op, TensorType, ValueId};

/// Most classes whose logits exist at one time in the loss.
const VOCABULARY_CHUNK: usize = 4096;

/// Parameters of the model, in a graph.
pub struct Llama {
    config: LlamaConfig,
    embedding: Parameter,
    blocks: Vec<Block>,
    norm: ValueId,
    head: Parameter,
}

struct Block {
    input_norm: ValueId,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    post_norm: ValueId,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A linear layer.
struct Linear {
    /// W [out, in].
    weight: ValueId,
    adapter: Option<Adapter>,
}

/// What is added to a linear layer, see [`Lora`].
#[derive(Clone)]
struct Adapter {
    /// [rank, in]
    a: ValueId,
    /// [out, rank]
    b: ValueId,
    scale: Scale,
}

impl Linear {
    fn new(parameter: Parameter) -> Self {
        Linear { weight: parameter.whole(), adapter: None }
    }

    /// y = x W^T, and what the adapter adds.
    fn apply(&self, graph: &mut Graph, x: ValueId) -> ValueId {
        let product = |graph: &mut Graph, x, w| graph.push(Matmul::linear(), &[x, w])[0];
        let y = product(graph, x, self.weight);
        let Some(Adapter { a, b, scale }) = &self.adapter else { return y };
        let inner = product(graph, x, *a);
        // The narrowest place to scale.
        let inner = graph.push(scale.clone(), &[inner])[0];
        let added = product(graph, inner, *b);
        graph.push(Add, &[y, added])[0]
    }
}

/// Keys and values of earlier tokens, kept on the device from program to program.
pub struct Cache {
    /// C, positions of a sequence.
    pub capacity: usize,
    /// Keys and values of each block, [B C, K E] both.
    blocks: Vec<[ValueId; 2]>,
}

/// New tokens of sequences whose earlier ones are in a [`Cache`], as graph values. Rows of different sequences may
/// stand at different positions.
#[derive(Clone, Copy, Debug)]
pub struct NewTokens {
    /// Token ids [N].
    pub ids: ValueId,
    /// Position of each in its sequence [N], or [`ABSENT`](crate::ops::kv_cache::ABSENT).
    pub positions: ValueId,
    /// Rotary table [C, E].
    pub rope: ValueId,
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
    /// Where each sequence is several documents that do not see each other.
    pub segments: Option<Segments>,
}

/// Where documents lie in sequences, as graph inputs; [`segments_of`](crate::ops::host::segments_of) makes them.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    /// Index in its sequence of the first token of each token's document [B T].
    pub starts: ValueId,
    /// Position of each token in its document [B T].
    pub positions: ValueId,
}

impl Tokens {
    /// The same with inputs that divide each sequence into documents.
    pub fn in_segments(self, graph: &mut Graph) -> Tokens {
        let mut rows = |name: &str| graph.input(name, TensorType::u32(&[self.batch * self.length]));
        let segments = Segments { starts: rows("document starts"), positions: rows("positions") };
        Tokens { segments: Some(segments), ..self }
    }
}

impl Llama {
    /// Adds the parameters to a graph; they are those of [`LlamaConfig::parameters`], which of them are trained is up
    /// to the caller.
    pub fn new(graph: &mut Graph, config: &LlamaConfig, parameters: Vec<ParameterSpec>) -> Self {
        let mut parameters =
            parameters.into_iter().map(|spec| graph.parameter(spec)).collect::<Vec<_>>().into_iter();
        let mut next = || parameters.next().expect("the configuration lists every parameter");
        let embedding = next();
        let blocks = (0..config.num_hidden_layers)
            .map(|_| {
                let input_norm = next().whole();
                let [q, k, v, o] = std::array::from_fn(|_| Linear::new(next()));
                let post_norm = next().whole();
                let [gate, up, down] = std::array::from_fn(|_| Linear::new(next()));
                Block { input_norm, q, k, v, o, post_norm, gate, up, down }
            })
            .collect();
        let norm = next().whole();
        let head = if config.tie_word_embeddings { embedding.clone() } else { next() };
        Llama { config: config.clone(), embedding, blocks, norm, head }
    }

    /// Adds adapters to the graph and to the linear layers that `lora` names; they are those of [`Lora::parameters`].
    pub fn adapt(&mut self, graph: &mut Graph, lora: &Lora) {
        let scale = Scale { factor: lora.scale() as f32 };
        for Block { q, k, v, o, gate, up, down, .. } in &mut self.blocks {
            for linear in [q, k, v, o, gate, up, down] {
                let weight = graph.value(linear.weight);
                if let Some(specs) = lora.adapter(&weight.name, &weight.ty.shape) {
                    let [a, b] = specs.map(|spec| graph.parameter(spec).whole());
                    linear.adapter = Some(Adapter { a, b, scale: scale.clone() });
                }
            }
        }
    }

    /// Adds the inputs of a batch of `batch` x `length` tokens to a graph; `trained` says that gradients will be wanted.
    pub fn tokens(&self, graph: &mut Graph, batch: usize, length: usize, trained: bool) -> Tokens {
        let rows = TensorType::u32(&[batch * length]);
        let sorted = trained && self.embedding.spec.trained;
        Tokens {
            batch,
            length,
            ids: graph.input("token ids", rows.clone()),
            order: sorted.then(|| graph.input("token order", rows)),
            rope: self.rope_input(graph, length),
            segments: None,
        }
    }

    /// Adds the rotary table of `positions` positions to a graph; the host writes [`Llama::rope_table`].
    pub fn rope_input(&self, graph: &mut Graph, positions: usize) -> ValueId {
        graph.input("rotary table", TensorType::f32(&[positions, self.config.head_dim]))
    }

    /// Contents of the rotary table for sequences of `length`: [length, E].
    pub fn rope_table(&self, length: usize) -> Vec<f32> {
        table(length, self.config.head_dim, self.config.rope_theta)
    }

    /// Hidden states after the final norm, [B T, D].
    pub fn hidden(&self, graph: &mut Graph, tokens: &Tokens) -> ValueId {
        let (starts, positions) = tokens.segments.map(|it| (it.starts, it.positions)).unzip();
        let rope = Rope { head_dim: self.config.head_dim, placed: positions.is_some(), inverse: false };
        let attention = Attention {
            tokens: tokens.length,
            heads: self.config.num_attention_heads,
            kv_heads: self.config.num_key_value_heads,
            segments: starts.is_some(),
        };
        self.blocks(graph, tokens.ids, tokens.order, |graph, _, [q, k, v]| {
            let turned = |x| [x, tokens.rope].into_iter().chain(positions).collect::<Vec<_>>();
            let [q, k] = [q, k].map(|x| graph.push(rope.clone(), &turned(x))[0]);
            let seen: Vec<ValueId> = [q, k, v].into_iter().chain(starts).collect();
            graph.push(attention.clone(), &seen)[0]
        })
    }

    /// A cache for `batch` sequences of at most `capacity` tokens.
    pub fn cache(&self, graph: &mut Graph, batch: usize, capacity: usize) -> Cache {
        let width = self.config.num_key_value_heads * self.config.head_dim;
        let ty = TensorType::f32(&[batch * capacity, width]);
        let mut value =
            |name: &str, i: usize| graph.add_value(format!("{name} of block {i}"), ty.clone(), Kind::State);
        let blocks = (0..self.blocks.len()).map(|i| [value("keys", i), value("values", i)]).collect();
        Cache { capacity, blocks }
    }

    /// Hidden states of new tokens after the final norm, [N, D]; their keys and values go into the cache.
    pub fn hidden_cached(&self, graph: &mut Graph, tokens: &NewTokens, cache: &Cache) -> ValueId {
        let rope = Rope { head_dim: self.config.head_dim, placed: true, inverse: false };
        let store = KvCache { capacity: cache.capacity };
        let attention = AttentionCached {
            heads: self.config.num_attention_heads,
            kv_heads: self.config.num_key_value_heads,
            capacity: cache.capacity,
        };
        let NewTokens { ids, positions, rope: table } = *tokens;
        self.blocks(graph, ids, None, |graph, i, [q, k, v]| {
            let [q, k] = [q, k].map(|x| graph.push(rope.clone(), &[x, table, positions])[0]);
            let [keys, values] = cache.blocks[i];
            let keys = graph.push(store.clone(), &[k, positions, keys])[0];
            let values = graph.push(store.clone(), &[v, positions, values])[0];
            graph.push(attention.clone(), &[q, keys, values, positions])[0]
        })
    }

    /// From token ids to the final norm; `attend` maps a block's q, k, v to what its queries see.
    fn blocks(
        &self,
        graph: &mut Graph,
        ids: ValueId,
        order: Option<ValueId>,
        mut attend: impl FnMut(&mut Graph, usize, [ValueId; 3]) -> ValueId,
    ) -> ValueId {
        let inputs: Vec<ValueId> =
            [ids].into_iter().chain(order).chain(self.embedding.shards.clone()).collect();
        let mut x = graph.push(Embedding { trainable: order.is_some() }, &inputs)[0];
        for (i, block) in self.blocks.iter().enumerate() {
            graph.set_block(Some(i));
            x = self.block(graph, block, x, |graph, qkv| attend(graph, i, qkv));
        }
        graph.set_block(None);
        graph.push(self.rms_norm(), &[x, self.norm])[0]
    }

    fn block(
        &self,
        graph: &mut Graph,
        block: &Block,
        x: ValueId,
        attend: impl FnOnce(&mut Graph, [ValueId; 3]) -> ValueId,
    ) -> ValueId {
        let normed = graph.push(self.rms_norm(), &[x, block.input_norm])[0];
        let qkv = [&block.q, &block.k, &block.v].map(|linear| linear.apply(graph, normed));
        let attended = attend(graph, qkv);
        let attended = block.o.apply(graph, attended);
        let x = graph.push(Add, &[x, attended])[0];

        let normed = graph.push(self.rms_norm(), &[x, block.post_norm])[0];
        let [gate, up] = [&block.gate, &block.up].map(|linear| linear.apply(graph, normed));
        let activated = graph.push(Swiglu, &[gate, up])[0];
        let fed = block.down.apply(graph, activated);
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

    /// Logits of every row of `hidden`, as [`Logits`] stores them.
    pub fn logits(&self, graph: &mut Graph, hidden: ValueId) -> ValueId {
        let inputs: Vec<ValueId> = [hidden].into_iter().chain(self.head.shards.clone()).collect();
        graph.push(Logits, &inputs)[0]
    }

    /// How the logits of `rows` rows lie in memory.
    pub fn logits_layout(&self, graph: &Graph, rows: usize) -> Layout {
        let shard_rows = graph.value(self.head.shards[0]).ty.rows();
        Layout { rows, classes: self.config.vocab_size, shard_rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Kind;
    use crate::graph::backward::{Accumulate, backward};
    use crate::ops::matmul::Form;
    use crate::optim::update::Update;
    use std::collections::BTreeSet;

    /// The graph of a training step of two blocks, whose parameters `trained` picks, with adapters.
    fn step(trained: impl Fn(&str) -> bool, lora: Option<&Lora>) -> Graph {
        let config = LlamaConfig { num_hidden_layers: 2, vocab_size: 300, ..LlamaConfig::smollm2_135m() };
        let mut parameters = config.parameters();
        parameters.iter_mut().for_each(|spec| spec.trained = trained(&spec.name));
        let mut graph = Graph::new();
        let mut model = Llama::new(&mut graph, &config, parameters);
        if let Some(lora) = lora {
            model.adapt(&mut graph, lora);
        }
        graph.program("micro-batch");
        let tokens = model.tokens(&mut graph, 1, 8, true);
        let (labels, weights) =
            (graph.input("labels", TensorType::u32(&[8])), graph.input("weights", TensorType::f32(&[8])));
        let hidden = model.hidden(&mut graph, &tokens);
        let nll = model.nll(&mut graph, hidden, labels);
        let gradients = backward(&mut graph, &[(nll, weights)], &[], Accumulate::Yes);
        Update::new(&mut graph, &gradients);
        graph
    }

    /// Names of the values of a kind in [`step`].
    fn names(kind: Kind, trained: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let graph = step(trained, None);
        graph.values().iter().filter(|value| value.kind == kind).map(|value| value.name.clone()).collect()
    }

    #[test]
    fn frozen_weights_cost_no_products_for_their_gradients() {
        let products = |graph: &Graph, form: Form| {
            let is = |op: &Op| matches!(op, Op::Matmul(product) if product.form == form);
            graph.nodes().iter().filter(|node| is(&node.op)).count()
        };
        let all = Lora::default();
        let some = Lora { targets: vec!["q_proj".into(), "up_proj".into()], ..Lora::default() };
        // Two matrices of each adapter have gradients, and no other matrix.
        for (lora, layers) in [(&all, 14), (&some, 4)] {
            let graph = step(|_| false, Some(lora));
            assert_eq!(products(&graph, Form::TN), 2 * layers, "{:?}", lora.targets);
            let gradients = graph.values().iter().filter(|value| value.kind == Kind::Gradient).count();
            assert_eq!(gradients, 2 * layers);
        }
        // Behind the first adapter nothing is computed for what comes before: the inputs of the first block.
        let last = Lora { targets: vec!["down_proj".into()], ..Lora::default() };
        let (first, whole) = (step(|_| false, Some(&last)), step(|_| true, None));
        assert_eq!(products(&whole, Form::TN), 14);
        assert!(products(&first, Form::NN) < products(&whole, Form::NN));
        assert!(first.nodes().iter().all(|node| node.op.def().name() != "embedding_backward"));
    }

    #[test]
    fn only_what_is_trained_has_gradients_and_state() {
        let adapted = |name: &str| name.contains("layers.1.self_attn") || name == "model.norm.weight";
        let expected = ["q", "k", "v", "o"].map(|it| format!("model.layers.1.self_attn.{it}_proj.weight"));
        let expected = expected.into_iter().chain(["model.norm.weight".to_string()]);
        let (gradients, state): (BTreeSet<_>, BTreeSet<_>) = expected
            .map(|name| (format!("grad {name}"), [format!("exp_avg {name}"), format!("exp_avg_sq {name}")]))
            .unzip();
        assert_eq!(names(Kind::Gradient, adapted), gradients);
        assert_eq!(names(Kind::OptimizerState, adapted), state.into_iter().flatten().collect());
        // A frozen embedding needs no sorted tokens.
        assert!(!names(Kind::Input, adapted).contains("token order"));
        assert!(names(Kind::Input, |_| true).contains("token order"));
        assert_eq!(names(Kind::Gradient, |_| true).len(), 20);
    }
}
