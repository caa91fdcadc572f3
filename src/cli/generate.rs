//! `smolter generate`: continues prompts with a model from a folder.

use super::DeviceFlag;
use crate::checkpoint::hub;
use crate::error::{Error, Result};
use crate::generate::engine::{Choice, Generator, Sizes};
use crate::graph::Backend;
use crate::model::ModelFolder;
use crate::ops::sample::Sampling;
use crate::tokenizer::{Special, StopStrings, TextStream, Tokenizer};
use clap::Args;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::Write;

#[derive(Args)]
pub struct Generate {
    /// Hugging Face model folder, a run folder for its newest whole checkpoint, or hf://owner/name[@revision].
    model: String,
    /// Text to continue; several are continued side by side.
    #[arg(long, required = true)]
    prompt: Vec<String>,
    /// Most new tokens of each.
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0, value_parser = at_least_0)]
    temperature: f32,
    /// Draws from so many of the likeliest tokens; 0 from all.
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Draws from the likeliest tokens up to this mass.
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    top_p: f32,
    /// Draws from tokens of at least this share of the likeliest one's probability.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    min_p: f32,
    /// Divides the logits of tokens that have occurred.
    #[arg(long, default_value_t = 1.0, value_parser = above_0)]
    repetition_penalty: f32,
    /// Seed of the random choices.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Ends the text before this string; may be repeated. The model's end-of-text token always ends it.
    #[arg(long)]
    stop: Vec<String>,
    /// Prints token ids and log-probabilities instead of text: one JSON object per line and prompt.
    #[arg(long)]
    logprobs: bool,
    #[command(flatten)]
    device: DeviceFlag,
}

fn number(text: &str, fits: impl Fn(f32) -> bool, what: &str) -> std::result::Result<f32, String> {
    text.parse().ok().filter(|&x: &f32| x.is_finite() && fits(x)).ok_or(format!("give a number {what}"))
}

fn at_least_0(text: &str) -> std::result::Result<f32, String> {
    number(text, |x| x >= 0.0, "of at least 0")
}

fn above_0(text: &str) -> std::result::Result<f32, String> {
    number(text, |x| x > 0.0, "above 0")
}

fn share(text: &str) -> std::result::Result<f32, String> {
    number(text, |x| (0.0..=1.0).contains(&x), "from 0 to 1")
}

/// Prompt tokens that one pass takes, at most.
const CHUNK: usize = 64;

/// A prompt's continuation.
struct Continuation<'a> {
    stream: TextStream<'a>,
    stops: StopStrings,
    text: String,
    choices: Vec<Choice>,
    done: bool,
}

impl Continuation<'_> {
    /// Takes a token; returns the text that is now certain.
    fn push(&mut self, choice: Choice, end: Option<u32>) -> String {
        self.choices.push(choice);
        self.done = Some(choice.token) == end;
        let more = if self.done { String::new() } else { self.stream.push(choice.token) };
        let more = self.stops.push(&more);
        self.done |= self.stops.stopped().is_some();
        self.text += &more;
        more
    }

    fn finish(&mut self) -> String {
        let rest = self.stream.finish();
        let rest = self.stops.push(&rest) + &self.stops.finish();
        self.text += &rest;
        rest
    }
}

impl Generate {
    pub fn run(self) -> Result<()> {
        let model = ModelFolder::open(&hub::folder(&self.model)?)?;
        model.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        let tokenizer = Tokenizer::load(&model.path)?;
        let mut prompts = Vec::new();
        for text in &self.prompt {
            let mut ids = tokenizer.encode(text)?;
            if ids.is_empty() && !text.is_empty() {
                let place = model.path.join("tokenizer.json");
                return Err(Error::input(format!(
                    "{}: it has no token for any of --prompt {text:?}",
                    place.display()
                )));
            }
            if ids.is_empty() {
                ids.extend(model.config.bos_token_id);
            }
            if ids.is_empty() {
                return Err(Error::input(
                    "--prompt: an empty prompt, and the model has no beginning-of-text token",
                ));
            }
            prompts.push(ids);
        }
        let (ids, vocab) = (tokenizer.vocab_size(), model.config.vocab_size);
        if ids > vocab {
            return Err(Error::input(format!(
                "{}: it has token ids up to {}, but config.json a vocab_size of {vocab}: it is another model's",
                model.path.join("tokenizer.json").display(),
                ids - 1
            )));
        }
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let sizes = Sizes {
            batch: prompts.len(),
            context: longest.saturating_add(self.max_tokens).min(model.config.max_position_embeddings),
            chunk: longest.clamp(1, CHUNK),
        };
        let backend = Backend::open(&self.device.device)?;
        let mut generator = Generator::new(&backend, &model.config, sizes)?;
        for (name, shape) in model.config.parameters() {
            generator.write_weight(&name, &model.tensors.read_f32(&name, &shape)?);
        }
        generator.prompt(&prompts)?;
        self.continue_all(&mut generator, &tokenizer, model.config.eos_token_id)
    }

    fn continue_all(&self, generator: &mut Generator, tokenizer: &Tokenizer, end: Option<u32>) -> Result<()> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        };
        let mut random: Vec<ChaCha8Rng> = (0..self.prompt.len() as u64)
            .map(|stream| {
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
                rng.set_stream(stream);
                rng
            })
            .collect();
        let mut all = Vec::new();
        for _ in &self.prompt {
            let (stream, stops) = (tokenizer.stream(Special::Skip), StopStrings::new(self.stop.clone())?);
            all.push(Continuation { stream, stops, text: String::new(), choices: Vec::new(), done: false });
        }
        // One prompt is printed as it grows; several one after the other in the end.
        let streaming = all.len() == 1 && !self.logprobs;
        let mut out = std::io::stdout();
        let mut print = |text: &str| {
            let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            done.map_err(Error::io("standard output"))
        };
        if streaming {
            print(&self.prompt[0])?;
        }
        for _ in 0..self.max_tokens {
            let active: Vec<bool> = all.iter().map(|it| !it.done).collect();
            let uniform: Vec<f32> = random.iter_mut().map(|rng| rng.random()).collect();
            let choices = generator.step(&sampling, &uniform, &active)?;
            for (it, choice) in all.iter_mut().zip(choices) {
                match choice {
                    Some(choice) => {
                        let more = it.push(choice, end);
                        if streaming {
                            print(&more)?;
                        }
                    }
                    None => it.done = true,
                }
            }
            if all.iter().all(|it| it.done) {
                break;
            }
        }
        for (prompt, it) in self.prompt.iter().zip(&mut all) {
            let rest = it.finish();
            if self.logprobs {
                let tokens: Vec<u32> = it.choices.iter().map(|choice| choice.token).collect();
                let logprobs: Vec<f32> = it.choices.iter().map(|choice| choice.logprob).collect();
                let line = serde_json::json!({ "text": it.text, "tokens": tokens, "logprobs": logprobs });
                print(&format!("{line}\n"))?;
            } else if streaming {
                print(&format!("{rest}\n"))?;
            } else {
                print(&format!("{prompt}{}\n\n", it.text))?;
            }
        }
        Ok(())
    }
}
