//! The command line: one file per subcommand, flags only.

mod bench;
mod chat;
mod data;
mod debug;
mod doctor;
mod export;
mod generate;
mod init;
mod plan;
mod recipes;
mod runs;
mod sampling;
mod signals;
mod train;

use crate::error::{Error, Result};
use crate::recipes::{EMBEDDED, Recipe, open_model, parse_count};
use crate::report::{out, quoted};
use crate::tokenizer;
use crate::train::saved::RECIPE_FILE;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "Examples:
  smolter train         a small world, a small model: no files, minutes
  smolter train my.txt  a small model of your own text
  smolter chat hf://HuggingFaceTB/SmolLM2-135M-Instruct
  smolter doctor        does this device compute right?";

/// Trains SmolLM2 language models on any GPU.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trains a model: by default the embedded recipe `microcosm`, which needs no files and takes minutes.
    Train(train::Train),
    /// Tells what a recipe needs (memory per slab, micro-batch, recomputation) without touching a device.
    Plan(plan::Plan),
    /// Proves that this device computes right values and right gradients.
    Doctor(doctor::Doctor),
    /// Measures what this adapter can do, and how much of it decoding and training reach.
    Bench(bench::Bench),
    /// Writes a commented recipe for your own text.
    Init(init::Init),
    /// Lists the embedded recipes, or prints one.
    Recipes(recipes::Recipes),
    /// Lists runs, or draws the loss curve of one.
    Runs(runs::Runs),
    /// Continues text with a model.
    Generate(generate::Generate),
    /// Talks with a chat model.
    Chat(chat::ChatCommand),
    /// Works on text before training.
    #[command(subcommand)]
    Data(data::Data),
    /// Writes a model in another format or element type: Hugging Face folder or GGUF file.
    Export(export::Export),
    /// Runs a Hugging Face model folder on given tensors, for comparison with other programs.
    #[command(subcommand)]
    Debug(debug::Debug),
    /// Renders a chat template for another process of this program.
    #[command(hide = true)]
    RenderTemplate,
}

/// Flag shared by every command that computes.
#[derive(clap::Args, Clone)]
struct DeviceFlag {
    /// `auto`, part of an adapter's name, or `reference` (the CPU, no adapter needed).
    #[arg(long, env = "SMOLTER_DEVICE", default_value = "auto", global = true)]
    device: String,
}

/// Flags that choose a recipe.
#[derive(clap::Args, Clone)]
#[group(id = "recipe-flags", multiple = true)]
struct RecipeFlags {
    /// A recipe: the name of an embedded one (see `smolter recipes`; by default microcosm) or a .toml file. Or text:
    /// .txt, .jsonl, .json, .parquet files or folders of them, for which a recipe is made.
    #[arg(value_name = "RECIPE or TEXT")]
    given: Vec<String>,
    /// The same as RECIPE.
    #[arg(long, conflicts_with = "given")]
    recipe: Option<String>,
    /// Steps of the run; a schedule that would not fit is shortened.
    #[arg(long, value_name = "N", value_parser = count, conflicts_with = "epochs")]
    steps: Option<u64>,
    /// Times that the text is read.
    #[arg(long, value_name = "N")]
    epochs: Option<f64>,
    /// Learning rate after the warmup.
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Tokens per sequence.
    #[arg(long, value_name = "N", value_parser = count)]
    seq_len: Option<u64>,
    /// Sequences per step.
    #[arg(long, value_name = "N", value_parser = count)]
    batch: Option<u64>,
    /// Overrides a key of the recipe, such as batch.sequences=8; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl RecipeFlags {
    fn load(&self) -> Result<Recipe> {
        self.load_with(&[])
    }

    /// The recipe, with more overrides behind those of the flags.
    fn load_with(&self, more: &[String]) -> Result<Recipe> {
        let flag = |name: &str, value: Option<String>| value.map(|value| format!("--{name}={value}"));
        let whole = |value: Option<u64>| value.map(|value| value.to_string());
        let real = |value: Option<f64>| value.map(|value| value.to_string());
        // The length comes last of the flags: a schedule is fitted to it.
        let flags = [
            flag("lr", real(self.lr)),
            flag("seq-len", whole(self.seq_len)),
            flag("batch", whole(self.batch)),
            flag("epochs", real(self.epochs)),
            flag("steps", whole(self.steps)),
        ];
        let overrides: Vec<String> =
            self.set.iter().cloned().chain(flags.into_iter().flatten()).chain(more.iter().cloned()).collect();
        let name = match (&self.recipe, &self.given[..]) {
            (Some(name), _) => name,
            (None, []) => EMBEDDED[0].0,
            (None, [name]) if !is_text(name) => name,
            (None, texts) => {
                let paths: Vec<PathBuf> = texts.iter().map(PathBuf::from).collect();
                return Recipe::for_text(&paths, &overrides, &open_model);
            }
        };
        let folder = Path::new(name);
        let within = folder.join(RECIPE_FILE);
        if !folder.is_dir() || !within.is_file() {
            return Recipe::load_with(name, &overrides, &open_model);
        }
        if is_run(folder) {
            let run = quoted(folder);
            return Err(Error::input(format!(
                "{name}: is a run folder: continue it with --resume {run}, or train its recipe anew: {}",
                quoted(&within)
            )));
        }
        Recipe::load_with(&within.to_string_lossy(), &overrides, &open_model)
    }
}

/// Whether a name means text to train on, and not a recipe.
fn is_text(name: &str) -> bool {
    let path = Path::new(name);
    let embedded = EMBEDDED.iter().any(|(it, _)| *it == name);
    let is_recipe = path.extension().is_some_and(|it| it == "toml") || path.join(RECIPE_FILE).is_file();
    !embedded && !is_recipe && path.exists()
}

/// Whether a folder with a recipe is that of a run, and not of a user's project.
fn is_run(folder: &Path) -> bool {
    ["checkpoints", "metrics.jsonl", "begun.json", "data/tokenizer"].iter().any(|it| folder.join(it).exists())
}

/// A count as people write it.
fn count(text: &str) -> std::result::Result<u64, String> {
    parse_count(text)
        .filter(|&n| n > 0)
        .ok_or("give a whole number above 0, such as 4096, 1e6 or 100M".into())
}

/// A count that may not be 0.
fn at_least_1(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or("give a whole number above 0".into())
}

/// A number of bytes: `4GiB`, `800MiB`, `6GB` or plain.
fn bytes(text: &str) -> std::result::Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1048576.0,
        "gib" | "g" => 1073741824.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err(format!("unknown unit '{unit}'; say 4GiB, 800MiB or a number of bytes")),
    };
    match number.parse::<f64>() {
        Ok(n) if n > 0.0 => Ok((n * scale) as u64),
        _ => Err("give a number above 0, such as 4GiB".into()),
    }
}

/// Runs the program on the process's arguments and returns its exit code.
pub fn run() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Of mistakes there may be nobody to read.
        Err(message) if message.use_stderr() => {
            let _ = message.print();
            return message.exit_code() as u8;
        }
        // Help and version are asked for, so they must arrive.
        Err(message) => return exit_code(out::check().and_then(|()| message.print().map_err(out::lost))),
    };
    tokenizer::confine_templates();
    let result: Result<()> = match cli.command {
        Command::Train(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Init(command) => command.run(),
        Command::Recipes(command) => command.run(),
        Command::Runs(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Chat(command) => command.run(),
        Command::Data(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Debug(command) => command.run(),
        Command::RenderTemplate => {
            tokenizer::render_confined();
            Ok(())
        }
    };
    exit_code(result)
}

/// Says what went wrong, if something did.
fn exit_code(result: Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            if !out::reader_left(&error) {
                error.to_string().lines().for_each(|line| out::note(format_args!("error: {line}")));
            }
            error.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Words of a shell command, without what comes behind a pipe, a redirection or two spaces.
    fn words(command: &str) -> Vec<String> {
        let (mut words, mut quoted, mut space) = (vec![String::new()], false, false);
        for c in command.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted && space => break,
                '|' | '<' | '>' if !quoted => break,
                ' ' if !quoted => words.push(String::new()),
                _ => words.last_mut().expect("never empty").push(c),
            }
            space = c == ' ';
        }
        words.retain(|word| !word.is_empty());
        words
    }

    fn check(command: &clap::Command, path: &str) {
        let help = command.get_after_help().map(|help| help.to_string()).unwrap_or_default();
        let examples =
            help.strip_prefix("Examples:\n").unwrap_or_else(|| panic!("{path}: no examples: {help}"));
        assert!(examples.contains(format!("smolter {path}").trim()), "{path}: none is of its own");
        for line in examples.lines().filter(|line| line.contains("smolter ")) {
            let example = &line[line.find("smolter ").expect("it is there")..];
            if let Err(error) = Cli::try_parse_from(words(example)) {
                panic!("{line}: {error}");
            }
        }
        for command in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
            check(command, format!("{path} {}", command.get_name()).trim());
        }
    }

    #[test]
    fn every_help_ends_with_examples_that_are_understood() {
        check(&Cli::command(), "");
    }
}
