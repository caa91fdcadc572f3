//! `smolter eval`: gives a model tasks with exact answers.

use super::{DeviceFlag, at_least_1};
use crate::checkpoint::write_file;
use crate::data::microcosm::Register;
use crate::data::microcosm::village::{Village, count_statements};
use crate::data::shard::{TokenSet, Verify};
use crate::data::tokenize::held_out_name;
use crate::error::{Error, Result};
use crate::eval::loss::{Held, losses};
use crate::eval::runner::{Examinee, Form, Score};
use crate::eval::village::{TASKS, task};
use crate::graph::Backend;
use crate::hub;
use crate::model::ModelFolder;
use crate::recipes::Recipe;
use crate::report::{out, table};
use crate::tokenizer::{ChatTemplate, Tokenizer};
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

/// The loss on held-out text, beside the tasks.
const LOSS: &str = "loss";

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

/// Windows of held-out text for each dataset, and the longest.
const WINDOWS: usize = 64;
const WINDOW: usize = 256;

impl Eval {
    pub fn run(self) -> Result<()> {
        let model = ModelFolder::open(&hub::folder(&self.model)?)?;
        model.warnings.iter().for_each(out::warn);
        let run = run_of(&model.path)?;
        let seed = self.world.or(run.as_ref().map(|run| run.recipe.world_seed())).unwrap_or(8);
        let village = Village::new(seed);
        let form = match self.chat {
            true => Form::Chat(ChatTemplate::load(&model.path)?),
            false => Form::Plain,
        };
        let backend = Backend::open(&self.device.device)?;
        let examinee = Examinee::new(&backend, &model, form)?;
        let stated = match &run {
            Some(run) => run.statements(&village, examinee.tokenizer())?,
            None => None,
        };
        let all = self.tasks.is_empty();
        let asked = |name: &str| all || self.tasks.iter().any(|it| it == name);
        let mut scores: Vec<Score> = Vec::new();
        for name in TASKS.into_iter().filter(|name| asked(name)) {
            scores.push(examinee.run(&task(&village, name, stated.as_deref(), self.limit, self.seed))?);
        }
        if !scores.is_empty() {
            out::line(score_table(&scores))?;
        }
        let mut losses_told = Vec::new();
        if asked(LOSS) {
            match run.map(|run| run.held()).transpose()?.filter(|held| !held.is_empty()) {
                Some(held) => {
                    let length = WINDOW.min(model.architecture.positions());
                    losses_told = losses(&backend, &examinee, &model.architecture, &held, length, WINDOWS)?;
                    let mut rows = table(&["held-out text", "tokens", "model", "5-gram (Kneser-Ney)"]);
                    for loss in &losses_told {
                        let [model, ngram] = [loss.model, loss.ngram].map(|nats| format!("{nats:.4}"));
                        rows.add_row([loss.dataset.clone(), loss.tokens.to_string(), model, ngram]);
                    }
                    out::line(rows)?;
                }
                None if all => {}
                None => {
                    let why = "the model is in no run folder with held-out text: leave out --tasks loss";
                    return Err(Error::input(format!("{}: {why}", self.model)));
                }
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

/// The run that a checkpoint belongs to.
struct Run {
    folder: PathBuf,
    recipe: Recipe,
}

/// The run folder around a checkpoint, if there is one.
fn run_of(checkpoint: &Path) -> Result<Option<Run>> {
    let folder = checkpoint.canonicalize().map_err(Error::io(checkpoint))?;
    let Some(folder) =
        folder.ancestors().take(3).find(|it| it.join(RECIPE_FILE).is_file() && it.join("data").is_dir())
    else {
        return Ok(None);
    };
    let recipe = Recipe::load(&folder.join(RECIPE_FILE).to_string_lossy(), &[])?;
    Ok(Some(Run { folder: folder.into(), recipe }))
}

impl Run {
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// How often the training text states each fact of the village; `None` if it is not about the village.
    fn statements(&self, village: &Village, tokenizer: &Tokenizer) -> Result<Option<Vec<usize>>> {
        let about = |name: &String| Register::VILLAGE.iter().any(|register| register.name() == name.as_str());
        let datasets = self.recipe.datasets.iter().filter(|it| it.microcosm.as_ref().is_some_and(about));
        let mut counts: Option<Vec<usize>> = None;
        for dataset in datasets {
            let set = TokenSet::open(self.data(), &dataset.name, Verify::Header)?;
            let counts = counts.get_or_insert_with(|| vec![0; village.facts.len()]);
            for i in 0..set.documents() {
                let text = tokenizer.decode(&set.tokens(set.document(i)));
                let more = count_statements(&village.facts, [text.as_str()]);
                counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
            }
        }
        Ok(counts)
    }

    /// The datasets of the run that have held-out text; conversations and pairs are none.
    fn held(&self) -> Result<Vec<Held>> {
        let mut all = Vec::new();
        for (i, dataset) in self.recipe.datasets.iter().enumerate() {
            let open = |name: &str| TokenSet::open(self.data(), name, Verify::Header);
            let is_text = !self.recipe.is_chat(i) && !self.recipe.is_of_pairs(i);
            if is_text && self.recipe.held_out.fraction > 0.0 {
                let (trained, held_out) = (open(&dataset.name)?, open(&held_out_name(&dataset.name))?);
                all.push(Held { name: dataset.name.clone(), trained, held_out });
            }
        }
        Ok(all)
    }
}
