//! The header of a safetensors file, checked against the file so that every lie is told by the tensor's name.
//!
//! The file is 8 bytes of header length, the header (a JSON object: tensor name to type, shape and offsets; and
//! `__metadata__`), and the data, which the tensors fill without gap or overlap.

use std::collections::BTreeMap;
use std::fmt;

use ::safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// Longest header, as in the reference implementation.
const LONGEST: usize = 100_000_000;

/// Where the data begins in the file `bytes`, and all tensors; their offsets are within the data.
///
/// # Errors
/// What is wrong, naming the tensor where it is about one.
pub(super) fn read(bytes: &[u8]) -> Result<(usize, BTreeMap<String, TensorInfo>), String> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Err(format!("not safetensors: {} bytes are too few for a header", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().filter(|&n| n <= LONGEST).and_then(|n| rest.get(..n));
    let Some(header) = header else {
        let size = bytes.len();
        return Err(format!(
            "the header claims {length} bytes of a file of {size}: cut short, or not safetensors"
        ));
    };
    let tensors: Tensors =
        serde_json::from_slice(header).map_err(|e| format!("its header is damaged: {e}"))?;
    check(&tensors.0, rest.len() - header.len())?;
    Ok((8 + header.len(), tensors.0))
}

/// The tensors must fill `data` bytes one after the other, each as its type and shape say.
fn check(tensors: &BTreeMap<String, TensorInfo>, data: usize) -> Result<(), String> {
    let mut by_offset: Vec<_> = tensors.iter().collect();
    by_offset.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0;
    for (name, info) in by_offset {
        let name = name.escape_debug();
        let (start, stop) = info.data_offsets;
        let Some(held) = stop.checked_sub(start) else {
            return Err(format!("tensor '{name}' has offsets {start} to {stop}, which run backwards"));
        };
        if stop > data {
            return Err(format!(
                "tensor '{name}' has offsets {start} to {stop}, but the file has {data} bytes of data: cut short, or \
                 the offset is wrong"
            ));
        }
        match size(info) {
            Some(size) if size == held => {}
            size => {
                let size = size.map_or("more than any file has".into(), |n| n.to_string());
                let (dtype, shape) = (info.dtype, &info.shape);
                return Err(format!(
                    "tensor '{name}' has offsets {start} to {stop}, {held} bytes, but {dtype} of shape {shape:?} takes \
                     {size}"
                ));
            }
        }
        if start != end {
            return Err(format!(
                "tensor '{name}' has offsets {start} to {stop}, but the tensors before it end at {end}: they overlap or \
                 leave a gap"
            ));
        }
        end = stop;
    }
    if end == data { Ok(()) } else { Err(format!("{} bytes at its end belong to no tensor", data - end)) }
}

/// Bytes that type and shape take; `None` if that is no number of bytes.
fn size(info: &TensorInfo) -> Option<usize> {
    let elements = info.shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))?;
    let bits = elements.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The header's JSON; an error inside an entry names its tensor.
struct Tensors(BTreeMap<String, TensorInfo>);

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TensorsVisitor)
    }
}

struct TensorsVisitor;

impl<'de> Visitor<'de> for TensorsVisitor {
    type Value = Tensors;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<BTreeMap<String, String>>()?;
                continue;
            }
            let about = |what: &dyn fmt::Display| {
                A::Error::custom(format!("tensor '{}': {what}", name.escape_debug()))
            };
            let info = map.next_value().map_err(|e: A::Error| about(&e))?;
            if tensors.contains_key(&name) {
                return Err(about(&"it is there twice"));
            }
            tensors.insert(name, info);
        }
        Ok(Tensors(tensors))
    }
}
