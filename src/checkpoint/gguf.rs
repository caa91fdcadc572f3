//! Tensors in GGUF files, as llama.cpp reads them: a streaming writer.
//!
//! Version 3 of the format, little-endian (docs/gguf.md of ggml): magic, counts, metadata, one description per tensor,
//! then the tensors' bytes, each beginning at a multiple of [`ALIGNMENT`].

mod q8_0;

use std::cell::Cell;
use std::io::Write;
use std::path::Path;

use super::{Dtype, Put, Rounding};
use crate::error::{Error, Result};

/// Tensors begin at multiples of this many bytes, counted from the beginning of the data: the format's default.
pub const ALIGNMENT: usize = 32;

/// The version of the format.
const VERSION: u32 = 3;

/// A metadata value, of those kinds that a language model's description needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// 32-bit unsigned integer.
    U32(u32),
    /// 32-bit float.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Several 32-bit signed integers.
    I32s(Vec<i32>),
}

impl Value {
    /// The number that stands for the value's type (`gguf_type` of gguf.h).
    fn kind(&self) -> u32 {
        match self {
            Value::U32(_) => 4,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::Text(_) => 8,
            Value::Texts(_) | Value::I32s(_) => 9,
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let array = |bytes: &mut Vec<u8>, kind: u32, count: usize| {
            bytes.extend(kind.to_le_bytes());
            bytes.extend((count as u64).to_le_bytes());
        };
        match self {
            Value::U32(value) => bytes.extend(value.to_le_bytes()),
            Value::F32(value) => bytes.extend(value.to_le_bytes()),
            Value::Bool(value) => bytes.push((*value).into()),
            Value::Text(text) => encode_text(text, bytes),
            Value::Texts(texts) => {
                array(bytes, 8, texts.len());
                texts.iter().for_each(|text| encode_text(text, bytes));
            }
            Value::I32s(values) => {
                array(bytes, 5, values.len());
                values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
        }
    }
}

fn encode_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// How a tensor's elements are stored (`ggml_type` of ggml.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// One number after another.
    Plain(Dtype),
    /// Blocks of 32 elements of a row: an f16 scale d and 32 signed bytes q; an element is d q.
    Q8_0,
}

impl Type {
    /// The number that stands for the type.
    fn number(self) -> u32 {
        match self {
            Type::Plain(Dtype::F32) => 0,
            Type::Plain(Dtype::F16) => 1,
            Type::Q8_0 => 8,
            Type::Plain(Dtype::Bf16) => 30,
        }
    }

    /// The short name, such as `q8_0`.
    pub fn name(self) -> &'static str {
        match self {
            Type::Plain(dtype) => dtype.name(),
            Type::Q8_0 => "q8_0",
        }
    }

    /// This type for rows of `length` elements: f16 where they do not divide into blocks, as llama.cpp's converter
    /// does it.
    pub fn for_rows(self, length: usize) -> Self {
        match self {
            Type::Q8_0 if !length.is_multiple_of(q8_0::BLOCK) => Type::Plain(Dtype::F16),
            fits => fits,
        }
    }

    /// Bytes of `elements` elements in whole rows.
    pub fn bytes(self, elements: usize) -> usize {
        match self {
            Type::Plain(dtype) => elements * dtype.size(),
            Type::Q8_0 => elements / q8_0::BLOCK * q8_0::BLOCK_BYTES,
        }
    }

    /// Appends a row, or several.
    pub fn encode(self, values: &[f32], bytes: &mut Vec<u8>) -> Rounding {
        match self {
            Type::Plain(dtype) => dtype.encode(values, bytes),
            Type::Q8_0 => q8_0::encode(values, bytes),
        }
    }
}

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The name that llama.cpp knows it by.
    pub name: String,
    /// Its shape, the longest stride first as everywhere in smolter; the file has it in reverse.
    pub shape: Vec<usize>,
    /// How its elements are stored.
    pub ty: Type,
}

impl Tensor {
    fn bytes(&self) -> usize {
        self.ty.bytes(self.shape.iter().product())
    }
}

/// Writes a file whose tensors come in pieces; `path` is what errors name.
///
/// `fill` is called once for each tensor with its place in `tensors`, in their order, and puts its bytes.
///
/// # Errors
/// [`Error::Io`] naming `path`, or what `fill` returns; what `sink` has is then incomplete.
///
/// # Panics
/// If `fill` puts another number of bytes than shape and type say.
pub fn write_pieces(
    sink: &mut impl Write,
    path: &Path,
    metadata: &[(String, Value)],
    tensors: &[Tensor],
    mut fill: impl FnMut(usize, &mut Put) -> Result<()>,
) -> Result<()> {
    let written = Cell::new(0);
    let mut put = |bytes: &[u8]| {
        written.set(written.get() + bytes.len());
        sink.write_all(bytes).map_err(Error::io(path))
    };
    put(&header(metadata, tensors))?;
    for (i, tensor) in tensors.iter().enumerate() {
        let start = written.get();
        fill(i, &mut put)?;
        assert_eq!(written.get() - start, tensor.bytes(), "bytes of {tensor:?}");
        put(&vec![0; padding(written.get())])?;
    }
    Ok(())
}

/// Everything before the tensors' bytes, up to the alignment.
fn header(metadata: &[(String, Value)], tensors: &[Tensor]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        encode_text(key, &mut bytes);
        bytes.extend(value.kind().to_le_bytes());
        value.encode(&mut bytes);
    }
    let mut offset = 0;
    for tensor in tensors {
        encode_text(&tensor.name, &mut bytes);
        bytes.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&size| bytes.extend((size as u64).to_le_bytes()));
        bytes.extend(tensor.ty.number().to_le_bytes());
        bytes.extend((offset as u64).to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    bytes.resize(bytes.len() + padding(bytes.len()), 0);
    bytes
}

/// Bytes from `position` to the next multiple of the alignment.
fn padding(position: usize) -> usize {
    position.next_multiple_of(ALIGNMENT) - position
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_is_byte_for_byte_as_documented() {
        let metadata = [("a".to_string(), Value::U32(7)), ("b".to_string(), Value::Texts(vec!["xy".into()]))];
        let plain =
            |name: &str, shape: Vec<usize>| Tensor { name: name.into(), shape, ty: Type::Plain(Dtype::F32) };
        let mut file = Vec::new();
        let tensors = [plain("m", vec![1, 3]), plain("v", vec![2])];
        write_pieces(&mut file, Path::new("x"), &metadata, &tensors, |i, put| {
            put(&[i as u8 + 1; 4])?;
            put(&vec![0xff; tensors[i].bytes() - 4])
        })
        .unwrap();

        let expected = [
            b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".as_slice(),
            b"\x01\0\0\0\0\0\0\0a\x04\0\0\0\x07\0\0\0",
            b"\x01\0\0\0\0\0\0\0b\x09\0\0\0\x08\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0xy",
            b"\x01\0\0\0\0\0\0\0m\x02\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0\0\0\0v\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\0",
        ]
        .concat();
        assert_eq!(file[..expected.len()], expected);
        let data = expected.len().next_multiple_of(32);
        assert!(file[expected.len()..data].iter().all(|&byte| byte == 0));
        assert_eq!(file[data..data + 12], [1, 1, 1, 1, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(file[data + 32..data + 40], [2, 2, 2, 2, 255, 255, 255, 255]);
        assert_eq!(file.len(), data + 64);
    }

    #[test]
    fn rows_that_do_not_divide_into_blocks_stay_f16() {
        assert_eq!(Type::Q8_0.for_rows(64), Type::Q8_0);
        assert_eq!(Type::Q8_0.for_rows(72), Type::Plain(Dtype::F16));
        assert_eq!(Type::Plain(Dtype::Bf16).for_rows(7), Type::Plain(Dtype::Bf16));
    }
}
