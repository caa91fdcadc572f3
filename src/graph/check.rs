//! Runs an op's cases: values and gradients on a device against the f64 reference, and the reference's gradients
//! against finite differences. Tests and `doctor` share it.

use super::backward::{Accumulate, backward};
use super::reference::ReferenceExecutor;
use super::{Executor, Graph, Kind, ProgramId};
use crate::error::Result;
use crate::ops::testing::nmse;
use crate::ops::{Case, Data, ElementType, Fill, HostTensor, TensorType, ValueId};

/// Largest error of an f32 kernel against f64.
pub const TOLERANCE: f64 = 1e-7;

/// A case as a graph: its inputs first, then the op, and its gradients where it has any.
pub struct CaseGraph {
    /// The graph.
    pub graph: Graph,
    program: ProgramId,
    inputs: Vec<ValueId>,
    outputs: Vec<ValueId>,
    /// (output, its given gradient)
    seeds: Vec<(ValueId, ValueId)>,
    /// (input index, its gradient)
    gradients: Vec<(usize, ValueId)>,
    case: Case,
}

/// Error of one tensor of a case.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Case and tensor.
    pub what: String,
    /// Normalised mean squared error.
    pub nmse: f64,
}

impl CaseGraph {
    /// Builds the graph of a case.
    pub fn new(case: &Case) -> Self {
        let mut graph = Graph::new();
        let inputs: Vec<ValueId> = case
            .inputs
            .iter()
            .enumerate()
            .map(|(i, (ty, _))| graph.input(&format!("input {i}"), ty.clone()))
            .collect();
        for (_, input) in case.op.def().infer(&case.types()).in_place {
            // Slabs of inputs are read-only in a dispatch; what is updated is state.
            graph.set_kind(inputs[input], Kind::State);
        }
        let program = graph.program("case");
        let outputs = graph.push(case.op.clone(), &inputs);
        let (mut seeds, mut gradients) = (Vec::new(), Vec::new());
        if !case.differentiable.is_empty() {
            // Further outputs are what the op saves for its gradient.
            let seed = graph.input("seed", graph.value(outputs[0]).ty.clone());
            seeds.push((outputs[0], seed));
            let leaves: Vec<ValueId> = case.differentiable.iter().map(|&i| inputs[i]).collect();
            let found = backward(&mut graph, &seeds, &leaves, Accumulate::No);
            gradients = case.differentiable.iter().map(|&i| (i, found[&inputs[i]])).collect();
        }
        outputs.iter().for_each(|&id| {
            if graph.value(id).root == id {
                graph.keep(id)
            }
        });
        CaseGraph { graph, program, inputs, outputs, seeds, gradients, case: case.clone() }
    }

    /// Contents of all inputs and seeds.
    fn contents(&self, seed: u64) -> Vec<(ValueId, Data<f64>)> {
        let mut contents: Vec<_> = self.inputs.iter().copied().zip(self.case.data(seed)).collect();
        for (i, &(_, id)) in self.seeds.iter().enumerate() {
            let ty: TensorType = self.graph.value(id).ty.clone();
            let data =
                Case { inputs: vec![(ty, Fill::Normal(1.0))], ..self.case.clone() }.data(seed + 1 + i as u64);
            contents.extend(data.into_iter().map(|data| (id, data)));
        }
        contents
    }

    /// Errors of every output and gradient of the case on `executor` (made from this graph) against f64.
    pub fn compare(&self, executor: &mut dyn Executor, seed: u64) -> Result<Vec<Finding>> {
        let mut oracle = ReferenceExecutor::<f64>::alone(self.graph.clone());
        for (id, data) in self.contents(seed) {
            match &data {
                Data::Float(x) => {
                    executor.write(id, HostTensor::F32(x.iter().map(|&x| x as f32).collect()));
                }
                Data::Index(x) => executor.write(id, x.into()),
            }
            oracle.set(id, data);
        }
        executor.run(self.program)?;
        oracle.run(self.program)?;
        let named = self.outputs.iter().enumerate().map(|(i, &id)| (format!("output {i}"), id));
        let gradients = self.gradients.iter().map(|&(i, id)| (format!("gradient of input {i}"), id));
        named
            .chain(gradients)
            .map(|(name, id)| {
                let got = executor.read(id)?;
                let (got, want): (Vec<f64>, Vec<f64>) = match oracle.contents(id) {
                    Data::Float(want) => (got.into_f32().into_iter().map(f64::from).collect(), want.clone()),
                    Data::Index(want) => {
                        let widen = |x: &[u32]| x.iter().map(|&x| x as f64).collect();
                        (widen(&got.into_u32()), widen(want))
                    }
                };
                let error = nmse(&got, &want);
                Ok(Finding { what: format!("{} {name}", self.case.label()), nmse: error })
            })
            .collect()
    }

    /// Largest relative difference between the reference's gradients and central differences of its outputs, over
    /// a sample of elements of every differentiable input. `None` where the op has no gradient.
    pub fn finite_differences(&self, seed: u64) -> Result<Option<f64>> {
        if self.gradients.is_empty() {
            return Ok(None);
        }
        const STEP: f64 = 1e-4;
        const SAMPLES: usize = 12;
        let contents = self.contents(seed);
        let mut oracle = ReferenceExecutor::<f64>::alone(self.graph.clone());
        let mut run = |changed: Option<(ValueId, usize, f64)>| -> Result<(f64, Vec<Vec<f64>>)> {
            for (id, data) in &contents {
                let mut data = data.clone();
                if let (Some((target, element, step)), Data::Float(x)) = (changed, &mut data)
                    && target == *id
                {
                    x[element] += step;
                }
                oracle.set(*id, data);
            }
            oracle.run(self.program)?;
            let loss = self.seeds.iter().map(|&(output, seed)| {
                let (y, dy) = (oracle.contents(output).floats(), oracle.contents(seed).floats());
                y.iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>()
            });
            let loss = loss.sum();
            Ok((loss, self.gradients.iter().map(|&(_, id)| oracle.contents(id).floats().to_vec()).collect()))
        };
        let (_, gradients) = run(None)?;
        let mut worst = 0.0f64;
        for (&(input, _), gradient) in self.gradients.iter().zip(&gradients) {
            assert_eq!(self.case.inputs[input].0.element, ElementType::F32);
            let scale = gradient.iter().fold(1e-3f64, |a, &g| a.max(g.abs()));
            for element in (0..gradient.len()).step_by(gradient.len().div_ceil(SAMPLES)) {
                let (above, _) = run(Some((self.inputs[input], element, STEP)))?;
                let (below, _) = run(Some((self.inputs[input], element, -STEP)))?;
                worst = worst.max(((above - below) / (2.0 * STEP) - gradient[element]).abs() / scale);
            }
        }
        Ok(Some(worst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::all_cases;

    #[test]
    fn gradients_agree_with_finite_differences() {
        for case in all_cases() {
            if let Some(error) = CaseGraph::new(&case).finite_differences(7).unwrap() {
                assert!(error < 1e-5, "{}: off by {error:e}", case.label());
            }
        }
    }

    #[test]
    fn the_f32_reference_agrees_with_f64() {
        for case in all_cases() {
            let built = CaseGraph::new(&case);
            let mut executor = ReferenceExecutor::<f32>::alone(built.graph.clone());
            for finding in built.compare(&mut executor, 3).unwrap() {
                assert!(finding.nmse < TOLERANCE, "{}: {:e}", finding.what, finding.nmse);
            }
        }
    }
}
