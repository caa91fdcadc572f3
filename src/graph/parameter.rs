//! Parameters: what each is called and what is done with it, and how it lies in a graph.

use crate::ops::{ElementType, TensorType, ValueId};

/// How a parameter begins.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Initial {
    /// All ones: normalisation weights.
    Ones,
    /// All zeros: what adapters add to their layer.
    Zeros,
    /// Normal numbers around 0 with this deviation.
    Normal(f64),
    /// Uniform numbers from minus this to this.
    Uniform(f64),
}

/// What a parameter is; an architecture lists one for each.
#[derive(Clone, PartialEq, Debug)]
pub struct ParameterSpec {
    /// Hugging Face key.
    pub name: String,
    /// Rows first.
    pub shape: Vec<usize>,
    /// How it begins.
    pub initial: Initial,
    /// Whether it is trained; a frozen one has no gradient and no optimizer state.
    pub trained: bool,
    /// Whether weight decay applies to it.
    pub decayed: bool,
}

/// A parameter in a graph: one value, or several row shards where it would not fit a storage binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// What it is.
    pub spec: ParameterSpec,
    /// The shards, rows in order.
    pub shards: Vec<ValueId>,
}

impl Parameter {
    /// The value of a parameter that is not split.
    pub fn whole(&self) -> ValueId {
        assert_eq!(self.shards.len(), 1, "{} is split into shards", self.spec.name);
        self.shards[0]
    }
}

/// Plans use the guaranteed limit on every device, so that one plan holds for all of them.
pub use crate::gpu::kernel::MAX_BINDING;

/// Name and type of every shard of a parameter: as few equal ones as bindings allow, starting at multiples of 64 rows.
pub fn shards(name: &str, shape: &[usize], element: ElementType) -> Vec<(String, TensorType)> {
    let whole = TensorType { element, shape: shape.to_vec() };
    let (rows, count) = (shape[0], whole.bytes().div_ceil(MAX_BINDING).max(1) as usize);
    let most = rows.div_ceil(count).next_multiple_of(64).min(rows);
    let shard = |(i, start): (usize, usize)| {
        let mut ty = whole.clone();
        ty.shape[0] = most.min(rows - start);
        let name = if most == rows { name.to_string() } else { format!("{name}#{i}") };
        (name, ty)
    };
    (0..rows).step_by(most.max(1)).enumerate().map(shard).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_split_where_a_binding_ends() {
        let rows = |shape: &[usize]| -> Vec<usize> {
            shards("w", shape, ElementType::F32).iter().map(|(_, ty)| ty.shape[0]).collect()
        };
        assert_eq!(rows(&[49152, 576]), [49152]);
        assert_eq!(rows(&[49152, 960]), [24576, 24576]);
        assert_eq!(rows(&[49152, 2048]), [16384, 16384, 16384]);
        assert_eq!(rows(&[7]), [7]);
        let odd = shards("w", &[70_001, 1000], ElementType::F32);
        assert_eq!(odd.iter().map(|(_, ty)| ty.shape[0]).sum::<usize>(), 70_001);
        assert!(odd.iter().all(|(_, ty)| ty.bytes() <= MAX_BINDING));
        assert_eq!((odd[1].0.as_str(), rows(&[7]).len()), ("w#1", 1));
    }
}
