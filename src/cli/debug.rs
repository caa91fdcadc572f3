//! `smolter debug forward|backward|step|score|preference|batch`: logits, gradients, weights, scores or losses of pairs of a model
//! folder on given token ids.

use super::sampling::whole;
use super::{AdapterFlag, DeviceFlag, RecipeFlags};
use crate::check::batch::{self, Choice};
use crate::check::debug::{self, Job};
use crate::check::{preference, score};
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::hub;
use crate::ops::adamw::Hyper;
use crate::ops::preference_loss::{PreferenceLoss, Variant};
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
  smolter debug backward --model model --input batch.safetensors -o gradients.safetensors
  smolter debug backward --model model --adapter adapter --input batch.safetensors -o gradients.safetensors";

const STEP_EXAMPLES: &str = "Examples:
  smolter debug step --model model --input batch.safetensors -o weights.safetensors
  smolter debug step --model model --input batch.safetensors -o weights.safetensors --steps 10 --lr 1e-3";

const SCORE_EXAMPLES: &str = "Examples:
  smolter debug score --model model --input tokens.jsonl -o scores.jsonl";

const PREFERENCE_EXAMPLES: &str = "Examples:
  smolter debug preference --model model --reference model --input pairs.safetensors -o out.safetensors --loss sigmoid
  smolter debug preference --model model --input pairs.safetensors -o out.safetensors --loss simpo --gamma 0.5";

const BATCH_EXAMPLES: &str = "Examples:
  smolter debug batch                            the first step of the default recipe
  smolter debug batch mine.toml --stage chat --step 3 -o batch.json";

#[derive(Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Debug {
    /// Writes `logits` [B, T, V].
    #[command(after_help = FORWARD_EXAMPLES)]
    Forward(Files),
    /// Writes `loss` and the gradient of every parameter under its Hugging Face name; with an adapter, of its parameters
    /// under PEFT's.
    #[command(after_help = BACKWARD_EXAMPLES)]
    Backward(Files),
    /// Writes the weights after AdamW steps on the one batch; with an adapter, its own.
    #[command(after_help = STEP_EXAMPLES)]
    Step(Step),
    /// Writes the negative log-likelihood of each token given those before it, as JSON Lines.
    #[command(after_help = SCORE_EXAMPLES)]
    Score(Score),
    /// Writes the loss of pairs of sequences, one of which is preferred, with log-probabilities, rewards and the gradient
    /// of every parameter.
    #[command(after_help = PREFERENCE_EXAMPLES)]
    Preference(Preference),
    /// Shows what a stage learns from in one of its steps, and on which tokens the model is judged: those in green, or
    /// between ⟦ and ⟧.
    #[command(after_help = BATCH_EXAMPLES)]
    Batch(BatchOf),
}

#[derive(Args)]
pub struct Files {
    /// Hugging Face model folder (config.json, model.safetensors), or hf://owner/name[@revision].
    #[arg(long)]
    model: String,
    #[command(flatten)]
    adapter: AdapterFlag,
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
    #[command(flatten)]
    adapter: AdapterFlag,
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
pub struct Preference {
    /// Hugging Face model folder (config.json, model.safetensors), or hf://owner/name[@revision].
    #[arg(long)]
    model: String,
    /// The frozen model, likewise; not for orpo and simpo, which have none.
    #[arg(long)]
    reference: Option<String>,
    /// `chosen_input_ids`, `chosen_labels`, `rejected_input_ids` and `rejected_labels`: [B, T] int64, labels as for
    /// `backward`.
    #[arg(long)]
    input: PathBuf,
    /// Where the results go.
    #[arg(short, long)]
    out: PathBuf,
    /// sigmoid, hinge, ipo, orpo or simpo.
    #[arg(long)]
    loss: String,
    /// How much a margin counts.
    #[arg(long, default_value_t = 0.5)]
    beta: f64,
    /// Share of labels taken to be wrong: sigmoid and simpo.
    #[arg(long, default_value_t = 0.0)]
    label_smoothing: f64,
    /// Margin aimed at: simpo.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    gamma: f64,
    /// Weight of the odds beside the negative log-likelihood: orpo.
    #[arg(long, default_value_t = 0.1)]
    lambda: f64,
    #[command(flatten)]
    device: DeviceFlag,
}

#[derive(Args)]
pub struct BatchOf {
    #[command(flatten)]
    recipe: RecipeFlags,
    /// Name of the stage, or its index; the first if not given.
    #[arg(long)]
    stage: Option<String>,
    /// Step of the stage, counted from 0.
    #[arg(long, default_value_t = 0)]
    step: u64,
    /// Sequences to print.
    #[arg(long, default_value_t = 4)]
    print: usize,
    /// JSON file for all sequences of the step: `rows`, each with `dataset`, `length`, `input_ids`, `labels` (of the token
    /// that follows, -100 where the model is not judged), `weights`, `positions` and `segments`.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
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
            Debug::Score(Score { model, adapter, input, out, device }) => {
                score::run(&on(&device)?, &adapter.open(&model)?, &input, &out)
            }
            Debug::Preference(preference) => preference.run(),
            Debug::Batch(BatchOf { recipe, stage, step, print, out }) => {
                let choice = Choice { stage: stage.as_deref(), step, print };
                batch::run(recipe.load(&[])?, &choice, out.as_deref())
            }
            Debug::Step(Step { files, steps, lr, beta1, beta2, eps, weight_decay, clip }) => {
                files.run(Job::Step { steps, hyper: Hyper { lr, beta1, beta2, eps, weight_decay, clip } })
            }
        }
    }
}

impl Preference {
    fn run(self) -> Result<()> {
        let loss = self.loss()?;
        let folder = |model: &String| hub::folder(model);
        let (model, reference) = (folder(&self.model)?, self.reference.as_ref().map(folder).transpose()?);
        preference::run(&on(&self.device)?, &model, reference.as_deref(), &self.input, &self.out, &loss)
    }

    /// The loss that the flags ask for.
    fn loss(&self) -> Result<PreferenceLoss> {
        let wrong = |what: String| Err(Error::input(what));
        let Some(variant) = Variant::ALL.into_iter().find(|variant| variant.name() == self.loss) else {
            let names = Variant::ALL.map(Variant::name).join(", ");
            return wrong(format!("--loss {}: there is no such loss; choose one of {names}", self.loss));
        };
        let &Preference { beta, label_smoothing, gamma, lambda, .. } = self;
        // On a device it is an f32.
        if !(beta as f32).is_normal() || beta < 0.0 {
            return wrong(format!("--beta {beta}: give a number above 0"));
        }
        if !(0.0..=0.5).contains(&label_smoothing) {
            return wrong(format!("--label-smoothing {label_smoothing}: give a number from 0 to 0.5"));
        }
        if !gamma.is_finite() {
            return wrong(format!("--gamma {gamma}: give a finite number"));
        }
        if !(lambda >= 0.0 && lambda.is_finite()) {
            return wrong(format!("--lambda {lambda}: give a number from 0"));
        }
        match (variant.has_reference(), &self.reference) {
            (true, None) => {
                wrong(format!("--loss {} compares with a frozen model: give --reference", self.loss))
            }
            (false, Some(_)) => {
                wrong(format!("--loss {} has no frozen model: leave out --reference", self.loss))
            }
            _ => Ok(PreferenceLoss { variant, beta, label_smoothing, gamma, lambda }),
        }
    }
}

impl Files {
    fn run(self, job: Job) -> Result<()> {
        debug::run(&on(&self.device)?, &self.adapter.open(&self.model)?, &self.input, &self.out, job)
    }
}

/// The chosen backend; on the host the comparison deserves the oracle.
fn on(device: &DeviceFlag) -> Result<Backend> {
    Ok(match Backend::open(&device.device)? {
        Backend::Reference => Backend::Oracle,
        other => other,
    })
}
