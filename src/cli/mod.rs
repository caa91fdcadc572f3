//! The command line: one file per subcommand, flags only.

mod debug;

use crate::error::Result;
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
    /// Runs a Hugging Face model folder on given tensors, for comparison with other programs.
    #[command(subcommand)]
    Debug(debug::Debug),
}

/// Flag shared by every command that computes.
#[derive(clap::Args, Clone)]
struct DeviceFlag {
    /// `auto`, part of an adapter's name, or `reference` (the CPU, no adapter needed).
    #[arg(long, env = "SMOLTER_DEVICE", default_value = "auto", global = true)]
    device: String,
}

/// Runs the program on the process's arguments and returns its exit code.
pub fn run() -> u8 {
    let cli = Cli::parse();
    let result: Result<()> = match cli.command {
        Command::Debug(command) => command.run(),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}
