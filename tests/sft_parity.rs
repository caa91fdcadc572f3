//! T2: a step of fine-tuning on conversations against what torch makes of the same text in f64 (`fixtures/sft`):
//! packed, packed with a document mask, and one a row; judged on all tokens, or on the assistant's.
//!
//! That positions restart behind a document mask cannot be seen here, since attention knows distances only; `sft.rs`
//! reads them.

use crate::hf_parity::{Tensors, read, worst};
use crate::support::{Place, devices, run};
use smolter::graph::Backend;
use smolter::graph::recompute::Policy;
use smolter::infer;
use smolter::model::ModelFolder;
use smolter::ops::host::IGNORE;
use smolter::recipes::Recipe;
use smolter::train::corpus::Corpus;
use smolter::train::engine::Engine;
use smolter::train::fit::Work;
use smolter::train::kinds::batches_of;
use smolter::train::metrics;
use smolter::train::objective::{Batch, Shape};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens of a sequence, a prime; conversations have 30 to 67. Six of them fill four sequences.
const LENGTH: usize = 67;

/// Sequences of a pass, of which a step has several.
const MICRO_BATCH: usize = 2;

/// Sequences of a step, and settings of the stage. Every sequence is in it, so their order does not matter.
const WAYS: [(&str, usize, &str); 3] = [
    ("packed", 4, "stages.chat.document_mask=false"),
    ("masked", 4, "stages.chat.document_mask=true"),
    ("alone", 6, "stages.chat.packing=false"),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// One step of one stage.
fn place() -> Place {
    let place = Place::new();
    place.recipe(&format!(
        r#"name = "tiny"
model = {{ from = {:?} }}
tokenizer = {{ path = {:?} }}
schedule = {{ kind = "constant", peak_lr = 1e-3 }}
batch = {{ sequences = 4, micro_batch = {MICRO_BATCH} }}
datasets = [{{ name = "chat", paths = [{:?}] }}]
held_out = {{ fraction = 0 }}

[[stages]]
name = "chat"
kind = "sft"
steps = 1
sequence_length = {LENGTH}
mixture = {{ chat = 1.0 }}
"#,
        fixture("sft"),
        fixture("tokenizer/tokenizer.json"),
        fixture("sft/chat.jsonl"),
    ));
    place
}

/// The data of the step of a run that was trained, as the trainer has it.
fn batches(recipe: &Recipe, folder: &Path) -> (Shape, Vec<Batch>) {
    let corpus = Arc::new(Corpus::prepare(recipe, &folder.join("data"), None).expect("the tokens"));
    let passes = recipe.batch_of(0).sequences / MICRO_BATCH;
    let shape = Shape { micro_batch: MICRO_BATCH, passes, length: LENGTH, recompute: Policy::None };
    let data = batches_of(recipe, 0, &[0], &corpus, None).expect("its batches");
    (shape, data.step(0, shape).expect("the first step"))
}

/// Sum of the weights of a pass.
fn weight(batch: &Batch) -> f64 {
    batch.weights.iter().map(|&weight| f64::from(weight)).sum()
}

/// The loss of the step, and its gradients as the fixture has them.
fn step(backend: &Backend, recipe: &Recipe, shape: Shape, batches: &[Batch]) -> (f64, Tensors) {
    let model = ModelFolder::open(&fixture("sft")).expect("the model");
    let graph = Work::of(recipe, 0).graph(shape);
    let store = infer::load_unmerged(backend, &model, &[&graph.graph]).expect("the weights");
    let mut engine = Engine::new(backend, graph, &store).expect("an engine");
    let whole: f64 = batches.iter().map(weight).sum();
    let mut loss = 0.0;
    engine.begin_step().expect("gradients are zero");
    for batch in batches {
        let ticket = engine.micro_batch(batch, 1.0 / whole).expect("a pass");
        let nll = engine.fetch(ticket).expect("its losses");
        let parts = nll.iter().zip(&batch.weights).map(|(&nll, &weight)| f64::from(nll) * f64::from(weight));
        loss += parts.sum::<f64>() / whole;
    }
    let mut names: Vec<String> = model.architecture.shapes().into_iter().map(|(name, _)| name).collect();
    names.sort();
    let (mut gradients, mut norms) = (Tensors::new(), Vec::new());
    for name in names {
        let gradient = engine.read_gradient(&name).expect("a gradient");
        norms.push(norm(&gradient) as f32);
        gradients.insert(name, gradient.into_iter().step_by(5).collect());
    }
    gradients.insert("norm".into(), norms);
    (loss, gradients)
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// The error of the loss and of the worst gradient, the norm of each being a tensor of its own.
fn errors(got: (f64, Tensors), want: &Tensors) -> (f64, f64) {
    let apart = |mut tensors: Tensors| {
        let norms = tensors.remove("norm").expect("norms");
        tensors.extend(norms.into_iter().enumerate().map(|(i, norm)| (format!("norm {i}"), vec![norm])));
        tensors
    };
    let mut want = want.clone();
    let loss = f64::from(want.remove("loss").expect("a loss")[0]);
    (relative(got.0, loss), worst(&apart(got.1), &apart(want)).0)
}

fn relative(got: f64, want: f64) -> f64 {
    ((got - want) / want).abs()
}

/// Changes what a step is computed of.
type Fault = fn(&mut [Batch]);

/// What must be noticed, by what is wrong.
fn faults(way: &str, judged: &str) -> Vec<(&'static str, Fault)> {
    let mut faults: Vec<(&str, Fault)> = vec![("a judged token is forgotten", forget_one)];
    if judged == "assistant" {
        faults.push(("passes are divided by their own tokens", divide_by_pass));
    }
    if way == "masked" {
        faults.push(("conversations see those before", unmask));
    }
    if (way, judged) == ("masked", "all") {
        faults.push(("conversations foretell the next", judge_beginnings));
    }
    faults
}

/// Each pass is divided by its own judged tokens, not all by those of the step.
fn divide_by_pass(batches: &mut [Batch]) {
    for batch in batches {
        let weight = weight(batch) as f32;
        batch.weights.iter_mut().for_each(|it| *it /= weight);
    }
}

/// Conversations see those before them in their sequence.
fn unmask(batches: &mut [Batch]) {
    batches.iter_mut().for_each(|batch| batch.starts.fill(0));
}

/// The end of a conversation foretells the next one.
fn judge_beginnings(batches: &mut [Batch]) {
    for batch in batches {
        for i in (0..batch.labels.len() - 1).filter(|i| (i + 1) % LENGTH != 0) {
            if batch.labels[i] == IGNORE {
                (batch.labels[i], batch.weights[i]) = (batch.ids[i + 1], 1.0);
            }
        }
    }
}

/// One token too few is judged.
fn forget_one(batches: &mut [Batch]) {
    let weights = batches.iter_mut().flat_map(|batch| &mut batch.weights);
    *weights.into_iter().find(|weight| **weight > 0.0).expect("a judged token") = 0.0;
}

/// The reference executor in f64, and all that compute in f32, with the largest error of gradients that passes.
fn backends() -> Vec<(Backend, f64)> {
    let narrow = devices().into_iter().map(|device| (Backend::open(device).expect("it opens"), 1e-9));
    // A relative error of 1e-6 is 1e-12 when squared.
    [(Backend::Oracle, 1e-12)].into_iter().chain(narrow).collect()
}

#[test]
fn a_step_on_conversations_is_torchs() {
    let (place, backends) = (place(), backends());
    for (way, sequences, setting) in WAYS {
        for judged in ["all", "assistant"] {
            let name = format!("{way}-{judged}");
            let want = read(&fixture("sft/expected.safetensors"), &format!("{way}.{judged}."));
            let set =
                [setting, &format!("batch.sequences={sequences}"), &format!("stages.chat.loss_on={judged}")];
            // The program itself, as far as it tells.
            for device in devices() {
                run(&mut place.train(&format!("{name}-{device}"), device, &set)).expect(0, &[]);
                let told = metrics::read(&place.path(&format!("{name}-{device}/metrics.jsonl")));
                let told = told.expect("metrics").next().expect("a step");
                let loss = relative(told.loss, want["loss"][0].into());
                let norm = relative(told.grad_norm, norm(&want["norm"]));
                assert!(loss < 1e-6 && norm < 1e-5, "{name} on {device}: loss {loss:e}, norm {norm:e}");
            }
            // Its step once more, for the gradients.
            let folder = place.path(&format!("{name}-reference"));
            let recipe = folder.join("recipe.toml");
            let recipe = Recipe::load(&recipe.to_string_lossy(), &[]).expect("the resolved recipe");
            let (shape, batches) = batches(&recipe, &folder);
            let counts: Vec<f64> = batches.iter().map(weight).collect();
            assert!(judged == "all" || counts[0] != counts[1], "{name}: passes of {counts:?} judged tokens");
            for (backend, limit) in &backends {
                let (loss, gradients) = errors(step(backend, &recipe, shape, &batches), &want);
                let what = format!("{name}: {}", backend.description());
                assert!(loss < 1e-6 && gradients < *limit, "{what}: loss {loss:e}, gradients {gradients:e}");
            }
            for (fault, spoil) in faults(way, judged) {
                let mut batches = batches.clone();
                spoil(&mut batches);
                let (loss, gradients) = errors(step(&Backend::Oracle, &recipe, shape, &batches), &want);
                assert!(loss > 1e-5 && gradients > 1e-5, "{name}: {fault}: {loss:e}, {gradients:e}");
            }
        }
    }
}
