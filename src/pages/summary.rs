//! The run in short: key figures and its stages; or several runs side by side.

use super::history::last;
use super::page::{Block, Cell, Section, Table};
use super::run::Run;
use super::seeds::groups;
use crate::nn::Architecture;
use crate::recipes::{Change, Recipe};
use crate::report::number::{digits, duration, short};
use crate::report::size;

/// Most lines about what differs between two recipes.
const MOST_CHANGES: usize = 40;

fn nats(loss: Option<f64>) -> Option<String> {
    loss.map(|loss| format!("{loss:.3}"))
}

fn state(run: &Run) -> String {
    let state = &run.overview.state;
    state.reason().map_or(state.name().into(), |reason| format!("{} ({reason})", state.name()))
}

fn steps(run: &Run) -> String {
    match &run.overview.recipe {
        Some(recipe) => format!("{} of {}", run.history.last_step, recipe.total_steps()),
        None => run.history.last_step.to_string(),
    }
}

fn parameters(run: &Run) -> Option<String> {
    let model = run.overview.recipe.as_ref()?.model.clone();
    Some(short(Architecture::from(model).num_parameters()))
}

/// What stands at the top of the report of one run.
pub fn lead(run: &Run) -> Vec<Block> {
    let mut blocks = Vec::new();
    if let Some(recipe) = &run.overview.recipe {
        blocks.push(Block::Text(recipe.describe()));
    }
    let facts = [
        ("state", Some(state(run))),
        ("steps", Some(steps(run))),
        ("tokens", (run.history.tokens > 0).then(|| short(run.history.tokens))),
        ("parameters", parameters(run)),
        ("training loss", nats(run.final_loss())),
        ("held-out loss", nats(run.final_held_out())),
        ("time of steps", (run.history.seconds > 0.0).then(|| duration(run.history.seconds))),
        ("tokens per second", run.pace().map(|(tokens, _)| digits(tokens))),
        ("device memory", (run.memory() > 0).then(|| size(run.memory()))),
    ];
    let known = facts.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?)));
    blocks.push(Block::Facts(known.collect()));
    if let Some(sitting) = run.sitting() {
        blocks.push(Block::Text(format!("Trained on {}.", sitting.device)));
    }
    blocks.extend(run.notes.iter().cloned().map(Block::Note));
    blocks
}

/// The stages of a run.
pub fn stages(run: &Run) -> Section {
    let mut section = Section::new("Stages");
    let header = [
        "stage",
        "kind",
        "steps",
        "tokens",
        "sequence",
        "peak learning rate",
        "first training loss",
        "training loss",
        "held-out loss",
        "time",
    ];
    let caption = "losses at the end of the stage, in training the mean of its last twentieth, and of its first; of a \
                   dpo stage that of its pairs";
    let mut table = Table::new(caption, header).words(2);
    for (stage, history) in run.stages.iter().zip(&run.history.stages) {
        let planned = stage.span.as_ref().map(|span| span.steps());
        let steps = match planned {
            Some(planned) if planned != history.steps => format!("{} of {planned}", history.steps),
            _ => history.steps.to_string(),
        };
        let tokens =
            stage.span.as_ref().map(|span| short(history.steps.saturating_mul(span.tokens_per_step)));
        let peak = history.lr.points().iter().map(|point| point.high).reduce(f64::max);
        table.row([
            Cell::from(stage.name.clone()),
            Cell::from(stage.kind_name()),
            Cell::from(steps),
            Cell::from(tokens),
            Cell::from(stage.length.map(|length| length.to_string())),
            Cell::from(peak.map(|lr| format!("{lr:.2e}"))),
            Cell::from(nats(history.first_loss())),
            Cell::from(nats(history.final_loss())),
            Cell::from(nats(last(&history.held_out))),
            Cell::from((history.seconds > 0.0).then(|| duration(history.seconds))),
        ]);
    }
    section.blocks.push(Block::Table(table));
    section
}

/// A number of a run, for a table.
type Figure = (&'static str, fn(&Run) -> Option<f64>, fn(f64) -> String);

/// Several runs side by side, with mean and spread of those that differ in nothing but their seeds.
pub fn side_by_side(runs: &[Run]) -> Section {
    let mut section = Section::new("Side by side");
    let groups = groups(runs);
    let header = ["".to_string()].into_iter().chain(runs.iter().map(|run| run.name.clone()));
    let spread = if groups.is_empty() { "" } else { "means: ± standard deviation over the seeds" };
    let mut table = Table::new(spread, header.chain(groups.iter().map(|group| group.name(runs))));
    let mut words = |name: &str, of: &dyn Fn(&Run) -> Option<String>| {
        table.row([Cell::from(name)].into_iter().chain(runs.iter().map(|run| Cell::from(of(run)))));
    };
    words("state", &|run| Some(state(run)));
    words("steps", &|run| Some(steps(run)));
    words("parameters", &parameters);
    words("seed", &|run| run.overview.recipe.as_ref().map(|recipe| recipe.seed.to_string()));
    words("data seed", &|run| run.overview.recipe.as_ref().map(|recipe| recipe.data_seed.to_string()));
    words("tokens", &|run| (run.history.tokens > 0).then(|| short(run.history.tokens)));
    words("device memory", &|run| (run.memory() > 0).then(|| size(run.memory())));
    let figures: [Figure; 4] = [
        ("training loss", Run::final_loss, |loss| format!("{loss:.3}")),
        ("held-out loss", Run::final_held_out, |loss| format!("{loss:.3}")),
        ("tokens per second", |run| run.pace().map(|(tokens, _)| tokens), digits),
        ("seconds of steps", |run| Some(run.history.seconds).filter(|&it| it > 0.0), digits),
    ];
    for (name, of, write) in figures {
        let values: Vec<Option<f64>> = runs.iter().map(of).collect();
        let means = groups.iter().map(|group| {
            let mean = group.mean(&values);
            mean.map(|(mean, spread)| format!("{} ± {}", write(mean), write(spread)))
        });
        let own = values.iter().map(|value| value.map(write));
        table.row([Cell::from(name)].into_iter().chain(own.chain(means).map(Cell::from)));
    }
    section.blocks.push(Block::Table(table));
    for run in runs {
        section.blocks.extend(run.notes.iter().map(|note| Block::Note(format!("{}: {note}", run.name))));
    }
    differences(&mut section, runs);
    section
}

/// On what the runs were trained, and in what their recipes differ from that of the first.
fn differences(section: &mut Section, runs: &[Run]) {
    let first = &runs[0];
    let caption = format!("recipes, beside that of {}", first.name);
    let mut table = Table::new(&caption, ["run", "device", "differs in"]).words(3);
    for (index, run) in runs.iter().enumerate() {
        let told = match (&first.overview.recipe, &run.overview.recipe) {
            _ if index == 0 => String::new(),
            (Some(recipe), Some(other)) => changes(other, recipe),
            _ => "not known".into(),
        };
        table.row([
            Cell::from(run.name.clone()),
            Cell::from(run.sitting().map(|sitting| sitting.device.clone())),
            Cell::from(Some(told).filter(|it| !it.is_empty())),
        ]);
    }
    section.blocks.push(Block::Table(table));
}

/// The first keys that differ.
fn changes(recipe: &Recipe, other: &Recipe) -> String {
    let changes = recipe.changes_since(other).unwrap_or_default();
    let more = changes.len().saturating_sub(MOST_CHANGES);
    let told = changes.iter().take(MOST_CHANGES).map(Change::to_string).collect::<Vec<_>>().join("; ");
    if more > 0 { format!("{told}; and {more} more") } else { told }
}
