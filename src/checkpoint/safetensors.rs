//! Tensors in safetensors files: memory-mapped reading, streaming writing.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{Dtype as StoredDtype, Metadata, SafeTensors, TensorInfo};
use half::{bf16, f16};
use memmap2::Mmap;

use crate::error::{Error, Result};

/// Element type of tensors that smolter writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    fn stored(self) -> StoredDtype {
        match self {
            Dtype::F32 => StoredDtype::F32,
            Dtype::F16 => StoredDtype::F16,
            Dtype::Bf16 => StoredDtype::BF16,
        }
    }

    /// The name in `config.json`, such as `float32`.
    pub fn torch_name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(values.len() * self.stored().bitsize() / 8);
        match self {
            Dtype::F32 => values.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes())),
            Dtype::F16 => {
                values.iter().for_each(|&x| bytes.extend_from_slice(&f16::from_f32(x).to_le_bytes()))
            }
            Dtype::Bf16 => {
                values.iter().for_each(|&x| bytes.extend_from_slice(&bf16::from_f32(x).to_le_bytes()))
            }
        }
        bytes
    }
}

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
    /// [`Error::Io`] if a file cannot be read, [`Error::Damaged`] if a header does not describe its file,
    /// [`Error::Input`] if the folder holds no model.
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
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        let file = Self::from_shards(&index, names.iter().map(|name| path.join(name)).collect())?;
        for (tensor, shard) in &weight_map {
            let found = file.tensors.get(tensor).map(|&(i, _)| &file.shards[i].path);
            if found != Some(&path.join(shard)) {
                return Err(Error::damaged(
                    &index,
                    format!("tensor '{tensor}' is not in {shard} as it says"),
                ));
            }
        }
        Ok(file)
    }

    fn from_shards(path: &Path, paths: Vec<PathBuf>) -> Result<Self> {
        let mut file = TensorFile { path: path.into(), shards: Vec::new(), tensors: BTreeMap::new() };
        for path in paths {
            let (shard, metadata) = Shard::open(path)?;
            for name in metadata.offset_keys() {
                if let Some(info) = metadata.info(&name) {
                    file.tensors.insert(name, (file.shards.len(), info.clone()));
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
    /// [`Error::Input`] naming the file and the tensor if it is missing, or has another shape or type.
    pub fn read_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (dtype, bytes) = self.float(name, shape)?;
        Ok(match dtype {
            StoredDtype::F16 => elements(bytes, |b| f16::from_le_bytes(b).to_f32()),
            StoredDtype::BF16 => elements(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            _ => elements(bytes, f32::from_le_bytes),
        })
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
            None => Err(Error::input(format!("{}: no tensor '{name}'", self.path.display()))),
        }
    }

    fn float(&self, name: &str, shape: &[usize]) -> Result<(StoredDtype, &[u8])> {
        let (shard, info) = self.find(name)?;
        if info.shape != shape {
            return Err(shard.refuse(name, format!("has shape {:?}, but {shape:?} is needed", info.shape)));
        }
        match info.dtype {
            StoredDtype::F32 | StoredDtype::F16 | StoredDtype::BF16 => Ok((info.dtype, shard.slice(info))),
            other => Err(shard.refuse(name, format!("holds {other:?}, but F32, F16 or BF16 is needed"))),
        }
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<(Self, Metadata)> {
        let file = File::open(&path).map_err(Error::io(&path))?;
        let length = file.metadata().map_err(Error::io(&path))?.len();
        if length == 0 {
            return Err(Error::damaged(&path, "the file is empty"));
        }
        // SAFETY: the map is read-only; smolter replaces files by rename and never writes into an old one.
        let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io(&path))?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| {
            Error::damaged(&path, format!("not a whole safetensors file: {e}; copy it again"))
        })?;
        Ok((Shard { path, bytes, data_start: header + 8 }, metadata))
    }

    /// In range, because `read_metadata` has compared all offsets with the file's length.
    fn slice(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.bytes[self.data_start + start..self.data_start + end]
    }

    fn refuse(&self, tensor: &str, why: String) -> Error {
        Error::input(format!("{}: tensor '{tensor}' {why}", self.path.display()))
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
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let index: Index =
        serde_json::from_str(&text).map_err(|e| Error::damaged(path, format!("not a shard index: {e}")))?;
    match index.weight_map.values().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        Some(name) => Err(Error::damaged(path, format!("'{name}' is not the name of a file beside it"))),
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
    let header = header(path, dtype, tensors)?;
    let mut put = |bytes: &[u8]| sink.write_all(bytes).map_err(Error::io(path));
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for (name, shape) in tensors {
        let values = read(name)?;
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values of '{name}' for shape {shape:?}");
        put(&dtype.encode(&values))?;
    }
    Ok(())
}

/// The JSON header, padded to 8 bytes as the reference writer does.
fn header(path: &Path, dtype: Dtype, tensors: &[(String, Vec<usize>)]) -> Result<Vec<u8>> {
    let stored = dtype.stored();
    let mut offset = 0;
    let infos = tensors.iter().map(|(name, shape)| {
        let start = offset;
        offset += shape.iter().product::<usize>() * stored.bitsize() / 8;
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
