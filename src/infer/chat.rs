//! A conversation with a chat model. Each turn renders it anew; what the cache has of it is not computed again.

use std::io::Write;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::generator::{CHUNK, Generator, Sizes};
use super::writer::Writer;
use crate::checkpoint::{publish, write_file};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::Backend;
use crate::model::ModelFolder;
use crate::ops::sample::Sampling;
use crate::tokenizer::{ChatTemplate, Message, Tokenizer};

/// How answers are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The system message; `None` leaves it to the template, which for SmolLM2 has its own.
    pub system: Option<String>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Seed of the random choices.
    pub seed: u64,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Most tokens of the conversation that the model sees; at most what the model has positions for.
    pub context: usize,
    /// Strings before which an answer ends.
    pub stops: Vec<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended it, or a stop string.
    Stop,
    /// It has as many tokens as were allowed.
    Length,
    /// The context is full.
    Context,
    /// The caller wanted no more.
    Interrupted,
}

/// What a turn did.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What the model said.
    pub text: String,
    /// Why it ended.
    pub end: End,
    /// Tokens chosen.
    pub tokens: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// How many of those the cache had.
    pub cached: usize,
    /// Messages, the oldest, that did not fit the context and were left out.
    pub left_out: usize,
}

/// A model and a conversation.
pub struct Chat {
    options: Options,
    /// Positions that the model has.
    positions: usize,
    generator: Generator,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    end_tokens: Vec<u32>,
    random: ChaCha8Rng,
    messages: Vec<Message>,
    /// The first message after the system message that the model still sees.
    first: usize,
}

/// A conversation in a file: a line of the datasets that chat models are trained on.
#[derive(Serialize, Deserialize)]
struct Saved {
    messages: Vec<Message>,
}

impl Chat {
    /// Loads a model folder with a chat template.
    ///
    /// # Errors
    /// [`Error::Input`] if the folder has no tokenizer or template, or the sizes do not fit; [`Error::Device`].
    pub fn new(backend: &Backend, model: &ModelFolder, mut options: Options) -> Result<Self> {
        let positions = model.architecture.positions();
        options.context = options.context.min(positions);
        let template = ChatTemplate::load(&model.path)?;
        let tokenizer = Tokenizer::load(&model.path)?;
        model.expect_vocabulary(&tokenizer)?;
        let mut end_tokens = model.end_tokens.clone();
        end_tokens.push(tokenizer.eos_id());
        end_tokens.extend(template.special_token("eos_token").and_then(|token| tokenizer.token_to_id(token)));
        let sizes = Sizes { batch: 1, context: options.context, chunk: CHUNK.min(options.context) };
        let generator = Generator::load(backend, model, sizes)?;
        let random = ChaCha8Rng::seed_from_u64(options.seed);
        let messages = Vec::new();
        let mut chat = Chat {
            options,
            positions,
            generator,
            tokenizer,
            template,
            end_tokens,
            random,
            messages,
            first: 0,
        };
        chat.reset();
        Ok(chat)
    }

    /// Forgets what was said, but not the system message.
    pub fn reset(&mut self) {
        let system = self.options.system.iter().map(|text| Message::new("system", text.clone()));
        self.messages = system.collect();
        self.first = self.messages.len();
    }

    /// The conversation, the system message first where one was given.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Says `text` as the user. `receive` gets the answer piece by piece, whole characters only, and tells whether to
    /// go on.
    ///
    /// # Errors
    /// [`Error::Input`] if the message does not fit the context or the template refuses it; the conversation is then
    /// as before. [`Error::Device`].
    pub fn say(&mut self, text: &str, receive: impl FnMut(&str) -> Result<bool>) -> Result<Answer> {
        self.messages.push(Message::new("user", text));
        let answer = self.answer(receive);
        match &answer {
            Ok(answer) if !answer.text.is_empty() || answer.end != End::Interrupted => {
                self.messages.push(Message::new("assistant", answer.text.clone()));
            }
            _ => drop(self.messages.pop()),
        }
        answer
    }

    fn answer(&mut self, mut receive: impl FnMut(&str) -> Result<bool>) -> Result<Answer> {
        let (prompt, left_out) = self.prompt()?;
        let cached = self.generator.prompt(std::slice::from_ref(&prompt))?;
        let mut writer = Writer::new(&self.tokenizer, &self.end_tokens, &self.options.stops)?;
        let mut end = End::Length;
        for _ in 0..self.options.max_tokens {
            let uniform = self.random.random();
            let Some(choice) = self.generator.step(&self.options.sampling, &[uniform], &[true])?[0] else {
                end = End::Context;
                break;
            };
            let go_on = receive(&writer.push(choice))?;
            if writer.ended {
                end = End::Stop;
                break;
            }
            if !go_on {
                end = End::Interrupted;
                break;
            }
        }
        receive(&writer.finish())?;
        let tokens = writer.choices.len();
        Ok(Answer { text: writer.text, end, tokens, prompt: prompt.len(), cached, left_out })
    }

    /// The conversation as tokens, and the number of old messages that it lacks.
    ///
    /// Where it leaves too little room for an answer, the oldest messages but for the system message are left out,
    /// up to a later message of the user: half the context at once, so that the next turns find a prefix in the cache.
    fn prompt(&mut self) -> Result<(Vec<u32>, usize)> {
        let context = self.options.context;
        let room = context - self.options.max_tokens.min(context / 4);
        let system = usize::from(self.messages[0].role == "system");
        let (mut first, mut limit) = (self.first, room);
        loop {
            let messages = [&self.messages[..system], &self.messages[first..]].concat();
            let ids = self.template.encode(&self.tokenizer, &messages, true)?;
            let later = (first + 1..self.messages.len()).find(|&i| self.messages[i].role == "user");
            match later {
                Some(later) if ids.len() > limit => (first, limit) = (later, room / 2),
                None if ids.len() > room => {
                    let larger = if context < self.positions { ", or give a larger --context" } else { "" };
                    return Err(Error::input(format!(
                        "the message makes a prompt of {} tokens, and a context of {context} has room for {room}: \
                         shorten it{larger}",
                        ids.len()
                    )));
                }
                _ => {
                    self.first = first;
                    return Ok((ids, first - system));
                }
            }
        }
    }

    /// Writes the conversation to `path`: `{"messages": [{"role": ..., "content": ...}, ...]}` on one line.
    ///
    /// # Errors
    /// [`Error::Input`] if `path` exists, [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let saved = Saved { messages: self.messages.clone() };
        let line = serde_json::to_string(&saved).expect("messages are JSON");
        publish(path, |path| write_file(path, |file| writeln!(file, "{line}").map_err(Error::io(path))))
    }

    /// Goes on with the conversation in `path`, which replaces the present one.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file if it holds no conversation, [`Error::Io`]; the present one then stays.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let text = files::read(path, files::LISTS)?;
        let saved: Saved = serde_json::from_slice(&text)
            .map_err(|e| Error::input(format!("{}: not a saved conversation: {e}", path.display())))?;
        self.messages = saved.messages;
        self.first = usize::from(self.messages.first().is_some_and(|message| message.role == "system"));
        Ok(())
    }
}
