//! Adapters (LoRA) as PEFT lays them out: a folder with `adapter_config.json` and `adapter_model.safetensors`.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::ModelFolder;
use crate::checkpoint::safetensors::write_to;
use crate::checkpoint::{Dtype, TensorFile, publish, write_file};
use crate::error::{Error, Result};
use crate::files;
use crate::nn::lora::{PREFIX, TARGETS};
use crate::nn::{Architecture, Lora};

/// Name of the configuration in an adapter's folder.
const CONFIG: &str = "adapter_config.json";

/// Name of the tensors there.
const TENSORS: &str = "adapter_model.safetensors";

/// Folder of the adapter in a checkpoint.
pub const FOLDER: &str = "adapter";

/// Keys of the configuration that are read, that the tensors tell, or that do not change what is computed.
const IDLE: [&str; 20] = [
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// An open adapter: what it is, and exactly the tensors that it has.
pub struct Adapter {
    /// Its folder.
    pub folder: PathBuf,
    /// Its sizes.
    pub lora: Lora,
    /// The model that it says it is for.
    pub base: Option<String>,
    tensors: TensorFile,
}

impl Adapter {
    /// Opens the adapter in `folder`, or in the checkpoint that `folder` is, for a model of this shape.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file and the field that smolter does not have, or the tensor that is missing, of
    /// another shape, or unknown to the model; [`Error::Damaged`]; [`Error::Io`].
    pub fn open(folder: &Path, architecture: &Architecture) -> Result<Self> {
        let within = folder.join(FOLDER);
        let folder = if is_adapter(&within) { within } else { folder.to_path_buf() };
        if !folder.is_dir() {
            let why = "no such folder; an adapter is a folder with adapter_config.json";
            return Err(Error::input(format!("{}: {why}", folder.display())));
        }
        let path = folder.join(CONFIG);
        if !path.is_file() {
            let why = format!("no {CONFIG} in this folder, so it is no adapter of PEFT's");
            return Err(Error::input(format!("{}: {why}", folder.display())));
        }
        let refuse = |why: String| Error::input(format!("{}: {why}", path.display()));
        let config: Map<String, Json> = serde_json::from_slice(&files::read(&path, files::SETTINGS)?)
            .map_err(|e| refuse(format!("not a JSON object: {e}")))?;
        let mut lora = read_config(&config).map_err(refuse)?;

        let path = folder.join(TENSORS);
        if !path.is_file() {
            let why =
                format!("no {TENSORS} in this folder; other formats are not read: save it with PEFT as that");
            return Err(Error::input(format!("{}: {why}", folder.display())));
        }
        let tensors = TensorFile::open(&path)?;
        lora.targets = targets(&tensors).map_err(|why| Error::input(format!("{}: {why}", path.display())))?;
        let base = Architecture { lora: None, ..architecture.clone() }.parameters();
        if let Some((key, why)) = lora.problems(&base).into_iter().next() {
            let key = if key == "rank" { "r" } else { key };
            return Err(Error::input(format!("{}: {key} {why}", folder.join(CONFIG).display())));
        }
        let expected: Vec<(String, Vec<usize>)> =
            lora.parameters(&base).into_iter().map(|spec| (spec.name, spec.shape)).collect();
        tensors.expect(&expected)?;
        if let Some(name) = tensors.names().find(|name| !expected.iter().any(|(it, _)| it == name)) {
            let (name, path) = (name.escape_debug(), path.display());
            return Err(Error::input(format!(
                "{path}: tensor '{name}' adapts a layer that the model does not have"
            )));
        }
        let base = config.get("base_model_name_or_path").and_then(Json::as_str).map(String::from);
        Ok(Adapter { folder, lora, base, tensors })
    }

    /// Values of a tensor, row-major.
    ///
    /// # Errors
    /// As [`TensorFile::read_f32`].
    pub fn read_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.tensors.read_f32(name, shape)
    }

    /// Whether a weight of the model is adapted.
    pub fn adapts(&self, weight: &str, shape: &[usize]) -> bool {
        self.lora.adapter(weight, shape).is_some()
    }

    /// Adds what the adapter does to the values of a weight of the model, if it is adapted.
    ///
    /// # Errors
    /// [`Error::Input`] if the adapter holds no numbers, or the sum is none.
    pub fn merge(&self, weight: &str, shape: &[usize], values: &mut [f32]) -> Result<()> {
        let Some([a, b]) = self.lora.adapter(weight, shape) else { return Ok(()) };
        let [a, b] = [self.read_f32(&a.name, &a.shape)?, self.read_f32(&b.name, &b.shape)?];
        self.lora.merge(values, &a, &b);
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(()),
            Some(value) => {
                let path = self.folder.join(TENSORS);
                Err(Error::input(format!("{}: makes a weight of {weight} {value}", path.display())))
            }
        }
    }

    /// Writes the adapter to the new folder `out`, in `dtype` or as it is stored, with the tokenizer of `model`, which
    /// it is for. Returns the type, and the number of tensors.
    ///
    /// # Errors
    /// [`Error::Input`] if `out` exists or a value does not fit the type; [`Error::Io`]. Nothing is left at `out` then.
    pub fn export(&self, model: &ModelFolder, out: &Path, dtype: Option<Dtype>) -> Result<(Dtype, usize)> {
        let parameters = model.adapted().trained_shapes();
        let (first, shape) = parameters.first().expect("an adapter has a tensor");
        let dtype = dtype.map_or_else(|| self.tensors.float(first, shape).map(|it| it.0), Ok)?;
        // Without a name, the base is the model that the adapter was opened with.
        let own = std::path::absolute(&model.path).map_err(Error::io(&model.path))?;
        let base = self.base.clone().unwrap_or_else(|| own.to_string_lossy().into_owned());
        let mut unfit = None;
        let read = |name: &str| {
            let shape = &parameters.iter().find(|(it, _)| it == name).expect("one of them").1;
            let values = self.read_f32(name, shape)?;
            unfit = unfit.or(dtype.encode(&values, &mut Vec::new()).unfit);
            Ok(values)
        };
        let files = encode(&self.lora, &parameters, Some(&base), dtype, read)?;
        if let Some(value) = unfit {
            let (path, dtype) = (self.folder.join(TENSORS), dtype.name());
            let why = format!("holds {value:e}, which {dtype} cannot hold: choose another --dtype");
            return Err(Error::input(format!("{}: {why}", path.display())));
        }
        publish(out, |folder| {
            std::fs::create_dir(folder).map_err(Error::io(folder))?;
            for (name, bytes) in files {
                let path = folder.join(name);
                write_file(&path, |file| file.write_all(&bytes).map_err(Error::io(&path)))?;
            }
            super::hf::write_companions(model, folder)
        })?;
        Ok((dtype, parameters.len()))
    }
}

/// Whether a folder holds an adapter.
pub(super) fn is_adapter(folder: &Path) -> bool {
    folder.join(CONFIG).is_file()
}

/// The files of an adapter, by name: `parameters` are its tensors, and `read` gives their values; `base` is the name or
/// the path of its model.
///
/// # Errors
/// What `read` returns.
pub fn encode(
    lora: &Lora,
    parameters: &[(String, Vec<usize>)],
    base: Option<&str>,
    dtype: Dtype,
    read: impl FnMut(&str) -> Result<Vec<f32>>,
) -> Result<[(String, Vec<u8>); 2]> {
    let mut tensors = Vec::new();
    write_to(&mut tensors, Path::new(TENSORS), dtype, parameters, read)?;
    let whole = |x: f64| if x.fract() == 0.0 && x < 1e15 { json!(x as u64) } else { json!(x) };
    let config = json!({
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": whole(lora.alpha()),
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": lora.targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    });
    Ok([(CONFIG.into(), format!("{config:#}\n").into_bytes()), (TENSORS.into(), tensors)])
}

/// Rank and alpha, or the field that smolter does not have.
fn read_config(config: &Map<String, Json>) -> std::result::Result<Lora, String> {
    let field = |name: &str| config.get(name).unwrap_or(&Json::Null);
    if field("peft_type") != &json!("LORA") {
        return Err(format!("peft_type is {}, but only \"LORA\" is read", field("peft_type")));
    }
    // Such a start changes the base too, which is then not the model that the adapter is used with.
    let plain =
        [json!(null), json!(true), json!(false), json!("gaussian"), json!("orthogonal"), json!("eva")];
    if !plain.contains(field("init_lora_weights")) {
        let start = field("init_lora_weights");
        return Err(format!("init_lora_weights is {start}, which changes the model too: merge it with PEFT"));
    }
    let idle = [json!(null), json!(false), json!("none"), json!(""), json!([]), json!({})];
    for name in config.keys().filter(|name| !IDLE.contains(&name.as_str())) {
        if !idle.contains(&config[name]) {
            let (name, value) = (name.escape_debug(), &config[name]);
            return Err(format!(
                "{name} is {value}, which smolter does not know: merge the adapter with PEFT"
            ));
        }
    }
    let rank = field("r").as_u64().and_then(|rank| usize::try_from(rank).ok());
    let rank =
        rank.filter(|&rank| rank > 0).ok_or_else(|| format!("r is {}, but must be a rank", field("r")))?;
    let alpha = field("lora_alpha").as_f64();
    let alpha =
        alpha.ok_or_else(|| format!("lora_alpha is {}, but must be a number", field("lora_alpha")))?;
    // Rank-stabilised LoRA divides by the root of the rank.
    let root = if field("use_rslora") == &json!(true) { (rank as f64).sqrt() } else { 1.0 };
    Ok(Lora { rank, alpha: Some(alpha * root), ..Lora::default() })
}

/// The layers that the tensors adapt.
fn targets(tensors: &TensorFile) -> std::result::Result<Vec<String>, String> {
    let mut found = Vec::new();
    for name in tensors.names() {
        let layer = name
            .strip_prefix(PREFIX)
            .and_then(|name| name.strip_suffix(".lora_A.weight").or(name.strip_suffix(".lora_B.weight")));
        let target = layer.and_then(|layer| layer.rsplit('.').next());
        match target.and_then(|target| TARGETS.iter().find(|it| **it == target)) {
            Some(target) => found.push(*target),
            None => {
                let (name, known) = (name.escape_debug(), TARGETS.join(", "));
                return Err(format!("tensor '{name}' is no adapter of a linear layer ({known})"));
            }
        }
    }
    let order = TARGETS.into_iter().filter(|target| found.contains(target));
    Ok(order.map(String::from).collect())
}

impl ModelFolder {
    /// The model with the adapter in `folder` in place of its own, if it has one.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn with_adapter(mut self, folder: &Path) -> Result<Self> {
        self.adapter = Some(Adapter::open(folder, &self.architecture)?);
        Ok(self)
    }

    /// The shape of the model with its adapter beside it, as it is trained.
    pub fn adapted(&self) -> Architecture {
        self.architecture.clone().with_lora(self.adapter.as_ref().map(|adapter| adapter.lora.clone()))
    }

    /// The type and the bytes of a weight, row-major, little-endian: as they are stored, or f32 with the adapter merged.
    ///
    /// # Errors
    /// As [`TensorFile::float`] and [`Adapter::merge`].
    pub fn float(&self, name: &str, shape: &[usize]) -> Result<(Dtype, Cow<'_, [u8]>)> {
        match &self.adapter {
            Some(adapter) if adapter.adapts(name, shape) => {
                let mut bytes = Vec::new();
                Dtype::F32.encode(&self.read_f32(name, shape)?, &mut bytes);
                Ok((Dtype::F32, bytes.into()))
            }
            _ => self.tensors.float(name, shape).map(|(dtype, bytes)| (dtype, bytes.into())),
        }
    }

    /// The values of a weight, row-major, with the adapter merged.
    ///
    /// # Errors
    /// As [`TensorFile::read_f32`] and [`Adapter::merge`].
    pub fn read_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let mut values = self.tensors.read_f32(name, shape)?;
        if let Some(adapter) = &self.adapter {
            adapter.merge(name, shape, &mut values)?;
        }
        Ok(values)
    }
}
