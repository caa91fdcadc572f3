//! T2: `smolter debug preference` against what torch makes of the same pairs in f64 (`fixtures/preference`).

use crate::support::{devices, run, smolter};
use smolter::checkpoint::TensorFile;
use smolter::graph::Backend;
use smolter::graph::recompute::Policy;
use smolter::nn::{Architecture, LlamaConfig};
use smolter::ops::host::{IGNORE, segments_of};
use smolter::ops::preference_loss::{PreferenceLoss, Variant};
use smolter::ops::testing::nmse;
use smolter::train::dpo;
use smolter::train::engine::{Engine, TrainGraph, initialize};
use smolter::train::objective::{Batch, Shape};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

type Tensors = BTreeMap<String, Vec<f64>>;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(path: &Path, prefix: &str) -> Tensors {
    let file = TensorFile::open(path).expect("a tensor file");
    let values = |name: &str| file.read_f32(name, file.shape(name).expect("its shape")).expect("its values");
    let wide = |name: &str| values(name).into_iter().map(f64::from).collect();
    let names = file.names().filter(|name| name.starts_with(prefix));
    names.map(|name| (name[prefix.len()..].to_string(), wide(name))).collect()
}

/// The command for a loss, with the options of the fixture.
fn command(variant: Variant, device: &str, out: &Path) -> Command {
    let mut command = smolter(&["debug", "preference", "--device", device, "--loss", variant.name()]);
    command.args(["--beta", "0.5", "--label-smoothing", "0.1", "--gamma", "0.7", "--lambda", "3.0"]);
    command.arg("--model").arg(fixture("llama_grouped"));
    command.arg("--input").arg(fixture("preference/input.safetensors")).arg("--out").arg(out);
    if variant.has_reference() {
        command.arg("--reference").arg(fixture("llama_empty_row"));
    }
    command
}

/// The worst relative error of what the loss is made of, and the error of the gradients.
fn errors(mut got: Tensors, mut want: Tensors) -> (f64, f64) {
    let (head, norm) = (want.remove("head").expect("head"), want.remove("norm").expect("norm"));
    let gradients: Vec<Vec<f64>> = got.extract_if(.., |name, _| name.contains('.')).map(|it| it.1).collect();
    assert_eq!(gradients.len(), norm.len());
    let heads = gradients.iter().zip(head.chunks(16)).map(|(got, want)| nmse(&got[..16], want));
    let norms: Vec<f64> = gradients.iter().map(|it| it.iter().map(|x| x * x).sum::<f64>().sqrt()).collect();
    let gradients = heads.chain([nmse(&norms, &norm)]).fold(0.0, f64::max);
    assert!(got.keys().eq(want.keys()), "{:?} instead of {:?}", got.keys(), want.keys());
    let pairs = got.values().flatten().zip(want.values().flatten());
    (pairs.map(|(got, want)| ((got - want) / want).abs()).fold(0.0, f64::max), gradients)
}

#[test]
fn losses_and_gradients_of_pairs_are_torchs() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.safetensors");
    for device in devices() {
        for variant in Variant::ALL {
            run(&mut command(variant, device, &out)).expect(0, &[]);
            let want = read(&fixture("preference/expected.safetensors"), &format!("{}.", variant.name()));
            let got = read(&out, "");
            let (values, gradients) = errors(got.clone(), want.clone());
            // On a device rewards are small differences of sums that are rounded.
            let limit = if device == "reference" { 1e-6 } else { 1e-5 };
            assert!(values < limit, "{variant:?} on {device}: {values:e}");
            assert!(gradients < 1e-9, "{variant:?} on {device}: gradients {gradients:e}");
            // A loss or a gradient that is a hundredth off is seen.
            let scaled = |prefix: &str| {
                let mut got = got.clone();
                let hit = got.iter_mut().filter(|(name, _)| name.starts_with(prefix));
                hit.flat_map(|(_, values)| values).for_each(|x| *x *= 1.01);
                errors(got, want.clone())
            };
            assert!(scaled("loss").0 > limit && scaled("model.layers.1.mlp.up").1 > 1e-9);
        }
    }
}

#[test]
fn mistakes_in_pairs_are_placed() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.safetensors");
    let mut needless = command(Variant::Orpo, "reference", &out);
    run(needless.args(["--reference", "x"])).expect(2, &["orpo", "leave out --reference"]).is_one_line();
    for (flag, words) in [
        (["--loss", "dpo"], "sigmoid, hinge, ipo, orpo, simpo"),
        (["--beta", "0"], "--beta 0"),
        (["--label-smoothing", "0.7"], "--label-smoothing 0.7"),
        (["--gamma", "inf"], "--gamma inf"),
        (["--lambda", "nan"], "--lambda NaN"),
    ] {
        let mut command = smolter(&["debug", "preference", "--model", "m", "--input", "i", "--out", "o"]);
        if flag[0] != "--loss" {
            command.args(["--loss", "simpo"]);
        }
        run(command.args(flag)).expect(2, &[words]).is_one_line();
    }
    let mut none = smolter(&["debug", "preference", "--model", "m", "--input", "i", "--out", "o"]);
    run(none.args(["--loss", "ipo"])).expect(2, &["give --reference"]).is_one_line();

    let input = folder.path().join("in.safetensors");
    let tensor = |name: &str, rows: usize, values: &[i64]| {
        (name.to_string(), vec![rows, values.len() / rows], values.to_vec())
    };
    let ids = |side: &str, rows: usize, values: &[i64]| tensor(&format!("{side}_input_ids"), rows, values);
    let labels = |side: &str, rows: usize, values: &[i64]| tensor(&format!("{side}_labels"), rows, values);
    let chosen = [ids("chosen", 1, &[1, 2, 3]), labels("chosen", 1, &[1, 2, 3])];
    for (rejected, words) in [
        (vec![ids("rejected", 1, &[1, 2])], "rejected_labels"),
        (vec![ids("rejected", 1, &[1, 61]), labels("rejected", 1, &[1, 2])], "rejected_input_ids: 61"),
        (vec![ids("rejected", 1, &[1, 2]), labels("rejected", 1, &[1])], "differ in shape"),
        (vec![ids("rejected", 1, &[1, 2]), labels("rejected", 1, &[1, -100])], "rejected_labels: row 0"),
        (vec![ids("rejected", 2, &[1, 2]), labels("rejected", 2, &[1, 2])], "a row each per pair"),
    ] {
        write_i64(&input, &[chosen.to_vec(), rejected].concat());
        let mut command = smolter(&["debug", "preference", "--device", "reference", "--loss", "simpo"]);
        command
            .arg("--model")
            .arg(fixture("llama_grouped"))
            .arg("--input")
            .arg(&input)
            .arg("--out")
            .arg(&out);
        run(&mut command).expect(2, &["in.safetensors", words]).is_one_line();
    }
}

/// A safetensors file of whole numbers.
fn write_i64(path: &Path, tensors: &[(String, Vec<usize>, Vec<i64>)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|it| it.2.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for ((name, shape, _), bytes) in tensors.iter().zip(&bytes) {
        let place = [at, at + bytes.len()];
        at += bytes.len();
        header.insert(
            name.clone(),
            serde_json::json!({ "dtype": "I64", "shape": shape, "data_offsets": place }),
        );
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let length = (header.len() as u64).to_le_bytes().to_vec();
    std::fs::write(path, [vec![length, header], bytes].concat().concat()).expect("a file");
}

/// Answers of different lengths as rows of their own, and the same packed into rows where they do not see each other, in a
/// pass with room for more.
#[test]
fn packed_pairs_are_as_if_alone() {
    const LENGTHS: [usize; 4] = [9, 5, 14, 2];
    let model = Architecture::from(LlamaConfig {
        vocab_size: 97,
        hidden_size: 32,
        intermediate_size: 44,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 16,
        initializer_std: 0.3,
        ..LlamaConfig::smollm2_135m()
    });
    // Where each sequence begins, of `length` tokens a row.
    let pass =
        |backend: &Backend, variant, segmented: bool, rows: usize, length: usize, firsts: [usize; 4]| {
            let loss = PreferenceLoss { variant, beta: 0.5, label_smoothing: 0.1, gamma: 0.3, lambda: 0.2 };
            let shape = Shape { micro_batch: rows, passes: 1, length, recompute: Policy::None };
            let room = if segmented { 5 } else { 2 };
            let add =
                |graph: &mut _, model: &_, shape| dpo::add_loss(graph, model, shape, &loss, room, segmented);
            let (mut engine, store) =
                Engine::alone(backend, TrainGraph::new(&model, add, shape)).expect("an engine");
            initialize(&store, &model, 3);
            let (mut ids, mut labels) = (vec![0; rows * length], vec![IGNORE; rows * length]);
            for (sequence, (first, of)) in firsts.into_iter().zip(LENGTHS).enumerate() {
                let token = |t: usize| ((sequence * 31 + t * t * 7 + 5) % 97) as u32;
                for t in 0..of {
                    ids[first + t] = token(t);
                    labels[first + t] = if t + 1 < of { token(t + 1) } else { IGNORE };
                }
            }
            let ranges = firsts
                .into_iter()
                .zip(LENGTHS)
                .map(|(first, of)| [first, first + of].map(|at| at as u32))
                .collect();
            let batch = Batch {
                ids,
                labels,
                weights: vec![1.0; 2],
                datasets: vec![0; rows],
                starts: segments_of(&LENGTHS, length).0,
                ranges,
                reference: if variant.has_reference() { vec![-20.0, -15.5, -40.0, -4.0] } else { vec![] },
            };
            let ticket = engine.micro_batch(&batch, 0.5).expect("a pass");
            engine.fetch(ticket).expect("losses");
            let (mut losses, mut log_probs) = engine.read_pairs().expect("losses");
            losses.truncate(2);
            log_probs.truncate(4);
            let names = model.shapes().into_iter().map(|(name, _)| name);
            let gradients: Vec<f32> =
                names.flat_map(|name| engine.read_gradient(&name).expect("it")).collect();
            [losses, log_probs, gradients.into_iter().map(f64::from).collect()]
        };
    for device in devices() {
        let backend = Backend::open(device).expect("it opens");
        for variant in Variant::ALL {
            let alone = pass(&backend, variant, false, 4, 14, [0, 14, 28, 42]);
            let packed = pass(&backend, variant, true, 1, 30, [0, 9, 14, 28]);
            for (packed, alone) in packed.iter().zip(&alone) {
                let error = nmse(packed, alone);
                assert!(error < 1e-9, "{variant:?} on {device}: {error:e}");
            }
        }
    }
}
