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
    /// Asked while a prompt is prepared.
    give_up: Box<dyn Fn() -> bool>,
}

/// Bytes of a token on average, of which a conversation surely has less.
const BYTES_PER_TOKEN: usize = 64;

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
    pub fn new(backend: &Backend, model: &ModelFolder, options: Options) -> Result<Self> {
        Self::with_template(backend, model, options, ChatTemplate::load(&model.path)?)
    }

    /// As [`new`](Self::new), with a template that need not be the model's own.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_template(
        backend: &Backend,
        model: &ModelFolder,
        mut options: Options,
        template: ChatTemplate,
    ) -> Result<Self> {
        let positions = model.architecture.positions();
        options.context = options.context.min(positions);
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
            give_up: Box::new(|| false),
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

    /// How answers are made.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Draws tokens in another way from now on.
    pub fn set_sampling(&mut self, sampling: Sampling) {
        self.options.sampling = sampling;
    }

    /// Begins the random choices anew.
    pub fn set_seed(&mut self, seed: u64) {
        self.options.seed = seed;
        self.random = ChaCha8Rng::seed_from_u64(seed);
    }

    /// Changes the most tokens of an answer.
    pub fn set_max_tokens(&mut self, max_tokens: usize) {
        self.options.max_tokens = max_tokens;
    }

    /// Asks `give_up` again and again while a prompt is prepared; as soon as it holds, the answer is
    /// [`End::Interrupted`].
    pub fn give_up_when(&mut self, give_up: impl Fn() -> bool + 'static) {
        self.give_up = Box::new(give_up);
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
        if !self.keep(&answer) {
            self.messages.pop();
        }
        answer
    }

    /// Answers the last message again, in place of the answer that it has.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such answer, and as [`say`](Self::say); the old answer then stays.
    pub fn regenerate(&mut self, receive: impl FnMut(&str) -> Result<bool>) -> Result<Answer> {
        match self.messages.as_slice() {
            [.., asked, answered] if asked.role == "user" && answered.role == "assistant" => {}
            _ => return Err(Error::input("there is no answer yet to make anew: say something first")),
        }
        let old = self.messages.pop();
        let answer = self.answer(receive);
        if !self.keep(&answer) {
            self.messages.extend(old);
        }
        answer
    }

    /// Adds an answer to the conversation if there is something in it, or should be.
    fn keep(&mut self, answer: &Result<Answer>) -> bool {
        let Ok(answer) = answer else { return false };
        let kept = !answer.text.is_empty() || answer.end != End::Interrupted;
        if kept {
            self.messages.push(Message::new("assistant", answer.text.clone()));
        }
        kept
    }

    fn answer(&mut self, mut receive: impl FnMut(&str) -> Result<bool>) -> Result<Answer> {
        let interrupted = Answer {
            text: String::new(),
            end: End::Interrupted,
            tokens: 0,
            prompt: 0,
            cached: 0,
            left_out: 0,
        };
        let Some(prompt) = self.prompt()? else { return Ok(interrupted) };
        let prompts = std::slice::from_ref(&prompt);
        let Some(cached) = self.generator.prompt_unless(prompts, &self.give_up)? else {
            return Ok(interrupted);
        };
        let left_out = self.first - self.system();
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

    /// The number of system messages at the beginning, 0 or 1.
    fn system(&self) -> usize {
        usize::from(self.messages.first().is_some_and(|message| message.role == "system"))
    }

    /// The conversation as tokens; `None` if it is to be given up.
    ///
    /// Where it leaves too little room for an answer, the oldest messages but for the system message are left out,
    /// up to a later message of the user: half the context at once, so that the next turns find a prefix in the cache.
    fn prompt(&mut self) -> Result<Option<Vec<u32>>> {
        let context = self.options.context;
        let room = context - self.options.max_tokens.min(context / 4);
        let later = (self.first + 1..self.messages.len()).filter(|&i| self.messages[i].role == "user");
        let starts: Vec<usize> = std::iter::once(self.first).chain(later).collect();
        let bytes: usize = self.messages[self.first..].iter().map(|message| message.content.len()).sum();
        let last = starts.len() - 1;
        // However long the conversation is, what cannot fit is not encoded.
        if last == 0 || bytes <= room.saturating_mul(BYTES_PER_TOKEN) {
            let ids = self.encode_from(self.first)?;
            if ids.len() <= room {
                return Ok(Some(ids));
            }
            if last == 0 {
                return Err(self.too_long(ids.len(), room));
            }
        }
        let mut ids = self.encode_from(starts[last])?;
        if ids.len() > room {
            return Err(self.too_long(ids.len(), room));
        }
        // The earliest start that leaves half: in steps that double, back from the last one to one that leaves less,
        // and then between the two.
        let (mut full, mut half, mut step) = (0, last, 1);
        while ids.len() <= room / 2 && half - full > 1 {
            if (self.give_up)() {
                return Ok(None);
            }
            let middle = (full + half) / 2;
            let try_at = if full == 0 { middle.max(half.saturating_sub(step)) } else { middle };
            let more = self.encode_from(starts[try_at])?;
            if more.len() <= room / 2 {
                (half, ids, step) = (try_at, more, 2 * step);
            } else {
                full = try_at;
            }
        }
        self.first = starts[half];
        Ok(Some(ids))
    }

    /// The conversation from message `first` on, after the system message, as tokens.
    fn encode_from(&self, first: usize) -> Result<Vec<u32>> {
        let messages = [&self.messages[..self.system()], &self.messages[first..]].concat();
        self.template.encode(&self.tokenizer, &messages, true)
    }

    fn too_long(&self, length: usize, room: usize) -> Error {
        let context = self.options.context;
        let larger = if context < self.positions { ", or give a larger --context" } else { "" };
        Error::input(format!(
            "the message makes a prompt of {length} tokens, and a context of {context} has room for {room}: shorten \
             it{larger}"
        ))
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
        self.first = self.system();
        Ok(())
    }
}
