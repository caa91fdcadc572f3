//! Tensors in host memory, on their way to a device or back: elements with their type, and what is prepared of token ids.

use super::types::ElementType;
use std::borrow::Cow;

/// The label that carries no loss: -100 in `transformers`.
pub const IGNORE: u32 = u32::MAX;

/// Positions of `ids` sorted by id, ties by position; what `embedding`'s gradient walks along.
pub fn order_of(ids: &[u32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&i| (ids[i as usize], i));
    order
}

/// Where documents of these lengths lie that fill sequences of `tokens` one after another: for each token the index in
/// its sequence of its document's first token, and its position in the document. What the end of a sequence cuts off
/// begins anew in the next one, as a document of its own.
pub fn segments_of(lengths: &[usize], tokens: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut starts, mut positions) = (Vec::new(), Vec::new());
    for &length in lengths {
        let mut start = starts.len() % tokens;
        for _ in 0..length {
            let at = starts.len() % tokens;
            start = if at == 0 { 0 } else { start };
            starts.push(start as u32);
            positions.push((at - start) as u32);
        }
    }
    (starts, positions)
}

/// The elements of a tensor in host memory.
#[derive(Clone, Debug, PartialEq)]
pub enum HostTensor<'a> {
    /// IEEE single precision.
    F32(Cow<'a, [f32]>),
    /// Token ids, labels, positions.
    U32(Cow<'a, [u32]>),
}

impl HostTensor<'_> {
    /// Their type.
    pub fn element(&self) -> ElementType {
        match self {
            HostTensor::F32(_) => ElementType::F32,
            HostTensor::U32(_) => ElementType::U32,
        }
    }

    /// As they lie in memory.
    pub fn bytes(&self) -> &[u8] {
        match self {
            HostTensor::F32(x) => bytemuck::cast_slice(x),
            HostTensor::U32(x) => bytemuck::cast_slice(x),
        }
    }

    /// The floats; panics on another type.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            HostTensor::F32(x) => x.into_owned(),
            other => panic!("a tensor of {} read as f32", other.element().name()),
        }
    }

    /// The indices; panics on another type.
    pub fn into_u32(self) -> Vec<u32> {
        match self {
            HostTensor::U32(x) => x.into_owned(),
            other => panic!("a tensor of {} read as u32", other.element().name()),
        }
    }
}

impl HostTensor<'static> {
    /// Elements of `element` from their bytes.
    pub fn from_bytes(element: ElementType, bytes: &[u8]) -> Self {
        match element {
            ElementType::F32 => HostTensor::F32(bytemuck::pod_collect_to_vec(bytes).into()),
            ElementType::U32 => HostTensor::U32(bytemuck::pod_collect_to_vec(bytes).into()),
        }
    }
}

impl<'a> From<&'a [f32]> for HostTensor<'a> {
    fn from(x: &'a [f32]) -> Self {
        HostTensor::F32(x.into())
    }
}

impl<'a> From<&'a Vec<f32>> for HostTensor<'a> {
    fn from(x: &'a Vec<f32>) -> Self {
        HostTensor::F32(x.into())
    }
}

impl<'a> From<&'a [u32]> for HostTensor<'a> {
    fn from(x: &'a [u32]) -> Self {
        HostTensor::U32(x.into())
    }
}

impl<'a> From<&'a Vec<u32>> for HostTensor<'a> {
    fn from(x: &'a Vec<u32>) -> Self {
        HostTensor::U32(x.into())
    }
}
