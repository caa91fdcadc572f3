//! `smolter chat`: a conversation in the terminal.

use super::sampling::{self, SamplingFlags};
use super::signals::{self, Signal};
use super::{AdapterFlag, DeviceFlag, at_least_1};
use crate::data::source::MAX_RECORD_BYTES;
use crate::error::{Error, Result};
use crate::files::{self, Line};
use crate::graph::Backend;
use crate::infer::chat::{Answer, Chat, End, Options};
use crate::report::out::{self, print};
use crate::tokenizer::ChatTemplate;
use clap::Args;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ChatCommand {
    /// Hugging Face folder of a chat model, a run folder, or hf://owner/name[@revision].
    model: String,
    #[command(flatten)]
    adapter: AdapterFlag,
    /// The system message; by default the one of the model's template.
    #[arg(long)]
    system: Option<String>,
    /// Jinja template of the conversation, instead of the model's own.
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Goes on with a conversation that /save wrote.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Most tokens of an answer.
    #[arg(short = 'n', long, default_value_t = 512, value_parser = at_least_1)]
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
/regen              answers the last message again
/set                tells how answers are made
/set NAME VALUE     changes it: temperature, top_p, top_k, min_p, repetition_penalty, max_tokens, seed
/reset              starts a new conversation
/save FILE          writes the conversation to a new file, one line of JSON
/load FILE          goes on with a conversation from such a file
/exit               ends, as Ctrl-D does
A \\ at the end of a line continues the message on the next one; Ctrl-C cuts an answer short.";

const EXAMPLES: &str = "\
Examples:
  smolter chat hf://HuggingFaceTB/SmolLM2-135M-Instruct
  smolter chat MODEL --system 'Answer in one sentence.' --temperature 0.7
  smolter chat MODEL --load talk.json --stats
  echo 'What is the capital of France?' | smolter chat MODEL -n 50
  smolter chat MODEL --chat-template chatml.jinja";

/// What SmolLM2-Instruct's model card recommends.
const TEMPERATURE: f32 = 0.2;
const TOP_P: f32 = 0.9;

/// Whether someone who types waits for an answer, and whether it should end.
static ANSWERING: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ctrl-C ends an answer; a second one, or one while nobody who types waits for an answer, the program.
fn interrupt(signal: Signal) {
    let ends = signal != Signal::Interrupt || !ANSWERING.load(Ordering::Relaxed);
    if ends || INTERRUPTED.swap(true, Ordering::Relaxed) {
        std::process::exit(signal.exit_code());
    }
}

impl ChatCommand {
    pub fn run(self) -> Result<()> {
        let model = self.adapter.open(&self.model)?;
        let options = Options {
            system: self.system.clone(),
            sampling: self.sampling.settings(TEMPERATURE, TOP_P),
            seed: self.sampling.seed,
            max_tokens: self.max_tokens,
            context: self.context,
            stops: self.sampling.stop.clone(),
        };
        let backend = Backend::open(&self.device.device)?;
        let template = match &self.chat_template {
            Some(file) => ChatTemplate::load_file(file, &model.path)?,
            None => ChatTemplate::load(&model.path)?,
        };
        let mut chat = Chat::with_template(&backend, &model, options, template)?;
        chat.give_up_when(|| INTERRUPTED.load(Ordering::Relaxed));
        if let Some(path) = &self.load {
            chat.load(path)?;
        }
        signals::watch(interrupt)?;
        let interactive = std::io::stdin().is_terminal();
        let mut messages = Messages::new(interactive);
        if interactive {
            out::note(format_args!(
                "{} on {}; /help tells the commands",
                model.path.display(),
                backend.description()
            ));
        }
        while let Some(line) = messages.read()? {
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
            "/regen" => self.answer(chat, |chat, receive| chat.regenerate(receive))?,
            "/set" => set(chat, rest.trim())?,
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
            _ => self.answer(chat, |chat, receive| chat.say(line, receive))?,
        }
        Ok(false)
    }

    fn answer(
        &self,
        chat: &mut Chat,
        make: impl FnOnce(&mut Chat, &mut dyn FnMut(&str) -> Result<bool>) -> Result<Answer>,
    ) -> Result<()> {
        let begun = Instant::now();
        INTERRUPTED.store(false, Ordering::Relaxed);
        ANSWERING.store(std::io::stdin().is_terminal(), Ordering::Relaxed);
        let answer = make(chat, &mut |text| {
            print(text)?;
            Ok(!INTERRUPTED.load(Ordering::Relaxed))
        });
        ANSWERING.store(false, Ordering::Relaxed);
        let answer = answer?;
        print("\n")?;
        match answer.end {
            End::Stop => {}
            End::Length => out::note(format_args!(
                "(cut after {} tokens; --max-tokens or /set max_tokens allows more)",
                answer.tokens
            )),
            End::Context => out::note(format_args!(
                "(cut: the context of {} tokens is full; /reset empties it)",
                chat.options().context
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

/// Tells how answers are made, or changes it: `NAME VALUE`.
fn set(chat: &mut Chat, text: &str) -> Result<()> {
    let known = || format!("{}, max_tokens, seed", sampling::SETTINGS.join(", "));
    let (name, value) = text.split_once([' ', '\t', '=']).unwrap_or((text, ""));
    let (name, value) = (name.trim().replace('-', "_"), value.trim().trim_start_matches('=').trim());
    let mut drawing = chat.options().sampling;
    if name.is_empty() {
        let (seed, max_tokens) = (chat.options().seed, chat.options().max_tokens);
        let values = sampling::values(&drawing).into_iter();
        let values = values.chain([max_tokens.to_string(), seed.to_string()]);
        let names = sampling::SETTINGS.into_iter().chain(["max_tokens", "seed"]);
        let list: Vec<String> = names.zip(values).map(|(name, value)| format!("{name} {value}")).collect();
        out::note(list.join(", "));
        return Ok(());
    }
    let done = match name.as_str() {
        "max_tokens" => at_least_1(value).map(|tokens| chat.set_max_tokens(tokens)),
        "seed" => sampling::whole(value).map(|seed| chat.set_seed(seed)),
        name if sampling::SETTINGS.contains(&name) => {
            sampling::set(&mut drawing, name, value).map(|()| chat.set_sampling(drawing))
        }
        _ => return Err(Error::input(format!("/set knows no {name:?}, but {}", known()))),
    };
    done.map_err(|why| Error::input(format!("/set {name} {value}: {why}, as in /set temperature 0.2")))
}

/// Where messages come from.
enum Messages {
    /// A terminal, with line editing and the lines before at the arrow keys.
    Editor(Box<DefaultEditor>),
    /// A terminal that is only read from, or none.
    Plain { prompts: bool },
}

impl Messages {
    fn new(interactive: bool) -> Self {
        let editor = (interactive && std::io::stdout().is_terminal()).then(DefaultEditor::new);
        match editor {
            Some(Ok(editor)) => Messages::Editor(Box::new(editor)),
            _ => Messages::Plain { prompts: interactive },
        }
    }

    /// The next message; `None` at the end.
    fn read(&mut self) -> Result<Option<String>> {
        let mut message = String::new();
        loop {
            let Some(line) = self.line(if message.is_empty() { "> " } else { ". " })? else {
                return Ok((!message.is_empty()).then_some(message));
            };
            let (part, goes_on) = match line.strip_suffix('\\') {
                Some(part) => (part, true),
                None => (line.as_str(), false),
            };
            if message.len() + part.len() > MAX_RECORD_BYTES {
                return Err(too_long());
            }
            message += part;
            if !goes_on {
                return Ok(Some(message));
            }
            message.push('\n');
        }
    }

    /// The next line, without its end.
    fn line(&mut self, prompt: &str) -> Result<Option<String>> {
        match self {
            Messages::Editor(editor) => match editor.readline(prompt) {
                Ok(line) => {
                    let _ = editor.add_history_entry(line.as_str()); // a line that cannot be recalled is still said
                    Ok(Some(line))
                }
                Err(ReadlineError::Eof) => Ok(None),
                Err(ReadlineError::Interrupted) => std::process::exit(Signal::Interrupt.exit_code()),
                Err(ReadlineError::Io(error)) => Err(Error::io("standard input")(error)),
                Err(error) => Err(Error::failure(format!("standard input: {error}"))),
            },
            Messages::Plain { prompts } => {
                if *prompts {
                    print(prompt)?;
                }
                let read = files::line(&mut std::io::stdin().lock(), MAX_RECORD_BYTES);
                match read.map_err(Error::io("standard input"))? {
                    Line::Whole(mut line) => {
                        line.truncate(line.strip_suffix(b"\r").unwrap_or(&line).len());
                        let text = String::from_utf8(line);
                        text.map(Some).map_err(|_| Error::input("standard input: a line is not UTF-8"))
                    }
                    Line::TooLong => Err(too_long()),
                    Line::End => {
                        if *prompts {
                            print("\n")?;
                        }
                        Ok(None)
                    }
                }
            }
        }
    }
}

fn too_long() -> Error {
    let most = MAX_RECORD_BYTES >> 20;
    Error::input(format!("standard input: a message of more than {most} MiB: shorten it"))
}
