//! Speed and memory.

use super::page::{Block, Cell, Section, Table};
use super::run::Run;
use crate::report::number::{digits, duration, percent};
use crate::report::size;
use crate::train::sitting::StageMemory;

/// What all activations are called, which are many slabs.
const ACTIVATIONS: &str = "activations";

/// The section of a run.
pub fn of_run(run: &Run) -> Section {
    let mut section = Section::new("Speed and memory");
    speed(&mut section, std::slice::from_ref(run));
    memory(&mut section, run);
    section
}

/// Speed of several runs.
pub fn of_runs(runs: &[Run]) -> Section {
    let mut section = Section::new("Speed");
    speed(&mut section, runs);
    section
}

fn speed(section: &mut Section, runs: &[Run]) {
    let several = runs.len() > 1;
    let mut header = vec!["stage", "steps", "tokens/s", "GFLOP/s", "of the peak", "memory", "time"];
    if several {
        header.insert(0, "run");
    }
    let mut table = Table::new("", header).words(1 + usize::from(several));
    for run in runs {
        for (index, history) in run.history.begun() {
            let pace = history.pace();
            let share = pace.zip(run.peak.as_ref()).map(|((_, gflops), peak)| gflops / peak.gflops);
            let mut cells = vec![
                Cell::from(run.stages[index].name.clone()),
                Cell::from(history.steps.to_string()),
                Cell::from(pace.map(|(tokens, _)| digits(tokens))),
                Cell::from(pace.map(|(_, gflops)| digits(gflops))),
                Cell::from(share.map(percent)),
                Cell::from((history.memory > 0).then(|| size(history.memory))),
                Cell::from((history.seconds > 0.0).then(|| duration(history.seconds))),
            ];
            if several {
                cells.insert(0, Cell::from(run.name.clone()));
            }
            table.row(cells);
        }
    }
    if table.rows.is_empty() {
        return section.note("no speed: there are no steps");
    }
    section.blocks.push(Block::Table(table));
    let steps = "Operations are those of the forward and backward passes, what is computed again included; time is \
                 that of steps, without evaluation, saving and making ready.";
    section.blocks.push(Block::Text(steps.into()));
    for run in runs {
        let name = if several { format!("{}: ", run.name) } else { String::new() };
        let told = match &run.peak {
            Some(peak) => format!(
                "{name}The peak is {} GFLOP/s of f32 multiply-adds on {}, measured at {}.",
                digits(peak.gflops),
                peak.adapter,
                peak.measured_at
            ),
            None => format!("{name}{}", no_peak(run)),
        };
        section.blocks.push(if run.peak.is_some() { Block::Text(told) } else { Block::Note(told) });
    }
}

/// Why there is no share of a peak, and how to get it.
fn no_peak(run: &Run) -> String {
    match run.sitting().map(|sitting| (&sitting.adapter, &sitting.device)) {
        Some((Some(adapter), _)) => format!(
            "no share of the device's peak: it was not measured. smolter bench --json FILE on {adapter}, then \
             smolter report --bench FILE, tells it"
        ),
        Some((None, device)) => {
            format!("no share of the device's peak: that of {device} is not measured")
        }
        None => "no share of the device's peak: on which device it was trained is not known".into(),
    }
}

fn memory(section: &mut Section, run: &Run) {
    if let Some(note) = &run.sittings.note {
        section.note(note.clone());
    }
    // The newest plan of each stage.
    let newest = |name: &str| -> Option<&StageMemory> {
        let plans = run.sittings.lines.iter().rev().flat_map(|sitting| &sitting.stages);
        plans.into_iter().find(|plan| plan.stage == name)
    };
    let plans: Vec<&StageMemory> = run.stages.iter().filter_map(|stage| newest(&stage.name)).collect();
    if plans.is_empty() {
        return;
    }
    let short =
        |name: &str| if name.starts_with(ACTIVATIONS) { ACTIVATIONS.to_string() } else { name.to_string() };
    let mut names: Vec<String> = Vec::new();
    for (name, _) in plans.iter().flat_map(|plan| &plan.slabs) {
        let name = short(name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let header = ["memory plan".to_string()].into_iter().chain(plans.iter().map(|plan| plan.stage.clone()));
    let mut table = Table::new("", header);
    let sum = |plan: &StageMemory, of: &dyn Fn(&str) -> bool| {
        let slabs = plan.slabs.iter().filter(|(name, _)| of(&short(name)));
        slabs.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes))
    };
    for name in names {
        let bytes = plans.iter().map(|plan| Cell::from(size(sum(plan, &|it| it == name))));
        table.row([Cell::from(name.clone())].into_iter().chain(bytes));
    }
    let all = plans.iter().map(|plan| Cell::from(size(sum(plan, &|_| true))));
    table.row([Cell::from("all")].into_iter().chain(all));
    let cut = plans.iter().map(|plan| Cell::from(format!("{} x {}", plan.passes, plan.micro_batch)));
    table.row([Cell::from("passes x micro-batch")].into_iter().chain(cut));
    let again = plans.iter().map(|plan| Cell::from(plan.recompute.clone()));
    table.row([Cell::from("recomputation")].into_iter().chain(again));
    section.blocks.push(Block::Table(table));
}
