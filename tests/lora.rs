//! T2: adapters: `smolter debug` against what PEFT makes of those in `fixtures/lora/` in f64.

use crate::hf_parity::{Tensors, only, read, worst};
use crate::support::{devices, run, smolter};
use smolter::checkpoint::TensorFile;
use std::path::{Path, PathBuf};

/// Limit of the worst tensor's error, and of the largest difference of logits; those of `lora_parity.py`.
const VALUES: f64 = 1e-9;
const LARGEST: f32 = 1e-5;

/// Models, and the adapters for them.
fn fixtures() -> [(PathBuf, PathBuf); 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    ["llama_grouped", "llama_empty_row"].map(|name| (folder.join(name), folder.join("lora").join(name)))
}

fn debug(job: &str, model: &Path, adapter: &Path, device: &str) -> Tensors {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out.safetensors");
    let mut command = smolter(&["debug", job, "--device", device, "--model"]);
    command.arg(model).arg("--adapter").arg(adapter).arg("--out").arg(&out);
    run(command.arg("--input").arg(model.join("input.safetensors"))).expect(0, &[]);
    read(&out, "")
}

fn differ(got: &Tensors, want: &Tensors) -> f32 {
    got.keys().flat_map(|name| got[name].iter().zip(&want[name])).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_and_gradients_agree_with_peft() {
    for (model, adapter) in fixtures() {
        let golden = adapter.join("golden.safetensors");
        let logits = only(&golden, "logits");
        let mut gradients = read(&golden, "grad.");
        gradients.extend(only(&golden, "loss"));
        for device in devices() {
            let what = |job: &str| format!("{} {job} on {device}", adapter.display());
            let got = debug("forward", &model, &adapter, device);
            assert!(worst(&got, &logits).0 <= VALUES, "{}: {:?}", what("forward"), worst(&got, &logits));
            assert!(differ(&got, &logits) <= LARGEST, "{}", what("forward"));
            // The adapter matters: without it the logits are far from these.
            assert!(worst(&only(&model.join("golden.safetensors"), "logits"), &logits).0 > 1e-3);
            let got = debug("backward", &model, &adapter, device);
            assert!(worst(&got, &gradients).0 <= VALUES, "{}: {:?}", what("backward"), worst(&got, &gradients));
        }
    }
}

#[test]
fn an_adapter_is_exported_as_it_is_and_merged() {
    for (model, adapter) in fixtures() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| place.path().join(name);
        let export = |flags: &[&str], out: &str| {
            run(smolter(&["export"]).arg(&model).arg("--out").arg(path(out)).args(flags))
        };
        let given = ["--adapter", adapter.to_str().expect("its name is Unicode")];
        export(&given, "alone").expect(0, &[]);
        // Its bytes are those of PEFT's file but for the order of its keys.
        let (alone, theirs) = (path("alone/adapter_model.safetensors"), adapter.join("adapter_model.safetensors"));
        assert!(read(&alone, "") == read(&theirs, ""), "{} differs", alone.display());
        let logits = debug("forward", &model, &adapter, "reference");
        // Its alpha as well, which may stand for that of rank-stabilised LoRA.
        let again = debug("forward", &model, &path("alone"), "reference");
        assert!(worst(&again, &logits).0 < 1e-13, "{:?}", worst(&again, &logits));

        export(&[given[0], given[1], "--merge"], "merged").expect(0, &[]);
        let file = TensorFile::open(&path("merged")).expect("a model");
        let plain = TensorFile::open(&model).expect("a model");
        assert!(file.names().eq(plain.names()));
        let input = model.join("input.safetensors");
        let mut command = smolter(&["debug", "forward", "--device", "reference", "--model"]);
        command.arg(path("merged")).arg("--input").arg(input).arg("--out").arg(path("out.safetensors"));
        run(&mut command).expect(0, &[]);
        let merged = read(&path("out.safetensors"), "");
        assert!(differ(&merged, &logits) <= LARGEST && worst(&merged, &logits).0 <= VALUES);

        export(&["--merge"], "other").expect(2, &["has no adapter", "--adapter"]);
        export(&given, "other.gguf").expect(2, &["has an adapter", "--merge"]);
        export(&[given[0], given[1], "--dtype", "q8_0"], "other").expect(2, &["--merge"]);
        run(smolter(&["export"]).arg(&adapter).arg("--out").arg(path("other"))).expect(2, &["is an adapter", "--adapter"]);
    }
}
