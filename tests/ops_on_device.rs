//! T1: every op on the adapter, forward and backward, against f64.

use crate::support::device;
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
