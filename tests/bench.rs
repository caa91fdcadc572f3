//! `smolter bench`: its figures are figures, and agree with one another. How large they are is no test.

use crate::support::{device, run, smolter};
use serde_json::Value;
use smolter::bench::{Options, Report, table};
use smolter::graph::Backend;
use smolter::infer::generator::Sizes;
use smolter::nn::{Architecture, LlamaConfig};

fn tiny() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 320,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 16,
        max_position_embeddings: 64,
        bos_token_id: None,
        eos_token_id: None,
        ..LlamaConfig::smollm2_135m()
    }
}

fn bench(memory: Option<u64>) -> Option<Report> {
    let backend = Backend::Gpu(device()?);
    let options = Options {
        models: vec![("tiny".into(), tiny().into())],
        decode: Sizes { batch: 2, context: 52, chunk: 8 },
        length: 16,
        memory,
        time: None,
        window: 1 << 20,
    };
    Some(smolter::bench::run(&backend, &options).expect("a healthy device is measured"))
}

/// Every number under a key that says what it counts is positive and finite.
fn check_numbers(at: &str, value: &Value) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| check_numbers(&format!("{at}.{key}"), value))
        }
        Value::Array(all) => all.iter().for_each(|value| check_numbers(at, value)),
        Value::Number(n) => {
            let n = n.as_f64().expect("a number");
            // An op that only clears memory or moves words has no operations.
            let may_be_zero = at.contains(".ops");
            assert!(n.is_finite() && (n > 0.0 || may_be_zero && n == 0.0), "{at} is {n}");
        }
        _ => {}
    }
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

fn close(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() < 1e-9
}

#[test]
fn figures_are_sound() {
    let Some(report) = bench(None) else { return };
    let json = serde_json::to_value(&report).expect("a report is plain data");
    check_numbers("", &json);
    let name = json.pointer("/adapter/name").and_then(Value::as_str).expect("the adapter is named");
    assert!(device().expect("it was measured").description.starts_with(name));

    let decode = json.pointer("/models/0/decode/measured").expect("decoding fits");
    // Tied embeddings: every weight is read. Keys and values: two layers, one head of 16.
    assert_eq!(number(decode, "/weight_bytes"), 4.0 * Architecture::from(tiny()).num_parameters() as f64);
    let position = number(decode, "/position");
    assert!((24.0..52.0).contains(&position), "{position}");
    assert_eq!(number(decode, "/cache_bytes"), 2.0 * position * (2 * 2 * 16 * 4) as f64);
    let step = number(decode, "/step_s/median");
    assert!(close(number(decode, "/tokens_per_s") * step, 2.0));
    let bytes = number(decode, "/weight_bytes") + number(decode, "/cache_bytes");
    assert!(close(number(decode, "/share_of_read") * number(&json, "/peaks/read/best") * step, bytes));

    let training = json.pointer("/models/0/training/measured").expect("training fits");
    assert!(close(number(training, "/tokens_per_s") * number(training, "/step_s/median"), 16.0));
    // Six operations per token and matrix weight, and attention.
    let matrices = Architecture::from(tiny())
        .shapes()
        .iter()
        .filter(|(_, shape)| shape.len() == 2)
        .fold(0, |sum, (_, s)| sum + s[0] * s[1]);
    let flops = number(training, "/model_flops") / (6 * 16 * matrices) as f64;
    assert!((1.0..1.2).contains(&flops), "{flops} of the matrices' operations");

    for (what, ops) in
        [(decode, ["matmul", "logits"]), (training, ["adamw", "linear_cross_entropy_backward"])]
    {
        let shares = [number(what, "/ops/0/share")];
        let totals =
            ["/share_of_read", "/share_of_peak"].map(|path| what.pointer(path).and_then(Value::as_f64));
        for share in shares.into_iter().chain(totals.into_iter().flatten()) {
            assert!(0.0 < share && share <= 1.0, "a share of {share} in {what:#}");
        }
        for op in ops {
            let all = what["ops"].as_array().expect("a list");
            assert!(all.iter().any(|it| it["op"] == op), "no {op} in {what:#}");
        }
    }
    for line in table::text(&report).lines() {
        assert!(line.chars().count() <= 100, "too wide: {line}");
    }
}

#[test]
fn what_does_not_fit_is_said_and_no_error() {
    let Some(report) = bench(Some(4096)) else { return };
    let model = &report.models[0];
    for why in [model.decode.skipped(), model.training.skipped()] {
        let why = why.expect("4 KiB are too few");
        assert!(why.starts_with("does not fit: needs ") && why.contains(" of "), "{why}");
    }
    assert!(table::text(&report).contains(" tiny: does not fit"));
}

#[test]
fn mistakes_are_named_before_anything_is_measured() {
    run(&mut smolter(&["bench", "--device", "reference"])).expect(2, &["--device", "adapter"]);
    run(&mut smolter(&["bench", "--json", "/no/such/folder/x.json"])).expect(2, &["/no/such/folder"]);
    let unknown = run(&mut smolter(&["bench", "--models", "smollm3"]));
    assert_eq!(unknown.code, Some(2), "{unknown:#?}");
    if device().is_some() {
        run(&mut smolter(&["bench", "--context", "9"])).expect(2, &["--context 9", "tokens"]);
        run(&mut smolter(&["bench", "--length", "9999"])).expect(2, &["--length 9999", "tokens"]);
    }
}
