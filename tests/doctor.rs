//! `smolter doctor`: the adapter is healthy in every variant, and a wrong kernel is found.

use crate::support::{Outcome, device, run, smolter};
use std::ffi::OsStr;
use std::path::Path;

const NONE: [(&str, &str); 0] = [];

fn doctor(settings: &[(&str, impl AsRef<OsStr>)]) -> Outcome {
    run(smolter(&["doctor"]).envs(settings.iter().map(|(name, value)| (name, value))))
}

/// Requires a healthy device, and each of `words` in the report.
fn healthy(settings: &[(&str, impl AsRef<OsStr>)], words: &[&str]) {
    let outcome = doctor(settings).expect(0, &[]);
    for word in words {
        assert!(outcome.stdout.contains(word), "no '{word}' in {outcome:#?}");
    }
}

#[test]
fn the_adapter_is_healthy() {
    if device().is_some() {
        healthy(
            &NONE,
            &[
                "healthy",
                "matmul, native",
                "10 training steps, weights",
                "adapters, finite differences",
                "10 training steps of adapters",
                "attention, finite differences",
            ],
        );
    }
}

#[test]
fn it_is_healthy_with_checked_shaders() {
    if device().is_some() {
        // The `lanes` kernels take the software adapter minutes to compile with these checks.
        healthy(&[("SMOLTER_CHECKED", "1"), ("SMOLTER_DISABLE", "lanes")], &["healthy"]);
    }
}

#[test]
fn every_vector_width_is_healthy() {
    let Some(device) = device().filter(|device| device.description.contains("llvmpipe")) else { return };
    for (bits, lanes) in [(128, 4), (256, 8), (512, 16)] {
        // The machine's own width is what every other test here runs with.
        if !device.description.contains(&format!("{bits} bits")) {
            let settings = [("LP_NATIVE_VECTOR_WIDTH", bits.to_string())];
            healthy(&settings, &["healthy", &format!("subgroups of {lanes}")]);
        }
    }
}

#[test]
fn it_is_healthy_without_optional_features() {
    if device().is_some() {
        for (disabled, kernels, without) in
            [("subgroups", "kernels", "subgroups of"), ("lanes,f16", "tiled kernels", "f16")]
        {
            let outcome = doctor(&[("SMOLTER_DISABLE", disabled)]).expect(0, &[]);
            let line = outcome.stdout.lines().find(|line| line.contains(kernels)).expect("what is checked");
            assert!(outcome.stdout.contains("healthy") && !line.contains(without), "{outcome:#?}");
        }
    }
}

#[test]
fn a_wrong_kernel_is_found_and_named() {
    if device().is_none() {
        return;
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/swiglu.wgsl");
    let right = std::fs::read_to_string(own).expect("the shader");
    let line = "b_dup[i] = dy * g * s;";
    assert!(right.contains(line), "the shader has changed: plant another fault");
    // Wrong by a thousandth, and not even WGSL.
    for wrong in ["b_dup[i] = dy * g * s * 1.001;", "b_dup[i] = no_such_thing;"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("swiglu.wgsl"), right.replace(line, wrong)).expect("a shader");
        let outcome = doctor(&[("SMOLTER_SHADERS", folder.path())]).expect(1, &["swiglu"]);
        let named =
            |name: &str| outcome.stdout.lines().any(|line| line.starts_with(&format!("wrong: {name},")));
        assert!(named("swiglu") && !named("matmul"), "{outcome:#?}");
    }
}
