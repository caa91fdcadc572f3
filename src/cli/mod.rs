//! The command line: one file per subcommand, flags only.

mod ablate;
mod bench;
mod chat;
mod data;
mod debug;
mod doctor;
mod eval;
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
use crate::hub;
use crate::model::ModelFolder;
use crate::recipes::{EMBEDDED, Reading, Recipe, open_model, parse_count};
use crate::report::{out, quoted};
use crate::tokenizer;
use crate::train::saved::RECIPE_FILE;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
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
    /// Compares candidates for a mixture under the same conditions, or what the stages of whole runs do.
    Ablate(ablate::Ablate),
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
    /// Gives a model tasks with exact answers, about the world that smolter generates.
    Eval(eval::Eval),
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

/// Flag shared by every command that uses a model.
#[derive(clap::Args, Clone)]
struct AdapterFlag {
    /// Folder of an adapter (LoRA) as PEFT saves it, for this model; or a checkpoint that has one.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
}

impl AdapterFlag {
    /// Opens the model that `name` means, with this adapter if one is given, and tells its warnings.
    fn open(&self, name: &str) -> Result<ModelFolder> {
        let model = ModelFolder::open(&hub::folder(name)?)?;
        model.warnings.iter().for_each(out::warn);
        match &self.adapter {
            None => Ok(model),
            Some(adapter) => model.with_adapter(adapter),
        }
    }
}

/// Flags that choose a recipe.
#[derive(clap::Args, Clone)]
struct RecipeFlags {
    /// A recipe: the name of an embedded one (see `smolter recipes`; by default microcosm) or a .toml file. Or text:
    /// .jsonl, .json, .parquet files or plain text, or folders of .txt and these, for which a recipe is made.
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
    /// The recipe for a run, with more overrides behind those of the flags: what it needs must be there.
    fn load(&self, more: &[String]) -> Result<Recipe> {
        let Reading { recipe, missing, .. } = self.read_with(more)?;
        match &missing[..] {
            [] => Ok(recipe),
            [only] => Err(Error::input(only)),
            _ => Err(Error::Mistakes(missing)),
        }
    }

    /// The recipe, and the files that it needs and that are missing.
    fn read(&self) -> Result<Reading> {
        self.read_with(&[])
    }

    /// Says how a run that goes on is changed, if one of these flags would change it.
    fn refuse_beside_resume(&self, run: &Path) -> Result<()> {
        let overrides = self.overrides();
        let given = self.given.iter().chain(&self.recipe).chain(&overrides).next();
        given.map_or(Ok(()), |given| {
            let recipe = quoted(&run.join(RECIPE_FILE));
            Err(Error::input(format!(
                "--resume goes on with the recipe in {recipe} and takes no other, but '{given}' is given: write there \
                 what is to change (stages that have not begun, how often to save, evaluate and sample), or begin \
                 another run without --resume"
            )))
        })
    }

    fn read_with(&self, more: &[String]) -> Result<Reading> {
        let overrides = [self.overrides(), more.to_vec()].concat();
        let reading = self.read_overridden(&overrides)?;
        reading.left_out.iter().for_each(out::warn);
        Ok(reading)
    }

    /// All of `--set`, then what other flags stand for.
    fn overrides(&self) -> Vec<String> {
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
        self.set.iter().cloned().chain(flags.into_iter().flatten()).collect()
    }

    fn read_overridden(&self, overrides: &[String]) -> Result<Reading> {
        let is_recipe = |name: &&String| EMBEDDED.iter().any(|(it, _)| it == name) || name.ends_with(".toml");
        if let (Some(recipe), 2..) = (self.given.iter().find(is_recipe), self.given.len()) {
            return Err(Error::input(format!(
                "'{recipe}' is a recipe, but {} names are given: give one recipe, or only text; the text of a recipe \
                 is changed with --set datasets.NAME.paths=...",
                self.given.len()
            )));
        }
        let name = match (&self.recipe, &self.given[..]) {
            (Some(name), _) => name,
            (None, []) => EMBEDDED[0].0,
            (None, [name]) if !is_text(name) => name,
            (None, texts) => {
                let paths: Vec<PathBuf> = texts.iter().map(PathBuf::from).collect();
                return Recipe::for_text(&paths, overrides, &open_model);
            }
        };
        let folder = Path::new(name);
        let within = folder.join(RECIPE_FILE);
        if !folder.is_dir() || !within.is_file() {
            return Recipe::read(name, overrides, &open_model);
        }
        if is_run(folder) {
            let run = quoted(folder);
            return Err(Error::input(format!(
                "{name}: is a run folder: continue it with --resume {run}, or train its recipe anew: {}",
                quoted(&within)
            )));
        }
        Recipe::read(&within.to_string_lossy(), overrides, &open_model)
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
    let (positive, above_0) = (text.strip_prefix('-').unwrap_or(text), !text.starts_with('-'));
    let split = positive.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(positive.len());
    let (number, unit) = positive.split_at(split);
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
        Ok(n) if n > 0.0 && above_0 => Ok((n * scale) as u64),
        _ => Err("give a number above 0, such as 4GiB".into()),
    }
}

/// All flags that take a value take `-1` for one, so that it is answered with what the flag wants.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let takes = |flag: clap::Arg| match flag.get_action().takes_values() && !flag.is_positional() {
        true => flag.allow_negative_numbers(true),
        false => flag,
    };
    command.mut_args(takes).mut_subcommands(with_negative_numbers)
}

fn parse<T: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = T>) -> clap::error::Result<Cli> {
    let mut command = with_negative_numbers(Cli::command());
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Runs the program on the process's arguments and returns its exit code.
pub fn run() -> u8 {
    let cli = match parse(std::env::args_os()) {
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
        Command::Ablate(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Init(command) => command.run(),
        Command::Recipes(command) => command.run(),
        Command::Runs(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Chat(command) => command.run(),
        Command::Eval(command) => command.run(),
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
            if let Err(error) = parse(words(example)) {
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

    #[test]
    fn negative_numbers_are_answered_with_what_the_flag_wants() {
        for (words, wanted) in [
            (&["train", "--steps", "-5"][..], "give a whole number above 0"),
            (&["train", "--seq-len", "-1"], "give a whole number above 0"),
            (&["plan", "--memory", "-1"], "give a number above 0, such as 4GiB"),
            (&["bench", "--batch", "-1"], "give a whole number above 0"),
            (&["generate", "m", "--max-tokens", "-1"], "give a whole number"),
            (&["train", "--until", "-1"], "give a whole number"),
        ] {
            let error = parse(["smolter"].iter().chain(words)).err().expect("it is refused").to_string();
            assert!(error.contains(wanted), "{words:?}: {error}");
        }
        // What a recipe says no to, it says no to itself.
        let lr = parse(["smolter", "train", "--lr", "-1", "--epochs", "-1"]);
        assert!(lr.is_ok(), "{:?}", lr.err().map(|error| error.to_string()));
    }
}
