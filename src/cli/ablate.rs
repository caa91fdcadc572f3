//! `smolter ablate`: compares candidates for a mixture, or what the stages of a life do.

use super::train::{REQUESTS, stop_on_signals};
use super::{DeviceFlag, bytes, count};
use crate::ablation::comparison;
use crate::ablation::effects::{self, EFFECTS, Finding, Life};
use crate::ablation::plan::{Length, Plan, Request};
use crate::ablation::protocol::{PROTOCOLS, Protocol};
use crate::ablation::runs::{Run, train};
use crate::checkpoint::write_file;
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::hub;
use crate::model::ModelFolder;
use crate::recipes::evaluation::{LOSS, TASKS};
use crate::recipes::{EMBEDDED, Recipe, open_model, suggest};
use crate::report::{out, quoted};
use crate::train::run::default_memory;
use crate::train::run_folder::run_of;
use crate::train::saved::RECIPE_FILE;
use crate::train::trainer::Ending;
use clap::Args;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  smolter ablate --protocol math --from runs/village --candidates figures,drills,figures:3+drills:1
  smolter ablate --protocol sft --from runs/village/checkpoints/step-002000 --candidates tasks,none --tokens 200K
  smolter ablate --protocol web --recipe mine.toml --candidates books,web --seeds 1,2 --json web.json
  smolter ablate --protocol life --seeds 8,9,10  the default recipe once per seed: what do its stages do?
  smolter ablate --protocol life runs/a runs/b   the same of runs that are there

Protocols, as SmolLM2's authors chose their data:
  web         from noise, cosine
  math        60 % candidate, 40 % of the mixture before, in a line to zero
  code        candidates of several datasets (a+b), the same of each, in a line to zero
  sft         20 % candidate, 80 % of the other conversations
  preference  preference pairs
  life        whole recipes: sums and programs rise faster in the decay, the far needle
              begins with the longer context, constraints rise by SFT, preference by DPO";

/// The protocol that compares stages, not candidates.
const LIFE: &str = "life";

const NAMES: [&str; PROTOCOLS.len() + 1] = {
    let mut names = [LIFE; PROTOCOLS.len() + 1];
    let mut i = 0;
    while i < PROTOCOLS.len() {
        names[i] = PROTOCOLS[i].name;
        i += 1;
    }
    names
};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Ablate {
    /// What each run looks like.
    #[arg(long, value_parser = NAMES)]
    protocol: String,
    /// `life`: run folders that are there, in place of training.
    #[arg(value_name = "RUN", conflicts_with_all = ["recipe", "set", "seeds", "runs"])]
    given: Vec<PathBuf>,
    /// What all begin with: a run folder, a checkpoint, a model folder, or hf://owner/name[@revision].
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// The recipe with the datasets, and with a stage that gives sequence length, batch, optimizer and peak learning rate
    /// [default: that of the run of --from, or microcosm].
    #[arg(long)]
    recipe: Option<String>,
    /// Overrides a key of the recipe, such as batch.sequences=8; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// That stage [default: the one in which the checkpoint was made, or the first of the kind].
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
    /// What is compared, between commas: datasets, mixtures (a+b, a:3+b:1), or `none` for the rest alone.
    #[arg(long, value_delimiter = ',', value_name = "DATASETS")]
    candidates: Vec<String>,
    /// Tokens of each run [default: as many steps as the stage].
    #[arg(long, value_parser = count, conflicts_with = "steps")]
    tokens: Option<u64>,
    /// Steps of each run.
    #[arg(long, value_parser = count)]
    steps: Option<u64>,
    /// Seeds between commas: of initial weights and of the order of the data, and for `life` of the generated text too
    /// [default: 1,2,3; life: 8,9,10].
    #[arg(long, value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Tasks in the end, between commas; `loss` is that of held-out text [default: those of the protocol].
    #[arg(long, value_delimiter = ',')]
    tasks: Vec<String>,
    /// Folder of the run folders; what is there goes on [default: runs/ablate-PROTOCOL].
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
    /// Writes the outcome here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Device memory to stay within, such as 4GiB.
    #[arg(long, value_parser = bytes)]
    memory: Option<u64>,
    #[command(flatten)]
    device: DeviceFlag,
}

impl Ablate {
    pub fn run(self) -> Result<()> {
        match Protocol::named(&self.protocol) {
            Some(protocol) => self.compare(protocol),
            None => self.live(),
        }
    }

    /// Trains candidates, and tells which is best in what.
    fn compare(&self, protocol: &'static Protocol) -> Result<()> {
        let name = protocol.name;
        if let Some(run) = self.given.first() {
            let why =
                format!("protocol {name} takes no run folders: give the model that all begin with by --from");
            return Err(Error::input(format!("{}: {why}", run.display())));
        }
        let from = match (&self.from, protocol.from_noise) {
            (Some(_), true) => {
                return Err(Error::input(format!("protocol {name} begins with noise: leave --from out")));
            }
            (None, false) => {
                let why = "begins with a model: give --from RUN, or a checkpoint or a model folder";
                return Err(Error::input(format!("protocol {name} {why}")));
            }
            (from, _) => from.as_ref().map(|from| ModelFolder::open(&hub::folder(from)?)).transpose()?,
        };
        from.iter().flat_map(|model| &model.warnings).for_each(out::warn);
        if let Some(task) = self.tasks.iter().find(|task| *task != LOSS && !TASKS.contains(&task.as_str())) {
            return Err(Error::input(format!(
                "--tasks {task}: {}",
                suggest(task, &[&TASKS[..], &[LOSS]].concat())
            )));
        }
        let own = from.as_ref().and_then(|model| run_of(&model.path)).map(|run| run.join(RECIPE_FILE));
        let recipe = match (&self.recipe, own) {
            (None, Some(own)) => self.read(&own.to_string_lossy(), &[])?,
            (recipe, _) => self.read(recipe.as_deref().unwrap_or(EMBEDDED[0].0), &[])?,
        };
        let seeds = self.seeds(&[1, 2, 3])?;
        let length = match (self.steps, self.tokens) {
            (Some(steps), _) => Length::Steps(steps),
            (None, Some(tokens)) => Length::Tokens(tokens),
            (None, None) => Length::Stage,
        };
        let plan = Plan::new(Request {
            protocol,
            recipe,
            from: from.as_ref(),
            stage: self.stage.as_deref(),
            candidates: &self.candidates,
            seeds: &seeds,
            tasks: &self.tasks,
            length,
        })?;
        // The weights are on disk; each run reads them itself.
        drop(from);
        let mut runs = Vec::new();
        for candidate in &plan.candidates {
            for &seed in &seeds {
                let folder = self.folder().join(format!("{}-seed-{seed}", candidate.file_name()));
                let title = format!("{}, seed {seed}", candidate.name);
                runs.push(Run { title, folder, recipe: plan.recipe(candidate, seed)? });
            }
        }
        self.train(&runs)?;
        let rows = comparison::rows(&plan, &runs)?;
        let (steps, tokens) = plan.length();
        let seeds = seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        out::line(format_args!(
            "\nprotocol {name}: {tokens} tokens in {steps} steps for each candidate, seeds {seeds}\n"
        ))?;
        comparison::tables(&plan, &rows).iter().try_for_each(|table| out::line(format_args!("{table}\n")))?;
        out::line("+- standard error over seeds, or over items if larger; losses in nats per token")?;
        out::line("*  better than the next one by more than the error of the difference")?;
        self.write(&comparison::to_json(&plan, &runs, &rows))
    }

    /// Trains a recipe once per seed, unless runs are given, and tells what its stages do.
    fn live(&self) -> Result<()> {
        let not_its = [
            ("--from", self.from.is_some()),
            ("--stage", self.stage.is_some()),
            ("--candidates", !self.candidates.is_empty()),
            ("--tokens", self.tokens.is_some()),
            ("--steps", self.steps.is_some()),
            ("--tasks", !self.tasks.is_empty()),
        ];
        if let Some((flag, _)) = not_its.iter().find(|(_, given)| *given) {
            let why = "trains whole recipes as they are: leave it out, or change the recipe with --set";
            return Err(Error::input(format!("{flag}: protocol {LIFE} {why}")));
        }
        let mut folders = self.given.clone();
        if folders.is_empty() {
            let name = self.recipe.as_deref().unwrap_or(EMBEDDED[0].0);
            let mut runs = Vec::new();
            for seed in self.seeds(&[8, 9, 10])? {
                let recipe = self.read(name, &[format!("seed={seed}"), format!("data_seed={seed}")])?;
                effects::check(&recipe)?;
                let folder = self.folder().join(format!("seed-{seed}"));
                runs.push(Run { title: format!("{}, seed {seed}", recipe.name), folder, recipe });
            }
            self.train(&runs)?;
            folders = runs.into_iter().map(|run| run.folder).collect();
        }
        let lives = folders.iter().map(|folder| Life::open(folder)).collect::<Result<Vec<_>>>()?;
        let findings =
            EFFECTS.iter().map(|effect| effects::find(effect, &lives)).collect::<Result<Vec<_>>>()?;
        let findings: Vec<Finding> = findings.into_iter().flatten().collect();
        if findings.is_empty() {
            let why = "its recipe has none of the stages that effects are about: give runs of a whole life";
            return Err(Error::input(format!("{}: {why}", quoted(&folders[0]))));
        }
        out::line(effects::draw(&findings))?;
        let runs = match lives.len() {
            1 => "1 run".to_string(),
            many => format!("{many} runs"),
        };
        out::line(format_args!("\n{runs}; {}", effects::summary(&findings)))?;
        self.write(&json!({"protocol": LIFE, "runs": folders, "effects": findings}))
    }

    fn read(&self, name: &str, more: &[String]) -> Result<Recipe> {
        let reading = Recipe::read(name, &[&self.set[..], more].concat(), &open_model)?;
        match &reading.missing[..] {
            [] => Ok(reading.recipe),
            missing => Err(Error::Mistakes(missing.to_vec())),
        }
    }

    fn seeds(&self, usual: &[u64]) -> Result<Vec<u64>> {
        let mut seeds = if self.seeds.is_empty() { usual.to_vec() } else { self.seeds.clone() };
        let given = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        match seeds.len() == given {
            true => Ok(seeds),
            false => Err(Error::input("--seeds: one is there twice, but the same run again tells nothing")),
        }
    }

    fn folder(&self) -> PathBuf {
        self.runs.clone().unwrap_or_else(|| PathBuf::from(format!("runs/ablate-{}", self.protocol)))
    }

    /// Trains the runs that are not finished; ends the process if a signal stops one.
    fn train(&self, runs: &[Run]) -> Result<()> {
        let again = || "the same command goes on from there".to_string();
        let stopped_by = stop_on_signals(move || format!("stopped; {}", again()))?;
        let backend = Backend::open(&self.device.device)?;
        let memory = self.memory.unwrap_or_else(|| default_memory(&backend));
        if let Ending::Stopped { .. } = train(runs, &backend, memory, &REQUESTS)? {
            out::say(again());
            let code = stopped_by.get().map_or(1, |signal| signal.exit_code());
            std::process::exit(code);
        }
        Ok(())
    }

    fn write(&self, told: &serde_json::Value) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        write_file(path, |file| writeln!(file, "{told:#}").map_err(Error::io(path)))
    }
}
