//! `smolter data`: work on text before training.

use crate::data::source::{OnBroken, Source};
use crate::error::{Error, Result};
use crate::report::out;
use crate::report::progress::Progress;
use crate::tokenizer::{Role, Special, Tokenizer};
use clap::{Args, Subcommand};
use std::io::{BufRead, BufWriter, Write};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Data {
    /// Trains a byte-level BPE tokenizer with SmolLM2's pre-tokenizer and special tokens.
    Tokenizer(TrainTokenizer),
    /// Turns text into token ids: a JSON string per line of stdin, an array of ids per line of stdout.
    Encode(Encode),
    /// Turns token ids into text: an array of ids per line of stdin, a JSON string per line of stdout.
    Decode(Decode),
}

#[derive(Args)]
pub struct TrainTokenizer {
    /// Files or folders: .jsonl, .json, .txt (each also .gz, .zst), .parquet.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Fields (Parquet: columns) that make a document, joined by newlines.
    #[arg(long, default_value = "text")]
    field: Vec<String>,
    /// Number of tokens, special ones included.
    #[arg(long, default_value_t = 49_152)]
    vocab_size: usize,
    /// Learns from the first so many documents.
    #[arg(long)]
    documents: Option<usize>,
    /// Leaves broken records out and counts them, instead of stopping at the first.
    #[arg(long)]
    skip_broken: bool,
    /// Context length to note in tokenizer_config.json, in tokens.
    #[arg(long, default_value_t = 8192)]
    model_max_length: usize,
    /// Folder for tokenizer.json and its companions.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
pub struct Encode {
    /// Folder with a tokenizer.json, or the file itself.
    #[arg(long)]
    tokenizer: PathBuf,
    /// Takes special tokens that are written out in the text for ordinary text.
    #[arg(long)]
    ordinary: bool,
}

#[derive(Args)]
pub struct Decode {
    /// Folder with a tokenizer.json, or the file itself.
    #[arg(long)]
    tokenizer: PathBuf,
    /// Leaves special tokens out.
    #[arg(long)]
    skip_special: bool,
}

impl Data {
    pub fn run(self) -> Result<()> {
        match self {
            Data::Tokenizer(command) => command.run(),
            Data::Encode(command) => command.run(),
            Data::Decode(command) => command.run(),
        }
    }
}

impl TrainTokenizer {
    fn run(self) -> Result<()> {
        let there = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
            .map(|name| self.out.join(name));
        if let Some(path) = there.iter().find(|path| path.symlink_metadata().is_ok()) {
            let why = "is there already, and nothing is overwritten: remove it or give another --out";
            return Err(Error::input(format!("{}: {why}", path.display())));
        }
        let on_broken = if self.skip_broken { OnBroken::Skip } else { OnBroken::Refuse };
        let source = Source::new(&self.paths).fields(&self.field, "\n").on_broken(on_broken);
        let mut records = source.documents()?;
        let mut failure: Option<Error> = None;
        let mut progress = Progress::new("reading", self.documents.map(|count| count as u64), 0);
        // The trainer takes plain text: the first error ends the reading and is returned afterwards.
        let texts =
            records.by_ref().take(self.documents.unwrap_or(usize::MAX)).map_while(|record| match record {
                Ok(record) => Some(record.value),
                Err(error) => {
                    failure = Some(error);
                    None
                }
            });
        let trained = Tokenizer::train(texts, self.vocab_size, |at| {
            progress.set(at.documents, &format!("{} MB", at.bytes / 1_000_000));
        });
        progress.finish();
        if let Some(error) = failure {
            return Err(error);
        }
        let tokenizer = trained?;
        tokenizer.save(&self.out, self.model_max_length, Role::Base)?;
        let report = records.report();
        if report.broken > 0 {
            out::warn(format_args!(
                "{} broken records skipped, first: {}",
                report.broken,
                report.first_broken.join("; ")
            ));
        }
        out::line(format_args!(
            "{} tokens from {} documents, saved in {}",
            tokenizer.vocab_size(),
            report.documents,
            self.out.display()
        ))
    }
}

impl Encode {
    fn run(self) -> Result<()> {
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        each_line("a JSON string", |text: String| {
            if self.ordinary { tokenizer.encode_ordinary(&text) } else { tokenizer.encode(&text) }
        })
    }
}

impl Decode {
    fn run(self) -> Result<()> {
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let special = if self.skip_special { Special::Skip } else { Special::Show };
        each_line("a JSON array of token ids", |ids: Vec<u32>| Ok(tokenizer.decode_with(&ids, special)))
    }
}

/// Answers each line of stdin, which holds `what`, with a line of JSON on stdout.
fn each_line<I: serde::de::DeserializeOwned, O: serde::Serialize>(
    what: &str,
    answer: impl Fn(I) -> Result<O>,
) -> Result<()> {
    out::check()?;
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    for (i, line) in std::io::stdin().lock().split(b'\n').enumerate() {
        let line = line.map_err(Error::io("stdin"))?;
        let input = serde_json::from_slice(&line)
            .map_err(|error| Error::input(format!("stdin, line {}: not {what}: {error}", i + 1)))?;
        let mut text =
            serde_json::to_vec(&answer(input)?).map_err(|error| Error::failure(error.to_string()))?;
        text.push(b'\n');
        stdout.write_all(&text).map_err(out::lost)?;
    }
    stdout.flush().map_err(out::lost)
}
