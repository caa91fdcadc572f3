//! `smolter doctor`: the adapter is healthy in every variant, and a wrong kernel is found.

use crate::support::{Outcome, device, run, smolter};
use std::path::Path;

fn doctor(settings: &[(&str, &str)]) -> Outcome {
    run(smolter(&["doctor"]).envs(settings.iter().copied()))
}

/// Healthy, with as many kernel variants as `settings` leave.
fn healthy(settings: &[(&str, &str)], words: &[&str]) {
    let outcome = doctor(settings).expect(0, &[]);
    for word in words {
        assert!(outcome.stdout.contains(word), "{settings:?}: no '{word}' in {outcome:#?}");
    }
}

/// Whether the adapter is Mesa's software one, whose vectors can be set.
fn llvmpipe() -> bool {
    device().is_some_and(|device| device.description.contains("llvmpipe"))
}

#[test]
fn the_adapter_is_healthy() {
    if device().is_some() {
        healthy(&[], &["healthy", "matmul, native", "10 training steps, weights", "attention, finite differences"]);
    }
}

#[test]
fn it_is_healthy_with_checked_shaders() {
    if device().is_some() {
        healthy(&[("SMOLTER_CHECKED", "1")], &["healthy"]);
    }
}

#[test]
fn every_vector_width_is_healthy() {
    if llvmpipe() {
        for (bits, lanes) in [("128", "Some(4)"), ("256", "Some(8)"), ("512", "Some(16)")] {
            healthy(&[("LP_NATIVE_VECTOR_WIDTH", bits)], &["healthy", &format!("subgroup: {lanes}")]);
        }
    }
}

#[test]
fn it_is_healthy_without_optional_features() {
    if llvmpipe() {
        healthy(&[("SMOLTER_DISABLE", "subgroups")], &["healthy", "subgroup: None"]);
        healthy(&[("SMOLTER_DISABLE", "lanes,f16,timestamps")], &["healthy", "family: Tiled", "f16: false"]);
    }
}

#[test]
fn a_wrong_kernel_is_found_and_named() {
    if device().is_none() {
        return;
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/swiglu.wgsl");
    let right = std::fs::read_to_string(own).expect("the shader");
    for (line, wrong) in [
        ("y[i] = g * sigmoid(g) * up[i];", "y[i] = g * sigmoid(g) * up[i] * 1.001;"),
        ("b_dup[i] = dy * g * s;", "b_dup[i] = dy * g * s * 1.001;"),
        ("b_dup[i] = dy * g * s;", "b_dup[i] = no_such_thing;"),
    ] {
        assert!(right.contains(line), "the shader has changed: plant another fault");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("swiglu.wgsl"), right.replace(line, wrong)).expect("a shader");
        let outcome = doctor(&[("SMOLTER_SHADERS", &folder.path().to_string_lossy())]).expect(1, &["swiglu"]);
        let named = |name: &str| outcome.stdout.lines().any(|line| line.starts_with(&format!("wrong: {name},")));
        assert!(named("swiglu") && !named("matmul"), "{outcome:#?}");
    }
}
