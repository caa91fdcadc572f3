//! What flows between ops: typed, fixed-shape tensors named by index.

use std::fmt;

/// Index of a tensor in its graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ValueId(pub u32);

/// Element type of a tensor on the device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ElementType {
    /// IEEE single precision.
    F32,
    /// Token ids, labels, positions.
    U32,
}

impl ElementType {
    /// Size of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            ElementType::F32 | ElementType::U32 => 4,
        }
    }

    /// Its name in WGSL.
    pub const fn name(self) -> &'static str {
        match self {
            ElementType::F32 => "f32",
            ElementType::U32 => "u32",
        }
    }
}

/// Element type and shape of a dense row-major tensor.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub element: ElementType,
    /// Sizes, slowest-varying first.
    pub shape: Vec<usize>,
}

impl TensorType {
    /// An f32 tensor.
    pub fn f32(shape: &[usize]) -> Self {
        TensorType { element: ElementType::F32, shape: shape.to_vec() }
    }

    /// A u32 tensor.
    pub fn u32(shape: &[usize]) -> Self {
        TensorType { element: ElementType::U32, shape: shape.to_vec() }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.elements() as u64 * self.element.bytes()
    }

    /// Size of one row in bytes.
    pub fn row_bytes(&self) -> u64 {
        self.columns() as u64 * self.element.bytes()
    }

    /// Size of the fastest-varying dimension.
    pub fn columns(&self) -> usize {
        *self.shape.last().expect("a tensor has at least one dimension")
    }

    /// Number of rows when all but the last dimension are flattened.
    pub fn rows(&self) -> usize {
        self.elements() / self.columns().max(1)
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.element.name(), self.shape)
    }
}

/// Types of what an op makes, given the types of what it takes.
#[derive(Clone, Debug, Default)]
pub struct Signature {
    /// Results that later ops may use.
    pub outputs: Vec<TensorType>,
    /// Working memory that lives only while the op runs.
    pub scratch: Vec<TensorType>,
    /// `(output, input)` pairs that share memory: the op updates that input in place.
    pub in_place: Vec<(usize, usize)>,
}

impl Signature {
    /// Outputs only.
    pub fn of(outputs: impl Into<Vec<TensorType>>) -> Self {
        Signature { outputs: outputs.into(), ..Default::default() }
    }

    /// Adds working memory.
    pub fn with_scratch(mut self, scratch: impl Into<Vec<TensorType>>) -> Self {
        self.scratch = scratch.into();
        self
    }

    /// Declares that `output` overwrites `input`.
    pub fn updating(mut self, output: usize, input: usize) -> Self {
        self.in_place.push((output, input));
        self
    }
}

/// The types around one node, as the op sees them.
#[derive(Clone, Copy)]
pub struct Io<'a> {
    /// Types of the inputs.
    pub inputs: &'a [TensorType],
    /// What [`super::OpDef::infer`] said of them.
    pub signature: &'a Signature,
}

impl<'a> Io<'a> {
    /// Type of input `i`.
    pub fn input(&self, i: usize) -> &'a TensorType {
        &self.inputs[i]
    }

    /// Type of output `i`.
    pub fn output(&self, i: usize) -> &'a TensorType {
        &self.signature.outputs[i]
    }

    /// Type of scratch `i`.
    pub fn scratch(&self, i: usize) -> &'a TensorType {
        &self.signature.scratch[i]
    }
}

/// Work of one node, for time estimates and shares of peak.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts two.
    pub flops: f64,
    /// Bytes that must at least move between memory and the cores.
    pub bytes: f64,
}

impl std::ops::Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

impl Cost {
    /// `flops` per element of the larger side, and every tensor of `io` moved once.
    pub fn elementwise(io: &Io, flops: f64) -> Self {
        let ins: u64 = io.inputs.iter().map(TensorType::bytes).sum();
        let outs: u64 = io.signature.outputs.iter().map(TensorType::bytes).sum();
        let elements = io.signature.outputs.iter().map(TensorType::elements).max().unwrap_or(0);
        Cost { flops: flops * elements as f64, bytes: (ins + outs) as f64 }
    }
}
