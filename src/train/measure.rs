//! Short measurements of a device.

use crate::error::Result;
use crate::graph::Backend;
use crate::graph::{Executor, Graph};
use crate::ops::TensorType;
use crate::ops::matmul::Matmul;
use std::time::{Duration, Instant};

/// Floating-point operations per second of the linear layer's matmul at 512 x 576 x 1536, best of what runs in two
/// seconds.
pub fn matmul_speed(backend: &Backend) -> Result<f64> {
    let (m, k, n) = (512, 576, 1536);
    let mut graph = Graph::new();
    let x = graph.input("x", TensorType::f32(&[m, k]));
    let w = graph.input("w", TensorType::f32(&[n, k]));
    let program = graph.program("matmul");
    let y = graph.push(Matmul::linear(), &[x, w])[0];
    // A read that waits, of one number only: y's first row goes through another small product.
    let unit = graph.input("unit", TensorType::f32(&[1, n]));
    let small = graph.push(Matmul::linear(), &[unit, y])[0];
    graph.keep(small);
    let mut executor: Box<dyn Executor> = backend.execute_alone(&graph)?;
    let flops = graph.cost(program).flops;
    let begun = Instant::now();
    let mut best = Duration::MAX;
    while begun.elapsed() < Duration::from_secs(2) {
        let start = Instant::now();
        executor.run(program)?;
        executor.read(small)?;
        best = best.min(start.elapsed());
    }
    Ok(flops / best.as_secs_f64())
}
