//! `smolter data`: work on text before training.

use super::{at_least_1, bytes};
use crate::data::source::{GivenBy, MAX_RECORD_BYTES, OnBroken, Source};
use crate::error::{Error, Result};
use crate::files::{self, Line};
use crate::hub;
use crate::model::locate;
use crate::report::out;
use crate::report::progress::Progress;
use crate::tokenizer::{Role, Special, Tokenizer};
use clap::{Args, Subcommand};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "Examples:
  smolter data tokenizer books/ --vocab-size 8192 -o tokenizer
  echo '\"Once upon a time\"' | smolter data encode --tokenizer tokenizer
  echo '[2173, 2402]' | smolter data decode --tokenizer tokenizer";

#[derive(Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Data {
    /// Trains a byte-level BPE tokenizer with SmolLM2's pre-tokenizer and special tokens.
    Tokenizer(TrainTokenizer),
    /// Turns text into token ids: a JSON string per line of stdin, an array of ids per line of stdout.
    Encode(Encode),
    /// Turns token ids into text: an array of ids per line of stdin, a JSON string per line of stdout.
    Decode(Decode),
}

const TOKENIZER_EXAMPLES: &str = "Examples:
  smolter data tokenizer books/ notes.txt -o tokenizer
  smolter data tokenizer talk.jsonl --field question --field answer --vocab-size 8192 -o tokenizer";

#[derive(Args)]
#[command(after_help = TOKENIZER_EXAMPLES)]
pub struct TrainTokenizer {
    /// Files or folders: .jsonl, .json, .txt (each also .gz, .zst), .parquet.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Fields (Parquet: columns) that make a document, joined by newlines.
    #[arg(long, default_value = "text")]
    field: Vec<String>,
    /// Number of tokens, special ones included.
    #[arg(long, default_value_t = 49_152, value_parser = at_least_1)]
    vocab_size: usize,
    /// Learns from the first so many documents.
    #[arg(long, value_parser = at_least_1)]
    documents: Option<usize>,
    /// Leaves broken records out and counts them, instead of stopping at the first.
    #[arg(long)]
    skip_broken: bool,
    #[command(flatten)]
    longest: LongestRecord,
    /// Context length to note in tokenizer_config.json, in tokens.
    #[arg(long, default_value_t = 8192, value_parser = at_least_1)]
    model_max_length: usize,
    /// Folder for tokenizer.json and its companions.
    #[arg(short, long)]
    out: PathBuf,
}

const ENCODE_EXAMPLES: &str = "Examples:
  echo '\"Once upon a time\"' | smolter data encode --tokenizer runs/microcosm
  smolter data encode --tokenizer tokenizer --ordinary < texts.jsonl > ids.jsonl";

#[derive(Args)]
#[command(after_help = ENCODE_EXAMPLES)]
pub struct Encode {
    /// A tokenizer.json, a folder with one, a run folder, or hf://owner/name[@revision].
    #[arg(long)]
    tokenizer: String,
    /// Takes special tokens that are written out in the text for ordinary text.
    #[arg(long)]
    ordinary: bool,
    #[command(flatten)]
    longest: LongestRecord,
}

const DECODE_EXAMPLES: &str = "Examples:
  echo '[2173, 2402]' | smolter data decode --tokenizer tokenizer
  smolter data decode --tokenizer tokenizer < ids.jsonl";

#[derive(Args)]
#[command(after_help = DECODE_EXAMPLES)]
pub struct Decode {
    /// A tokenizer.json, a folder with one, a run folder, or hf://owner/name[@revision].
    #[arg(long)]
    tokenizer: String,
    /// Leaves special tokens out.
    #[arg(long)]
    skip_special: bool,
    #[command(flatten)]
    longest: LongestRecord,
}

#[derive(Args)]
struct LongestRecord {
    /// Longest record that is read: 16MiB, 1GiB or a number of bytes [default: 16MiB].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_record_bytes: Option<u64>,
}

impl LongestRecord {
    fn bytes(&self) -> usize {
        let most = self.max_record_bytes.unwrap_or(MAX_RECORD_BYTES as u64);
        usize::try_from(most).unwrap_or(usize::MAX - 1).clamp(1, usize::MAX - 1)
    }
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
        let source = source.given_by(GivenBy::Flags).max_record_bytes(self.longest.bytes());
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
        // The files are what this is for.
        out::say(format_args!(
            "{} tokens from {} documents, saved in {}",
            tokenizer.vocab_size(),
            report.documents,
            self.out.display()
        ));
        Ok(())
    }
}

impl Encode {
    fn run(self) -> Result<()> {
        let tokenizer = load(&self.tokenizer)?;
        each_line("a JSON string", self.longest.bytes(), |text: String| {
            if self.ordinary { tokenizer.encode_ordinary(&text) } else { tokenizer.encode(&text) }
        })
    }
}

impl Decode {
    fn run(self) -> Result<()> {
        let tokenizer = load(&self.tokenizer)?;
        let special = if self.skip_special { Special::Skip } else { Special::Show };
        each_line("a JSON array of token ids", self.longest.bytes(), |ids: Vec<u32>| {
            match ids.iter().find(|&&id| !tokenizer.knows(id)) {
                Some(id) => Err(Error::input(format!(
                    "no token has the id {id}: this tokenizer has ids from 0 to {}",
                    tokenizer.vocab_size().saturating_sub(1)
                ))),
                None => Ok(tokenizer.decode_with(&ids, special)),
            }
        })
    }
}

/// The tokenizer of a file, or of whatever a model is read from.
fn load(name: &str) -> Result<Tokenizer> {
    let path = Path::new(name);
    if path.is_file() || path.join("tokenizer.json").exists() {
        return Tokenizer::load(path);
    }
    let (folder, warnings) = locate(&hub::folder(name)?)?;
    warnings.iter().for_each(out::warn);
    Tokenizer::load(folder)
}

/// Answers each line of stdin, which holds `what` in at most `most` bytes, with a line of JSON on stdout.
fn each_line<I: serde::de::DeserializeOwned, O: serde::Serialize>(
    what: &str,
    most: usize,
    answer: impl Fn(I) -> Result<O>,
) -> Result<()> {
    out::check()?;
    let mut stdin = std::io::stdin().lock();
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    for number in 1.. {
        let refuse = |why: String| Error::input(format!("stdin, line {number}: {why}"));
        let line = match files::line(&mut stdin, most).map_err(Error::io("stdin"))? {
            Line::Whole(line) => line,
            Line::TooLong => {
                let why =
                    format!("longer than {most} bytes: divide it, or allow more with --max-record-bytes");
                return Err(refuse(why));
            }
            Line::End => break,
        };
        let input = serde_json::from_slice(&line).map_err(|error| refuse(format!("not {what}: {error}")))?;
        let answer = answer(input).map_err(|error| match error {
            Error::Input(why) => refuse(why),
            other => other,
        })?;
        let mut text = serde_json::to_vec(&answer).map_err(|error| Error::failure(error.to_string()))?;
        text.push(b'\n');
        stdout.write_all(&text).map_err(out::lost)?;
    }
    stdout.flush().map_err(out::lost)
}
