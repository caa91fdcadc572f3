//! The command line: one file per subcommand, flags only.

mod bench;
mod chat;
mod data;
mod debug;
mod doctor;
mod export;
mod generate;
mod plan;
mod recipes;
mod runs;
mod sampling;
mod signals;
mod train;

use crate::error::Result;
use crate::recipes::{Recipe, open_model};
use crate::report::out;
use crate::tokenizer;
use clap::{Parser, Subcommand};

/// Trains SmolLM2 language models on any GPU.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
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
struct RecipeFlags {
    /// Name of an embedded recipe (see `smolter recipes`) or path of a TOML file.
    #[arg(long, default_value = "microcosm")]
    recipe: String,
    /// Overrides a key of the recipe, such as batch.sequences=8; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl RecipeFlags {
    fn load(&self) -> Result<Recipe> {
        Recipe::load_with(&self.recipe, &self.set, &open_model)
    }
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
        // Help and version are asked for, so they must arrive; of mistakes there may be nobody to read.
        Err(message) => {
            let arrived = message.use_stderr() || out::check().is_ok() && message.print().is_ok();
            if message.use_stderr() {
                let _ = message.print();
            }
            return if arrived { message.exit_code() as u8 } else { 1 };
        }
    };
    tokenizer::confine_templates();
    let result: Result<()> = match cli.command {
        Command::Train(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Bench(command) => command.run(),
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
