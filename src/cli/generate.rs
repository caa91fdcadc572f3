//! `smolter generate`: continues prompts with a model from a folder.

use super::DeviceFlag;
use super::sampling::SamplingFlags;
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::infer::generator::{CHUNK, Generator, Sizes};
use crate::infer::writer::Writer;
use crate::model::{ModelFolder, hub};
use crate::report::out::{self, print};
use crate::report::profile;
use crate::tokenizer::Tokenizer;
use clap::Args;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Args)]
pub struct Generate {
    /// Hugging Face model folder, a run folder for its newest whole checkpoint, or hf://owner/name[@revision].
    model: String,
    /// Text to continue; several are continued side by side.
    #[arg(long, required = true, allow_hyphen_values = true)]
    prompt: Vec<String>,
    /// Most new tokens of each.
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingFlags,
    /// Prints token ids and log-probabilities instead of text: one JSON object per line and prompt.
    #[arg(long)]
    logprobs: bool,
    #[command(flatten)]
    device: DeviceFlag,
}

impl Generate {
    pub fn run(self) -> Result<()> {
        let model = ModelFolder::open(&hub::folder(&self.model)?)?;
        model.warnings.iter().for_each(out::warn);
        let tokenizer = Tokenizer::load(&model.path)?;
        model.expect_vocabulary(&tokenizer)?;
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
                ids.extend(model.architecture.bos_token_id());
            }
            if ids.is_empty() {
                return Err(Error::input(
                    "--prompt: an empty prompt, and the model has no beginning-of-text token",
                ));
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
        generator.prompt(&prompts)?;
        self.continue_all(&mut generator, &tokenizer, &model.end_tokens)?;
        if std::env::var("SMOLTER_DEBUG").is_ok_and(|level| level == "2") {
            out::note(format_args!("decode:\n{}", profile::table(&generator.decode_profile().1)));
        }
        Ok(())
    }

    fn continue_all(&self, generator: &mut Generator, tokenizer: &Tokenizer, ends: &[u32]) -> Result<()> {
        let sampling = self.sampling.settings(0.0, 1.0);
        let mut random: Vec<ChaCha8Rng> = (0..self.prompt.len() as u64)
            .map(|stream| {
                let mut rng = ChaCha8Rng::seed_from_u64(self.sampling.seed);
                rng.set_stream(stream);
                rng
            })
            .collect();
        let writers = self.prompt.iter().map(|_| Writer::new(tokenizer, ends, &self.sampling.stop));
        let mut writers: Vec<Writer> = writers.collect::<Result<_>>()?;
        // One prompt is printed as it grows; several one after the other in the end.
        let streaming = writers.len() == 1 && !self.logprobs;
        if streaming {
            print(&self.prompt[0])?;
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
        for (prompt, writer) in self.prompt.iter().zip(&mut writers) {
            let rest = writer.finish();
            if self.logprobs {
                let tokens: Vec<u32> = writer.choices.iter().map(|choice| choice.token).collect();
                let logprobs: Vec<f32> = writer.choices.iter().map(|choice| choice.logprob).collect();
                let line = serde_json::json!({ "text": writer.text, "tokens": tokens, "logprobs": logprobs });
                print(format_args!("{line}\n"))?;
            } else if streaming {
                print(format_args!("{rest}\n"))?;
            } else {
                print(format_args!("{prompt}{}\n\n", writer.text))?;
            }
        }
        Ok(())
    }
}
