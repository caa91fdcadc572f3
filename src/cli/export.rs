//! `smolter export`: a model folder, or a run's newest checkpoint, in another format or element type.

use super::{AdapterFlag, bytes};
use crate::checkpoint::Dtype;
use crate::checkpoint::gguf::Type;
use crate::error::{Error, Result};
use crate::hub;
use crate::model::ModelFolder;
use crate::model::adapter::Adapter;
use crate::model::export::{Format, Options, export};
use crate::report::out;
use crate::report::progress::Progress;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "Examples:
  smolter export runs/microcosm -o model  for transformers
  smolter export runs/microcosm -o model.gguf --dtype q8_0
  smolter export hf://HuggingFaceTB/SmolLM2-135M -o smollm2.gguf --dtype f16
  smolter export runs/mine -o adapter  the adapter of a run with LoRA, for PEFT
  smolter export runs/mine -o mine.gguf --merge
  smolter export model --adapter adapter --merge -o merged";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Export {
    /// Hugging Face model folder, a run folder for its newest whole checkpoint, or hf://owner/name[@revision].
    model: String,
    #[command(flatten)]
    adapter: AdapterFlag,
    /// Writes the model with its adapter merged into the weights. Without it, of a model with an adapter only that is
    /// written, as PEFT loads it.
    #[arg(long)]
    merge: bool,
    /// The new folder, or for gguf the new file; nothing is overwritten.
    #[arg(short, long)]
    out: PathBuf,
    /// Layout; by default gguf if OUT ends in .gguf, else hf.
    #[arg(long, value_enum)]
    format: Option<Layout>,
    /// Element type; by default the one that the weights are stored in.
    #[arg(long, value_enum)]
    dtype: Option<Precision>,
    /// Most bytes in one safetensors file; beyond it there are several, with an index.
    #[arg(long, value_parser = bytes, default_value = "5GB")]
    max_shard_size: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Layout {
    /// A folder as transformers loads it.
    Hf,
    /// A file as llama.cpp loads it.
    Gguf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Precision {
    /// 32-bit float.
    F32,
    /// IEEE half precision; refused if a weight exceeds its largest value, 65504.
    F16,
    /// bfloat16.
    Bf16,
    /// 8 bits with a scale for every 32 weights; gguf only.
    #[value(name = "q8_0")]
    Q8_0,
}

impl Export {
    pub fn run(self) -> Result<()> {
        let model = self.adapter.open(&self.model)?;
        let is_gguf = self.out.extension().is_some_and(|it| it.eq_ignore_ascii_case("gguf"));
        let format = match self.format {
            Some(Layout::Gguf) => Format::Gguf,
            None if is_gguf => Format::Gguf,
            Some(Layout::Hf) | None => Format::Hf,
        };
        let ty = self.dtype.map(|precision| match precision {
            Precision::F32 => Type::Plain(Dtype::F32),
            Precision::F16 => Type::Plain(Dtype::F16),
            Precision::Bf16 => Type::Plain(Dtype::Bf16),
            Precision::Q8_0 => Type::Q8_0,
        });
        match &model.adapter {
            None if self.merge => {
                let why = "has no adapter to merge: leave --merge out, or name one with --adapter";
                return Err(Error::input(format!("{}: {why}", model.path.display())));
            }
            Some(adapter) if !self.merge => return self.export_adapter(&model, adapter, format, ty),
            _ => {}
        }
        let options = Options { format, ty, max_shard: self.max_shard_size, name: name_of(&self.model) };
        let mut progress: Option<Progress> = None;
        let report = export(&model, &self.out, &options, &mut |done, total| {
            let bar = progress.get_or_insert_with(|| Progress::new("exporting MB", total / 1_000_000, 0));
            bar.set(done / 1_000_000, "");
        });
        if let Some(mut bar) = progress {
            bar.finish();
        }
        let report = report?;
        if report.vanished > 0 {
            out::warn(format_args!(
                "{} weights are too small for {} and became 0",
                report.vanished,
                report.ty.name()
            ));
        }
        let files = if report.files == 1 { "one file".into() } else { format!("{} files", report.files) };
        let (ty, tensors) = (report.ty.name(), report.tensors);
        // The file is what this is for.
        out::say(format_args!(
            "{}: {tensors} tensors of {} as {ty} in {files}",
            self.out.display(),
            model.path.display()
        ));
        Ok(())
    }
}

impl Export {
    fn export_adapter(
        &self,
        model: &ModelFolder,
        adapter: &Adapter,
        to: Format,
        ty: Option<Type>,
    ) -> Result<()> {
        let dtype = match (to, ty) {
            (Format::Hf, None) => None,
            (Format::Hf, Some(Type::Plain(dtype))) => Some(dtype),
            _ => {
                let why = "has an adapter, which by itself is a folder of f32, f16 or bf16: add --merge";
                return Err(Error::input(format!("{}: {why}", model.path.display())));
            }
        };
        let (dtype, tensors) = adapter.export(model, &self.out, dtype)?;
        out::line(format_args!(
            "{}: the adapter of {}, {tensors} tensors as {} for PEFT; --merge writes the whole model",
            self.out.display(),
            model.path.display(),
            dtype.name()
        ))
    }
}

/// The last part of the path that is a name, or a Hub model's name without owner and revision.
fn name_of(model: &str) -> String {
    let path = match model.strip_prefix(hub::PREFIX) {
        Some(model) => model.split('@').next().unwrap_or(model).into(),
        None => Path::new(model).canonicalize().unwrap_or_else(|_| model.into()),
    };
    path.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}
