//! T2: training as a whole: it repeats, it does not depend on how the work is cut up, and it learns.

use crate::support::{Place, device, devices, run};
use smolter::graph::layout::{BufferPlan, Place as Window};
use smolter::graph::recompute::Policy;
use smolter::graph::{Backend, Executor, Graph, Kind, Plan, ProgramId, Store, StorePlan, null};
use smolter::nn::{Architecture, LlamaConfig};
use smolter::ops::adamw::{Hyper, STATES};
use smolter::ops::add::Add;
use smolter::ops::host::order_of;
use smolter::ops::testing::nmse;
use smolter::ops::{ElementType, TensorType, ValueId};
use smolter::train::engine::{Engine, TrainGraph, initialize};
use smolter::train::metrics::Metrics;
use smolter::train::objective::{Batch, Shape};
use smolter::train::pretrain;
use std::sync::Arc;

const HYPER: Hyper = Hyper { lr: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.01, clip: 1.0 };

fn model() -> Architecture {
    Architecture::from(LlamaConfig {
        vocab_size: 97,
        hidden_size: 32,
        intermediate_size: 72,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 16,
        max_position_embeddings: 64,
        initializer_std: 0.1,
        ..LlamaConfig::smollm2_135m()
    })
}

fn graph(recompute: Policy) -> TrainGraph {
    TrainGraph::new(&model(), pretrain::add_loss, shape(recompute))
}

/// A stage of [`model`] with its initial weights.
fn engine(backend: &Backend, recompute: Policy) -> (Engine, Arc<Store>) {
    let (engine, store) = Engine::alone(backend, graph(recompute)).expect("an engine");
    initialize(&store, &model(), 3);
    (engine, store)
}

fn shape(recompute: Policy) -> Shape {
    Shape { micro_batch: 2, passes: 2, length: 40, recompute }
}

/// A device of one's own: it counts what is allocated, and tests run side by side.
fn gpu() -> Option<Backend> {
    device().map(|_| Backend::open("auto").expect("an adapter that exists opens"))
}

/// `count` token ids without much of a pattern.
fn ids(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i + seed).wrapping_mul(2_654_435_761).rotate_left(9) % 97).collect()
}

/// One step on ids made from `seed`; returns the mean loss.
fn step(engine: &mut Engine, t: u64, seed: u32) -> f64 {
    let Shape { micro_batch, passes, length, .. } = engine.training().shape;
    let rows = micro_batch * length;
    engine.begin_step().expect("a step begins");
    let mut sum = 0.0;
    for pass in 0..passes as u32 {
        let tokens = ids(rows + 1, seed + 1000 * pass);
        let (ids, labels) = (tokens[..rows].to_vec(), tokens[1..].to_vec());
        let batch = Batch {
            ids,
            labels,
            weights: vec![1.0; rows],
            datasets: vec![0; micro_batch],
            ..Batch::default()
        };
        let ticket = engine.micro_batch(&batch, 1.0 / (rows * passes) as f64).expect("a pass runs");
        sum += engine.fetch(ticket).expect("losses").iter().map(|&x| x as f64).sum::<f64>();
    }
    let norm = engine.update(&HYPER, t).expect("an update runs");
    engine.fetch(norm).expect("the norm");
    sum / (rows * passes) as f64
}

fn weights(store: &Store) -> Vec<f32> {
    let names = model().shapes();
    names.iter().flat_map(|(name, _)| store.read(name).expect("a weight")).collect()
}

fn gradients(engine: &mut Engine) -> Vec<f32> {
    let names = model().shapes();
    names.iter().flat_map(|(name, _)| engine.read_gradient(name).expect("a gradient")).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn metrics(place: &Place, run: &str) -> Vec<Metrics> {
    let text = std::fs::read_to_string(place.path(run).join("metrics.jsonl")).expect("the run has metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of metrics")).collect()
}

#[test]
fn two_runs_give_the_same_bytes() {
    for device in devices() {
        let place = Place::new();
        for name in ["a", "b"] {
            run(&mut place.train(name, device, &[])).expect(0, &[]);
        }
        assert!(place.state("a", 12) == place.state("b", 12), "two runs on {device} differ");
        run(&mut place.train("c", device, &["seed=9"])).expect(0, &[]);
        assert!(place.state("a", 12) != place.state("c", 12), "the seed has no effect on {device}");
    }
}

#[test]
fn the_micro_batch_changes_neither_the_losses_nor_the_data() {
    let device = *devices().last().expect("there is the reference");
    let place = Place::new();
    let runs = [1, 2, 4].map(|size| {
        let name = format!("by-{size}");
        run(&mut place.train(&name, device, &[&format!("batch.micro_batch={size}")])).expect(0, &[]);
        metrics(&place, &name)
    });
    let [first, others @ ..] = &runs;
    assert_eq!(first.len(), 12);
    for (a, b) in others.iter().flat_map(|other| first.iter().zip(other)) {
        assert_eq!((a.step, a.tokens), (b.step, b.tokens));
        assert!((a.loss / b.loss - 1.0).abs() < 1e-5, "step {}: loss {} and {}", a.step, a.loss, b.loss);
        assert!(a.datasets.keys().eq(b.datasets.keys()), "step {}", a.step);
        for (name, (a, b)) in a.datasets.iter().map(|(name, a)| (name, (a, &b.datasets[name]))) {
            assert_eq!(a.tokens, b.tokens, "{name}");
            let (a, b) = (a.loss.expect("a loss"), b.loss.expect("a loss"));
            assert!((a / b - 1.0).abs() < 1e-5, "{name}: loss {a} and {b}");
        }
    }
}

#[test]
fn recomputation_saves_memory_and_changes_no_bit() {
    let Some(backend) = gpu() else { return };
    let mut totals = Vec::new();
    let mut results = Vec::new();
    for policy in Policy::ALL {
        let (stage, name) = (graph(policy), policy.name());
        let stored = StorePlan::new(&[&stage.graph], &backend.caps());
        let plan = Plan::new(&stage.graph, &backend.caps(), &stored);
        null::check(&stage.graph, &plan).unwrap_or_else(|why| panic!("{name}: {why}"));
        let (mut engine, store) = engine(&backend, policy);
        assert_eq!(engine.executor().allocated(), plan.total(), "{name}: planned and allocated");
        assert_eq!(store.allocated(), stored.total(), "{name}: planned and allocated for weights");
        let losses = [1, 2, 3].map(|t| step(&mut engine, t, 17 * t as u32));
        results.push((losses.map(f64::to_bits), bits(&gradients(&mut engine)), bits(&weights(&store))));
        totals.push(plan.total());
    }
    assert!(results[0].2.iter().any(|&bits| bits != results[0].2[0]), "the weights are all alike");
    assert!(results[0] == results[1], "'cheap' changes results");
    assert!(results[0] == results[2], "'block' changes results");
    assert!(totals[0] > totals[1] && totals[1] > totals[2], "bytes by policy: {totals:?}");
}

#[test]
fn one_batch_is_learnt_by_heart() {
    let backend = gpu().unwrap_or(Backend::Reference);
    let (mut engine, _) = engine(&backend, Policy::Cheap);
    let first = step(&mut engine, 1, 5);
    assert!(
        (first - (97f64).ln()).abs() < 0.5,
        "the first loss is {first}, a uniform guess has {:.2}",
        (97f64).ln()
    );
    let last = (2..=200).map(|t| step(&mut engine, t, 5)).find(|&loss| loss < 0.1);
    assert!(last.is_some(), "200 steps on one batch do not bring its loss below 0.1");
}

#[test]
fn ten_steps_on_the_device_agree_with_the_references() {
    let Some(backend) = gpu() else { return };
    let run = |backend: &Backend| {
        let (mut engine, store) = engine(backend, Policy::Cheap);
        let losses: Vec<f64> = (1..=10).map(|t| step(&mut engine, t, 11 * t as u32)).collect();
        let weights: Vec<f64> = weights(&store).iter().map(|&x| x as f64).collect();
        (losses, weights)
    };
    let (device, reference, oracle) = (run(&backend), run(&Backend::Reference), run(&Backend::Oracle));
    for (what, got) in [("device", device), ("f32 reference", reference)] {
        let (losses, weights) = (nmse(&got.0, &oracle.0), nmse(&got.1, &oracle.1));
        assert!(
            losses < 1e-9 && weights < 1e-7,
            "{what}: error of losses {losses:e}, of weights {weights:e}"
        );
    }
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    for backend in [Some(Backend::Reference), gpu()].into_iter().flatten() {
        let (mut engine, store) = engine(&backend, Policy::None);
        step(&mut engine, 1, 5);
        let state = |store: &Store| -> Vec<u32> {
            let names = model().shapes();
            let states =
                names.iter().flat_map(|(name, _)| STATES.map(|state| store.read_state(state, name).unwrap()));
            bits(&weights(store)).into_iter().chain(states.flat_map(|state| bits(&state))).collect()
        };
        let before = state(&store);
        for fault in [f32::INFINITY, f32::NAN] {
            engine.begin_step().expect("a step begins");
            for pass in 0..2 {
                let tokens = ids(81, 9 + pass);
                let mut batch =
                    Batch { ids: tokens[..80].to_vec(), labels: tokens[1..].to_vec(), ..Batch::default() };
                (batch.weights, batch.datasets) = (vec![1.0; 80], vec![0; 2]);
                batch.weights[17] = if pass == 0 { fault } else { 1.0 };
                let ticket = engine.micro_batch(&batch, 1.0 / 160.0).expect("a pass runs");
                engine.fetch(ticket).expect("losses");
            }
            let ticket = engine.update(&HYPER, 2).expect("an update runs");
            let norm = engine.fetch(ticket).expect("the norm")[0];
            assert!(!norm.is_finite(), "{}: norm {norm}", backend.description());
            assert!(state(&store) == before, "{}: {fault} got into the weights", backend.description());
        }
        step(&mut engine, 2, 5);
        assert!(state(&store) != before, "a sound step after it changes nothing");
    }
}

#[test]
fn a_third_open_read_is_seen() {
    let mut graph = Graph::new();
    let x = graph.input("x", TensorType::f32(&[4]));
    let program = graph.program("double");
    let y = graph.push(Add, &[x, x])[0];
    graph.keep(y);
    for backend in [Some(Backend::Reference), gpu()].into_iter().flatten() {
        let mut executor = backend.execute_alone(&graph).expect("an executor");
        open_three_reads(&mut *executor, x, y, program);
    }
}

fn open_three_reads(executor: &mut dyn Executor, x: ValueId, y: ValueId, program: ProgramId) {
    let mut double = |value: f32| {
        executor.write(x, [value; 4].as_slice().into());
        executor.run(program).expect("it runs");
        executor.read_later(y)
    };
    let (first, second) = (double(1.0).expect("a ticket"), double(2.0).expect("a ticket"));
    let message = smolter::panics::caught(|| double(3.0).map(|_| ())).expect_err("a third one is refused");
    assert!(message.contains("a third read"), "{message}");
    assert_eq!(executor.fetch(first).expect("the first").into_f32(), [2.0; 4]);
    assert_eq!(executor.fetch(second).expect("the second").into_f32(), [4.0; 4]);
}

/// A plan in which every value has a buffer of its own.
fn without_reuse(graph: &Graph, plan: &Plan) -> Plan {
    let mut apart = Plan { buffers: Vec::new(), ..plan.clone() };
    for (i, value) in graph.values().iter().enumerate() {
        let bytes = value.ty.bytes();
        apart.places[i] = Window { buffer: i, offset: 0, bytes };
        apart
            .buffers
            .push(BufferPlan { name: format!("{} 0", value.name), bytes: bytes.next_multiple_of(256) });
    }
    for (i, value) in graph.values().iter().enumerate() {
        apart.places[i] = apart.places[value.root.0 as usize];
    }
    apart
}

/// Runs a stage's programs for two steps on made-up contents; returns the bits of everything that stays.
fn run_plan(
    backend: &Backend,
    stage: &TrainGraph,
    stored: &StorePlan,
    plan: Plan,
) -> Vec<(String, Vec<u32>)> {
    let graph = &stage.graph;
    let all = || graph.values().iter().enumerate().map(|(i, value)| (ValueId(i as u32), value));
    let store = backend.store(stored.clone()).expect("a store");
    let mut executor = backend.execute(graph, plan, &store).expect("an executor");
    let floats = |n: usize, seed: u32| -> Vec<f32> {
        ids(n, seed).iter().map(|&x| (x as f32 - 48.0) / 100.0).collect()
    };
    for parameter in graph.parameters() {
        let seed = parameter.shards[0].0;
        store.write(&parameter.spec.name, &floats(parameter.spec.shape.iter().product(), seed));
    }
    for (id, value) in all().filter(|(_, value)| value.kind == Kind::Input) {
        let n = value.ty.elements();
        match (value.ty.element, value.name.as_str()) {
            // All token ids of the graph are those of value 0 here, and so is their order.
            (ElementType::U32, "token order") => executor.write(id, (&order_of(&ids(n, 0))).into()),
            (ElementType::U32, "token ids") => executor.write(id, (&ids(n, 0)).into()),
            (ElementType::U32, _) => executor.write(id, (&ids(n, id.0)).into()),
            (ElementType::F32, _) => executor.write(id, (&floats(n, id.0)).into()),
        }
    }
    executor.write(stage.update.hyper, HYPER.at_step(1).as_slice().into());
    for program in [stage.update.zero, stage.micro, stage.micro, stage.update.program, stage.micro] {
        executor.run(program).expect("a program runs");
    }
    let kept =
        all().filter(|(id, value)| value.root == *id && matches!(value.kind, Kind::Gradient | Kind::Result));
    let mut found: Vec<(String, Vec<u32>)> = kept
        .map(|(id, value)| (value.name.clone(), bits(&executor.read(id).expect("a value").into_f32())))
        .collect();
    for name in graph.parameters().iter().map(|parameter| &parameter.spec.name) {
        found.push((name.clone(), bits(&store.read(name).expect("a weight"))));
        for state in STATES {
            found.push((format!("{state} {name}"), bits(&store.read_state(state, name).expect("a state"))));
        }
    }
    found
}

#[test]
fn sharing_memory_changes_no_bit() {
    let Some(backend) = gpu() else { return };
    for policy in Policy::ALL {
        let stage = graph(policy);
        let stored = StorePlan::new(&[&stage.graph], &backend.caps());
        let plan = Plan::new(&stage.graph, &backend.caps(), &stored);
        let apart = without_reuse(&stage.graph, &plan);
        assert!(apart.total() > plan.total(), "nothing is shared");
        let run = |plan| run_plan(&backend, &stage, &stored, plan);
        let (shared, apart) = (run(plan), run(apart));
        let written = shared.iter().filter(|(_, bits)| bits.iter().any(|&bits| bits != 0)).count();
        assert!(written > 40, "only {written} values are not zero");
        for ((name, shared), (_, apart)) in shared.iter().zip(&apart) {
            assert!(shared == apart, "'{}': {name} differs where memory is shared", policy.name());
        }
    }
}

#[test]
fn resume_proves_itself() {
    for device in devices() {
        let place = Place::new();
        let outcome = run(place.train("proof", device, &[]).arg("--verify-resume")).expect(0, &[]);
        assert!(outcome.stdout.contains("resume is exact"), "{outcome:#?}");
    }
}
