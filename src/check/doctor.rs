//! Proof that a device computes right values and right gradients: every op and variant against f64, the gradients
//! against finite differences, and ten training steps, of a model and of adapters, against the reference executor.

use super::differences;
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::Backend;
use crate::graph::check::{CaseGraph, TOLERANCE};
use crate::graph::recompute::Policy;
use crate::nn::{Architecture, LlamaConfig, Lora};
use crate::ops::adamw::Hyper;
use crate::ops::all_cases;
use crate::ops::testing::nmse;
use crate::report::progress::Progress;
use crate::train::engine::{Engine, TrainGraph, initialize};
use crate::train::objective::{Batch, Shape};
use crate::train::pretrain;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Largest error of finite differences, relative to the largest gradient.
const DIFFERENCES: f64 = 1e-5;

/// Largest error of what is trained after ten steps against the f64 reference.
const STEPS: f64 = 1e-7;

/// One line of the diagnosis.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was checked.
    pub what: String,
    /// Cases.
    pub cases: usize,
    /// Worst error.
    pub worst: f64,
    /// Largest error that passes.
    pub limit: f64,
    /// What was worst.
    pub at: String,
}

impl Line {
    /// Whether the error is within the limit; NaN is not.
    pub fn passes(&self) -> bool {
        self.worst <= self.limit
    }
}

/// Variants of the kernels that this device can run: name and backend.
pub fn variants(backend: &Backend) -> Vec<(String, Caps)> {
    let own = backend.caps();
    let mut all = vec![("native".to_string(), own)];
    if own.is_lanes() {
        if own.subgroup.is_some() {
            all.push(("without subgroups".into(), Caps::lanes(None)));
        }
        all.push(("tiled".into(), Caps::baseline()));
    }
    all
}

/// Runs everything; one line per op and variant, then the training steps.
pub fn diagnose(backend: &Backend) -> Result<Vec<Line>> {
    let mut lines: BTreeMap<(usize, String), Line> = BTreeMap::new();
    let cases = all_cases();
    let variants = variants(backend);
    let mut progress = Progress::new("checking", (cases.len() * (variants.len() + 1) + 20) as u64, 0);
    let mut done = 0;
    let mut enter = |order: usize, what: String, limit: f64, error: f64, at: String| {
        let line = lines.entry((order, what.clone())).or_insert(Line {
            what,
            cases: 0,
            worst: 0.0,
            limit,
            at: String::new(),
        });
        line.cases += 1;
        // NaN and infinity are the worst of all.
        if line.at.is_empty() || error.is_nan() || error > line.worst {
            (line.worst, line.at) = (error, at);
        }
    };
    for case in &cases {
        let built = CaseGraph::new(case);
        let name = case.op.def().name();
        for (order, (variant, caps)) in variants.iter().enumerate() {
            let what = format!("{name}, {variant}");
            match compare(&built, &backend.with_caps(*caps)) {
                Ok(findings) => {
                    for finding in findings {
                        enter(order, what.clone(), TOLERANCE, finding.nmse, finding.what);
                    }
                }
                // A kernel that does not even run is a finding, not the end of the diagnosis.
                Err(error) => enter(order, what, TOLERANCE, f64::NAN, error.to_string()),
            }
            done += 1;
            progress.set(done, name);
        }
        if let Some(error) = built.finite_differences(7)? {
            let what = format!("{name}, finite differences");
            enter(variants.len(), what, DIFFERENCES, error, case.label());
        }
        done += 1;
    }
    let mut lines: Vec<Line> = lines.into_values().collect();
    let worst = differences::adapters()?;
    let (what, at) = ("adapters, finite differences".to_string(), "a small Llama".to_string());
    lines.push(Line { what, cases: 1, worst, limit: DIFFERENCES, at });
    for (name, lora) in [("", None), (" of adapters", Some(Lora { rank: 5, ..Lora::default() }))] {
        let architecture = small().with_lora(lora);
        let told = |step| progress.set(done + step, "training steps");
        let (weights, loss, at) = match ten_steps(backend, &architecture, told) {
            Ok((weights, loss)) => (weights, loss, "AdamW on a small Llama".to_string()),
            Err(error) => (f64::NAN, f64::NAN, error.to_string()),
        };
        for (what, worst) in [("weights", weights), ("loss", loss)] {
            let what = format!("10 training steps{name}, {what}");
            lines.push(Line { what, cases: 10, worst, limit: STEPS, at: at.clone() });
        }
        done += 10;
    }
    progress.finish();
    Ok(lines)
}

fn compare(built: &CaseGraph, backend: &Backend) -> Result<Vec<crate::graph::check::Finding>> {
    built.compare(&mut *backend.execute_alone(&built.graph)?, 11)
}

/// A model that trains in no time.
fn small() -> Architecture {
    LlamaConfig {
        vocab_size: 131,
        hidden_size: 48,
        intermediate_size: 80,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 12,
        max_position_embeddings: 64,
        initializer_std: 0.1,
        ..LlamaConfig::smollm2_135m()
    }
    .into()
}

/// The worst errors of what is trained and of losses over ten steps of a model against the f64 reference.
fn ten_steps(
    backend: &Backend,
    architecture: &Architecture,
    mut progress: impl FnMut(u64),
) -> Result<(f64, f64)> {
    let vocab = architecture.vocab_size() as u32;
    let shape = Shape { micro_batch: 2, passes: 2, length: 33, recompute: Policy::Cheap };
    let mut run = |backend: &Backend| -> Result<(Vec<f64>, Vec<f64>)> {
        let graph = TrainGraph::new(architecture, pretrain::add_loss, shape);
        let (mut engine, store) = Engine::alone(backend, graph)?;
        initialize(&store, architecture, 5);
        let hyper = Hyper { lr: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.01, clip: 1.0 };
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let mut losses = Vec::new();
        let rows = shape.micro_batch * shape.length;
        for t in 1..=10 {
            engine.begin_step()?;
            for _ in 0..shape.passes {
                let mut draw = || (0..rows).map(|_| rng.random_range(0..vocab)).collect::<Vec<u32>>();
                let (ids, labels) = (draw(), draw());
                let datasets = vec![0; shape.micro_batch];
                let batch = Batch { ids, labels, weights: vec![1.0; rows], datasets, ..Batch::default() };
                let ticket = engine.micro_batch(&batch, 1.0 / (rows * shape.passes) as f64)?;
                losses.extend(engine.fetch(ticket)?.iter().map(|&x| x as f64));
            }
            let norm = engine.update(&hyper, t)?;
            engine.fetch(norm)?;
            progress(t);
        }
        let mut weights = Vec::new();
        for (name, _) in architecture.trained_shapes() {
            weights.extend(store.read(&name)?.iter().map(|&x| x as f64));
        }
        Ok((weights, losses))
    };
    let (got, want) = (run(backend)?, run(&Backend::Oracle)?);
    Ok((nmse(&got.0, &want.0), nmse(&got.1, &want.1)))
}
