//! A recipe for somebody's own text: sizes that suit the amount of it, with the reasons beside them.

use std::path::{Path, PathBuf};

use super::schema::Recipe;
use super::source::OpenModel;
use crate::data::source::Source;
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
}

impl Recipe {
    /// A recipe that trains a new model on the text of `paths` (files or folders), as [`draft`] writes it.
    ///
    /// # Errors
    /// As [`draft`] and [`Recipe::load`].
    pub fn for_text(paths: &[PathBuf], overrides: &[String], open: OpenModel) -> Result<Recipe> {
        let text = draft(paths, Path::new(""))?;
        Self::parse("the recipe made for this text", &text, Path::new(""), overrides, open)
    }
}

/// Writes a recipe, with comments, that trains a new model on the text of `paths`. In the recipe these are relative to
/// `folder`, where it will lie, if they are below it.
///
/// # Errors
/// [`Error::Input`] if there is too little text, or none that can be read; [`Error::Io`].
pub fn draft(paths: &[PathBuf], folder: &Path) -> Result<String> {
    let named = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let survey = survey(paths)?;
    if survey.bytes < LEAST_BYTES {
        return Err(Error::input(format!(
            "{named}: {} of text is too little to learn from: give at least {}",
            amount(survey.bytes),
            amount(LEAST_BYTES)
        )));
    }
    let size = SIZES.iter().find(|size| survey.bytes <= size.up_to).unwrap_or(&SIZES[SIZES.len() - 1]);
    let listed = paths.iter().map(|path| place(path, folder)).collect::<Result<Vec<_>>>()?;
    Ok(write(&survey, size, &named, &name_of(paths), &listed))
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
    let source = Source::new(paths).document_bytes(Some(SIZES[0].document_bytes));
    let files = source.files()?;
    let field = find_field(&source)?;
    let documents = source.fields([&field], "\n").documents()?;
    let (mut bytes, mut count, mut all) = (0, 0, true);
    let mut prompts: Vec<String> = Vec::new();
    for document in documents {
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
    if !all {
        let stored: u64 = files.iter().filter_map(|path| path.metadata().ok()).map(|it| it.len()).sum();
        let packed = files.iter().any(|path| {
            path.extension().is_some_and(|it| ["gz", "zst", "parquet"].iter().any(|packed| it == *packed))
        });
        // Text is compressed to about a third.
        let total = (if packed { stored.saturating_mul(3) } else { stored }).max(bytes);
        count = (count as f64 * total as f64 / bytes.max(1) as f64) as u64;
        bytes = total;
    }
    Ok(Survey { bytes, documents: count, field, prompts })
}

/// The field that holds the text. Plain text has none, and takes any.
fn find_field(source: &Source) -> Result<String> {
    let mut first = None;
    for field in FIELDS {
        match source.clone().fields([field], "\n").documents()?.next() {
            None | Some(Ok(_)) => return Ok(field.into()),
            Some(Err(error)) => first = first.or(Some(error)),
        }
    }
    // Else the longest text of the first object.
    let objects = source.objects()?.next();
    if let Some(Ok(object)) = objects {
        let texts = object.value.iter().filter_map(|(key, value)| Some((key, value.as_str()?.len())));
        if let Some((key, _)) = texts.max_by_key(|(_, length)| *length) {
            return Ok(key.clone());
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

fn write(survey: &Survey, size: &Size, named: &str, name: &str, listed: &[String]) -> String {
    let Size { vocab_size, hidden_size, layers, heads, kv_heads, sequence_length, sequences, .. } = size;
    let Size { epochs, peak_lr, document_bytes, .. } = size;
    let text = amount(survey.bytes);
    // A byte-level tokenizer of this size makes a token of two to four bytes.
    let tokens = survey.bytes as f64 * *epochs as f64 / (*vocab_size as f64).log2() * 3.3;
    let steps = (tokens / (sequences * sequence_length) as f64).max(1.0);
    let every = ((steps / 10.0) as u64).max(10);
    let documents = survey.documents.max(survey.bytes / *document_bytes as u64).max(1);
    // Enough to measure by, and no more.
    let held_out = (20.0 / documents as f64).clamp(0.005, 0.1);
    let held_out = (held_out * 1000.0).round() / 1000.0;
    let sample = documents.min(50_000);
    let prompts = survey.prompts.iter().map(|it| quoted(it)).collect::<Vec<_>>().join(", ");
    let (field, paths, named) = (quoted(&survey.field), listed.join(", "), named.escape_debug());
    let width = hidden_size / heads;
    format!(
        r#"# Made by smolter for {text} of text in {named}.
# The sizes suit that amount: a larger model would learn it by heart, a smaller one would learn less.
# Every key is described in docs/recipe.md; `smolter plan` tells what memory and time a change costs.

name = "{name}"

[model]
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
train = {{ vocab_size = {vocab_size}, sample_documents = {sample} }}

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
mod tests {
    use super::*;
    use crate::recipes::source::open_local;

    #[test]
    fn every_size_makes_a_sound_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my own \"text\".txt");
        std::fs::write(&path, "The cat sat on the mat, as cats do.\n".repeat(1000)).unwrap();
        let read = survey(std::slice::from_ref(&path)).unwrap();
        assert_eq!((read.bytes, read.documents, read.prompts[0].as_str()), (36_000, 18, "The cat sat"));
        let listed = [place(&path, folder.path()).unwrap()];
        for size in &SIZES {
            for bytes in [LEAST_BYTES, size.up_to.min(1 << 42)] {
                let survey =
                    Survey { bytes, documents: 1, field: "te\"xt".into(), prompts: vec!["a\nb".into()] };
                let text = write(&survey, size, "a\nb", &name_of(std::slice::from_ref(&path)), &listed);
                let recipe = Recipe::parse("r", &text, folder.path(), &[], &open_local).unwrap();
                assert_eq!(recipe.datasets[0].paths, std::slice::from_ref(&path));
                assert_eq!(recipe.model.head_dim * size.heads, size.hidden_size);
                recipe.check_files(None).unwrap();
            }
        }
        assert!(SIZES.is_sorted_by_key(|size| size.up_to));
    }

    #[test]
    fn names_follow_from_files() {
        for (path, name) in [
            ("my.txt", "my"),
            ("a/My Own Text.jsonl.gz", "My-Own-Text"),
            ("2024.txt", "text-2024"),
            ("é.txt", "text"),
            (".", "text"),
            ("folder/", "folder"),
        ] {
            assert_eq!(name_of(&[path.into()]), name, "{path}");
        }
    }

    #[test]
    fn fields_are_found_and_too_little_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, line: &str, times: usize| {
            let path = folder.path().join(name);
            std::fs::write(&path, line.repeat(times)).unwrap();
            [path]
        };
        let long = "x ".repeat(50);
        let text = |line: &str| draft(&write("a.jsonl", line, 300), Path::new(""));
        for (line, field) in [
            (format!("{{\"text\": \"{long}\"}}\n"), "text"),
            (format!("{{\"title\": \"y\", \"content\": \"{long}\"}}\n"), "content"),
            (format!("{{\"id\": \"y\", \"prose\": \"{long}\"}}\n"), "prose"),
        ] {
            let text = text(&line).unwrap();
            assert!(text.contains(&format!("fields = [\"{field}\"]")), "{text}");
        }
        let error = text("{\"id\": 3}\n").unwrap_err().to_string();
        assert!(error.contains("no field \"text\" among: id"), "{error}");
        let error = draft(&write("b.txt", "word ", 3000), Path::new("")).unwrap_err().to_string();
        assert!(
            error.ends_with("15.0 kB of text is too little to learn from: give at least 20.0 kB"),
            "{error}"
        );
    }
}
