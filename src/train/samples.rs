//! `samples.jsonl`: what the model makes of the recipe's prompts at the end of each stage.

use super::records::OfStep;
use crate::error::Result;
use crate::eval::runner::Form;
use crate::graph::{Backend, Store};
use crate::infer::generator::{CHUNK, Generator, GeneratorGraph, Sizes};
use crate::infer::writer::Writer;
use crate::nn::Architecture;
use crate::ops::sample::Sampling;
use crate::recipes::Sample;
use crate::tokenizer::{Message, Tokenizer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// File of the samples in a run folder.
pub const SAMPLES_FILE: &str = "samples.jsonl";

/// A line: a prompt, and what the model makes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleText {
    /// The run's step.
    pub step: u64,
    /// The stage that ends there.
    pub stage: String,
    /// Whether the prompt was a message in a chat, instead of text to continue.
    pub chat: bool,
    /// The prompt.
    pub prompt: String,
    /// What follows it, up to the end of the answer or document.
    pub text: String,
}

impl OfStep for SampleText {
    fn step(&self) -> u64 {
        self.step
    }
}

/// A model that writes.
pub struct Author<'a> {
    /// Where it computes.
    pub backend: &'a Backend,
    /// Its weights.
    pub store: &'a Arc<Store>,
    /// Its shape.
    pub architecture: &'a Architecture,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How prompts are put to it.
    pub form: Form<'a>,
    /// Tokens that end a text.
    pub ends: &'a [u32],
}

impl Author<'_> {
    /// What follows each prompt of `sample`, which has some.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device), [`Error::Input`](crate::Error::Input) of the chat template.
    pub fn write(&self, sample: &Sample) -> Result<Vec<String>> {
        let Author { architecture, tokenizer, .. } = *self;
        let encode = |prompt: &String| match self.form {
            Form::Chat(template) => template.encode(tokenizer, &[Message::new("user", prompt)], true),
            Form::Plain => tokenizer.encode(prompt),
        };
        let prompts = sample.prompts.iter().map(encode).collect::<Result<Vec<_>>>()?;
        // A prompt that is too long begins later.
        let positions = architecture.positions();
        let room = positions.saturating_sub(sample.tokens).max(1);
        let prompts: Vec<Vec<u32>> =
            prompts.iter().map(|ids| ids[ids.len().saturating_sub(room)..].to_vec()).collect();
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(1);
        let context = (longest + sample.tokens).min(positions);
        let sizes = Sizes { batch: prompts.len(), context, chunk: longest.min(CHUNK) };
        let graph = GeneratorGraph::new(architecture, sizes)?;
        let mut generator = Generator::new(self.backend, graph, self.store)?;
        generator.prompt(&prompts)?;
        let sampling = Sampling { temperature: sample.temperature as f32, ..Sampling::default() };
        // The same numbers for every prompt, so that none depends on the others.
        let mut rng = ChaCha8Rng::seed_from_u64(sample.seed);
        let writers = prompts.iter().map(|_| Writer::new(tokenizer, self.ends, &[]));
        let mut writers = writers.collect::<Result<Vec<_>>>()?;
        for _ in 0..sample.tokens {
            let uniform = rng.random::<f64>().min(1.0 - f64::from(f32::EPSILON)) as f32;
            let active: Vec<bool> = writers.iter().map(|writer| !writer.ended).collect();
            let choices = generator.step(&sampling, &vec![uniform; prompts.len()], &active)?;
            if choices.iter().all(Option::is_none) {
                break;
            }
            for (writer, choice) in writers.iter_mut().zip(choices) {
                choice.into_iter().for_each(|choice| drop(writer.push(choice)));
            }
        }
        let text = |mut writer: Writer| {
            writer.finish();
            writer.text
        };
        Ok(writers.into_iter().map(text).collect())
    }
}
