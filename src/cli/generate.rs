//! `smolter generate`: continues prompts with a model from a folder.

use super::sampling::{SamplingFlags, whole};
use super::{AdapterFlag, DeviceFlag};
use crate::data::source::MAX_RECORD_BYTES;
use crate::error::{Error, Result};
use crate::files;
use crate::graph::Backend;
use crate::infer::generator::{CHUNK, Generator, Sizes};
use crate::infer::writer::Writer;
use crate::report::out::{self, print};
use crate::report::profile;
use crate::tokenizer::{ChatTemplate, Message, Tokenizer};
use clap::Args;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Generate {
    /// Hugging Face model folder, a run folder for its newest whole checkpoint, or hf://owner/name[@revision].
    model: String,
    #[command(flatten)]
    adapter: AdapterFlag,
    /// Text to continue, or - for all of standard input; several are continued side by side.
    #[arg(short, long, required_unless_present = "prompt_file", allow_hyphen_values = true)]
    prompt: Vec<String>,
    /// File with text to continue; a newline at its end is left out.
    #[arg(short = 'f', long, value_name = "FILE")]
    prompt_file: Vec<PathBuf>,
    /// Takes each text as a message of the user's, in the model's chat template; the assistant answers.
    #[arg(long)]
    chat: bool,
    /// Most new tokens of each.
    #[arg(short = 'n', long, default_value_t = 128, value_parser = whole::<usize>)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingFlags,
    /// Prints token ids and log-probabilities instead of text: one JSON object per line and prompt.
    #[arg(long)]
    logprobs: bool,
    #[command(flatten)]
    device: DeviceFlag,
}

const EXAMPLES: &str = "\
Examples:
  smolter generate MODEL -p 'Once upon a time' -n 200 --temperature 0.7 --top-p 0.9
  smolter generate runs/microcosm -p 'Question:' -p Once --seed 1
  smolter generate hf://HuggingFaceTB/SmolLM2-135M -f story.txt
  cat story.txt | smolter generate MODEL -p -
  smolter generate MODEL --chat -p 'What is 2 plus 2?'
  smolter generate MODEL -p 'The capital of France is' --logprobs";

/// Sets the prompt apart in a terminal.
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// How a text ended.
struct End {
    /// Tokens made.
    tokens: usize,
    by_context: bool,
}

/// A text as it is continued.
struct Prompt {
    text: String,
    /// Where it is from, for messages.
    place: String,
}

impl Generate {
    /// All prompts, those of files last.
    fn prompts(&self) -> Result<Vec<Prompt>> {
        if self.prompt.iter().filter(|text| *text == "-").count() > 1 {
            return Err(Error::input("--prompt -: standard input can be only one of the prompts"));
        }
        let text = |bytes: Vec<u8>, place: &str| {
            let text = String::from_utf8(bytes).map_err(|e| {
                let byte = e.utf8_error().valid_up_to();
                Error::input(format!("{place}: not text: byte {byte} is not UTF-8"))
            })?;
            let line_end = ["\r\n", "\n"].into_iter().find(|end| text.ends_with(end)).unwrap_or_default();
            Ok(Prompt { text: text[..text.len() - line_end.len()].to_string(), place: place.to_string() })
        };
        let given = self.prompt.iter().map(|given| {
            if given != "-" {
                return Ok(Prompt { text: given.clone(), place: format!("--prompt {given:?}") });
            }
            let place = "standard input";
            let mut bytes = Vec::new();
            let most = MAX_RECORD_BYTES as u64;
            std::io::stdin().take(most + 1).read_to_end(&mut bytes).map_err(Error::io(place))?;
            if bytes.len() as u64 > most {
                return Err(Error::input(format!("{place}: more than {} MiB: shorten it", most >> 20)));
            }
            text(bytes, place)
        });
        let read = self
            .prompt_file
            .iter()
            .map(|path| text(files::read(path, MAX_RECORD_BYTES as u64)?, &path.display().to_string()));
        given.chain(read).collect()
    }

    pub fn run(self) -> Result<()> {
        let mut texts = self.prompts()?;
        let model = self.adapter.open(&self.model)?;
        let tokenizer = Tokenizer::load(&model.path)?;
        model.expect_vocabulary(&tokenizer)?;
        let template = self.chat.then(|| ChatTemplate::load(&model.path)).transpose()?;
        let mut end_tokens = model.end_tokens.clone();
        let end_of_message = template.as_ref().and_then(|template| template.special_token("eos_token"));
        end_tokens.extend(end_of_message.and_then(|token| tokenizer.token_to_id(token)));
        let mut prompts = Vec::new();
        for Prompt { text, place } in &mut texts {
            if let Some(template) = &template {
                prompts.push(template.encode(&tokenizer, &[Message::new("user", text.as_str())], true)?);
                text.push('\n');
                continue;
            }
            let mut ids = tokenizer.encode(text)?;
            if ids.is_empty() && !text.is_empty() {
                let file = model.path.join("tokenizer.json");
                return Err(Error::input(format!("{}: it has no token for any of {place}", file.display())));
            }
            if ids.is_empty() {
                ids.extend(model.architecture.bos_token_id());
            }
            if ids.is_empty() {
                return Err(Error::input(format!(
                    "{place}: an empty prompt, and the model has no beginning-of-text token: give some text"
                )));
            }
            prompts.push(ids);
        }
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let sizes = Sizes {
            batch: prompts.len(),
            context: longest.saturating_add(self.max_tokens).min(model.architecture.positions()),
            chunk: longest.clamp(1, CHUNK),
        };
        let backend = Backend::open(&self.device.device)?;
        let mut generator = Generator::load(&backend, &model, sizes)?;
        let begun = Instant::now();
        generator.prompt(&prompts)?;
        backend.wait()?;
        let prepared = Instant::now();
        let ends = self.continue_all(&mut generator, &tokenizer, &end_tokens, &texts)?;
        let (made, cut) = (ends.iter().map(|end| end.tokens).sum::<usize>(), sizes.context);
        match ends.iter().filter(|end| end.by_context).count() {
            0 => {}
            1 if ends.len() == 1 => {
                out::note(format_args!("(cut: the model's context of {cut} tokens is full)"))
            }
            texts => {
                out::note(format_args!("(cut {texts} texts: the model's context of {cut} tokens is full)"))
            }
        }
        let read: usize = prompts.iter().map(Vec::len).sum();
        // The last token of each prompt is read with the first that is made.
        let speed = |tokens: usize, time: Duration| match tokens {
            0 => String::new(),
            tokens => format!(", {:.1} tokens/s", tokens as f64 / time.as_secs_f64().max(1e-9)),
        };
        out::note(format_args!(
            "(prompt: {read} tokens{}; text: {made} tokens{})",
            speed(read - prompts.len(), prepared - begun),
            speed(made, prepared.elapsed())
        ));
        if std::env::var("SMOLTER_DEBUG").is_ok_and(|level| level == "2") {
            out::note(format_args!("decode:\n{}", profile::table(&generator.decode_profile().1)));
        }
        Ok(())
    }

    fn continue_all(
        &self,
        generator: &mut Generator,
        tokenizer: &Tokenizer,
        ends: &[u32],
        prompts: &[Prompt],
    ) -> Result<Vec<End>> {
        let sampling = self.sampling.settings(0.0, 1.0);
        let mut random: Vec<ChaCha8Rng> = (0..prompts.len() as u64)
            .map(|stream| {
                let mut rng = ChaCha8Rng::seed_from_u64(self.sampling.seed);
                rng.set_stream(stream);
                rng
            })
            .collect();
        let writers = prompts.iter().map(|_| Writer::new(tokenizer, ends, &self.sampling.stop));
        let mut writers: Vec<Writer> = writers.collect::<Result<_>>()?;
        // One prompt is printed as it grows; several one after the other in the end.
        let streaming = writers.len() == 1 && !self.logprobs;
        if streaming {
            let prompt = &prompts[0].text;
            match std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
                true => print(format_args!("{DIM}{prompt}{PLAIN}"))?,
                false => print(prompt)?,
            }
        }
        for _ in 0..self.max_tokens {
            let active: Vec<bool> = writers.iter().map(|it| !it.ended).collect();
            let uniform: Vec<f32> = random.iter_mut().map(|rng| rng.random()).collect();
            let choices = generator.step(&sampling, &uniform, &active)?;
            if choices.iter().all(Option::is_none) {
                break;
            }
            for (writer, choice) in writers.iter_mut().zip(choices) {
                let more = choice.map(|choice| writer.push(choice)).unwrap_or_default();
                if streaming {
                    print(&more)?;
                }
            }
        }
        let mut ends = Vec::new();
        for (Prompt { text: prompt, .. }, writer) in prompts.iter().zip(&mut writers) {
            let (ended, tokens) = (writer.ended, writer.choices.len());
            ends.push(End { tokens, by_context: !ended && tokens < self.max_tokens });
            let rest = writer.finish();
            if self.logprobs {
                let tokens: Vec<u32> = writer.choices.iter().map(|choice| choice.token).collect();
                let logprobs: Vec<f32> = writer.choices.iter().map(|choice| choice.logprob).collect();
                let reason = if ended { "stop" } else { "length" };
                let line = serde_json::json!({
                    "text": writer.text, "tokens": tokens, "logprobs": logprobs, "finish_reason": reason
                });
                print(format_args!("{line}\n"))?;
            } else if streaming {
                print(format_args!("{rest}\n"))?;
            } else {
                print(format_args!("{prompt}{}\n\n", writer.text))?;
            }
        }
        Ok(ends)
    }
}
