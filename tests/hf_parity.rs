//! T2: `smolter debug` on the models of `fixtures/`, against what transformers and torch make of them in f64.

use crate::support::{devices, fixtures, run, smolter};
use smolter::checkpoint::TensorFile;
use std::collections::BTreeMap;
use std::path::Path;

/// Limits of the worst tensor's error; those of `parity.py`.
const VALUES: f64 = 1e-9;
const WEIGHTS: f64 = 1e-7;
const UPDATE: f64 = 1e-6;

/// Values by name.
pub type Tensors = BTreeMap<String, Vec<f32>>;

/// The f32 tensors of a file whose names begin with `prefix`, without it.
pub fn read(path: &Path, prefix: &str) -> Tensors {
    let file = TensorFile::open(path).expect("a tensor file");
    let names = file.names().filter(|name| name.starts_with(prefix) && *name != "loss_f64");
    names
        .map(|name| {
            let values = file.read_f32(name, file.shape(name).expect("its shape")).expect("its values");
            (name[prefix.len()..].to_string(), values)
        })
        .collect()
}

/// Normalised mean squared error; infinite where something is not a number.
fn nmse(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(&g, &w)| (g as f64 - w as f64).powi(2)).sum();
    let scale: f64 = want.iter().map(|&w| (w as f64).powi(2)).sum();
    let ratio = if error == 0.0 { 0.0 } else { error / scale };
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}

/// The worst tensor's error and name. Both sides must have the same tensors.
pub fn worst(got: &Tensors, want: &Tensors) -> (f64, String) {
    if got.keys().ne(want.keys()) {
        return (f64::INFINITY, format!("{:?} instead of {:?}", got.keys(), want.keys()));
    }
    let errors = got.iter().map(|(name, got)| (nmse(got, &want[name]), name.clone()));
    errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, "there are no tensors".into()))
}

/// Error of the change since `initial` of all weights taken as one: it shows what vanishes beside the weights.
fn update_error(got: &Tensors, want: &Tensors, initial: &Tensors) -> f64 {
    let change = |tensors: &Tensors| -> Vec<f32> {
        initial.iter().flat_map(|(name, start)| tensors[name].iter().zip(start).map(|(w, s)| w - s)).collect()
    };
    nmse(&change(got), &change(want))
}

fn debug(job: &str, fixture: &Path, device: &str) -> Tensors {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out.safetensors");
    let mut command = smolter(&["debug", job, "--device", device, "--model"]);
    command.arg(fixture).arg("--input").arg(fixture.join("input.safetensors")).arg("--out").arg(&out);
    if job == "step" {
        command.args(["--steps", "10"]);
    }
    run(&mut command).expect(0, &[]);
    read(&out, "")
}

#[track_caller]
fn check(what: &str, (error, name): (f64, String), limit: f64) {
    assert!(error <= limit, "{what}: {name}: error {error:.1e} is above {limit:.0e}");
}

#[test]
fn logits_gradients_and_steps_agree_with_transformers() {
    for fixture in fixtures() {
        let golden = fixture.join("golden.safetensors");
        let (steps, initial) = (read(&golden, "step10."), read(&fixture.join("model.safetensors"), ""));
        let mut gradients = read(&golden, "grad.");
        gradients.extend(only(&golden, "loss"));
        for device in devices() {
            let what = |job: &str| format!("{} {job} on {device}", fixture.display());
            check(
                &what("forward"),
                worst(&debug("forward", &fixture, device), &only(&golden, "logits")),
                VALUES,
            );
            check(&what("backward"), worst(&debug("backward", &fixture, device), &gradients), VALUES);
            let got = debug("step", &fixture, device);
            check(&what("step"), worst(&got, &steps), WEIGHTS);
            check(&what("step"), (update_error(&got, &steps, &initial), "update".into()), UPDATE);
        }
    }
}

/// One tensor of a file.
pub fn only(path: &Path, name: &str) -> Tensors {
    let mut all = read(path, "");
    all.retain(|other, _| other == name);
    all
}

#[test]
fn planted_faults_are_seen() {
    let fixture = &fixtures()[0];
    let golden = fixture.join("golden.safetensors");
    let (want, initial) = (read(&golden, "step10."), read(&fixture.join("model.safetensors"), ""));
    assert_eq!(worst(&want, &want).0, 0.0);
    let error_after = |fault: &dyn Fn(&mut Tensors)| {
        let mut got = want.clone();
        fault(&mut got);
        worst(&got, &want).0
    };
    let name = want.keys().next_back().expect("a tensor").clone();
    assert!(error_after(&|got| drop(got.remove(&name))).is_infinite());
    assert!(error_after(&|got| got.get_mut(&name).expect("it is there")[0] = f32::NAN).is_infinite());
    assert!(error_after(&|got| got.get_mut(&name).expect("it is there").reverse()) > WEIGHTS);
    assert!(error_after(&|got| got.get_mut(&name).expect("it is there")[0] += 0.01) > WEIGHTS);
    // Ten steps without weight decay: too little to see in the weights, enough in their change.
    let mut got = want.clone();
    got.values_mut().flatten().for_each(|x| *x *= 1.0 + 10.0 * 1e-3 * 0.01);
    assert!(worst(&got, &want).0 < WEIGHTS && update_error(&got, &want, &initial) > UPDATE);
}
