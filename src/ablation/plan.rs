//! From what is asked to the recipe of each run: all the same but for the candidate's share of the mixture, and the seed.

use super::candidate::{Candidate, NONE};
use super::protocol::Protocol;
use crate::checkpoint::Checkpoint;
use crate::data::microcosm::Register;
use crate::data::microcosm::village::Answers;
use crate::data::source::Source;
use crate::error::{Error, Result};
use crate::hub;
use crate::model::ModelFolder;
use crate::nn::Base;
use crate::recipes::TokenizerChoice;
use crate::recipes::evaluation::LOSS;
use crate::recipes::{
    Batch, Dataset, Evaluation, LearningRate, ModelSource, Recipe, ScheduleKind, Stage, StageKind, suggest,
};
use crate::train::run_folder::run_of;
use crate::train::saved::RECIPE_FILE;
use std::collections::{BTreeMap, BTreeSet};

/// How long each run is.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// As many steps as the stage of the recipe that gives the conditions.
    Stage,
    /// Steps.
    Steps(u64),
    /// Tokens, rounded up to whole steps.
    Tokens(u64),
}

/// What is asked.
pub struct Request<'a> {
    /// What the stage looks like.
    pub protocol: &'static Protocol,
    /// The recipe that has the datasets, and a stage that gives the conditions.
    pub recipe: Recipe,
    /// The model that all begin with, for protocols that begin with one.
    pub from: Option<&'a ModelFolder>,
    /// The stage that gives the conditions. If not given, the one in which `from` was made, or else the first of the kind.
    pub stage: Option<&'a str>,
    /// What is compared.
    pub candidates: &'a [String],
    /// Seeds of the runs of each candidate.
    pub seeds: &'a [u64],
    /// What is asked in the end; if empty, what the protocol says.
    pub tasks: &'a [String],
    /// How long each run is.
    pub length: Length,
}

/// What is compared, and under which conditions.
pub struct Plan {
    /// What the stage looks like.
    pub protocol: &'static Protocol,
    /// What is compared.
    pub candidates: Vec<Candidate>,
    /// Seeds of the runs of each candidate.
    pub seeds: Vec<u64>,
    /// What is asked in the end.
    pub tasks: Vec<String>,
    /// Name of the stage that gave the conditions.
    pub stage: String,
    /// The recipe of each run, but for its mixture and its seeds.
    common: Recipe,
    /// What those share that are not candidates.
    rest: BTreeMap<String, f64>,
}

impl Plan {
    /// Finds the conditions of all runs.
    ///
    /// # Errors
    /// [`Error::Input`] with what cannot be, and those of reading the model.
    pub fn new(request: Request) -> Result<Plan> {
        let Request { protocol, mut recipe, from, .. } = request;
        let candidates = request.candidates.iter().map(|text| Candidate::parse(text, &recipe));
        let candidates = candidates.collect::<Result<Vec<_>>>()?;
        check(protocol, &candidates, &recipe)?;
        let index = stage_of(protocol, &recipe, from, request.stage)?;
        fix_length(&mut recipe, index, from);
        let stage = &recipe.stages[index];
        let in_candidates: BTreeSet<&String> = candidates.iter().flat_map(|it| it.parts.keys()).collect();
        let mut rest = if protocol.share < 1.0 { stage.mixture.clone() } else { BTreeMap::new() };
        rest.retain(|name, _| !(protocol.rest_without_candidates && in_candidates.contains(name)));
        if protocol.share < 1.0 && rest.is_empty() {
            return Err(Error::input(format!(
                "stage {} of recipe {} has nothing but candidates in its mixture, and nothing is left for the other {:.0} \
                 %: give another with --stage",
                stage.name,
                recipe.name,
                100.0 * (1.0 - protocol.share)
            )));
        }
        let all: f64 = rest.values().sum();
        rest.values_mut().for_each(|share| *share /= all);
        let is_chat = protocol.kind.is_chat();
        let text = Some(LOSS).filter(|_| !is_chat && recipe.held_out.fraction > 0.0);
        let usual = protocol.tasks.iter().copied().filter(|_| is_village(&recipe)).chain(text);
        let tasks = match request.tasks {
            [] => usual.map(String::from).collect(),
            tasks => tasks.to_vec(),
        };
        if is_chat && tasks.iter().any(|task| task == LOSS) {
            let why = "is of held-out text, but its runs have none: leave it out";
            return Err(Error::input(format!("--tasks {LOSS}: protocol {}: the loss {why}", protocol.name)));
        }
        let used =
            |dataset: &Dataset| in_candidates.contains(&dataset.name) || rest.contains_key(&dataset.name);
        let mut common = conditions(protocol, &recipe, index, request.length);
        common.datasets.retain(used);
        if let Some(model) = from {
            let Base::Llama(config) = model.architecture.base.clone();
            common.model = config;
            let tokenizer = &mut common.tokenizer;
            *tokenizer = TokenizerChoice { path: None, train: None, ..tokenizer.clone() };
            let path = std::path::absolute(&model.path).map_err(Error::io(&model.path))?;
            let from =
                path.to_str().ok_or_else(|| Error::input(format!("{}: not Unicode", path.display())))?;
            common.source =
                Some(ModelSource { from: from.into(), hash: Some(ModelSource::content_hash(model)?) });
            // What the model has read about is what it is asked about.
            if let Some(run) = run_of(&model.path) {
                common.world_seed =
                    Some(Recipe::load(&run.join(RECIPE_FILE).to_string_lossy(), &[])?.world_seed());
            }
        }
        let (stage, seeds) = (stage.name.clone(), request.seeds.to_vec());
        Ok(Plan { protocol, candidates, seeds, tasks, stage, common, rest })
    }

    /// The recipe of the run of a candidate with a seed.
    ///
    /// The seed decides the initial weights, the order of the data and the items that are asked; the text, and what is held out of it, are always the
    /// same.
    ///
    /// # Errors
    /// [`Error::Input`] naming the candidate.
    pub fn recipe(&self, candidate: &Candidate, seed: u64) -> Result<Recipe> {
        let mut recipe = self.common.clone();
        recipe.name = format!("{}-{}", self.protocol.name, candidate.file_name());
        (recipe.seed, recipe.data_seed) = (seed, seed);
        // Other items too: how seeds differ then tells how far items may mislead.
        recipe.evaluation = Evaluation { seed, every: 0, ..recipe.evaluation };
        recipe.stages[0].evaluate = self.tasks.clone();
        let share = if candidate.parts.is_empty() { 0.0 } else { self.protocol.share };
        let mixture = &mut recipe.stages[0].mixture;
        for (shares, weight) in [(&candidate.parts, share), (&self.rest, 1.0 - share)] {
            for (name, part) in shares.iter().filter(|_| weight > 0.0) {
                *mixture.entry(name.clone()).or_insert(0.0) += weight * part;
            }
        }
        // Text beside the mixture is there for its held-out part; what else a dataset is, stages say by having it.
        let mixture = mixture.clone();
        if self.protocol.kind != StageKind::Pretrain {
            recipe.datasets.retain(|dataset| mixture.contains_key(&dataset.name));
        }
        Recipe::from_toml(&format!("candidate {}", candidate.name), &recipe.to_toml()?)
    }

    /// Steps of each run, and tokens.
    pub fn length(&self) -> (u64, u64) {
        (self.common.total_steps(), self.common.total_tokens())
    }
}

fn check(protocol: &Protocol, candidates: &[Candidate], recipe: &Recipe) -> Result<()> {
    let mut folders = BTreeSet::new();
    for candidate in candidates {
        let refuse = |why: String| Err(Error::input(format!("candidate {}: {why}", candidate.name)));
        if candidate.parts.is_empty() && protocol.share == 1.0 {
            return refuse(format!("protocol {} gives candidates all tokens: name a dataset", protocol.name));
        }
        if protocol.uniform && !candidate.is_uniform() {
            return refuse(format!(
                "protocol {} takes the same of each dataset: leave its shares out",
                protocol.name
            ));
        }
        if !folders.insert(candidate.file_name()) {
            return refuse("is there twice, or another has its folder: leave it out".into());
        }
        for dataset in recipe.datasets.iter().filter(|it| candidate.parts.contains_key(&it.name)) {
            if dataset.paths.iter().any(|path| hub::is_remote(path)) || dataset.microcosm.is_some() {
                continue;
            }
            let files = Source::new(&dataset.paths).files()?;
            if files.iter().all(|file| file.metadata().is_ok_and(|it| it.len() == 0)) {
                let paths: Vec<String> =
                    dataset.paths.iter().map(|path| path.display().to_string()).collect();
                return refuse(format!("there is no text in {}", paths.join(", ")));
            }
        }
    }
    match candidates {
        [] => Err(Error::input(format!(
            "no candidates: give --candidates with datasets of the recipe, or '{NONE}'"
        ))),
        _ => Ok(()),
    }
}

/// Whether a stage of the recipe can give the conditions of a protocol.
fn suits(protocol: &Protocol, stage: &Stage) -> bool {
    let is_text = |kind: StageKind| !kind.is_chat();
    stage.kind == protocol.kind || is_text(stage.kind) && is_text(protocol.kind)
}

/// The stage of the recipe that gives the conditions.
fn stage_of(
    protocol: &Protocol,
    recipe: &Recipe,
    from: Option<&ModelFolder>,
    given: Option<&str>,
) -> Result<usize> {
    let fitting: Vec<usize> =
        (0..recipe.stages.len()).filter(|&i| suits(protocol, &recipe.stages[i])).collect();
    let names: Vec<&str> = fitting.iter().map(|&i| recipe.stages[i].name.as_str()).collect();
    let named = |name: &str| fitting.iter().copied().find(|&i| recipe.stages[i].name == name);
    let what = match protocol.kind {
        StageKind::Sft => "sft",
        StageKind::Dpo => "dpo",
        _ => "pretrain",
    };
    if let Some(name) = given {
        return named(name).ok_or_else(|| {
            let (recipe, hint) = (&recipe.name, suggest(name, &names));
            Error::input(format!(
                "--stage {name}: recipe {recipe} has no stage of this name and kind '{what}'; {hint}"
            ))
        });
    }
    let made_in = from.and_then(|model| Checkpoint::open(&model.path).ok()).map(|it| it.state.stage);
    made_in.and_then(|name| named(&name)).or(fitting.first().copied()).ok_or_else(|| {
        Error::input(format!(
            "recipe {} has no stage of kind '{what}', whose conditions the candidates get: give one that has with --recipe",
            recipe.name
        ))
    })
}

/// Where the length of sequences would follow from the text of each candidate, it becomes the longest that may be.
fn fix_length(recipe: &mut Recipe, index: usize, from: Option<&ModelFolder>) {
    let longest = from.map_or(recipe.model.max_position_embeddings, |model| model.architecture.positions());
    let stage = &mut recipe.stages[index];
    if std::mem::take(&mut stage.fit_length) {
        stage.sequence_length = stage.sequence_length.min(longest);
    }
}

/// The recipe's stage, and what it uses, as a recipe of one stage with the schedule of the protocol and an empty mixture.
fn conditions(protocol: &Protocol, recipe: &Recipe, index: usize, length: Length) -> Recipe {
    let (stage, span) = (&recipe.stages[index], recipe.span_of(index));
    let steps = match length {
        Length::Stage => span.steps(),
        Length::Steps(steps) => steps,
        Length::Tokens(tokens) => tokens.div_ceil(span.tokens_per_step),
    };
    let schedule = match &stage.schedule {
        Some(name) => recipe.schedules.get(name),
        None => recipe.schedule.as_ref(),
    };
    let is_wsd = protocol.schedule == ScheduleKind::Wsd;
    let rate = LearningRate {
        kind: protocol.schedule,
        peak_lr: schedule.map_or(0.0, |schedule| schedule.peak_lr),
        min_lr: 0.0,
        warmup_steps: None,
        warmup_fraction: Some(protocol.warmup),
        decay_steps: None,
        decay_fraction: is_wsd.then_some(1.0 - protocol.warmup),
    };
    let stage = Stage {
        name: protocol.name.into(),
        kind: protocol.kind,
        from: None,
        tokens: Some(steps.saturating_mul(span.tokens_per_step)),
        steps: None,
        epochs: None,
        rope_theta: Some(recipe.model_at(index).rope_theta),
        schedule: None,
        optimizer: None,
        reset_optimizer: false,
        skip: Vec::new(),
        batch: None,
        mixture: BTreeMap::new(),
        ..stage.clone()
    };
    // As in the paper, text is read again as often as its share takes.
    let uncapped = |dataset: &Dataset| Dataset { max_epochs: None, ..dataset.clone() };
    Recipe {
        comment: String::new(),
        source: None,
        world_seed: Some(recipe.world_seed()),
        optimizer: recipe.optimizer_of(index).clone(),
        optimizers: BTreeMap::new(),
        schedule: Some(rate),
        schedules: BTreeMap::new(),
        batch: Batch { micro_batch: 0, ..recipe.batch_of(index) },
        datasets: recipe.datasets.iter().map(uncapped).collect(),
        stages: vec![stage],
        ..recipe.clone()
    }
}

/// Whether some of a recipe's text is about the village, so that tasks about it can be asked.
fn is_village(recipe: &Recipe) -> bool {
    let village = |name: &String| Answers::named(name).is_some() || name.parse::<Register>().is_ok();
    recipe.datasets.iter().any(|dataset| dataset.microcosm.as_ref().is_some_and(village))
}
