//! A model's weights on their way into another file, from the element type that they have to another.

use super::ModelFolder;
use crate::checkpoint::gguf::Type;
use crate::checkpoint::{Dtype, Put};
use crate::error::{Error, Result};

/// Counts what passes through, and what it cost.
pub(super) struct Conversion<'a> {
    pub model: &'a ModelFolder,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
    /// Weights that were not zero and are now.
    pub vanished: u64,
    values: Vec<f32>,
    bytes: Vec<u8>,
}

impl<'a> Conversion<'a> {
    pub fn new(model: &'a ModelFolder, progress: &'a mut dyn FnMut(u64, u64)) -> Result<Self> {
        let mut total = 0;
        for (name, shape) in model.architecture.shapes() {
            let merged = model.adapter.as_ref().is_some_and(|adapter| adapter.adapts(&name, &shape));
            let size = if merged { Dtype::F32.size() } else { model.tensors.float(&name, &shape)?.0.size() };
            total += (shape.iter().product::<usize>() * size) as u64;
        }
        Ok(Conversion { model, progress, done: 0, total, vanished: 0, values: Vec::new(), bytes: Vec::new() })
    }

    /// Puts a piece of the tensor `name`, stored as `from`, as `ty`. A piece of a quantised tensor is whole rows.
    pub fn put(&mut self, name: &str, from: Dtype, piece: &[u8], ty: Type, put: &mut Put) -> Result<()> {
        self.done += piece.len() as u64;
        (self.progress)(self.done, self.total);
        if ty == Type::Plain(from) {
            return put(piece);
        }
        self.values.clear();
        self.bytes.clear();
        from.decode(piece, &mut self.values);
        let rounding = ty.encode(&self.values, &mut self.bytes);
        self.vanished += rounding.vanished;
        match rounding.unfit {
            None => put(&self.bytes),
            Some(value) => Err(Error::input(format!(
                "{}: tensor '{name}' holds {value:e}, which {} cannot hold: choose another --dtype",
                self.model.path.display(),
                ty.name()
            ))),
        }
    }
}
