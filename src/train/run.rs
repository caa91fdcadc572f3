//! A run from the user's side: its folder, resuming, and the report at the end.

use super::begun::{BEGUN_FILE, Begun};
use super::overview::Record;
use super::saved::{self, RECIPE_FILE};
use super::trainer::{Ending, Options, Trainer};
use crate::checkpoint::folder;
use crate::error::{Error, Result};
use crate::eval::ngram::NGram;
use crate::files;
use crate::graph::Backend;
use crate::infer::generator::{CHUNK, Generator, GeneratorGraph, Sizes};
use crate::ops::sample::Sampling;
use crate::recipes::Recipe;
use crate::report::{out, profile, quoted, shell_word, table};
use crate::tokenizer::{ChatTemplate, Message};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// Device memory to plan for where the user gives none: hardware does not tell, so 4 GiB; a software adapter and the
/// reference executor have half of what the machine has free.
pub fn default_memory(backend: &Backend) -> u64 {
    let hardware = matches!(backend, Backend::Gpu(device) if !device.caps.is_lanes());
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?.to_string();
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    match available {
        Some(kib) if !hardware => kib * 1024 / 2,
        _ => 4 << 30,
    }
}

/// Trains `recipe` in the fresh folder `options.run`.
///
/// # Errors
/// Those of [`Recipe::check_files`] and of training.
pub fn start(recipe: Recipe, options: Options) -> Result<Ending> {
    recipe.check_files(None)?;
    introduce(&recipe, &options);
    complete(Trainer::new(recipe, options, None)?)
}

/// Continues the run in `options.run` from its newest whole checkpoint. A recipe that is lost is taken from there.
///
/// # Errors
/// [`Error::Input`] or [`Error::Damaged`] if neither recipe nor checkpoint is whole, or they do not go together.
pub fn resume(options: Options) -> Result<Ending> {
    let found = folder::newest_whole(options.run);
    let checkpoint = found.as_ref().ok().and_then(Option::as_ref).map(|(checkpoint, _)| checkpoint);
    let begun = if checkpoint.is_none() { beginning(options.run) } else { None };
    let before = match checkpoint {
        Some(checkpoint) => saved::recipe_of(checkpoint).map(Vec::from_iter),
        None => Ok(begun.as_ref().map_or(Vec::new(), Begun::recipes)),
    };
    let since = if checkpoint.is_some() { "the last checkpoint" } else { "the beginning" };
    let recipe = resumed_recipe(options.run, before, since)?;
    introduce(&recipe, &options);
    let checkpoint = match found? {
        None => {
            // Text is not needed where its tokens are there.
            if !begun.is_some_and(|begun| begun.known(&recipe).is_some_and(|known| known.has_all(&recipe))) {
                recipe.check_files(Some(&options.run.join(RECIPE_FILE)))?;
            }
            out::say("no checkpoint yet: from the beginning");
            None
        }
        Some((checkpoint, warnings)) => {
            warnings.iter().for_each(out::warn);
            out::say(format_args!("from {}", checkpoint.path.display()));
            Some(checkpoint)
        }
    };
    complete(Trainer::new(recipe, options, checkpoint)?)
}

/// What a run without a checkpoint began with, if that can be told.
fn beginning(run: &Path) -> Option<Begun> {
    let (begun, path) = (Begun::read(run), run.join(BEGUN_FILE));
    if begun.is_none() && path.symlink_metadata().is_ok() {
        let why = "damaged; whether recipe or text have changed since the run began cannot be told";
        out::warn(format_args!("{}: {why}", path.display()));
    }
    begun
}

/// The recipe of a run that goes on. Says aloud if it is none of those that the run had before, the newest last.
fn resumed_recipe(run: &Path, before: Result<Vec<Recipe>>, since: &str) -> Result<Recipe> {
    let path = run.join(RECIPE_FILE);
    match (Recipe::load(&path.to_string_lossy(), &[]), before.map(|mut before| (before.pop(), before))) {
        (Ok(recipe), Ok((Some(last), others))) => {
            let changed = recipe.changes_since(&last)?;
            let is_other = |other: &Recipe| recipe.changes_since(other).is_ok_and(|it| it.is_empty());
            if !changed.is_empty() && !others.iter().any(is_other) {
                let changed = changed.join(", ");
                out::warn(format_args!("{}: changed since {since}: {changed}", path.display()));
            }
            Ok(recipe)
        }
        (Ok(recipe), _) => Ok(recipe),
        (Err(error), Ok((Some(saved), _))) => {
            // It may hold what its owner has just written.
            let aside = if path.symlink_metadata().is_ok() {
                format!("; it is now {}", files::set_aside(&path)?.display())
            } else {
                String::new()
            };
            out::warn(format_args!("{error}: the recipe is that of {since}{aside}"));
            Ok(saved)
        }
        (Err(error), _) => Err(Error::input(format!(
            "{error}; {}: no checkpoint has the recipe either: put it back, or start a new run",
            run.display()
        ))),
    }
}

fn introduce(recipe: &Recipe, options: &Options) {
    out::say(recipe.describe());
    out::say(format_args!("device: {}", options.backend.description()));
    out::say(format_args!("run folder: {}", options.run.display()));
}

fn complete(mut trainer: Trainer) -> Result<Ending> {
    let run = trainer.options().run.to_path_buf();
    Record::clear(&run)?;
    let ending = trainer.run();
    let record = match &ending {
        Ok(Ending::Finished) => Record::Finished,
        Ok(Ending::Stopped { .. }) => Record::Stopped,
        Err(error) => Record::Failed { error: error.to_string() },
    };
    // The ending itself is what matters.
    let _ = record.write(&run);
    let ending = ending.map_err(|error| with_remedy(error, trainer.last_saved()))?;
    if let (Ok("2"), Some(engine)) = (std::env::var("SMOLTER_DEBUG").as_deref(), trainer.last_engine()) {
        let training = engine.training();
        for program in [training.micro, training.update.program] {
            let times = profile::table(&engine.executor().profile(program));
            out::note(format_args!("{}:\n{times}", training.graph.program_name(program)));
        }
    }
    let saved = trainer.last_saved().map(|path| path.display().to_string()).unwrap_or_default();
    match ending {
        Ending::Stopped { step } => {
            out::say(format_args!("stopped after step {step}; saved {saved}"));
            out::say(format_args!("continue with: smolter train --resume {}", quoted(&run)));
        }
        Ending::Finished => {
            report(&mut trainer)?;
            out::say(format_args!("saved {saved}"));
            suggest(&trainer, &run);
        }
    }
    Ok(ending)
}

/// What to do with a finished run, as commands to copy.
fn suggest(trainer: &Trainer, run: &Path) {
    let name = run.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned());
    let run = quoted(run);
    let prompt = trainer.recipe().sample.prompts.first().map_or("Once", String::as_str);
    let is_chat = trainer.last_saved().is_some_and(|saved| ChatTemplate::load(saved).is_ok());
    let flag = if is_chat { " --chat" } else { "" };
    out::say(format_args!("continue text: smolter generate {run}{flag} --prompt {}", shell_word(prompt)));
    if is_chat {
        out::say(format_args!("talk with it:  smolter chat {run}"));
    }
    let file = quoted(Path::new(&format!("{name}.gguf")));
    let merge = if trainer.architecture().lora.is_some() { " --merge" } else { "" };
    out::say(format_args!("for llama.cpp: smolter export {run}{merge} --out {file}"));
    if !merge.is_empty() {
        let folder = quoted(Path::new(&format!("{name}-adapter")));
        out::say(format_args!("for PEFT:      smolter export {run} --out {folder}"));
    }
    out::say(format_args!("loss curve:    smolter runs show {run}"));
}

/// What a lost device leaves behind, and how to go on from there.
fn with_remedy(error: Error, saved: Option<&Path>) -> Error {
    match (error, saved) {
        (Error::Device(message), Some(saved)) => {
            let run = quoted(saved.ancestors().nth(2).unwrap_or(saved));
            Error::Device(format!("{message}; continue from {} with --resume {run}", saved.display()))
        }
        (error, _) => error,
    }
}

/// Held-out losses beside those of n-gram models of the same text, and a sample.
fn report(trainer: &mut Trainer) -> Result<()> {
    let recipe = trainer.recipe().clone();
    let held_out = trainer.held_out()?.map(|(loss, held_out)| (loss, held_out.rows.clone()));
    if let Some((loss, _)) = held_out.as_ref().filter(|(loss, _)| loss.preference.is_some()) {
        out::say(format_args!("\nheld-out pairs: {}\n", loss.describe()));
        loss.pairs.iter().for_each(|pairs| out::say(format_args!("{}\n", pairs.table())));
    } else if let Some((loss, rows)) = held_out {
        let baselines = [2, 3].map(|order| baseline(trainer, order));
        let mut table = table(&["held-out loss (nats/token)", "this model", "bigram", "trigram"]);
        let mut row = |name: &str, loss: f64, of: &dyn Fn(usize) -> bool| {
            let rows = rows.iter().filter(|(dataset, _)| of(*dataset)).map(|(_, row)| row);
            // They are for the loss of all tokens.
            let whole = rows.clone().all(|row| row.scored[1..].iter().all(|&scored| scored));
            let grams = baselines.iter().map(|model| {
                let model = model.as_ref().filter(|_| whole);
                let loss = model.map(|model| model.mean_loss(rows.clone().map(|row| row.tokens.as_slice())));
                loss.map_or("-".to_string(), |loss| format!("{loss:.3}"))
            });
            table.add_row([name.to_string(), format!("{loss:.3}")].into_iter().chain(grams));
        };
        for (i, (dataset, loss)) in recipe.datasets.iter().zip(&loss.datasets).enumerate() {
            if let Some(loss) = loss {
                row(&dataset.name, *loss, &|dataset| dataset == i);
            }
        }
        row("all", loss.mean, &|_| true);
        out::say(format_args!("\n{table}\n"));
    } else {
        out::say("no held-out loss: too little text is held out\n");
    }
    samples(trainer)?.iter().for_each(|text| out::say(format_args!("{text}\n")));
    Ok(())
}

/// Most tokens per dataset that an n-gram baseline learns from.
const BASELINE_TOKENS: u64 = 20_000_000;

/// `None` where the vocabulary is too large for it.
fn baseline(trainer: &Trainer, order: usize) -> Option<NGram> {
    let vocab_size = trainer.recipe().model.vocab_size;
    if vocab_size > NGram::largest_vocabulary(order) {
        return None;
    }
    let sets = trainer.corpus.sets.iter().enumerate().filter(|(i, _)| !trainer.recipe().is_of_pairs(*i));
    let streams: Vec<Vec<u32>> = sets.map(|(_, set)| set.tokens(0..set.len().min(BASELINE_TOKENS))).collect();
    Some(NGram::train(order, vocab_size, streams.iter().map(Vec::as_slice)))
}

/// The recipe's prompts, and how the model goes on from each up to the end of the document; a chat model answers them as
/// messages. Training must be over: its memory is given back for this.
fn samples(trainer: &mut Trainer) -> Result<Vec<String>> {
    trainer.release()?;
    let (sample, tokenizer) = (trainer.recipe().sample.clone(), &trainer.corpus.tokenizer);
    if sample.prompts.is_empty() {
        return Ok(Vec::new());
    }
    let eos = tokenizer.eos_id();
    let positions = trainer.architecture().positions();
    let last = trainer.recipe().stages.len() - 1;
    let template = trainer.corpus.template.as_ref().filter(|_| trainer.recipe().makes_chat_model(last));
    let mut ends = vec![eos];
    ends.extend(template.and_then(|it| tokenizer.token_to_id(it.special_token("eos_token")?)));
    let mut texts = Vec::new();
    for prompt in &sample.prompts {
        texts.push(match template {
            Some(template) => template.encode(tokenizer, &[Message::new("user", prompt)], true)?,
            None => [vec![eos], tokenizer.encode(prompt)?].concat(),
        });
    }
    // A prompt that is too long begins later.
    let room = positions.saturating_sub(sample.tokens).max(1);
    let prompts: Vec<Vec<u32>> =
        texts.iter().map(|ids| ids[ids.len().saturating_sub(room)..].to_vec()).collect();
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(1);
    let context = (longest + sample.tokens).min(positions);
    let sizes = Sizes { batch: prompts.len(), context, chunk: longest.min(CHUNK) };
    let graph = GeneratorGraph::new(trainer.architecture(), sizes)?;
    let mut generator = Generator::new(&trainer.options().backend, graph, &trainer.store)?;
    generator.prompt(&prompts)?;
    let sampling = Sampling { temperature: sample.temperature as f32, ..Sampling::default() };
    // The same numbers for every prompt, so that none depends on the others.
    let mut rng = ChaCha8Rng::seed_from_u64(sample.seed);
    let mut active = vec![true; prompts.len()];
    for _ in 0..sample.tokens {
        let uniform = rng.random::<f64>().min(1.0 - f64::from(f32::EPSILON)) as f32;
        let choices = generator.step(&sampling, &vec![uniform; prompts.len()], &active)?;
        for ((choice, text), active) in choices.iter().zip(&mut texts).zip(&mut active) {
            match choice.filter(|choice| !ends.contains(&choice.token)) {
                Some(choice) => text.push(choice.token),
                None => *active = false,
            }
        }
    }
    let shown = |ids: &Vec<u32>| tokenizer.decode(ids.strip_prefix(&[eos]).unwrap_or(ids));
    Ok(texts.iter().map(shown).collect())
}
