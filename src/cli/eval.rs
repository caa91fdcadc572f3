//! `smolter eval`: gives a model tasks with exact answers.

use super::{DeviceFlag, at_least_1};
use crate::checkpoint::write_file;
use crate::error::{Error, Result};
use crate::eval::runner::{Examinee, Form, Score};
use crate::eval::suite::Suite;
use crate::graph::Backend;
use crate::hub;
use crate::model::ModelFolder;
use crate::recipes::Recipe;
use crate::recipes::evaluation::{LOSS, TASKS};
use crate::report::progress::Progress;
use crate::report::{out, table};
use crate::tokenizer::{ChatTemplate, Tokenizer};
use crate::train::made::DATA_FOLDER;
use crate::train::run_folder::run_of;
use crate::train::saved::RECIPE_FILE;
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Eval {
    /// Model folder, run folder for its newest whole checkpoint, or hf://owner/name[@revision].
    model: String,
    /// Tasks between commas [default: all].
    #[arg(long, value_delimiter = ',', value_parser = TASK_NAMES)]
    tasks: Vec<String>,
    /// Items of each task.
    #[arg(long, default_value_t = 100, value_parser = at_least_1)]
    limit: usize,
    /// Seed that draws the items.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Seed of the village that is asked about [default: that of the run's recipe, or 8].
    #[arg(long)]
    world: Option<u64>,
    /// Asks in the form of a chat instead of as text to continue.
    #[arg(long)]
    chat: bool,
    /// Writes all answers here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceFlag,
}

const TASK_NAMES: [&str; TASKS.len() + 1] = {
    let mut names = [LOSS; TASKS.len() + 1];
    let mut i = 0;
    while i < TASKS.len() {
        names[i] = TASKS[i];
        i += 1;
    }
    names
};

const EXAMPLES: &str = "\
Examples:
  smolter eval runs/microcosm
  smolter eval runs/microcosm --tasks facts,arithmetic --limit 50 --json answers.json
  smolter eval MODEL --chat --tasks stories";

/// Seed of the village where neither flag nor run tells one: that of recipes.
const WORLD: u64 = 8;

impl Eval {
    pub fn run(self) -> Result<()> {
        let model = ModelFolder::open(&hub::folder(&self.model)?)?;
        model.warnings.iter().for_each(out::warn);
        let run = run_around(&model.path)?;
        let seed = self.world.or(run.as_ref().map(|(_, recipe)| recipe.world_seed())).unwrap_or(WORLD);
        let mut suite = match &run {
            Some((folder, recipe)) => Suite::of_run(recipe, &folder.join(DATA_FOLDER), self.world)?,
            None => Suite::of_world(seed),
        };
        let tokenizer = Tokenizer::load(&model.path)?;
        let template = if self.chat { Some(ChatTemplate::load(&model.path)?) } else { None };
        let form = template.as_ref().map_or(Form::Plain, Form::Chat);
        let backend = Backend::open(&self.device.device)?;
        let examinee = Examinee::load(&backend, &model, &tokenizer, form)?;
        let all = self.tasks.is_empty();
        let asked = |name: &str| all || self.tasks.iter().any(|it| it == name);
        let mut scores: Vec<Score> = Vec::new();
        for name in TASKS.into_iter().filter(|name| asked(name)) {
            let task = suite.task(name, &tokenizer, self.limit, self.seed);
            let mut progress = Progress::new(name, task.items.len() as u64, 0);
            scores.push(examinee.run(&task, &mut |done| progress.set(done as u64, ""))?);
        }
        if !scores.is_empty() {
            out::line(score_table(&scores))?;
        }
        let mut losses_told = Vec::new();
        if asked(LOSS) {
            if suite.holds_out() {
                losses_told = suite.losses(&examinee)?;
                let mut rows = table(&["held-out text", "tokens", "model", "5-gram (Kneser-Ney)"]);
                for loss in &losses_told {
                    let model = format!("{:.4} +- {:.4}", loss.model, loss.standard_error);
                    let ngram = loss.ngram.map_or("-".into(), |nats| format!("{nats:.4}"));
                    rows.add_row([loss.dataset.clone(), loss.tokens.to_string(), model, ngram]);
                }
                out::line(rows)?;
            } else if !all {
                let why = "the model is in no run folder with held-out text: leave out --tasks loss";
                return Err(Error::input(format!("{}: {why}", self.model)));
            }
        }
        let Some(path) = &self.json else { return Ok(()) };
        let told = serde_json::json!({
            "model": self.model, "world": seed, "seed": self.seed, "chat": self.chat,
            "tasks": scores.iter().map(told).collect::<Vec<_>>(), "loss": losses_told,
        });
        write_file(path, |file| writeln!(file, "{told:#}").map_err(Error::io(path)))
    }
}

fn told(score: &Score) -> serde_json::Value {
    serde_json::json!({
        "task": score.task, "items": score.answers.len(), "right": score.right(), "accuracy": score.accuracy(),
        "standard_error": score.standard_error(), "guessing": score.guessing, "answers": score.answers,
    })
}

fn score_table(scores: &[Score]) -> impl std::fmt::Display {
    let mut rows = table(&["task", "items", "right", "accuracy", "guessing", "above it"]);
    for score in scores {
        rows.add_row([
            score.task.clone(),
            score.answers.len().to_string(),
            score.right().to_string(),
            format!("{:.3} +- {:.3}", score.accuracy(), score.standard_error()),
            format!("{:.3}", score.guessing),
            format!("{:+.1} standard errors", score.above_guessing()),
        ]);
    }
    rows
}

/// The run folder around a checkpoint, and its recipe, if there is one.
fn run_around(checkpoint: &Path) -> Result<Option<(PathBuf, Recipe)>> {
    let folder = run_of(checkpoint).filter(|folder| folder.join(DATA_FOLDER).is_dir());
    let read = |folder: PathBuf| {
        Ok((folder.clone(), Recipe::load(&folder.join(RECIPE_FILE).to_string_lossy(), &[])?))
    };
    folder.map(read).transpose()
}
