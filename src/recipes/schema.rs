//! The keys of a recipe, as they stand in its TOML file. Defaults are SmolLM2's (arXiv 2502.02737,
//! section 4.1 and table 6).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::count::{count, some_count};
use super::list::one_or_more;
use crate::data::conversation::Columns;
use crate::data::pairs::Cut;
use crate::data::source::{MAX_RECORD_BYTES, OnBroken, Score};
use crate::nn::Lora;
use crate::nn::config::LlamaConfig;
use crate::tokenizer::Judged;

/// Everything that affects the result of a training run; made by [`Recipe::load`](super::Recipe::load).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The lines that the file begins with, each with `#` before it: what its author says about it.
    #[serde(skip)]
    pub comment: String,
    /// What the run is called.
    pub name: String,
    /// Seed of the initial weights.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Seed of the data order, and of generated text where `world_seed` is not given.
    #[serde(default = "default_seed")]
    pub data_seed: u64,
    /// Seed of generated text, if it is not `data_seed`: the same text in another order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_seed: Option<u64>,
    /// `[model]`: its shape. What is not given follows: `intermediate_size` is 8/3 of `hidden_size` in multiples of 32,
    /// `head_dim` is `hidden_size` / `num_attention_heads`, `num_key_value_heads` is `num_attention_heads`,
    /// `initializer_std` is 1 / sqrt(`hidden_size`), `vocab_size` is that of `tokenizer.train`, `rope_theta` is 10,000,
    /// `rms_norm_eps` is 1e-5, `tie_word_embeddings` is true.
    ///
    /// Or `preset = "smollm2-135m"` (also `-360m`, `-1.7b`), and the keys that differ from it.
    pub model: LlamaConfig,
    /// `from` in `[model]`: whose weights, shape and tokenizer the run begins with: a model folder, run folder or
    /// checkpoint, or `"hf://owner/name"` with or without `@revision`. Other keys of `[model]` are then left out, but for
    /// `rope_theta` and `max_position_embeddings`, and `[tokenizer]` may be. `from_hash`, which a run writes, is the hash
    /// of that model.
    #[serde(skip)]
    pub source: Option<ModelSource>,
    /// `[tokenizer]`: that of `from` in `[model]` if neither `path` nor `train` is given.
    pub tokenizer: TokenizerChoice,
    /// `[optimizer]`: of the stages that name none.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// `[optimizers.NAME]`: for the stages that name it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub optimizers: BTreeMap<String, Optimizer>,
    /// `[schedule]`: of the stages that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<LearningRate>,
    /// `[schedules.NAME]`: for the stages that name it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schedules: BTreeMap<String, LearningRate>,
    /// `[batch]`: of the stages that have none of their own.
    pub batch: Batch,
    /// `[[datasets]]`
    pub datasets: Vec<Dataset>,
    /// `[[stages]]`, in the order of training.
    pub stages: Vec<Stage>,
    /// `[held_out]`
    #[serde(default)]
    pub held_out: HeldOutText,
    /// `[checkpoint]`
    #[serde(default)]
    pub checkpoint: Saving,
    /// `[sample]`
    #[serde(default)]
    pub sample: Sample,
    /// `[evaluation]`
    #[serde(default, skip_serializing_if = "is_usual_evaluation")]
    pub evaluation: Evaluation,
    /// `[spikes]`
    #[serde(default, skip_serializing_if = "Spikes::are_usual")]
    pub spikes: Spikes,
}

/// Whose weights, shape and tokenizer a run begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSource {
    /// An absolute path (a model folder, run folder or checkpoint), or `hf://owner/name[@revision]`.
    pub from: String,
    /// Hash of its weights and settings; known once a run has begun with it.
    pub hash: Option<String>,
}

fn default_seed() -> u64 {
    8
}

/// `[tokenizer]`: `path` or `train`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerChoice {
    /// A Hugging Face `tokenizer.json`, or a model of the Hub that has one: `"hf://owner/name"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Trains a byte-level BPE tokenizer on the datasets first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<TokenizerTraining>,
    /// How stages of kind `sft` write conversations. If not given, `"own"` where the tokenizer's folder has a chat template,
    /// else `"smollm2"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<ChatFormat>,
}

/// Whose chat template is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatFormat {
    /// That of the tokenizer's folder: `chat_template.jinja`, or `chat_template` in `tokenizer_config.json`.
    Own,
    /// SmolLM2's.
    Smollm2,
}

/// `tokenizer.train`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerTraining {
    /// Number of tokens, special ones included; that of the model.
    #[serde(deserialize_with = "count")]
    pub vocab_size: usize,
    /// Number of documents to learn from, drawn from all datasets.
    #[serde(deserialize_with = "count")]
    pub sample_documents: usize,
    /// Number of tokens to train at first, of which the `vocab_size` most used are kept. Merges that only lead to longer
    /// ones go, so that more words have a token. If not given, all that are trained are kept.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    pub prune_from: Option<usize>,
    /// Names of the datasets that these are drawn from; all that there are if not given. A run that is given another dataset
    /// later keeps its tokenizer, and writes here which it has learnt from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datasets: Option<Vec<String>>,
}

impl TokenizerTraining {
    /// Whether it learns from a dataset.
    pub fn learns_from(&self, dataset: &str) -> bool {
        self.datasets.as_ref().is_none_or(|names| names.iter().any(|name| name == dataset))
    }
}

/// `[optimizer]` or `[optimizers.NAME]`: AdamW with decoupled decay on all parameters, norms and embeddings
/// included, as SmolLM2 has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// Decay rates of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of a weight, times the learning rate, that a step takes away.
    pub weight_decay: f64,
    /// Largest global norm of the gradients; larger ones are scaled down to it.
    pub clip_norm: f64,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.01, clip_norm: 1.0 }
    }
}

/// `[schedule]` or `[schedules.NAME]`: a learning rate over all stages that use it one after another. It
/// begins where a stage uses another one than the stage that it goes on from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRate {
    /// Its shape.
    pub kind: ScheduleKind,
    /// Learning rate after the warmup.
    pub peak_lr: f64,
    /// Learning rate at the end: the last step of all stages that use the schedule.
    #[serde(default)]
    pub min_lr: f64,
    /// Steps of the linear rise from 0; or give `warmup_fraction`. No rise if neither is given.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Length of the linear rise as a share of all steps of the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_fraction: Option<f64>,
    /// Length of the decay of `wsd`, in steps before the end; or give `decay_fraction`.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<u64>,
    /// Length of the decay of `wsd` as a share of all its steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_fraction: Option<f64>,
}

/// Shape of a learning-rate schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Warmup, stable, linear decay.
    Wsd,
    /// Warmup, then half a cosine.
    Cosine,
    /// Warmup, then constant.
    Constant,
}

/// `[batch]`, or `batch` of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Sequences per optimizer step; in a `dpo` stage, pairs of them.
    #[serde(deserialize_with = "count")]
    pub sequences: usize,
    /// Sequences (or pairs) per pass over the device, a divisor of `sequences`; 0 takes the largest that fits.
    #[serde(default)]
    pub micro_batch: usize,
}

/// One of `[[datasets]]`: text that is generated (`microcosm`, `documents`) or read (`paths`); or conversations, if a stage
/// of kind `sft` has it in its mixture and it is no `replay`; or preference pairs (`chosen` and `rejected`, and `prompt` where `chosen` is no
/// whole conversation), if a stage of kind `dpo` has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// What mixtures, reports and `--set` call it.
    pub name: String,
    /// What to generate: the name of a [`Register`](crate::data::microcosm::Register) for text, or of
    /// [`Answers`](crate::data::microcosm::village::Answers) for conversations and pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microcosm: Option<String>,
    /// Number of documents to generate.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    pub documents: Option<usize>,
    /// Files, or folders of files, relative to the recipe's folder (to the current folder if embedded); a single one
    /// need not be in a list. Or files and folders of datasets of the Hub: `"hf://datasets/OWNER/NAME/PATTERN"`, with
    /// `@REVISION` behind `NAME` where it is not `main`; in `PATTERN`, `*` stands for any letters but `/`, and the part
    /// `**` for any folders. These are fetched one after another, in an order that follows from `data_seed`, tokenised
    /// and removed, as many as the stages need. A run writes the commit that it found into its recipe.
    #[serde(default, deserialize_with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathBuf>,
    /// Fields (Parquet: columns) that make a document, joined by newlines.
    #[serde(default = "default_fields")]
    pub fields: Vec<String>,
    /// Cuts `.txt` files into documents of at most so many bytes, behind a paragraph or else a line, so that some can be
    /// held out. If not given, a `.txt` file is one document.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    pub document_bytes: Option<usize>,
    /// What to do about a document that cannot be read: `"refuse"` it and stop, or `"skip"` it.
    #[serde(default)]
    pub on_broken: OnBroken,
    /// Longest document that is read, in bytes of its line, element or file; a longer one cannot be read.
    #[serde(deserialize_with = "count")]
    #[serde(default = "default_max_record_bytes", skip_serializing_if = "is_default_max_record_bytes")]
    pub max_record_bytes: usize,
    /// `[datasets.score]`: leaves documents out by a score that they have. If not given, all are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// Least number of tokens of a document; shorter ones are left out.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<usize>,
    /// Published size in tokens, such as `"1.3T"`: caps are checked with it before anything is read or fetched.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Most passes over the dataset in the whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_epochs: Option<f64>,
    /// What to do where the stages take more than `max_epochs` of it: `"refuse"`, the default, or `"redistribute"` its share.
    #[serde(default, skip_serializing_if = "is_usual_exhaustion")]
    pub on_exhausted: OnExhausted,
    /// Whether stages of kind `sft` that have it in their mixture learn from its text as pretraining does, with no chat
    /// template and every token judged, so that the model keeps what it knew. Other stages may have it too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replay: bool,
    /// Conversations: what columns are called that have other names than usual, such as `{ messages = "chat" }`.
    #[serde(default, skip_serializing_if = "Columns::are_usual")]
    pub columns: Columns,
    /// Conversations: benchmark files (JSON Lines or a JSON array); what contains a docstring or a solution of HumanEval's, or
    /// a question of another's, is left out and counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decontaminate: Vec<PathBuf>,
}

/// What to do where a dataset's cap of epochs would be exceeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExhausted {
    /// Stop before training starts.
    #[default]
    Refuse,
    /// From there on its share goes to the other datasets of the mixture, which is reported.
    Redistribute,
}

fn is_usual_exhaustion(what: &OnExhausted) -> bool {
    *what == OnExhausted::default()
}

fn default_max_record_bytes() -> usize {
    MAX_RECORD_BYTES
}

fn is_default_max_record_bytes(bytes: &usize) -> bool {
    *bytes == MAX_RECORD_BYTES
}

fn default_fields() -> Vec<String> {
    vec!["text".into()]
}

/// One of `[[stages]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What reports and `--set` call it.
    pub name: String,
    /// What kind of training it is.
    #[serde(default)]
    pub kind: StageKind,
    /// What the stage goes on from: `"STAGE"`, the end of an earlier stage, or `"STAGE@STEP"`, a step on the
    /// way there, counted over the whole run as in the names of checkpoints. If not given, the end of the stage
    /// before it; the first stage starts from noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Tokens trained on at which the stage ends, counted from the start of the run along the stages that lead
    /// to it; or give `steps` or `epochs`. A resolved recipe has only this one.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Optimizer steps of the stage itself.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Length of the stage itself: this many times the tokens of all datasets in its mixture, in whole steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Tokens per sequence.
    pub sequence_length: usize,
    /// Whether `sequence_length` is only a limit: sequences are no longer than the model takes; and where each conversation
    /// or answer has one of its own, than the longest of these.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fit_length: bool,
    /// Whether documents that lie in one sequence do not see each other: attention does not cross, positions restart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub document_mask: bool,
    /// `sft`: which tokens the loss is of; `"all"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_on: Option<Judged>,
    /// `sft`: whether conversations follow one another, cut into sequences wherever one is full. If `false`, each has a
    /// sequence of its own, and what does not fit is cut off behind a turn of the assistant's. `true` if not given.
    /// `dpo`: whether several answers, uncut, share a sequence in which they do not see each other. It changes what is
    /// computed in rounding alone, and there is less padding. `true` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packing: Option<bool>,
    /// Base of the rotary frequencies; that of the model if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// One of `[schedules]`; if not given, `[schedule]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// One of `[optimizers]`; if not given, `[optimizer]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<String>,
    /// Whether the moments start at zero and AdamW's step count at 1, instead of going on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset_optimizer: bool,
    /// What the model is given when the stage ends: names of tasks about the generated village (`facts`, `facts-cloze`,
    /// `facts-choice`, `arithmetic`, `programs`, `needle-short`, `needle-long`, `constraints`, `stories`, `preference`),
    /// `loss` for the loss on held-out text beside that of a 5-gram, or `microcosm` for all of them. Scores go to
    /// `scores.jsonl`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluate: Vec<String>,
    /// If not given, `[batch]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// `[stages.lora]`: trains adapters instead of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Of a `dpo` stage: its loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpo: Option<Preference>,
    /// Steps of its data that are left out, such as `[{ step = 120, steps = 3 }]`; what follows moves up. A run that goes
    /// back behind a loss spike writes here what it leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<Skip>,
    /// Share of each dataset in the stage's tokens (of a `dpo` stage, in its pairs); they sum to 1.
    pub mixture: BTreeMap<String, f64>,
}

/// One element of `skip` of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The first step of the stage's data that is left out, counted from 0.
    #[serde(deserialize_with = "count")]
    pub step: u64,
    /// How many are.
    #[serde(deserialize_with = "count")]
    pub steps: u64,
}

/// `dpo` of a stage: how much the chosen answer is to be preferred to the rejected one. Defaults are SmolLM2's
/// (alignment-handbook).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preference {
    /// Which loss; `sigmoid` if not given.
    pub loss: PreferenceKind,
    /// How much a margin counts: all but `orpo`. The smaller, the farther the model may go from the one it begins with.
    pub beta: f64,
    /// Share of the pairs taken to be the wrong way round, below 0.5: `sigmoid` and `simpo`.
    pub label_smoothing: f64,
    /// Margin that is aimed at: `simpo`.
    pub gamma: f64,
    /// Weight of the odds beside the likelihood of the chosen answer: `orpo`.
    pub lambda: f64,
    /// Most tokens of a prompt; longer ones lose their beginning. If not given, half of `sequence_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_prompt_length: Option<usize>,
}

impl Default for Preference {
    fn default() -> Self {
        let loss = PreferenceKind::Sigmoid;
        Preference { loss, beta: 0.5, label_smoothing: 0.0, gamma: 1.0, lambda: 0.1, max_prompt_length: None }
    }
}

/// Loss of a `dpo` stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PreferenceKind {
    /// Direct preference optimization: the margin over the model that the stage begins with, by a logistic loss.
    Sigmoid,
    /// The same by a hinge loss.
    Hinge,
    /// Identity preference optimization: a margin per token that is aimed at, and no farther.
    Ipo,
    /// Odds ratios beside the likelihood of the chosen answer; nothing to compare with.
    Orpo,
    /// Log-probabilities per token beyond a margin; nothing to compare with.
    Simpo,
}

impl Stage {
    /// Whether sequences are cut from documents that follow one another; of a `dpo` stage, whether answers share rows.
    pub fn packs(&self) -> bool {
        self.packing.unwrap_or(true)
    }

    /// Which tokens the loss is of.
    pub fn judged(&self) -> Judged {
        self.loss_on.unwrap_or_default()
    }

    /// Tokens that one of `batch.sequences` takes, padding included.
    pub fn window(&self) -> u64 {
        (self.kind.rows() * self.sequence_length) as u64
    }

    /// How long the sequences of a `dpo` stage's pairs are at most.
    pub fn cut(&self) -> Cut {
        let length = self.sequence_length;
        let prompt = self.dpo.as_ref().and_then(|dpo| dpo.max_prompt_length);
        Cut { prompt: prompt.unwrap_or((length / 2).max(1)), length }
    }
}

/// Kind of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Next-token prediction on packed documents.
    #[default]
    Pretrain,
    /// The same on longer sequences than those of the stage that it goes on from, usually with a larger `rope_theta`.
    ExtendContext,
    /// Supervised fine-tuning on conversations.
    Sft,
    /// Direct preference optimization, or another loss of preference pairs.
    Dpo,
}

impl StageKind {
    /// Rows of `sequence_length` tokens that one of `batch.sequences` takes: a pair has two.
    pub fn rows(self) -> usize {
        if self == StageKind::Dpo { 2 } else { 1 }
    }
}

/// `[held_out]`: documents that are never trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeldOutText {
    /// Share of each dataset's documents; 0 holds out none.
    pub fraction: f64,
    /// Sequences per dataset that an evaluation reads.
    pub sequences: usize,
    /// Pairs per dataset that an evaluation of a `dpo` stage reads; if not given, `sequences`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<usize>,
    /// Steps between evaluations; one more follows the last step.
    pub every: u64,
}

impl Default for HeldOutText {
    fn default() -> Self {
        HeldOutText { fraction: 0.001, sequences: 64, pairs: None, every: 1000 }
    }
}

/// `[checkpoint]`: when the state of the run is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Saving {
    /// Steps between checkpoints; one more follows the last step.
    pub every: u64,
    /// Minutes after which a step is saved even if its turn has not come; 0 saves by steps alone.
    #[serde(skip_serializing_if = "is_usual")]
    pub minutes: f64,
    /// How many of the newest stay on disk.
    pub keep: usize,
}

/// Minutes between checkpoints where nothing else is said.
const MINUTES: f64 = 10.0;

/// Keeps the hashes of recipes that were written before the key existed.
fn is_usual(minutes: &f64) -> bool {
    *minutes == MINUTES
}

impl Default for Saving {
    fn default() -> Self {
        Saving { every: 2000, minutes: MINUTES, keep: 2 }
    }
}

/// `[evaluation]`: what `evaluate` of the stages means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluation {
    /// Items of each task.
    pub items: usize,
    /// Items of single tasks, such as `{ preference = 200 }`, where more are to be asked, or fewer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub items_of: BTreeMap<String, usize>,
    /// Tokens trained on between evaluations in a stage with `evaluate`; 0 for its end alone.
    #[serde(deserialize_with = "count")]
    pub every: u64,
    /// Seed that draws the items.
    pub seed: u64,
}

impl Default for Evaluation {
    fn default() -> Self {
        Evaluation { items: 100, items_of: BTreeMap::new(), every: 0, seed: 0 }
    }
}

/// Keeps the hashes of recipes that were written before the table existed.
fn is_usual_evaluation(evaluation: &Evaluation) -> bool {
    *evaluation == Evaluation::default()
}

/// `[sample]`: text that the model writes at the end of each stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// Beginnings to go on from; none writes nothing.
    pub prompts: Vec<String>,
    /// Most tokens to add.
    pub tokens: usize,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Seed of the choice of tokens.
    pub seed: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Sample { prompts: Vec::new(), tokens: 64, temperature: 0.7, seed: 8 }
    }
}

/// `[spikes]`: what is done about a loss spike, a step whose loss is far above what the steps before it in its stage lead to
/// expect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spikes {
    /// What is done; `report` if not given.
    pub action: SpikeAction,
    /// How far above the expected loss a spike is, in standard deviations of the steps before it (robust ones).
    pub threshold: f64,
    /// `rewind`: steps before the spike whose data is left out too, since their updates may have caused it.
    #[serde(deserialize_with = "count")]
    pub before: u64,
    /// `rewind`: most rewinds of a stage; one more spike ends the run with an error.
    #[serde(deserialize_with = "count")]
    pub rewinds: u64,
}

/// What is done about a loss spike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpikeAction {
    /// A line on stderr and one in `history.jsonl`; training goes on.
    Report,
    /// That, and the run goes back to the last checkpoint before the spike and on without the data that caused it. A loss
    /// that is not finite counts as a spike.
    Rewind,
    /// Nothing; nobody looks for spikes.
    Off,
}

impl Spikes {
    /// Keeps the hashes of recipes that were written before the table existed.
    fn are_usual(&self) -> bool {
        *self == Spikes::default()
    }
}

impl Default for Spikes {
    fn default() -> Self {
        let action = SpikeAction::Report;
        Spikes { action, threshold: 5.0, before: 1, rewinds: 10 }
    }
}
