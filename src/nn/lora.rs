//! Low-rank adapters (LoRA: Hu et al. 2021, arXiv 2106.09685): `y = x W^T + alpha / rank * (x A^T) B^T`, where W is frozen
//! and only A [rank, in] and B [out, rank] are trained. B begins with zeros, so the adapted model begins as the model.
//!
//! Names are those of PEFT's files, so that what is trained here is what PEFT loads.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::graph::parameter::MAX_BINDING;
use crate::graph::{Initial, ParameterSpec};

/// Every linear layer of a block: what may be adapted.
pub const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// What the name of every adapter begins with, before the name of its layer.
pub const PREFIX: &str = "base_model.model.";

/// `[stages.lora]`: trains adapters (LoRA) instead of the weights, which stay as they are. A stage that goes on from such
/// a stage begins with the adapters merged into the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// Rows of A and columns of B: what an adapter can express, and what it costs.
    pub rank: usize,
    /// What the adapters compute is multiplied by `alpha` / `rank`. If not given, twice the rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Share of the adapters' inputs that is dropped at random; only 0 can be trained.
    pub dropout: f64,
    /// The linear layers that have adapters, in every block. If not given, all: `q_proj`, `k_proj`, `v_proj`, `o_proj`,
    /// `gate_proj`, `up_proj`, `down_proj`.
    pub targets: Vec<String>,
}

impl Default for Lora {
    fn default() -> Self {
        Lora { rank: 16, alpha: None, dropout: 0.0, targets: TARGETS.map(String::from).into() }
    }
}

impl Lora {
    /// `alpha`, or what it follows from.
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(2.0 * self.rank as f64)
    }

    /// What the product of the adapters is multiplied by.
    pub fn scale(&self) -> f64 {
        self.alpha() / self.rank as f64
    }

    /// A [rank, in] and B [out, rank] of the linear layer whose weights are called `weight` and have `shape`
    /// [out, in]; none if it is not adapted.
    ///
    /// They begin as PEFT's: A uniform as a linear layer of torch (`kaiming_uniform_` with a = sqrt(5)), B zero.
    pub fn adapter(&self, weight: &str, shape: &[usize]) -> Option<[ParameterSpec; 2]> {
        let layer = weight.strip_suffix(".weight")?;
        let target = layer.rsplit('.').next()?;
        let &[outputs, inputs] = shape else { return None };
        let part = |part: &str, shape: [usize; 2], initial: Initial| ParameterSpec {
            name: format!("{PREFIX}{layer}.lora_{part}.weight"),
            shape: shape.into(),
            initial,
            trained: true,
            decayed: true,
        };
        let a = part("A", [self.rank, inputs], Initial::Uniform(1.0 / (inputs as f64).sqrt()));
        let b = part("B", [outputs, self.rank], Initial::Zeros);
        self.targets.iter().any(|it| it == target).then_some([a, b])
    }

    /// The adapters of a model with these weights, in their order.
    pub fn parameters(&self, weights: &[ParameterSpec]) -> Vec<ParameterSpec> {
        weights.iter().filter_map(|spec| self.adapter(&spec.name, &spec.shape)).flatten().collect()
    }

    /// For people: how many parameters are trained, and where.
    pub fn describe(&self, trained: u64) -> String {
        let (rank, alpha, targets) = (self.rank, self.alpha(), self.targets.join(", "));
        format!("trains {trained} parameters of adapters of rank {rank}, alpha {alpha}, on {targets}")
    }

    /// The keys that no adapter of a model with these weights can have, and why.
    pub fn problems(&self, weights: &[ParameterSpec]) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if self.targets.is_empty() {
            found.push(("targets", format!("is empty, but must name some of {}", TARGETS.join(", "))));
        }
        for (i, target) in self.targets.iter().enumerate() {
            if !TARGETS.contains(&target.as_str()) {
                found.push(("targets", format!("names '{target}', but knows only {}", TARGETS.join(", "))));
            } else if self.targets[..i].contains(target) {
                found.push(("targets", format!("names '{target}' twice")));
            }
        }
        let widest = weights.iter().filter(|spec| self.adapter(&spec.name, &spec.shape).is_some());
        let widest = widest.flat_map(|spec| spec.shape.clone()).max().unwrap_or(1);
        // A matrix of an adapter is not split.
        let most = (MAX_BINDING as usize / 4 / widest).max(1);
        if !(1..=most).contains(&self.rank) {
            found.push(("rank", format!("is {}, but must be from 1 to {most} for this model", self.rank)));
        }
        let scale = self.scale() as f32;
        if self.rank > 0 && (!scale.is_finite() || scale <= 0.0) {
            found.push(("alpha", format!("is {}, but must be a positive number", self.alpha())));
        }
        if self.dropout != 0.0 {
            let why = format!("is {}, but must be 0: smolter trains without dropout", self.dropout);
            found.push(("dropout", why));
        }
        found
    }

    /// Adds to `weights` [out, in] what adapters `a` [rank, in] and `b` [out, rank] do: `W += alpha / rank * B A`, each
    /// sum in f64 and rounded once.
    pub fn merge(&self, weights: &mut [f32], a: &[f32], b: &[f32]) {
        let inputs = a.len() / self.rank;
        let rows = weights.par_chunks_mut(inputs).zip(b.par_chunks(self.rank));
        rows.for_each_init(
            || vec![0.0f64; inputs],
            |sums, (weights, b)| {
                sums.fill(0.0);
                for (&b, a) in b.iter().zip(a.chunks(inputs)) {
                    sums.iter_mut().zip(a).for_each(|(sum, &a)| *sum += f64::from(b) * f64::from(a));
                }
                for (weight, sum) in weights.iter_mut().zip(sums) {
                    *weight = (f64::from(*weight) + self.scale() * *sum) as f32;
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::LlamaConfig;

    #[test]
    fn adapters_have_the_names_and_shapes_of_peft() {
        let lora = Lora { rank: 8, targets: vec!["v_proj".into(), "down_proj".into()], ..Lora::default() };
        let all = lora.parameters(&LlamaConfig::smollm2_135m().parameters());
        assert_eq!(all.len(), 30 * 2 * 2);
        let shapes: Vec<_> =
            all[..4].iter().map(|spec| (spec.name.as_str(), spec.shape.as_slice())).collect();
        assert_eq!(
            shapes,
            [
                ("base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight", [8, 576].as_slice()),
                ("base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight", &[192, 8]),
                ("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", &[8, 1536]),
                ("base_model.model.model.layers.0.mlp.down_proj.lora_B.weight", &[576, 8]),
            ]
        );
        assert!(all.iter().all(|spec| spec.trained));
        assert_eq!((lora.scale(), Lora { alpha: Some(4.0), ..lora }.scale()), (2.0, 0.5));
    }

    #[test]
    fn merging_adds_the_scaled_product() {
        let lora = Lora { rank: 2, alpha: Some(1.0), ..Lora::default() };
        let mut weights = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        // B A = [[1, 0], [2, 3]]^T-like: rows of B pick rows of A.
        lora.merge(&mut weights, &[10.0, 20.0, 30.0, 1.0, 2.0, 3.0], &[1.0, 0.0, 1.0, 2.0]);
        assert_eq!(weights, [6.0, 12.0, 18.0, 10.0, 17.0, 24.0]);
    }

    #[test]
    fn what_no_adapter_can_be_is_told() {
        let weights = LlamaConfig::smollm2_1_7b().parameters();
        let keys = |lora: Lora| -> Vec<_> { lora.problems(&weights).into_iter().map(|it| it.0).collect() };
        assert!(keys(Lora::default()).is_empty() && keys(Lora { rank: 4096, ..Lora::default() }).is_empty());
        assert_eq!(keys(Lora { rank: 0, ..Lora::default() }), ["rank"]);
        assert_eq!(keys(Lora { rank: 4097, ..Lora::default() }), ["rank"]);
        assert_eq!(keys(Lora { alpha: Some(f64::NAN), ..Lora::default() }), ["alpha"]);
        assert_eq!(keys(Lora { dropout: 0.1, ..Lora::default() }), ["dropout"]);
        let targets = |names: &[&str]| Lora {
            targets: names.iter().map(|it| it.to_string()).collect(),
            ..Lora::default()
        };
        assert_eq!(keys(targets(&[])), ["targets"]);
        assert_eq!(keys(targets(&["q_proj", "lm_head", "q_proj"])), ["targets", "targets"]);
    }
}
