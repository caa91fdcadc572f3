//! Tensors in safetensors files: memory-mapped reading, streaming writing.

mod header;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{Dtype as StoredDtype, Metadata, TensorInfo};
use memmap2::Mmap;

use super::{Dtype, Put};
use crate::error::{Error, Result};
use crate::files;

/// The tensors of one safetensors file, or of all shards of a model folder, read on demand.
pub struct TensorFile {
    path: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
}

struct Shard {
    path: PathBuf,
    bytes: Mmap,
    data_start: usize,
}

impl TensorFile {
    /// Opens a file, or a folder with `model.safetensors` or `model.safetensors.index.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Damaged`] if a header does not describe its file or an index
    /// not its shards, [`Error::Input`] if the folder holds no model.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Self::from_shards(path, vec![path.to_path_buf()]);
        }
        let single = path.join("model.safetensors");
        if single.is_file() {
            return Self::from_shards(&single, vec![single.clone()]);
        }
        let index = path.join("model.safetensors.index.json");
        if !index.is_file() {
            let why = "no model.safetensors or model.safetensors.index.json in this folder";
            return Err(Error::input(format!("{}: {why}", path.display())));
        }
        let weight_map = read_index(&index)?;
        let names: BTreeSet<&String> = weight_map.values().collect();
        if let Some(name) = names.iter().find(|name| !path.join(name).is_file()) {
            let what = format!("it names the shard {name}, which is not beside it; copy all shards");
            return Err(Error::damaged(&index, what));
        }
        let file = Self::from_shards(&index, names.iter().map(|name| path.join(name)).collect())?;
        for (tensor, shard) in &weight_map {
            let found = file.tensors.get(tensor).map(|&(i, _)| &file.shards[i].path);
            if found != Some(&path.join(shard)) {
                return Err(Error::damaged(
                    &index,
                    format!("tensor '{}' is not in {shard} as it says", tensor.escape_debug()),
                ));
            }
        }
        Ok(file)
    }

    fn from_shards(path: &Path, paths: Vec<PathBuf>) -> Result<Self> {
        let mut file = TensorFile { path: path.into(), shards: Vec::new(), tensors: BTreeMap::new() };
        for path in paths {
            let (shard, tensors) = Shard::open(path)?;
            for (name, info) in tensors {
                let place = (file.shards.len(), info);
                if let Some((first, _)) = file.tensors.insert(name.clone(), place) {
                    let (name, first) = (name.escape_debug(), file.shards[first].path.display());
                    return Err(Error::damaged(&shard.path, format!("tensor '{name}' is also in {first}")));
                }
            }
            file.shards.push(shard);
        }
        Ok(file)
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, info)| info.shape.as_slice())
    }

    /// Checks that every (name, shape) is there as floating-point numbers, before any is read.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file and the first tensor that is missing or differs.
    pub fn expect(&self, parameters: &[(String, Vec<usize>)]) -> Result<()> {
        parameters.iter().try_for_each(|(name, shape)| self.float(name, shape).map(|_| ()))
    }

    /// Reads a tensor of f32, f16 or bf16 values as f32, row-major.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file and the tensor if it is missing, has another shape or type, or holds a value
    /// that is not finite: no model computes anything with it.
    pub fn read_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (dtype, bytes) = self.float(name, shape)?;
        let mut values = Vec::with_capacity(bytes.len() / dtype.size());
        dtype.decode(bytes, &mut values);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(i) => {
                let (shard, _) = self.find(name)?;
                Err(shard.refuse(name, format!("holds {} at element {i}", values[i])))
            }
        }
    }

    /// Reads a tensor of i64 or i32 values as (shape, values), row-major.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file and the tensor if it is missing or has another type.
    pub fn read_i64(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>)> {
        let (shard, info) = self.find(name)?;
        let bytes = shard.slice(info);
        let values = match info.dtype {
            StoredDtype::I64 => elements(bytes, i64::from_le_bytes),
            StoredDtype::I32 => elements(bytes, |b| i32::from_le_bytes(b).into()),
            other => return Err(shard.refuse(name, format!("holds {other:?}, but I64 or I32 is needed"))),
        };
        Ok((info.shape.clone(), values))
    }

    fn find(&self, name: &str) -> Result<(&Shard, &TensorInfo)> {
        match self.tensors.get(name) {
            Some((shard, info)) => Ok((&self.shards[*shard], info)),
            None => {
                let why = format!("tensor '{}' is missing", name.escape_debug());
                Err(Error::input(format!("{}: {why}", self.path.display())))
            }
        }
    }

    /// The type and the bytes of a tensor of f32, f16 or bf16 values, as they lie in the file: row-major,
    /// little-endian.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file and the tensor if it is missing, or has another shape or type.
    pub fn float(&self, name: &str, shape: &[usize]) -> Result<(Dtype, &[u8])> {
        let (shard, info) = self.find(name)?;
        if info.shape != shape {
            return Err(shard.refuse(name, format!("has shape {:?}, but {shape:?} is needed", info.shape)));
        }
        match Dtype::of(info.dtype) {
            Some(dtype) => Ok((dtype, shard.slice(info))),
            None => {
                Err(shard.refuse(name, format!("holds {:?}, but F32, F16 or BF16 is needed", info.dtype)))
            }
        }
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<(Self, BTreeMap<String, TensorInfo>)> {
        let file = files::open(&path)?;
        if file.metadata().map_err(Error::io(&path))?.len() == 0 {
            return Err(Error::damaged(&path, "the file is empty"));
        }
        // SAFETY: the map is read-only; smolter replaces files by rename and never writes into an old one.
        let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io(&path))?;
        let (data_start, tensors) =
            header::read(&bytes).map_err(|why| Error::damaged(&path, format!("{why}; copy it again")))?;
        Ok((Shard { path, bytes, data_start }, tensors))
    }

    /// In range, because [`header::read`] has compared all offsets with the file's length.
    fn slice(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.bytes[self.data_start + start..self.data_start + end]
    }

    fn refuse(&self, tensor: &str, why: String) -> Error {
        Error::input(format!("{}: tensor '{}' {why}", self.path.display(), tensor.escape_debug()))
    }
}

fn elements<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| decode(chunk)).collect()
}

/// Tensor name to shard file name.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = files::read(path, files::LISTS)?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|e| Error::damaged(path, format!("not a shard index: {e}")))?;
    let is_name =
        |name: &str| Path::new(name).file_name() == Some(name.as_ref()) && !name.contains(char::is_control);
    match index.weight_map.values().find(|name| !is_name(name)) {
        Some(name) => {
            let name = name.escape_debug();
            Err(Error::damaged(path, format!("'{name}' is not the name of a file beside it")))
        }
        None => Ok(index.weight_map),
    }
}

/// Writes tensors to `path`, which is replaced, flushed to the medium.
///
/// `read` gives the values of one tensor at a time, in the order of `tensors`, so memory holds one of them.
///
/// # Errors
/// [`Error::Io`] naming `path`, or what `read` returns; the file is then incomplete.
///
/// # Panics
/// If `read` gives another number of values than the shape says.
pub fn write(
    path: &Path,
    dtype: Dtype,
    tensors: &[(String, Vec<usize>)],
    read: impl FnMut(&str) -> Result<Vec<f32>>,
) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io(path))?;
    write_to(&mut file, path, dtype, tensors, read)?;
    file.sync_all().map_err(Error::io(path))
}

/// As [`write`], into anything; `path` is what errors name.
pub(crate) fn write_to(
    sink: &mut impl Write,
    path: &Path,
    dtype: Dtype,
    tensors: &[(String, Vec<usize>)],
    mut read: impl FnMut(&str) -> Result<Vec<f32>>,
) -> Result<()> {
    write_pieces(sink, path, dtype, tensors, |name, put| {
        let mut bytes = Vec::new();
        dtype.encode(&read(name)?, &mut bytes);
        put(&bytes)
    })
}

/// Writes tensors whose bytes come in pieces, so that no whole tensor need be in memory.
///
/// `fill` is called once for each tensor, in their order, and puts its bytes: row-major, little-endian. `path` is what
/// errors name.
///
/// # Errors
/// [`Error::Io`] naming `path`, or what `fill` returns; what `sink` has is then incomplete.
///
/// # Panics
/// If `fill` puts another number of bytes than the shape says.
pub fn write_pieces(
    sink: &mut impl Write,
    path: &Path,
    dtype: Dtype,
    tensors: &[(String, Vec<usize>)],
    mut fill: impl FnMut(&str, &mut Put) -> Result<()>,
) -> Result<()> {
    let header = header(path, dtype, tensors)?;
    let written = Cell::new(0);
    let mut put = |bytes: &[u8]| {
        written.set(written.get() + bytes.len());
        sink.write_all(bytes).map_err(Error::io(path))
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    let mut end = 8 + header.len();
    for (name, shape) in tensors {
        fill(name, &mut put)?;
        end += shape.iter().product::<usize>() * dtype.size();
        assert_eq!(written.get(), end, "bytes up to the end of '{name}' of shape {shape:?}");
    }
    Ok(())
}

/// The JSON header, padded to 8 bytes as the reference writer does.
fn header(path: &Path, dtype: Dtype, tensors: &[(String, Vec<usize>)]) -> Result<Vec<u8>> {
    let stored = dtype.stored();
    let mut offset = 0;
    let infos = tensors.iter().map(|(name, shape)| {
        let start = offset;
        offset += shape.iter().product::<usize>() * dtype.size();
        (name.clone(), TensorInfo { dtype: stored, shape: shape.clone(), data_offsets: (start, offset) })
    });
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let unfit = |e: String| Error::failure(format!("{}: cannot describe the tensors: {e}", path.display()));
    let metadata = Metadata::new(Some(format), infos.collect()).map_err(|e| unfit(e.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| unfit(e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

#[cfg(test)]
mod tests;
