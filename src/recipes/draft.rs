//! A recipe for somebody's own text: sizes that suit the amount of it, with the reasons beside them.

use std::path::{Path, PathBuf};

use super::overrides::given_string;
use super::reading::Reading;
use super::schema::Recipe;
use super::source::OpenModel;
use crate::data::source::{OnBroken, Source};
use crate::error::{Error, Result};

/// Less text than this, in bytes, teaches a model nothing but to repeat it.
const LEAST_BYTES: u64 = 20_000;

/// Bytes of text that are read to see what it is like; the rest is estimated from the sizes of files.
const SURVEYED_BYTES: u64 = 16 << 20;

/// Names of fields that hold a document's text, the likeliest first.
const FIELDS: [&str; 10] =
    ["text", "content", "contents", "document", "body", "story", "article", "markdown", "code", "completion"];

/// What a model of some size looks like, and how long it learns from how much text.
struct Size {
    /// Bytes of text up to which it suits.
    up_to: u64,
    vocab_size: usize,
    hidden_size: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    sequence_length: usize,
    sequences: usize,
    epochs: u64,
    peak_lr: f64,
    /// Bytes that a .txt file is cut to.
    document_bytes: usize,
}

/// From the smallest up. A minute of two CPU cores is worth about 100 kB read by the first.
const SIZES: [Size; 5] = [
    Size {
        up_to: 300_000,
        vocab_size: 512,
        hidden_size: 96,
        layers: 3,
        heads: 3,
        kv_heads: 1,
        sequence_length: 128,
        sequences: 4,
        epochs: 6,
        peak_lr: 6e-3,
        document_bytes: 2048,
    },
    Size {
        up_to: 3_000_000,
        vocab_size: 1024,
        hidden_size: 128,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        sequence_length: 256,
        sequences: 4,
        epochs: 4,
        peak_lr: 6e-3,
        document_bytes: 4096,
    },
    Size {
        up_to: 30_000_000,
        vocab_size: 4096,
        hidden_size: 256,
        layers: 6,
        heads: 4,
        kv_heads: 2,
        sequence_length: 256,
        sequences: 16,
        epochs: 2,
        peak_lr: 4e-3,
        document_bytes: 8192,
    },
    Size {
        up_to: 300_000_000,
        vocab_size: 8192,
        hidden_size: 384,
        layers: 8,
        heads: 6,
        kv_heads: 2,
        sequence_length: 512,
        sequences: 32,
        epochs: 1,
        peak_lr: 3e-3,
        document_bytes: 16_384,
    },
    Size {
        up_to: u64::MAX,
        vocab_size: 16_384,
        hidden_size: 576,
        layers: 12,
        heads: 9,
        kv_heads: 3,
        sequence_length: 1024,
        sequences: 64,
        epochs: 1,
        peak_lr: 2e-3,
        document_bytes: 16_384,
    },
];

/// What text is like.
struct Survey {
    /// Of all documents together, about.
    bytes: u64,
    documents: u64,
    field: String,
    /// Beginnings of documents.
    prompts: Vec<String>,
    /// How many records could not be read, and the first of them; `None` if all could.
    left_out: Option<String>,
}

/// A model that is trained further.
struct Base {
    vocab_size: usize,
    positions: usize,
}

/// A recipe that was written for somebody's text.
#[derive(Debug)]
pub struct Draft {
    /// Its TOML text.
    pub text: String,
    /// What of the text it leaves out, if anything: how many records, and the place of the first.
    pub left_out: Option<String>,
}

impl Recipe {
    /// A recipe that trains a model on the text of `paths` (files or folders), as [`draft`] writes it: a new one, or that
    /// which an override of `model.from` names.
    ///
    /// # Errors
    /// As [`draft`] and [`Recipe::read`].
    pub fn for_text(paths: &[PathBuf], overrides: &[String], open: OpenModel) -> Result<Reading> {
        let base = match given_string(overrides, "model.from") {
            None => None,
            Some(from) => {
                let model = open(&from).map_err(|error| match error {
                    Error::Input(why) => Error::input(format!("--set model.from={from}: {why}")),
                    other => other,
                })?;
                let (vocab_size, positions) =
                    (model.architecture.vocab_size(), model.architecture.positions());
                Some(Base { vocab_size, positions })
            }
        };
        let Draft { text, left_out } = draft_with(paths, Path::new(""), base)?;
        let reading = Self::parse("the recipe made for this text", &text, Path::new(""), overrides, open)?;
        Ok(Reading { left_out, ..reading })
    }
}

/// Writes a recipe, with comments, that trains a new model on the text of `paths`. In the recipe these are relative to
/// `folder`, where it will lie, if they are below it. Broken records are left out.
///
/// # Errors
/// [`Error::Input`] if there is too little text, or none that can be read; [`Error::Io`].
pub fn draft(paths: &[PathBuf], folder: &Path) -> Result<Draft> {
    draft_with(paths, folder, None)
}

fn draft_with(paths: &[PathBuf], folder: &Path, base: Option<Base>) -> Result<Draft> {
    let named = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let survey = survey(paths)?;
    if survey.bytes < LEAST_BYTES {
        let left_out = survey.left_out.iter().map(|it| format!(" ({it})")).collect::<String>();
        return Err(Error::input(format!(
            "{named}: {} of text is too little to learn from: give at least {}{left_out}",
            amount(survey.bytes),
            amount(LEAST_BYTES)
        )));
    }
    let size = SIZES.iter().find(|size| survey.bytes <= size.up_to).unwrap_or(&SIZES[SIZES.len() - 1]);
    let listed = paths.iter().map(|path| place(path, folder)).collect::<Result<Vec<_>>>()?;
    let text = write(&survey, size, base.as_ref(), &named, &name_of(paths), &listed);
    Ok(Draft { text, left_out: survey.left_out })
}

/// How a path is written in a recipe in `folder`.
fn place(path: &Path, folder: &Path) -> Result<String> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(Error::io(path));
    let home = absolute(if folder == Path::new("") { Path::new(".") } else { folder })?;
    let path = absolute(path)?;
    let short = path.strip_prefix(&home).ok().filter(|it| *it != Path::new("")).unwrap_or(&path);
    let short = if path == home { Path::new(".") } else { short };
    short.to_str().map(quoted).ok_or_else(|| Error::input(format!("{}: not Unicode", path.display())))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A name for the recipe and its dataset.
fn name_of(paths: &[PathBuf]) -> String {
    let stem = paths.first().and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy();
    let stem = stem.split('.').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = stem.chars().map(plain).take(40).collect();
    let name = name.trim_matches('-');
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name.into() } else { format!("text-{name}") }
        .trim_end_matches('-')
        .into()
}

fn survey(paths: &[PathBuf]) -> Result<Survey> {
    let source = Source::new(paths).document_bytes(Some(SIZES[0].document_bytes)).on_broken(OnBroken::Skip);
    let files = source.files()?;
    let field = find_field(&source)?;
    let mut documents = source.fields([&field], "\n").documents()?;
    let (mut bytes, mut count, mut all) = (0, 0, true);
    let mut prompts: Vec<String> = Vec::new();
    for document in documents.by_ref() {
        let text = document?.value;
        if bytes + text.len() as u64 > SURVEYED_BYTES {
            all = false;
            break;
        }
        bytes += text.len() as u64;
        count += 1;
        // Of the first document, and of one further on.
        if prompts.is_empty() || prompts.len() == 1 && count == 20 {
            prompts.extend(beginning(&text).filter(|prompt| !prompts.contains(prompt)));
        }
    }
    let report = documents.report();
    if let (0, Some(first)) = (report.documents, report.first_broken.first()) {
        return Err(Error::input(format!("{first}: nothing of it can be read; {}", report.remedy)));
    }
    if !all {
        let total = text_bytes(&files).max(bytes);
        count = (count as f64 * total as f64 / bytes.max(1) as f64) as u64;
        bytes = total;
    }
    let left_out = report.first_broken.first().map(|first| {
        let records = if report.broken == 1 { "record" } else { "records" };
        format!("{} broken {records} left out, first: {first}; {}", report.broken, report.remedy)
    });
    Ok(Survey { bytes, documents: count, field, prompts, left_out })
}

/// Bytes of text in files, about, from their sizes.
pub(super) fn text_bytes(files: &[PathBuf]) -> u64 {
    let bytes = |path: &PathBuf| {
        let stored = path.metadata().map_or(0, |it| it.len());
        let packed = ["gz", "zst", "parquet"].iter().any(|it| path.extension().is_some_and(|own| own == *it));
        // Text is compressed to about a third.
        if packed { stored.saturating_mul(3) } else { stored }
    };
    files.iter().map(bytes).fold(0, u64::saturating_add)
}

/// Bytes of text for each token that is trained on, about: 2.4 with a byte-level tokenizer of 512, 4.2 with one of 49,152.
/// What is held out is taken into account.
pub(super) fn bytes_per_token(vocab_size: usize) -> f64 {
    (vocab_size.max(2) as f64).log2() / 3.7
}

/// The field that holds the text. Plain text has none, and takes any.
fn find_field(source: &Source) -> Result<String> {
    // Of the first whole object the likeliest name, or else the longest text.
    if let Some(Ok(object)) = source.objects()?.next() {
        let is_text = |field: &&&str| object.value.get(**field).is_some_and(|it| it.is_string());
        if let Some(field) = FIELDS.iter().find(is_text) {
            return Ok(field.to_string());
        }
        let texts = object.value.iter().filter_map(|(key, value)| Some((key, value.as_str()?.len())));
        let longest = texts.max_by_key(|(_, length)| *length);
        return Ok(longest.map_or(FIELDS[0], |(key, _)| key).into());
    }
    let mut first = None;
    for field in FIELDS {
        match source.clone().fields([field], "\n").documents()?.next() {
            None | Some(Ok(_)) => return Ok(field.into()),
            Some(Err(error)) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| Error::input("no text")))
}

/// The first words of a text, in one line.
fn beginning(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|line| line.chars().any(char::is_alphabetic))?;
    let words: Vec<&str> = line.split_whitespace().take(3).collect();
    let words: String = words.join(" ").chars().take(32).collect();
    (!words.is_empty()).then_some(words)
}

fn amount(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// `[model]` and `[tokenizer]`.
fn write_model(size: &Size, sequence_length: usize, documents: u64) -> String {
    let Size { vocab_size, hidden_size, layers, heads, kv_heads, .. } = size;
    let (width, sample) = (hidden_size / heads, documents.min(50_000));
    format!(
        r#"[model]
vocab_size = {vocab_size}
hidden_size = {hidden_size}            # width; with num_hidden_layers it decides how much the model can hold
num_hidden_layers = {layers}
num_attention_heads = {heads}        # heads of {width}
num_key_value_heads = {kv_heads}        # fewer than heads: less memory when generating
max_position_embeddings = {sequence_length}  # the longest text that it sees at once, in tokens
bos_token_id = 0
eos_token_id = 0

[tokenizer]
# Learnt from the text itself. More tokens mean shorter sequences, and fewer examples of each token.
train = {{ vocab_size = {vocab_size}, sample_documents = {sample} }}"#
    )
}

/// Where a trained model goes on, its learning rate must not undo what it has learnt.
const LR_OF_A_BASE: f64 = 3e-4;

/// Fewest tokens of a sequence for a model that has seen long ones.
const LENGTH_OF_A_BASE: usize = 256;

fn write(
    survey: &Survey,
    size: &Size,
    base: Option<&Base>,
    named: &str,
    name: &str,
    listed: &[String],
) -> String {
    let Size { vocab_size, sequences, epochs, document_bytes, .. } = size;
    let text = amount(survey.bytes);
    let vocab_size = base.map_or(*vocab_size, |base| base.vocab_size);
    let sequence_length = base
        .map_or(size.sequence_length, |base| size.sequence_length.max(LENGTH_OF_A_BASE).min(base.positions));
    let peak_lr = base.map_or(size.peak_lr, |_| LR_OF_A_BASE);
    let tokens = survey.bytes as f64 * *epochs as f64 / bytes_per_token(vocab_size);
    let steps = (tokens / (sequences * sequence_length) as f64).max(1.0);
    let every = ((steps / 10.0) as u64).max(10);
    let documents = survey.documents.max(survey.bytes / *document_bytes as u64).max(1);
    // Enough to measure by, and no more.
    let held_out = (20.0 / documents as f64).clamp(0.005, 0.1);
    let held_out = (held_out * 1000.0).round() / 1000.0;
    let model = match base {
        // All of both is the base's.
        Some(_) => "[model]".into(),
        None => write_model(size, sequence_length, documents),
    };
    let prompts = survey.prompts.iter().map(|it| quoted(it)).collect::<Vec<_>>().join(", ");
    let (field, paths, named) = (quoted(&survey.field), listed.join(", "), named.escape_debug());
    format!(
        r#"# Made by smolter for {text} of text in {named}.
# The sizes suit that amount: a larger model would learn it by heart, a smaller one would learn less.
# Every key is described in docs/recipe.md; `smolter plan` tells what memory and time a change costs.

name = "{name}"

{model}

[optimizer]
weight_decay = 0.1             # little text is soon learnt by heart: this slows that down

[schedule]
kind = "wsd"                   # rise, stay, fall
peak_lr = {peak_lr:e}                 # small models take a large one
warmup_fraction = 0.1
decay_fraction = 0.6           # a short run gains most while the rate falls

[batch]
sequences = {sequences}                  # per step; with little text many small steps teach most

[[datasets]]
name = "text"
paths = [{paths}]
fields = [{field}]              # of .jsonl, .json and .parquet: what holds the text
document_bytes = {document_bytes}          # .txt files are cut, so that some pieces can be held out
on_broken = "skip"             # what cannot be read is left out and counted; or "refuse" it

[[stages]]
name = "train"
epochs = {epochs}                     # times that all of the text is read; or steps = 500, or tokens = "1M"
sequence_length = {sequence_length}
mixture = {{ text = 1.0 }}

[held_out]
fraction = {held_out}               # never trained on: its loss rises when the model begins to learn by heart
sequences = 32
every = {every}

[checkpoint]
every = {every}
keep = 2

[sample]
prompts = [{prompts}]
tokens = 96
temperature = 0.7
"#
    )
}

#[cfg(test)]
mod tests;
