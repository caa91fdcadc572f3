//! A model folder in Hugging Face's layout, written.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::json;

use super::ModelFolder;
use super::conversion::Conversion;
use crate::checkpoint::gguf::Type;
use crate::checkpoint::safetensors::write_pieces;
use crate::checkpoint::{Dtype, write_file};
use crate::error::{Error, Result};
use crate::files;
use crate::nn::Architecture;

/// Files that go along as they are, where there are any.
const COMPANIONS: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
];

/// Elements that are converted at a time.
const PIECE: usize = 1 << 16;

type Parameters = Vec<(String, Vec<usize>)>;

/// Makes the folder; returns the number of tensors, and of files that hold them.
pub(super) fn write(
    weights: &mut Conversion,
    folder: &Path,
    dtype: Dtype,
    max_shard: u64,
) -> Result<(usize, usize)> {
    std::fs::create_dir(folder).map_err(Error::io(folder))?;
    let model = weights.model;
    let config = model.path.join("config.json");
    let text = files::read_text(&config, files::SETTINGS)?;
    let text = Architecture::hf_json_with_dtype(&text, dtype.torch_name())
        .map_err(|why| Error::input(format!("{}: {why}", config.display())))?;
    small(folder, "config.json", text.as_bytes())?;
    write_companions(model, folder)?;

    let parameters = model.architecture.shapes();
    let tensors = parameters.len();
    let shards = split(parameters, dtype, max_shard);
    let mut weight_map = BTreeMap::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        write_shard(weights, &folder.join(&name), dtype, shard)?;
        weight_map.extend(shard.iter().map(|(tensor, _)| (tensor.clone(), name.clone())));
    }
    if shards.len() > 1 {
        let total: u64 = shards.iter().flatten().map(|(_, shape)| bytes(shape, dtype)).sum();
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        small(folder, "model.safetensors.index.json", format!("{index:#}\n").as_bytes())?;
    }
    Ok((tensors, shards.len()))
}

/// Copies what goes along with the weights: the tokenizer, and the settings of generation.
pub(super) fn write_companions(model: &ModelFolder, folder: &Path) -> Result<()> {
    for name in COMPANIONS {
        let path = model.path.join(name);
        if path.is_file() {
            let bytes = files::read(&path, files::LISTS)?;
            if name.ends_with(".json") {
                serde_json::from_slice::<IgnoredAny>(&bytes)
                    .map_err(|e| Error::input(format!("{}: not JSON: {e}", path.display())))?;
            }
            small(folder, name, &bytes)?;
        }
    }
    Ok(())
}

fn small(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    write_file(&path, |file| file.write_all(bytes).map_err(Error::io(&path)))
}

fn write_shard(weights: &mut Conversion, path: &Path, dtype: Dtype, shard: &Parameters) -> Result<()> {
    let shapes: BTreeMap<&str, &[usize]> =
        shard.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    write_file(path, |file| {
        write_pieces(file, path, dtype, shard, |name, put| {
            let (from, bytes) = weights.model.float(name, shapes[name])?;
            bytes
                .chunks(PIECE * from.size())
                .try_for_each(|piece| weights.put(name, from, piece, Type::Plain(dtype), put))
        })
    })
}

fn bytes(shape: &[usize], dtype: Dtype) -> u64 {
    (shape.iter().product::<usize>() * dtype.size()) as u64
}

/// Fills one shard after the other; only a tensor that is larger than `max_shard` by itself exceeds it.
fn split(parameters: Parameters, dtype: Dtype, max_shard: u64) -> Vec<Parameters> {
    let mut shards = vec![Vec::new()];
    let mut filled = 0;
    for (name, shape) in parameters {
        let size = bytes(&shape, dtype);
        if filled > 0 && filled + size > max_shard {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        shards.last_mut().expect("never empty").push((name, shape));
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_filled_in_order() {
        let sizes = [3, 4, 5, 20, 1, 1];
        let parameters = sizes.iter().enumerate().map(|(i, &n)| (i.to_string(), vec![n])).collect();
        let shards = split(parameters, Dtype::F16, 14);
        let sizes: Vec<Vec<usize>> =
            shards.iter().map(|shard| shard.iter().map(|(_, shape)| shape[0]).collect()).collect();
        assert_eq!(sizes, [vec![3, 4], vec![5], vec![20], vec![1, 1]]);
    }
}
