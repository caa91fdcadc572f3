//! Curves of a run, and of several laid over each other.

use super::chart::{Chart, Line, Style};
use super::history::{Axis, StageHistory};
use super::page::{Block, Cell, Section, Table, Tone};
use super::run::Run;
use crate::report::series::Series;
use crate::train::comparison::HeldOutPairs;
use std::collections::BTreeSet;

/// Points over which a smoothed curve is the median: this share of those of its stage.
const SMOOTHING: usize = 40;

/// Points on either side that it takes at least, where there are ten times as many.
const LEAST: usize = 3;

/// Most rows of a table of pairs.
const MOST_ROWS: usize = 200;

/// Most lines of a chart by dataset.
const MOST_LINES: usize = 16;

type Points = Vec<(f64, f64)>;

fn means(series: &Series) -> Points {
    series.points().iter().map(|point| (point.x, point.mean)).collect()
}

/// All values, or their extremes where they were thinned out.
fn raw(series: &Series) -> Points {
    let ends = |point: crate::report::series::Point| match point.low == point.high {
        true => vec![(point.x, point.mean)],
        false => vec![(point.x, point.low), (point.x, point.high)],
    };
    series.points().into_iter().flat_map(ends).collect()
}

/// The median around each point: a spike is told, but bends nothing.
fn smooth(series: &Series) -> Points {
    let points = means(series);
    let around = (points.len() / SMOOTHING / 2).max((points.len() / 10).min(LEAST));
    let median = |at: usize| {
        let near = &points[at.saturating_sub(around)..(at + around + 1).min(points.len())];
        let mut values: Vec<f64> = near.iter().map(|point| point.1).collect();
        values.sort_by(f64::total_cmp);
        (points[at].0, 0.5 * (values[values.len() / 2] + values[(values.len() - 1) / 2]))
    };
    (0..points.len()).map(median).collect()
}

/// A line over the stages that `of` gives a series of.
fn line<'a>(
    run: &'a Run,
    name: impl Into<String>,
    color: usize,
    style: Style,
    of: impl Fn(usize, &'a StageHistory) -> Option<&'a Series>,
) -> Line {
    let points = |series: &Series| match style {
        Style::Raw => raw(series),
        Style::Solid => smooth(series),
        Style::Dots => means(series),
    };
    let pieces = run.history.begun().filter_map(|(index, stage)| Some(points(of(index, stage)?)));
    Line { name: name.into(), color, style, pieces: pieces.filter(|piece| !piece.is_empty()).collect() }
}

/// The stretches of the stages.
fn bands(run: &Run) -> Vec<(f64, f64, String)> {
    if run.stages.len() < 2 {
        return Vec::new();
    }
    let band = |(index, stage): (usize, &StageHistory)| {
        let (from, to) = stage.lr.ends()?;
        Some((from as f64, to as f64, run.stages[index].name.clone()))
    };
    let mut bands: Vec<_> = run.history.begun().filter_map(band).collect();
    // A stage begins where the one before it ends.
    for i in 1..bands.len() {
        if bands[i - 1].1 <= bands[i].0 {
            bands[i].0 = bands[i - 1].1;
        }
    }
    bands
}

fn chart(title: &str, axis: Axis, bands: Vec<(f64, f64, String)>, lines: Vec<Line>) -> Chart {
    let lines = lines.into_iter().filter(|line| !line.pieces.is_empty()).collect();
    Chart { title: title.into(), x: axis.name(), lines, bands, wide: false, logarithmic: false }
}

fn block(section: &mut Section, charts: Vec<Chart>) {
    let charts: Vec<Chart> = charts.into_iter().filter(|chart| !chart.is_empty()).collect();
    if !charts.is_empty() {
        section.blocks.push(Block::Charts(charts));
    }
}

/// Loss and learning rate, and what else is measured step by step.
pub fn of_run(run: &Run, axis: Axis) -> Section {
    let mut section = Section::new("Curves");
    let text = |index: usize| !run.stages[index].is_of_pairs();
    let loss = vec![
        line(run, "training loss, each step", 0, Style::Raw, |i, it| text(i).then_some(&it.loss)),
        line(run, "smoothed", 0, Style::Solid, |i, it| text(i).then_some(&it.loss)),
        line(run, "held-out loss", 1, Style::Dots, |i, it| text(i).then_some(&it.held_out)),
    ];
    let loss =
        Chart { wide: true, logarithmic: true, ..chart("loss in nats per token", axis, bands(run), loss) };
    let lr = vec![line(run, "", 2, Style::Solid, |_, it| Some(&it.lr))];
    let norm = vec![
        line(run, "", 3, Style::Raw, |_, it| Some(&it.grad_norm)),
        line(run, "", 3, Style::Solid, |_, it| Some(&it.grad_norm)),
    ];
    let speed = vec![
        line(run, "", 5, Style::Raw, |_, it| Some(&it.speed)),
        line(run, "", 5, Style::Solid, |_, it| Some(&it.speed)),
    ];
    block(
        &mut section,
        vec![
            loss,
            chart("learning rate", axis, bands(run), lr),
            chart("held-out loss by dataset", axis, bands(run), by_dataset(run)),
            chart("gradient norm before clipping", axis, bands(run), norm),
            chart("tokens per second", axis, bands(run), speed),
        ],
    );
    if section.blocks.is_empty() {
        section.note("no curves: too few steps");
    }
    section
}

/// Held-out losses by dataset. One measurement is no curve.
fn by_dataset(run: &Run) -> Vec<Line> {
    let text = |index: usize| !run.stages[index].is_of_pairs();
    let stages = run.history.begun().filter(|(index, _)| text(*index));
    let names: BTreeSet<&String> = stages.flat_map(|(_, stage)| stage.held_out_datasets.keys()).collect();
    let lines = names.into_iter().enumerate().map(|(color, name)| {
        line(run, name.clone(), color, Style::Dots, |i, it| {
            it.held_out_datasets.get(name).filter(|_| text(i))
        })
    });
    let points = |line: &Line| line.pieces.iter().map(Vec::len).sum::<usize>();
    lines.filter(|line| points(line) > 1).take(MOST_LINES).collect()
}

/// What preference pairs earned, if a stage learned from some.
pub fn of_pairs(run: &Run, axis: Axis) -> Option<Section> {
    let of =
        |index: usize| run.stages[index].is_of_pairs() || !run.history.stages[index].earned.margin.is_empty();
    run.history.begun().find(|(index, _)| of(*index))?;
    let mut section = Section::new("Preferences");
    let rewards = vec![
        line(run, "chosen", 2, Style::Solid, |i, it| of(i).then_some(&it.earned.chosen)),
        line(run, "rejected", 6, Style::Solid, |i, it| of(i).then_some(&it.earned.rejected)),
        line(run, "chosen, held-out", 2, Style::Dots, |i, it| of(i).then_some(&it.held_out_earned.chosen)),
        line(run, "rejected, held-out", 6, Style::Dots, |i, it| {
            of(i).then_some(&it.held_out_earned.rejected)
        }),
    ];
    let margin = vec![
        line(run, "each step", 0, Style::Raw, |i, it| of(i).then_some(&it.earned.margin)),
        line(run, "smoothed", 0, Style::Solid, |i, it| of(i).then_some(&it.earned.margin)),
        line(run, "held-out", 1, Style::Dots, |i, it| of(i).then_some(&it.held_out_earned.margin)),
    ];
    let accuracy = vec![
        line(run, "each step", 0, Style::Raw, |i, it| of(i).then_some(&it.earned.accuracy)),
        line(run, "smoothed", 0, Style::Solid, |i, it| of(i).then_some(&it.earned.accuracy)),
        line(run, "held-out", 1, Style::Dots, |i, it| of(i).then_some(&it.held_out_earned.accuracy)),
    ];
    let loss = vec![
        line(run, "each step", 0, Style::Raw, |i, it| of(i).then_some(&it.loss)),
        line(run, "smoothed", 0, Style::Solid, |i, it| of(i).then_some(&it.loss)),
        line(run, "held-out", 1, Style::Dots, |i, it| of(i).then_some(&it.held_out)),
    ];
    block(
        &mut section,
        vec![
            chart("rewards", axis, Vec::new(), rewards),
            chart("margin of the chosen answer's reward", axis, Vec::new(), margin),
            chart("share of pairs whose chosen answer earns more", axis, Vec::new(), accuracy),
            chart("loss of the pairs", axis, Vec::new(), loss),
        ],
    );
    for (index, stage) in run.history.begun() {
        let compared = stage.held_out_pairs.as_ref().map(|pairs| compared(&run.stages[index].name, pairs));
        section.blocks.extend(compared.map(Block::Table));
    }
    Some(section)
}

/// How often the chosen answer of held-out pairs is the likelier one, before the stage and after it.
fn compared(stage: &str, pairs: &HeldOutPairs) -> Table {
    let caption = format!(
        "share of held-out pairs whose chosen answer is the likelier one, before {stage} and now, in %; the rise with \
         the standard error of the paired difference"
    );
    let header = ["pairs of", "pairs", "before", "now", "rise", "per token: before", "now", "rise"];
    let mut table = Table::new(&caption, header);
    let datasets = pairs.datasets.iter().map(|(name, it)| (name.as_str(), it));
    for (name, it) in [("all", &pairs.all)].into_iter().chain(datasets).take(MOST_ROWS) {
        let mut cells = vec![Cell::from(name), Cell::from(it.pairs.to_string())];
        for change in [&it.log_prob, &it.per_token] {
            let [before, now, rise] = change.cells();
            let is_sure = change.difference > 0.0 && change.difference > 2.0 * change.standard_error;
            let tone = if is_sure { Tone::Good } else { Tone::Plain };
            cells.extend([Cell::from(before), Cell::from(now), Cell::new(rise, tone)]);
        }
        table.row(cells);
    }
    table
}

/// Several runs laid over each other.
pub fn of_runs(runs: &[Run], axis: Axis) -> Section {
    let mut section = Section::new("Curves");
    let each = |of: &dyn Fn(usize, &Run) -> Vec<Line>| {
        runs.iter().enumerate().flat_map(|(color, run)| of(color, run)).collect::<Vec<Line>>()
    };
    let loss = each(&|color, run| {
        let text = |index: usize| !run.stages[index].is_of_pairs();
        vec![
            line(run, run.name.clone(), color, Style::Solid, |i, it| text(i).then_some(&it.loss)),
            line(run, "", color, Style::Dots, |i, it| text(i).then_some(&it.held_out)),
        ]
    });
    let lr = each(&|color, run| vec![line(run, run.name.clone(), color, Style::Solid, |_, it| Some(&it.lr))]);
    let norm = each(&|color, run| {
        vec![line(run, run.name.clone(), color, Style::Solid, |_, it| Some(&it.grad_norm))]
    });
    let speed =
        each(&|color, run| vec![line(run, run.name.clone(), color, Style::Solid, |_, it| Some(&it.speed))]);
    let margin = each(&|color, run| {
        vec![
            line(run, run.name.clone(), color, Style::Solid, |_, it| Some(&it.earned.margin)),
            line(run, "", color, Style::Dots, |_, it| Some(&it.held_out_earned.margin)),
        ]
    });
    let accuracy = each(&|color, run| {
        vec![
            line(run, run.name.clone(), color, Style::Solid, |_, it| Some(&it.earned.accuracy)),
            line(run, "", color, Style::Dots, |_, it| Some(&it.held_out_earned.accuracy)),
        ]
    });
    let title = "loss in nats per token: lines in training, smoothed; dots held-out";
    block(
        &mut section,
        vec![
            Chart { wide: true, logarithmic: true, ..chart(title, axis, Vec::new(), loss) },
            chart("learning rate", axis, Vec::new(), lr),
            chart("gradient norm before clipping, smoothed", axis, Vec::new(), norm),
            chart("tokens per second, smoothed", axis, Vec::new(), speed),
            chart("margin of preference pairs; dots held-out", axis, Vec::new(), margin),
            chart("share of pairs whose chosen answer earns more; dots held-out", axis, Vec::new(), accuracy),
        ],
    );
    if section.blocks.is_empty() {
        section.note("no curves: too few steps");
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_places_and_drops_spikes() {
        let mut series = Series::default();
        (0..400).for_each(|i| series.push(i, if i % 2 == 0 { 1.0 } else { 3.0 }));
        let smoothed = smooth(&series);
        assert_eq!((smoothed.len(), smoothed[7].0), (400, 7.0));
        series.push(400, 1e6);
        assert!(smooth(&series).iter().all(|point| (1.0..=3.0).contains(&point.1)));
        // A few values are not smoothed.
        let mut short = Series::default();
        [5.0, 1.0].iter().for_each(|&value| short.push(0, value));
        assert_eq!(smooth(&short), means(&short));
        assert_eq!(raw(&series).len(), 401);
    }
}
