//! `smolter debug forward|backward|step|score`: logits, gradients, weights or scores of a model folder on given token ids.

use super::DeviceFlag;
use super::sampling::whole;
use crate::check::debug::{self, Job};
use crate::check::score;
use crate::error::Result;
use crate::graph::Backend;
use crate::hub;
use crate::ops::adamw::Hyper;
use clap::{Args, Subcommand};
use std::path::PathBuf;

const EXAMPLES: &str = "Examples:
  smolter debug forward --model model --input ids.safetensors -o logits.safetensors
  smolter debug backward --model model --input batch.safetensors -o gradients.safetensors
  smolter debug step --model model --input batch.safetensors -o weights.safetensors --steps 10 --lr 1e-3
  smolter debug score --model model --input tokens.jsonl -o scores.jsonl";

const FORWARD_EXAMPLES: &str = "Examples:
  smolter debug forward --model model --input ids.safetensors -o logits.safetensors
  smolter debug forward --model model --input ids.safetensors -o logits.safetensors --device reference";

const BACKWARD_EXAMPLES: &str = "Examples:
  smolter debug backward --model model --input batch.safetensors -o gradients.safetensors";

const STEP_EXAMPLES: &str = "Examples:
  smolter debug step --model model --input batch.safetensors -o weights.safetensors
  smolter debug step --model model --input batch.safetensors -o weights.safetensors --steps 10 --lr 1e-3";

const SCORE_EXAMPLES: &str = "Examples:
  smolter debug score --model model --input tokens.jsonl -o scores.jsonl";

#[derive(Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Debug {
    /// Writes `logits` [B, T, V].
    #[command(after_help = FORWARD_EXAMPLES)]
    Forward(Files),
    /// Writes `loss` and the gradient of every parameter under its Hugging Face name.
    #[command(after_help = BACKWARD_EXAMPLES)]
    Backward(Files),
    /// Writes the weights after AdamW steps on the one batch.
    #[command(after_help = STEP_EXAMPLES)]
    Step(Step),
    /// Writes the negative log-likelihood of each token given those before it, as JSON Lines.
    #[command(after_help = SCORE_EXAMPLES)]
    Score(Score),
}

#[derive(Args)]
pub struct Files {
    /// Hugging Face model folder (config.json, model.safetensors), or hf://owner/name[@revision].
    #[arg(long)]
    model: String,
    /// `input_ids` and, but for `forward`, `labels`: [B, T] int64, -100 ignored, shifted inside as in transformers.
    #[arg(long)]
    input: PathBuf,
    /// Where the results go.
    #[arg(short, long)]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceFlag,
}

#[derive(Args)]
pub struct Score {
    /// Hugging Face model folder (config.json, model.safetensors), or hf://owner/name[@revision].
    #[arg(long)]
    model: String,
    /// JSON Lines of {"input_ids": [...], "mask": [...]}; the mask is 1 for tokens to score, all where it is missing.
    #[arg(long)]
    input: PathBuf,
    /// Where the lines {"nll": [...]} go.
    #[arg(short, long)]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceFlag,
}

#[derive(Args)]
pub struct Step {
    #[command(flatten)]
    files: Files,
    /// Number of steps.
    #[arg(long, default_value_t = 1, value_parser = whole::<u64>)]
    steps: u64,
    /// Learning rate.
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Decay of the first moment.
    #[arg(long, default_value_t = 0.9)]
    beta1: f64,
    /// Decay of the second moment.
    #[arg(long, default_value_t = 0.95)]
    beta2: f64,
    /// Added to the denominator.
    #[arg(long, default_value_t = 1e-8)]
    eps: f64,
    /// Decoupled weight decay.
    #[arg(long, default_value_t = 0.01)]
    weight_decay: f64,
    /// Largest gradient norm; 0 for no clipping.
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
}

impl Debug {
    pub fn run(self) -> Result<()> {
        match self {
            Debug::Forward(files) => files.run(Job::Forward),
            Debug::Backward(files) => files.run(Job::Backward),
            Debug::Score(Score { model, input, out, device }) => {
                score::run(&on(&device)?, &hub::folder(&model)?, &input, &out)
            }
            Debug::Step(Step { files, steps, lr, beta1, beta2, eps, weight_decay, clip }) => {
                files.run(Job::Step { steps, hyper: Hyper { lr, beta1, beta2, eps, weight_decay, clip } })
            }
        }
    }
}

impl Files {
    fn run(self, job: Job) -> Result<()> {
        debug::run(&on(&self.device)?, &hub::folder(&self.model)?, &self.input, &self.out, job)
    }
}

/// The chosen backend; on the host the comparison deserves the oracle.
fn on(device: &DeviceFlag) -> Result<Backend> {
    Ok(match Backend::open(&device.device)? {
        Backend::Reference => Backend::Oracle,
        other => other,
    })
}
