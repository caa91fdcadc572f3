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
    for (name, info) in tensors {
        check_size(info, data).map_err(|why| format!("tensor '{}' {why}", name.escape_debug()))?;
    }
    let mut by_offset: Vec<_> = tensors.iter().map(|(name, info)| (info.data_offsets, name)).collect();
    by_offset.sort();
    // A tensor that is out of place overlaps another, and leaves a gap where it was: the overlap tells its name.
    for pair in by_offset.windows(2) {
        let [((_, end), first), ((start, _), second)] = pair else { continue };
        if start < end {
            let (first, second) = (first.escape_debug(), second.escape_debug());
            return Err(format!(
                "tensor '{first}' ends at offset {end} of the data, but tensor '{second}' begins at {start} already"
            ));
        }
    }
    let mut covered = 0;
    for ((start, stop), name) in by_offset {
        if start > covered {
            let (gap, name) = (start - covered, name.escape_debug());
            return Err(format!(
                "tensor '{name}' begins at offset {start} of the data: {gap} bytes before it belong to none"
            ));
        }
        covered = stop;
    }
    if covered == data {
        Ok(())
    } else {
        Err(format!("{} bytes at its end belong to no tensor", data - covered))
    }
}

/// Checks one tensor's offsets against its own shape and the file.
fn check_size(info: &TensorInfo, data: usize) -> Result<(), String> {
    let (start, stop) = info.data_offsets;
    let Some(held) = stop.checked_sub(start) else {
        return Err(format!("has offsets {start} to {stop}, which run backwards"));
    };
    if stop > data {
        return Err(format!(
            "has offsets {start} to {stop}, but the file has {data} bytes of data: cut short, or the offset is wrong"
        ));
    }
    let (dtype, shape) = (info.dtype, &info.shape);
    match size(info) {
        Some(size) if size == held => Ok(()),
        Some(size) => Err(format!(
            "has offsets {start} to {stop}, {held} bytes, but {dtype} of shape {shape:?} takes {size}"
        )),
        None => Err(format!("has the shape {shape:?}, which no {dtype} tensor has")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(entries: &str, data: usize) -> String {
        let header = format!("{{{entries}}}");
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat();
        read(&bytes).unwrap_err()
    }

    fn entry(name: &str, bytes: usize, start: usize) -> String {
        format!(r#""{name}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[{start},{}]}}"#, start + bytes)
    }

    /// Three tensors of 4 bytes, of which one is moved: it is named wherever it goes.
    #[test]
    fn a_tensor_out_of_place_is_named() {
        for moved in 0..3 {
            for start in (0..12).filter(|start| *start != 4 * moved) {
                let place = |i| if i == moved { start } else { 4 * i };
                let entries = [0, 1, 2].map(|i| entry(&format!("t{i}"), 4, place(i))).join(",");
                let why = refused(&entries, 12);
                assert!(why.contains(&format!("'t{moved}'")), "t{moved} at {start}: {why}");
            }
        }
    }

    #[test]
    fn every_byte_belongs_to_a_tensor() {
        assert!(refused(&entry("a", 4, 2), 6).contains("'a' begins at offset 2"));
        assert!(refused(&entry("a", 4, 0), 6).contains("2 bytes at its end"));
        assert!(
            refused(&[entry("a", 4, 0), entry("a", 4, 0)].join(","), 4).contains("'a': it is there twice")
        );
        assert!(
            refused(r#""a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}"#, 1).contains("no F4 tensor has")
        );
    }
}
