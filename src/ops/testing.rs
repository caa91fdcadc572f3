//! Test cases: one list per op drives the value check, the gradient check, `doctor` and the benchmark.

use super::host::{IGNORE, order_of};
use super::random::normal;
use super::{Data, Op, TensorType};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How an input of a case is filled.
#[derive(Clone, Debug, PartialEq)]
pub enum Fill {
    /// Normal with this standard deviation.
    Normal(f64),
    /// Normal around 1 with deviation 0.2: normalisation weights.
    AroundOne,
    /// Squares of normals with this deviation: second moments.
    Squares(f64),
    /// Token ids below this, with repeats.
    Ids(u32),
    /// Labels below this; every fifth one ignored.
    Labels(u32),
    /// Positions of the ids in input `.0`, sorted by id and then position.
    OrderOf(usize),
    /// Exactly these floats.
    Floats(Vec<f64>),
    /// Exactly these indices.
    Indices(Vec<u32>),
}

/// One op on one set of shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The op.
    pub op: Op,
    /// Type and contents of each input.
    pub inputs: Vec<(TensorType, Fill)>,
    /// Inputs whose gradients are checked.
    pub differentiable: Vec<usize>,
}

impl Case {
    /// A case of `op`; add inputs in order.
    pub fn new(op: impl Into<Op>) -> Self {
        Case { op: op.into(), inputs: Vec::new(), differentiable: Vec::new() }
    }

    /// An f32 input whose gradient is checked too.
    pub fn with(mut self, shape: &[usize], fill: Fill) -> Self {
        self.differentiable.push(self.inputs.len());
        self.inputs.push((TensorType::f32(shape), fill));
        self
    }

    /// An input without gradient.
    pub fn fixed(mut self, ty: TensorType, fill: Fill) -> Self {
        self.inputs.push((ty, fill));
        self
    }

    /// Types of the inputs.
    pub fn types(&self) -> Vec<TensorType> {
        self.inputs.iter().map(|(ty, _)| ty.clone()).collect()
    }

    /// `name(types)`, to tell the case in a report.
    pub fn label(&self) -> String {
        let types: Vec<String> = self.inputs.iter().map(|(ty, _)| format!("{ty:?}")).collect();
        format!("{}({})", self.op.def().name(), types.join(", "))
    }

    /// Contents of every input, rounded to f32, the same for the same seed.
    pub fn data(&self, seed: u64) -> Vec<Data<f64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut all: Vec<Data<f64>> = Vec::new();
        for (ty, fill) in &self.inputs {
            let n = ty.elements();
            let mut normals = |scale: f64| normal(&mut rng, n, scale);
            let data = match fill {
                Fill::Normal(std) => Data::Float(normals(*std)),
                Fill::AroundOne => {
                    Data::Float(normals(0.2).iter().map(|x| (1.0 + x) as f32 as f64).collect())
                }
                Fill::Squares(std) => {
                    Data::Float(normals(*std).iter().map(|x| (x * x) as f32 as f64).collect())
                }
                Fill::Ids(below) => Data::Index((0..n).map(|_| rng.random_range(0..*below)).collect()),
                Fill::Labels(below) => Data::Index(
                    (0..n).map(|i| if i % 5 == 4 { IGNORE } else { rng.random_range(0..*below) }).collect(),
                ),
                Fill::OrderOf(ids) => Data::Index(order_of(all[*ids].indices())),
                Fill::Floats(x) => Data::Float(x.iter().map(|&x| x as f32 as f64).collect()),
                Fill::Indices(x) => Data::Index(x.clone()),
            };
            all.push(data);
        }
        all
    }
}

/// Normalised mean squared error of `got` against `want`: sum of squared differences over sum of squares.
/// Not finite if anything in `got` is not. The denominator counts at least 1e-6 per element: where the true value is
/// zero, rounding must not look like an error.
pub fn nmse(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "nmse: lengths differ");
    let error: f64 = got.iter().zip(want).map(|(g, w)| (g - w) * (g - w)).sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    error / norm.max(1e-6 * want.len() as f64)
}
