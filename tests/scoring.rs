//! T2: the scorer on the models of `fixtures/`: rows of any mixture of lengths score as they do one by one, and as
//! torch scores them; weights lie in memory once, whoever binds them.

use crate::support::{devices, fixtures, run, smolter};
use serde::Deserialize;
use smolter::checkpoint::TensorFile;
use smolter::graph::recompute::Policy;
use smolter::graph::{Backend, Plan, StorePlan};
use smolter::infer;
use smolter::infer::generator::{Generator, GeneratorGraph, Sizes};
use smolter::infer::scorer::{Bucket, Output, Row, Scorer, ScorerGraph, buckets};
use smolter::model::ModelFolder;
use smolter::nn::{Architecture, LlamaConfig};
use smolter::ops::adamw::Hyper;
use smolter::ops::sample::Sampling;
use smolter::ops::testing::nmse;
use smolter::train::engine::{Engine, TrainGraph, initialize};
use smolter::train::objective::{Batch, Shape};
use smolter::train::pretrain;
use std::path::Path;

/// What torch continues prompts with.
#[derive(Deserialize)]
struct Greedy {
    prompts: Vec<Vec<u32>>,
    tokens: Vec<Vec<u32>>,
    logprobs: Vec<Vec<f64>>,
}

fn scorer(backend: &Backend, model: &ModelFolder, buckets: &[Bucket]) -> Scorer {
    let graph = ScorerGraph::new(&model.architecture, buckets, Output::Nll);
    let store = infer::load(backend, model, &[&graph.graph]).expect("the weights");
    Scorer::new(backend, graph, &store).expect("a scorer")
}

/// Rows of 0 to 47 tokens, some of which are scored.
fn ragged(vocab: usize) -> Vec<Row> {
    let hash = |i: usize| (i as u32).wrapping_mul(2_654_435_761).rotate_left(13) as usize;
    let row = |i: usize| {
        let length = [0, 1, 2, 47, 16, 17, 33][i % 7] + hash(i) % 3 * (i % 7 / 6);
        let tokens: Vec<u32> = (0..length).map(|t| (hash(97 * i + t) % vocab) as u32).collect();
        let scored = (0..length).map(|t| t > 0 && (i.is_multiple_of(3) || hash(t + 5 * i) % 4 > 0)).collect();
        Row { tokens, scored }
    };
    (0..23).map(row).collect()
}

#[test]
fn ragged_rows_score_as_one_by_one() {
    for device in devices() {
        let backend = Backend::open(device).expect("it opens");
        for fixture in fixtures() {
            let model = ModelFolder::open(&fixture).expect("a model");
            let rows = ragged(model.architecture.vocab_size());
            let together = scorer(&backend, &model, &buckets(48, 100)).score(&rows).expect("scores");
            let one = Bucket { length: 48, rows: 1 };
            let mut alone = scorer(&backend, &model, &[one]);
            for (row, got) in rows.iter().zip(&together) {
                assert_eq!(got.len(), row.scored.iter().filter(|&&scored| scored).count());
                let want = &alone.score(std::slice::from_ref(row)).expect("a score")[0];
                for (got, want) in got.iter().zip(want) {
                    assert!((got - want).abs() <= 1e-6, "{device}: {got} side by side, {want} alone");
                }
            }
            let long = Row::whole(vec![1; 60]);
            let error = alone.score(&[long]).expect_err("it has more tokens than fit").to_string();
            assert!(error.contains("59") && error.contains("48"), "{error}");
        }
    }
}

/// Negative log-likelihood of every next token of the golden logits.
fn nll_of(golden: &Path, ids: &[i64], length: usize) -> Vec<f64> {
    let file = TensorFile::open(golden).expect("the fixture");
    let shape = file.shape("logits").expect("logits").to_vec();
    let logits = file.read_f32("logits", &shape).expect("logits");
    let vocab = shape[2];
    let nll = |(i, row): (usize, &[f32])| {
        let peak = row.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b)) as f64;
        let lse = peak + row.iter().map(|&x| (x as f64 - peak).exp()).sum::<f64>().ln();
        ((i + 1) % length != 0).then(|| lse - row[ids[i + 1] as usize] as f64)
    };
    logits.chunks(vocab).enumerate().filter_map(nll).collect()
}

#[test]
fn scores_are_torchs() {
    for device in devices() {
        let backend = Backend::open(device).expect("it opens");
        for fixture in fixtures() {
            let model = ModelFolder::open(&fixture).expect("a model");
            let text = std::fs::read_to_string(fixture.join("greedy.json")).expect("the fixture");
            let greedy: Greedy = serde_json::from_str(&text).expect("the fixture");
            let input = TensorFile::open(&fixture.join("input.safetensors")).expect("the fixture");
            let (shape, ids) = input.read_i64("input_ids").expect("ids");
            let mut rows: Vec<Row> = ids
                .chunks(shape[1])
                .map(|row| Row::whole(row.iter().map(|&id| id as u32).collect()))
                .collect();
            let mut want = nll_of(&fixture.join("golden.safetensors"), &ids, shape[1]);
            for ((prompt, tokens), logprobs) in
                greedy.prompts.iter().zip(&greedy.tokens).zip(&greedy.logprobs)
            {
                rows.push(Row::ending(prompt, tokens));
                want.extend(logprobs.iter().map(|x| -x));
            }
            let scores = scorer(&backend, &model, &buckets(48, 64)).score(&rows).expect("scores").concat();
            let got: Vec<f64> = scores.into_iter().map(f64::from).collect();
            let error = nmse(&got, &want);
            assert!(error < 1e-9, "{} on {device}: {error:e}", fixture.display());
            // The comparison sees one token of all that is off by a hundredth.
            let mut wrong = got.clone();
            wrong[7] += 0.01;
            assert!(nmse(&wrong, &want) > 1e-9);

            let folder = tempfile::tempdir().expect("a folder");
            let lines = rows.iter().map(|row| {
                let scored: Vec<u8> = row.scored.iter().map(|&scored| scored.into()).collect();
                serde_json::json!({ "input_ids": row.tokens, "mask": scored }).to_string() + "\n"
            });
            std::fs::write(folder.path().join("in.jsonl"), lines.collect::<String>()).expect("a file");
            let mut command = smolter(&["debug", "score", "--device", device, "--model"]);
            command.arg(&fixture).arg("--input").arg(folder.path().join("in.jsonl"));
            run(command.arg("--out").arg(folder.path().join("out.jsonl"))).expect(0, &[]);
            let out = std::fs::read_to_string(folder.path().join("out.jsonl")).expect("its output");
            let of_line = |line: &str| -> Vec<f64> {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                value["nll"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .map(|x| x.as_f64().expect("a number"))
                    .collect()
            };
            let printed: Vec<f64> = out.lines().flat_map(of_line).collect();
            let error = nmse(&printed, &want);
            assert!(error < 1e-9, "debug score, {} on {device}: {error:e}", fixture.display());
        }
    }
}

#[test]
fn mistakes_in_rows_to_score_are_placed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, fixture) = (folder.path().join("in.jsonl"), fixtures().remove(0));
    for (line, words) in [
        ("{\"input_ids\": [1, 2", "line 2"),
        ("{\"input_ids\": [1, 61]}", "61"),
        ("{\"input_ids\": [1, 2], \"mask\": [1]}", "mask"),
        ("{\"ids\": [1, 2]}", "input_ids"),
    ] {
        std::fs::write(&input, format!("{{\"input_ids\": [1, 2, 3]}}\n{line}\n")).expect("a file");
        let mut command = smolter(&["debug", "score", "--device", "reference", "--model"]);
        command.arg(&fixture).arg("--input").arg(&input).arg("--out").arg(folder.path().join("out"));
        run(&mut command).expect(2, &["in.jsonl", "line 2", words]).is_one_line();
    }
}

/// Training, scoring and generation on one store: its weights are the only ones, what the training changes the others
/// see, and each allocates what it planned.
#[test]
fn one_store_serves_training_scoring_and_generation() {
    for device in devices() {
        let backend = Backend::open(device).expect("it opens");
        let model = ModelFolder::open(&fixtures()[0]).expect("a model");
        let (architecture, caps) = (&model.architecture, backend.caps());
        let shape = Shape { micro_batch: 1, passes: 1, length: 24, recompute: Policy::None };
        let training = TrainGraph::new(architecture, pretrain::add_loss, shape);
        let scoring = ScorerGraph::new(architecture, &[Bucket { length: 24, rows: 1 }], Output::Nll);
        let sizes = Sizes { batch: 2, context: 24, chunk: 5 };
        let generation = GeneratorGraph::new(architecture, sizes).expect("it fits");

        // As in a run: the store is planned for training alone, and the others come later.
        let store = infer::load(&backend, &model, &[&training.graph]).expect("a store");
        let stored = StorePlan::new(&[&training.graph], &caps);
        let plans = [&training.graph, &scoring.graph, &generation.graph]
            .map(|graph| Plan::new(graph, &caps, store.plan()));
        let weights = |plan: &Plan| plan.buffers.iter().any(|buffer| buffer.name.starts_with("weights"));
        assert!(!plans.iter().any(weights) && stored.slabs().iter().any(|(name, _)| name == "weights"));

        let mut engine = Engine::new(&backend, training, &store).expect("an engine");
        let mut scorer = Scorer::new(&backend, scoring, &store).expect("a scorer");
        let mut generator = Generator::new(&backend, generation, &store).expect("a generator");
        if matches!(backend, Backend::Gpu(_)) {
            let allocated = [engine.executor().allocated(), scorer.allocated(), generator.allocated()];
            assert_eq!(allocated, plans.map(|plan| plan.total()), "planned and allocated on {device}");
            assert_eq!(store.allocated(), stored.total(), "planned and allocated on {device}");
        }

        let ids: Vec<u32> = (0..25).map(|i| i * 7 % 61).collect();
        let row = [Row::whole(ids.clone())];
        let batch = Batch {
            ids: ids[..24].to_vec(),
            labels: ids[1..].to_vec(),
            weights: vec![1.0; 24],
            datasets: vec![0],
            ..Batch::default()
        };
        let mut losses = Vec::new();
        for t in 1..=4 {
            let scored = scorer.score(&row).expect("scores").remove(0);
            let ticket = engine.micro_batch(&batch, 1.0 / 24.0).expect("a pass");
            let trained = engine.fetch(ticket).expect("losses");
            for (scored, trained) in scored.iter().zip(&trained) {
                assert!((scored - trained).abs() < 1e-5, "{device}: {scored} scored, {trained} in training");
            }
            losses.push(scored.iter().sum::<f32>());
            // The likeliest token after all but the last one: its probability is what the scorer says of it.
            generator.prompt(&[ids[..20].to_vec(), Vec::new()]).expect("it fits");
            let choice = generator.step(&Sampling::greedy(), &[0.0; 2], &[true, false]).expect("a step")[0];
            let choice = choice.expect("there is room");
            let ending = Row::ending(&ids[..20], &[choice.token]);
            let nll = scorer.score(&[ending]).expect("a score")[0][0];
            assert!((nll + choice.logprob).abs() < 1e-5, "{device}: {choice:?}, scored {nll}");
            let hyper = Hyper { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, clip: 1.0 };
            let norm = engine.update(&hyper, t).expect("an update");
            engine.fetch(norm).expect("the norm");
        }
        assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{device}: losses {losses:?}");
        // An executor may be handed to another thread.
        let moved = std::thread::spawn(move || scorer.score(&row).expect("scores").remove(0));
        assert!(moved.join().expect("the thread ends").iter().sum::<f32>() < losses[3]);
    }
}

/// A head of several vocabulary windows, and rows of every shape that kernels choose by.
#[test]
fn rows_score_alike_with_a_large_vocabulary() {
    let config = LlamaConfig {
        vocab_size: 9001,
        hidden_size: 72,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        num_key_value_heads: 1,
        head_dim: 24,
        initializer_std: 0.05,
        ..LlamaConfig::smollm2_135m()
    };
    let architecture = Architecture::from(config);
    for device in devices() {
        let backend = Backend::open(device).expect("it opens");
        let score = |buckets: &[Bucket], rows: &[Row]| {
            let graph = ScorerGraph::new(&architecture, buckets, Output::Nll);
            let store = backend.store(StorePlan::new(&[&graph.graph], &backend.caps())).expect("a store");
            initialize(&store, &architecture, 4);
            Scorer::new(&backend, graph, &store).expect("a scorer").score(rows).expect("scores")
        };
        let row = |length: u32| Row::whole((0..length).map(|t| (t * 7919 + length * 31) % 9001).collect());
        let rows = [2, 3, 17, 40, 5, 90, 64].map(row);
        let together = score(&buckets(90, 180), &rows);
        for (row, together) in rows.iter().zip(together) {
            // As `debug score` would take it, were it alone in its file.
            let alone = score(&buckets(row.tokens.len() - 1, 180), std::slice::from_ref(row)).remove(0);
            for (a, b) in together.iter().zip(&alone) {
                assert!((a - b).abs() <= 1e-6, "{device}, {} tokens: {a} and {b}", row.tokens.len());
            }
        }
    }
}
