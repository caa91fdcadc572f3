//! T1: every op on the adapter, forward and backward, against f64.

use crate::support::device;
use smolter::gpu::Window;
use smolter::gpu::recording::Recording;
use smolter::graph::check::{CaseGraph, TOLERANCE};
use smolter::graph::{Backend, Plan, StorePlan, null};
use smolter::ops::all_cases;

#[test]
fn every_case_agrees_with_f64() {
    let Some(device) = device() else { return };
    let backend = Backend::Gpu(device.clone());
    let mut wrong = Vec::new();
    for case in all_cases() {
        let built = CaseGraph::new(&case);
        let plan = Plan::new(&built.graph, &device.caps, &StorePlan::default());
        null::check(&built.graph, &plan).unwrap();
        let total = plan.total();
        let store = backend.store(StorePlan::default()).unwrap();
        let mut executor = backend.execute(&built.graph, plan, &store).unwrap();
        assert_eq!(executor.allocated(), total, "{}: planned and allocated bytes differ", case.label());
        for finding in built.compare(&mut *executor, 11).unwrap() {
            if finding.nmse.is_nan() || finding.nmse > TOLERANCE {
                wrong.push(format!("{}: {:.1e}", finding.what, finding.nmse));
            }
        }
    }
    assert!(wrong.is_empty(), "off:\n{}", wrong.join("\n"));
}

/// Tensors of small elements may end within a word.
#[test]
fn bytes_that_are_no_whole_words_are_written_read_and_cleared() {
    let Some(device) = device() else { return };
    let staging = device.staging_buffer("staging", 7).unwrap();
    let buffer = device.tensor_buffer("odd", 2 * 256 + 7).unwrap();
    let window = |i: u64| Window { buffer: buffer.clone(), offset: i * 256, bytes: 7 };
    let read = |i: u64| {
        let copied = device.copy_to_staging(&window(i), &staging);
        device.read_mapped(&staging, 7, Some(copied)).unwrap()
    };
    for (i, bytes) in [[1; 7], [2; 7], [3; 7]].iter().enumerate() {
        device.write(&buffer, i as u64 * 256, bytes);
    }
    let mut recording = Recording::new(device.clone(), 0, Vec::new()).unwrap();
    recording.span("clear".into());
    recording.clear(window(1));
    recording.replay().unwrap();
    assert_eq!([read(0), read(1), read(2)], [[1; 7], [0; 7], [3; 7]]);
    device.check().unwrap();
}
