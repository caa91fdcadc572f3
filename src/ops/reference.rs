//! The ops' own Rust arithmetic: the f64 oracle that kernels are checked against, and in f32 the fallback
//! where there is no adapter.

use super::host::HostTensor;
use super::types::{ElementType, Io, TensorType};
use rayon::prelude::*;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// A float that references are written over: `f32` (fallback) or `f64` (oracle).
pub trait Real:
    Copy
    + Send
    + Sync
    + 'static
    + Default
    + PartialOrd
    + std::fmt::Debug
    + std::iter::Sum
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// Rounds from f64.
    fn of(x: f64) -> Self;
    /// Widens to f64.
    fn f64(self) -> f64;
    /// e^x.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The larger of two.
    fn larger(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}

macro_rules! real {
    ($t:ident) => {
        impl Real for $t {
            fn of(x: f64) -> Self {
                x as $t
            }
            fn f64(self) -> f64 {
                self as f64
            }
            fn exp(self) -> Self {
                $t::exp(self)
            }
            fn ln(self) -> Self {
                $t::ln(self)
            }
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
        }
    };
}
real!(f32);
real!(f64);

/// Contents of a tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub enum Data<T> {
    /// An f32 tensor, computed in `T`.
    Float(Vec<T>),
    /// A u32 tensor.
    Index(Vec<u32>),
}

impl<T: Real> Data<T> {
    /// Zeros of a type.
    pub fn zeros(ty: &TensorType) -> Self {
        match ty.element {
            ElementType::F32 => Data::Float(vec![T::default(); ty.elements()]),
            ElementType::U32 => Data::Index(vec![0; ty.elements()]),
        }
    }

    /// What the host writes.
    pub fn of(tensor: &HostTensor) -> Self {
        match tensor {
            HostTensor::F32(x) => Data::Float(x.iter().map(|&x| T::of(x as f64)).collect()),
            HostTensor::U32(x) => Data::Index(x.to_vec()),
        }
    }

    /// What the host reads.
    pub fn to_host(&self) -> HostTensor<'static> {
        match self {
            Data::Float(x) => HostTensor::F32(x.iter().map(|x| x.f64() as f32).collect()),
            Data::Index(x) => HostTensor::U32(x.clone().into()),
        }
    }

    /// Bytes in host memory.
    pub fn bytes(&self) -> u64 {
        match self {
            Data::Float(x) => size_of_val(x.as_slice()) as u64,
            Data::Index(x) => size_of_val(x.as_slice()) as u64,
        }
    }
}

impl<T> Data<T> {
    /// The floats; panics on an index tensor.
    pub fn floats(&self) -> &[T] {
        match self {
            Data::Float(x) => x,
            Data::Index(_) => panic!("an op read an index tensor as floats"),
        }
    }

    /// The indices; panics on a float tensor.
    pub fn indices(&self) -> &[u32] {
        match self {
            Data::Index(x) => x,
            Data::Float(_) => panic!("an op read a float tensor as indices"),
        }
    }

    /// The floats, to be written; panics on an index tensor.
    pub fn floats_mut(&mut self) -> &mut [T] {
        match self {
            Data::Float(x) => x,
            Data::Index(_) => panic!("an op wrote floats to an index tensor"),
        }
    }

    /// The indices, to be written; panics on a float tensor.
    pub fn indices_mut(&mut self) -> &mut [u32] {
        match self {
            Data::Index(x) => x,
            Data::Float(_) => panic!("an op wrote indices to a float tensor"),
        }
    }
}

/// What a reference computes on: inputs to read, outputs to fill. An output that updates an input in place
/// arrives with that input's contents, any other one zeroed.
pub struct RefIo<'a, T> {
    /// Types.
    pub io: Io<'a>,
    /// Contents of the inputs; those updated in place are left empty.
    pub inputs: Vec<&'a Data<T>>,
    /// Contents of the outputs.
    pub outputs: Vec<Data<T>>,
}

impl<'a, T: Real> RefIo<'a, T> {
    /// Floats of input `i`.
    pub fn input(&self, i: usize) -> &'a [T] {
        self.inputs[i].floats()
    }

    /// Indices of input `i`.
    pub fn indices(&self, i: usize) -> &'a [u32] {
        self.inputs[i].indices()
    }

    /// Output `i`.
    pub fn out(&mut self, i: usize) -> &mut [T] {
        self.outputs[i].floats_mut()
    }

    /// The first `N` outputs, to fill several at once.
    pub fn outs<const N: usize>(&mut self) -> [&mut [T]; N] {
        let mut iter = self.outputs.iter_mut();
        std::array::from_fn(|_| iter.next().expect("the op has that many outputs").floats_mut())
    }
}

/// A matrix view: element (i, j) is `data[i * rows + j * columns]`.
#[derive(Clone, Copy)]
pub struct Mat<'a, T> {
    data: &'a [T],
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// Row-major with `columns` columns.
    pub fn new(data: &'a [T], columns: usize) -> Self {
        Mat { data, row_stride: columns, column_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Mat { data: self.data, row_stride: self.column_stride, column_stride: self.row_stride }
    }
}

/// `c = a b` or `c += a b` on all cores, with c `[m, n]` row-major and k the inner size.
pub fn gemm<T: Real>(c: &mut [T], add: bool, a: Mat<T>, b: Mat<T>, m: usize, n: usize, k: usize) {
    let last = |mat: &Mat<T>, r: usize, c: usize| (r - 1) * mat.row_stride + (c - 1) * mat.column_stride;
    assert!(m * n * k > 0 && c.len() >= m * n, "gemm: c too small");
    assert!(last(&a, m, k) < a.data.len() && last(&b, k, n) < b.data.len(), "gemm: operand too small");
    // SAFETY: the asserts above keep every index inside its slice, and T is f32 or f64, which gemm knows.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::of(1.0),
            T::of(1.0),
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        )
    }
}

/// Calls `f(row, out_row)` for each row of `out`, on all cores.
pub fn for_rows<T: Real>(out: &mut [T], columns: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    out.par_chunks_mut(columns.max(1)).enumerate().for_each(|(row, out)| f(row, out));
}

/// Sum of `rows` vectors of `columns`, in an order that does not depend on the number of cores.
pub fn sum_rows<T: Real>(rows: usize, columns: usize, row: impl Fn(usize, &mut [T]) + Sync + Send) -> Vec<T> {
    const BLOCK: usize = 64;
    let partials: Vec<Vec<T>> = (0..rows.div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let mut sum = vec![T::default(); columns];
            for r in block * BLOCK..rows.min((block + 1) * BLOCK) {
                row(r, &mut sum);
            }
            sum
        })
        .collect();
    let mut total = vec![T::default(); columns];
    for partial in &partials {
        for (t, &p) in total.iter_mut().zip(partial) {
            *t += p;
        }
    }
    total
}
