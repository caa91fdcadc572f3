//! A model folder written anew: another element type, one file or several, Hugging Face's layout or GGUF.

use std::path::Path;

use super::conversion::Conversion;
use super::{ModelFolder, gguf, hf};
use crate::checkpoint::gguf::Type;
use crate::checkpoint::{Dtype, publish};
use crate::error::{Error, Result};

/// The layout to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A folder with `config.json`, `model.safetensors` and the tokenizer's files.
    Hf,
    /// One file for llama.cpp.
    Gguf,
}

/// What to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// The layout.
    pub format: Format,
    /// How weights are stored; `None` as they are now.
    pub ty: Option<Type>,
    /// Most bytes of tensors in one safetensors file.
    pub max_shard: u64,
    /// The model's name in a GGUF file.
    pub name: String,
}

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// How weights are stored.
    pub ty: Type,
    /// Tensors.
    pub tensors: usize,
    /// Files that hold tensors.
    pub files: usize,
    /// Weights that were not zero and are now, too small for the type.
    pub vanished: u64,
}

/// Writes `model` to the new folder or file `out`, a few rows in memory at a time.
///
/// Weights keep their bytes where the type is the same. `progress` takes the bytes read so far, and all there are.
///
/// # Errors
/// [`Error::Input`] if `out` exists, the type does not go with the format or cannot hold a weight, or the tokenizer
/// has no place in a GGUF file; [`Error::Io`]. Nothing is left at `out` then.
pub fn export(
    model: &ModelFolder,
    out: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    let ty = match options.ty {
        Some(ty) => ty,
        None => Type::Plain(stored_type(model)?),
    };
    let mut weights = Conversion::new(model, progress)?;
    let (tensors, files) = match (options.format, ty) {
        (Format::Gguf, ty) => publish(out, |path| gguf::write(&mut weights, path, ty, &options.name))?,
        (Format::Hf, Type::Plain(dtype)) => {
            publish(out, |folder| hf::write(&mut weights, folder, dtype, options.max_shard))?
        }
        (Format::Hf, Type::Q8_0) => {
            return Err(Error::input("--dtype q8_0 needs --format gguf: safetensors has no such type"));
        }
    };
    Ok(Report { ty, tensors, files, vanished: weights.vanished })
}

/// The one type of all weights.
fn stored_type(model: &ModelFolder) -> Result<Dtype> {
    let mut first: Option<(String, Dtype)> = None;
    for (name, shape) in model.architecture.shapes() {
        let (dtype, _) = model.tensors.float(&name, &shape)?;
        match &first {
            Some((other, expected)) if *expected != dtype => {
                return Err(Error::input(format!(
                    "{}: '{other}' is stored as {}, but '{name}' as {}: choose one type with --dtype",
                    model.path.display(),
                    expected.name(),
                    dtype.name()
                )));
            }
            Some(_) => {}
            None => first = Some((name, dtype)),
        }
    }
    Ok(first.expect("a model has an embedding").1)
}
