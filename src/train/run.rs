//! A run from the user's side: its folder, resuming, and the report at the end.

use super::begun::{BEGUN_FILE, Begun};
use super::history::{self, HISTORY_FILE, History, catch_up};
use super::intervention::intervene;
use super::overview::Record;
use super::samples::SampleText;
use super::saved::{self, RECIPE_FILE};
use super::score_table;
use super::trainer::{Ending, Options, Trainer};
use crate::checkpoint::{folder, replace};
use crate::error::{Error, Result};
use crate::eval::loss::baseline;
use crate::files;
use crate::graph::Backend;
use crate::recipes::{Change, Recipe};
use crate::report::{out, profile, quoted, shell_word, table};
use crate::tokenizer::ChatTemplate;
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

/// Continues the run in `options.run` from its newest whole checkpoint. A recipe that is lost is taken from there. With
/// assignments `path.to.key=value` its recipe is changed first, as far as that concerns what has not begun.
///
/// # Errors
/// [`Error::Input`] or [`Error::Damaged`] if neither recipe nor checkpoint is whole, or they do not go together; those of
/// [`intervene`].
pub fn resume(options: Options, set: &[String]) -> Result<Ending> {
    let run = options.run;
    // A change with which the run cannot go on comes to nothing.
    let files = [RECIPE_FILE, BEGUN_FILE, HISTORY_FILE].map(|name| run.join(name));
    let before = files.each_ref().map(|path| files::read(path, files::LISTS).ok());
    let trainer = reopen(options, set, introduce).inspect_err(|_| {
        for (path, before) in files.iter().zip(before).filter(|_| !set.is_empty()) {
            // The error itself is what matters.
            let _ = match before {
                Some(before) => replace(path, &before),
                None => std::fs::remove_file(path).map_err(Error::io(path)),
            };
        }
    })?;
    complete(trainer)
}

/// The run in `options.run` at its newest whole checkpoint, with its recipe changed by `set`; `tell` what that is.
fn reopen<'a>(options: Options<'a>, set: &[String], tell: impl Fn(&Recipe, &Options)) -> Result<Trainer<'a>> {
    let found = folder::newest_whole(options.run);
    let checkpoint = found.as_ref().ok().and_then(Option::as_ref).map(|(checkpoint, _)| checkpoint);
    let begun = if checkpoint.is_none() { beginning(options.run) } else { None };
    let before = match checkpoint {
        Some(checkpoint) => saved::recipe_of(checkpoint).map(Vec::from_iter),
        None => Ok(begun.as_ref().map_or(Vec::new(), Begun::recipes)),
    };
    let since = if checkpoint.is_some() { "the last checkpoint" } else { "the beginning" };
    let (recipe, before) = resumed_recipe(options.run, before, since)?;
    let recipe = intervene(options.run, recipe, set, checkpoint)?;
    let changes = changes(&recipe, &before)?;
    let (step, stage) = match checkpoint {
        Some(checkpoint) => (checkpoint.state.step, &checkpoint.state.stage),
        None => (0, &recipe.stages[0].name),
    };
    History::open(options.run, step, &recipe)?.add_changes(step, stage, &changes)?;
    tell(&recipe, &options);
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
    Trainer::new(recipe, options, checkpoint)
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

/// The recipe of a run that goes on, and those that it had before, the newest last. Says aloud if it is none of these.
fn resumed_recipe(run: &Path, before: Result<Vec<Recipe>>, since: &str) -> Result<(Recipe, Vec<Recipe>)> {
    let path = run.join(RECIPE_FILE);
    match (Recipe::load(&path.to_string_lossy(), &[]), before) {
        (Ok(recipe), Ok(mut before)) => {
            let events = history::read(run);
            before.iter_mut().for_each(|before| catch_up(before, &recipe, &events));
            let changed = changes(&recipe, &before)?;
            if !changed.is_empty() {
                let changed = changed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                out::warn(format_args!("{}: changed since {since}: {changed}", path.display()));
            }
            Ok((recipe, before))
        }
        (Ok(recipe), Err(_)) => Ok((recipe, Vec::new())),
        (Err(error), Ok(before)) if !before.is_empty() => {
            // It may hold what its owner has just written.
            let aside = if path.symlink_metadata().is_ok() {
                format!("; it is now {}", files::set_aside(&path)?.display())
            } else {
                String::new()
            };
            out::warn(format_args!("{error}: the recipe is that of {since}{aside}"));
            Ok((before[before.len() - 1].clone(), before))
        }
        (Err(error), _) => Err(Error::input(format!(
            "{error}; {}: no checkpoint has the recipe either: put it back, or start a new run",
            run.display()
        ))),
    }
}

/// What a recipe changes of the last of those of before; nothing if it is one of them.
fn changes(recipe: &Recipe, before: &[Recipe]) -> Result<Vec<Change>> {
    let Some((last, others)) = before.split_last() else { return Ok(Vec::new()) };
    let is_other = |other: &Recipe| recipe.changes_since(other).is_ok_and(|it| it.is_empty());
    if others.iter().any(is_other) { Ok(Vec::new()) } else { recipe.changes_since(last) }
}

fn introduce(recipe: &Recipe, options: &Options) {
    out::say(recipe.describe());
    out::say(format_args!("device: {}", options.backend.description()));
    out::say(format_args!("run folder: {}", options.run.display()));
}

fn complete(mut trainer: Trainer) -> Result<Ending> {
    let run = trainer.options().run.to_path_buf();
    Record::clear(&run)?;
    let failed = |error: &Error| Record::Failed { error: error.to_string() };
    // The ending itself is what matters.
    let keep = |record: Record| drop(record.write(&run));
    let mut ending = trainer.run();
    while matches!(ending, Ok(Ending::Rewound)) {
        trainer = reopen(trainer.into_options(), &[], |_, _| {}).inspect_err(|error| keep(failed(error)))?;
        ending = trainer.run();
    }
    keep(match &ending {
        Ok(Ending::Finished) => Record::Finished,
        Ok(Ending::Stopped { .. } | Ending::Rewound) => Record::Stopped,
        Err(error) => failed(error),
    });
    let ending = ending.map_err(|error| with_remedy(error, trainer.last_saved()))?;
    if std::env::var("SMOLTER_DEBUG").is_ok_and(|level| level == "2") {
        let engine = trainer.engine_of_last_stage()?;
        let training = engine.training();
        for program in [training.micro, training.update.program] {
            let times = profile::table(&engine.executor().profile(program));
            out::note(format_args!("{}:\n{times}", training.graph.program_name(program)));
        }
    }
    let saved = trainer.last_saved().map(|path| path.display().to_string()).unwrap_or_default();
    match ending {
        Ending::Rewound => unreachable!("the run has gone on"),
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

/// The newest scores, held-out losses beside those of an n-gram model of the same text, and what the last stages made of
/// the same prompts.
fn report(trainer: &mut Trainer) -> Result<()> {
    let scores = trainer.evaluation().scores().to_vec();
    if let Some(table) = score_table::in_full(&scores) {
        out::say(format_args!("\n{table}"));
    }
    let last = trainer.recipe().total_steps();
    if !scores.iter().any(|score| score.step == last && score.dataset().is_some()) {
        report_held_out(trainer)?;
    }
    if let Some(text) = before_and_after(trainer.evaluation().samples()) {
        out::say(format_args!("\n{text}"));
    }
    out::say("");
    Ok(())
}

fn report_held_out(trainer: &mut Trainer) -> Result<()> {
    let recipe = trainer.recipe().clone();
    let held_out = trainer.held_out()?.map(|(loss, held_out)| (loss, held_out.rows.clone()));
    let Some((loss, rows)) = held_out else {
        out::say("\nno held-out loss: too little text is held out");
        return Ok(());
    };
    if loss.preference.is_some() {
        out::say(format_args!("\nheld-out pairs: {}", loss.describe()));
        loss.pairs.iter().for_each(|pairs| out::say(format_args!("\n{}", pairs.table())));
        return Ok(());
    }
    let sets = trainer.corpus.sets.iter().enumerate().filter(|(i, _)| !recipe.is_of_pairs(*i));
    let ngram = baseline(recipe.model.vocab_size, sets.map(|(_, set)| set));
    let mut table = table(&["held-out loss (nats/token)", "this model", "5-gram (Kneser-Ney)"]);
    let mut row = |name: &str, loss: f64, of: &dyn Fn(usize) -> bool| {
        let rows = rows.iter().filter(|(dataset, _)| of(*dataset)).map(|(_, row)| row);
        // It is for the loss of all tokens.
        let whole = rows.clone().all(|row| row.scored[1..].iter().all(|&scored| scored));
        let ngram = ngram.as_ref().filter(|_| whole);
        let ngram = ngram.map(|model| model.mean_loss(rows.map(|row| row.tokens.as_slice())));
        let ngram = ngram.map_or("-".to_string(), |loss| format!("{loss:.3}"));
        table.add_row([name.to_string(), format!("{loss:.3}"), ngram]);
    };
    for (i, (dataset, loss)) in recipe.datasets.iter().zip(&loss.datasets).enumerate() {
        if let Some(loss) = loss {
            row(&dataset.name, *loss, &|dataset| dataset == i);
        }
    }
    row("all", loss.mean, &|_| true);
    out::say(format_args!("\n{table}"));
    Ok(())
}

/// Stages whose samples are told at the end of a run.
const TOLD_STAGES: usize = 3;

/// Most characters of a sample that stands beside others.
const TOLD_CHARACTERS: usize = 300;

/// What the last stages made of the same prompts; of one stage alone, the whole texts.
fn before_and_after(samples: &[SampleText]) -> Option<String> {
    let last = samples.last()?.step;
    let mut steps: Vec<u64> = samples.iter().map(|sample| sample.step).collect();
    steps.dedup();
    let first = steps[steps.len().saturating_sub(TOLD_STAGES)];
    let told = |sample: &&SampleText| sample.step >= first;
    let width = samples.iter().filter(told).map(|it| it.stage.chars().count()).max().unwrap_or(0);
    let of_prompt = |now: &SampleText| {
        if first == last {
            let gap = if now.chat { "\n" } else { "" };
            return format!("{}{gap}{}", now.prompt, harmless(&now.text));
        }
        let same = samples.iter().filter(told).filter(|sample| sample.prompt == now.prompt);
        let line = |sample: &SampleText| {
            let text = harmless(&sample.text).split_whitespace().collect::<Vec<_>>().join(" ");
            let text = console::truncate_str(&text, TOLD_CHARACTERS, "...").into_owned();
            format!("\n  {:width$}  {text}", sample.stage)
        };
        format!("{}{}", now.prompt, same.map(line).collect::<String>())
    };
    let texts = samples.iter().filter(|sample| sample.step == last).map(of_prompt);
    Some(texts.collect::<Vec<_>>().join("\n\n"))
}

/// Without what a terminal would obey.
fn harmless(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', "?")
}
