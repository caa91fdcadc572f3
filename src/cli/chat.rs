//! `smolter chat`: a conversation in the terminal.

use super::sampling::SamplingFlags;
use super::signals::{self, Signal};
use super::{DeviceFlag, at_least_1};
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::infer::chat::{Answer, Chat, End, Options};
use crate::model::{ModelFolder, hub};
use crate::report::out::{self, print};
use clap::Args;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

#[derive(Args)]
pub struct ChatCommand {
    /// Hugging Face folder of a chat model, a run folder, or hf://owner/name[@revision].
    model: String,
    /// The system message; by default the one of the model's template.
    #[arg(long)]
    system: Option<String>,
    /// Goes on with a conversation that /save wrote.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 512, value_parser = at_least_1)]
    max_tokens: usize,
    /// Most tokens of the conversation that the model sees; the oldest messages beyond it are left out.
    #[arg(long, default_value_t = 2048, value_parser = at_least_1)]
    context: usize,
    /// Tells after each answer how fast it was and what the cache had.
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    sampling: SamplingFlags,
    #[command(flatten)]
    device: DeviceFlag,
}

const HELP: &str = "\
/reset        starts a new conversation
/save FILE    writes the conversation to a new file, one line of JSON
/load FILE    goes on with a conversation from such a file
/exit         ends, as Ctrl-D does
A \\ at the end of a line continues the message on the next one; Ctrl-C cuts an answer short.";

/// What SmolLM2-Instruct's model card recommends.
const TEMPERATURE: f32 = 0.2;
const TOP_P: f32 = 0.9;

/// Whether an answer is being written, and whether it should end.
static ANSWERING: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ctrl-C ends an answer; a second one, or one while nothing is being answered, the program.
fn interrupt(signal: Signal) {
    let ends = signal != Signal::Interrupt || !ANSWERING.load(Ordering::Relaxed);
    if ends || INTERRUPTED.swap(true, Ordering::Relaxed) {
        std::process::exit(signal.exit_code());
    }
}

impl ChatCommand {
    pub fn run(self) -> Result<()> {
        let model = ModelFolder::open(&hub::folder(&self.model)?)?;
        model.warnings.iter().for_each(out::warn);
        let options = Options {
            system: self.system.clone(),
            sampling: self.sampling.settings(TEMPERATURE, TOP_P),
            seed: self.sampling.seed,
            max_tokens: self.max_tokens,
            context: self.context,
            stops: self.sampling.stop.clone(),
        };
        let backend = Backend::open(&self.device.device)?;
        let mut chat = Chat::new(&backend, &model, options)?;
        if let Some(path) = &self.load {
            chat.load(path)?;
        }
        signals::watch(interrupt)?;
        let interactive = std::io::stdin().is_terminal();
        if interactive {
            out::note(format_args!(
                "{} on {}; /help tells the commands",
                model.path.display(),
                backend.description()
            ));
        }
        while let Some(line) = read_message(interactive)? {
            let done = self.act(&mut chat, line.trim());
            match done {
                Ok(true) => break,
                Ok(false) => {}
                // Someone who types can correct a mistake; a pipe cannot.
                Err(error @ (Error::Input(_) | Error::Io { .. })) if interactive => {
                    out::note(format_args!("error: {error}"))
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Answers a message or carries out a command; returns whether to end.
    fn act(&self, chat: &mut Chat, line: &str) -> Result<bool> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let file = || match rest.trim() {
            "" => Err(Error::input(format!("{command} needs the name of a file: {command} FILE"))),
            name => Ok(Path::new(name)),
        };
        match command {
            "" => {}
            "/exit" | "/quit" => return Ok(true),
            "/help" => out::note(format_args!("{HELP}")),
            "/reset" => chat.reset(),
            "/save" => {
                chat.save(file()?)?;
                out::note(format_args!("saved {} messages", chat.messages().len()));
            }
            "/load" => {
                chat.load(file()?)?;
                out::note(format_args!("loaded {} messages", chat.messages().len()));
            }
            _ if command.starts_with('/') && command[1..].chars().all(char::is_alphabetic) => {
                return Err(Error::input(format!("no command {command}; /help tells which there are")));
            }
            _ => self.answer(chat, line)?,
        }
        Ok(false)
    }

    fn answer(&self, chat: &mut Chat, line: &str) -> Result<()> {
        let begun = Instant::now();
        INTERRUPTED.store(false, Ordering::Relaxed);
        ANSWERING.store(true, Ordering::Relaxed);
        let answer = chat.say(line, |text| {
            print(text)?;
            Ok(!INTERRUPTED.load(Ordering::Relaxed))
        });
        ANSWERING.store(false, Ordering::Relaxed);
        let answer = answer?;
        print("\n")?;
        match answer.end {
            End::Stop => {}
            End::Length => {
                out::note(format_args!("(cut after {} tokens; --max-tokens allows more)", answer.tokens))
            }
            End::Context => out::note(format_args!(
                "(cut: the context of {} tokens is full; /reset empties it)",
                self.context
            )),
            End::Interrupted => out::note(format_args!("(cut short)")),
        }
        if answer.left_out > 0 {
            out::note(format_args!("(the {} oldest messages no longer fit the context)", answer.left_out));
        }
        if self.stats {
            let Answer { tokens, prompt, cached, .. } = answer;
            let rate = tokens as f64 / begun.elapsed().as_secs_f64();
            out::note(format_args!(
                "({tokens} tokens, {rate:.1} tokens/s; {cached} of {prompt} prompt tokens were cached)"
            ));
        }
        Ok(())
    }
}

/// The next message from standard input; `None` at its end.
fn read_message(interactive: bool) -> Result<Option<String>> {
    let mut message = String::new();
    loop {
        if interactive {
            print(if message.is_empty() { "> " } else { ". " })?;
        }
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => Error::input("standard input: a line is not UTF-8"),
            _ => Error::io("standard input")(e),
        })?;
        if read == 0 {
            if interactive {
                print("\n")?;
            }
            return Ok((!message.is_empty()).then_some(message));
        }
        let line = line.trim_end_matches(['\n', '\r']);
        match line.strip_suffix('\\') {
            Some(part) => message += &format!("{part}\n"),
            None => return Ok(Some(message + line)),
        }
    }
}
