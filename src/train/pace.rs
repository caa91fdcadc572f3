//! How long the rest of a run will take: steps cost more in one stage than in another, and evaluations come between them.

use super::evaluation::evaluations_after;
use super::fit::Work;
use super::objective::Shape;
use crate::graph::recompute::Policy;
use crate::recipes::evaluation::LOSS;
use crate::recipes::{Recipe, Span};
use std::time::Duration;

/// Share of a step's time in that of steps of late.
const STEP_SHARE: f64 = 0.1;

/// Passes over a token that an item of a task is worth, as long as no evaluation has been timed: short prompts and
/// answers, which are made a token at a time.
const ITEM_PASSES: f64 = 500.0;

/// The same of the held-out text of a dataset.
const TEXT_PASSES: f64 = 16_384.0;

/// The work of a stage.
struct StageWork {
    span: Span,
    /// Floating-point operations of a step.
    step: f64,
    /// The same of an evaluation, about.
    evaluation: f64,
}

/// The pace of a run.
pub struct Pace {
    stages: Vec<StageWork>,
    /// Operations of the steps of this sitting, and the seconds that they took.
    done: (f64, f64),
    /// Seconds per step of late, and the stage's end: single steps scatter.
    step: Option<(u64, f64)>,
    /// Evaluations of this sitting, and the seconds that they took.
    evaluations: (u64, f64),
    /// Seconds of earlier sittings.
    before: f64,
}

impl Pace {
    /// That of a run whose earlier sittings took so many seconds.
    pub fn new(recipe: &Recipe, before: f64) -> Self {
        let stage = |span: Span| {
            let work = Work::of(recipe, span.stage);
            let shape = Shape {
                micro_batch: 1,
                passes: work.sequences,
                length: work.length,
                recompute: Policy::None,
            };
            // A pass over a token takes two operations for each weight.
            let pass = 2.0 * work.architecture.num_parameters() as f64;
            let is_text = |i: &usize| !recipe.is_chat(*i) && !recipe.is_of_pairs(*i);
            let texts = (0..recipe.datasets.len()).filter(is_text).count();
            let passes = |name: &str| match name {
                LOSS => TEXT_PASSES * texts as f64,
                _ => ITEM_PASSES * recipe.items_of(name) as f64,
            };
            let evaluation: f64 = recipe.evaluated_at(span.stage).into_iter().map(passes).sum();
            StageWork { step: work.graph(shape).step_flops(), evaluation: evaluation * pass, span }
        };
        let stages = recipe.spans().into_iter().map(stage).collect();
        Pace { stages, done: (0.0, 0.0), step: None, evaluations: (0, 0.0), before }
    }

    /// The name of the stage that a step lies in, by its index.
    pub fn stage_of(&self, step: u64) -> Option<usize> {
        self.stages.iter().find(|it| step <= it.span.end_step).map(|it| it.span.stage)
    }

    /// A step took so long. Returns the seconds of steps of late.
    pub fn step_done(&mut self, step: u64, seconds: f64) -> f64 {
        let Some(stage) = self.stages.iter().find(|it| step <= it.span.end_step) else { return seconds };
        self.done = (self.done.0 + stage.step, self.done.1 + seconds);
        let end = stage.span.end_step;
        let before = self.step.filter(|&(of, _)| of == end).map(|(_, seconds)| seconds);
        let late = before.map_or(seconds, |before| before + (seconds - before) * STEP_SHARE);
        self.step = Some((end, late));
        late
    }

    /// An evaluation took so long.
    pub fn evaluation_done(&mut self, seconds: f64) {
        self.evaluations = (self.evaluations.0 + 1, self.evaluations.1 + seconds);
    }

    /// What is done of the run after a step, as a share of its time, and how long the rest will take; none before
    /// anything is measured.
    pub fn estimate(&self, recipe: &Recipe, step: u64) -> Option<(f64, Duration)> {
        let (flops, seconds) = self.done;
        if seconds <= 0.0 || flops <= 0.0 {
            return None;
        }
        let mut left = 0.0;
        for stage in &self.stages {
            let Span { start_step, end_step, .. } = stage.span;
            let steps = end_step.saturating_sub(step.max(start_step)) as f64;
            let late = self.step.filter(|&(end, _)| end == end_step).map(|(_, seconds)| seconds);
            left += steps * late.unwrap_or(stage.step * seconds / flops);
            let each = match self.evaluations {
                (0, _) => stage.evaluation * seconds / flops,
                (count, took) => took / count as f64,
            };
            left += evaluations_after(recipe, &stage.span, step) as f64 * each;
        }
        let spent = self.before + seconds + self.evaluations.1;
        Some((spent / (spent + left), Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default recipe, with these stages evaluated alone.
    fn recipe(evaluated: &[&str]) -> Recipe {
        let mut recipe = Recipe::load("microcosm", &[]).unwrap();
        for stage in &mut recipe.stages {
            stage.evaluate =
                evaluated.iter().filter(|&it| *it == stage.name).map(|_| "facts".into()).collect();
        }
        recipe
    }

    #[test]
    fn steps_count_as_much_as_they_compute() {
        let recipe = recipe(&[]);
        let mut pace = Pace::new(&recipe, 0.0);
        assert!(pace.estimate(&recipe, 0).is_none());
        pace.step_done(1, 0.5);
        let (share, left) = pace.estimate(&recipe, 1).unwrap();
        let flops: f64 = pace.stages.iter().map(|it| it.step * it.span.steps() as f64).sum();
        let all = 0.5 * flops / pace.stages[0].step;
        assert!((left.as_secs_f64() - (all - 0.5)).abs() < 1e-6 * all);
        assert!((share - 0.5 / all).abs() < 1e-9);
        // A step of the longer context computes as many tokens, with more attention each.
        assert!(pace.stages[2].step > 1.1 * pace.stages[0].step);
        let end = recipe.total_steps();
        pace.step_done(end, 0.1);
        assert_eq!(pace.estimate(&recipe, end).unwrap(), (1.0, Duration::ZERO));
    }

    #[test]
    fn evaluations_count_as_they_were_measured() {
        let recipe = recipe(&["stable", "prefer"]);
        let mut pace = Pace::new(&recipe, 0.0);
        pace.step_done(1, 0.5);
        let seconds = |pace: &Pace, step| pace.estimate(&recipe, step).unwrap().1.as_secs_f64();
        let guessed = seconds(&pace, 1);
        pace.evaluation_done(100.0);
        let stages = |pace: &Pace| evaluations_after(&recipe, &pace.stages[0].span, 1);
        assert_eq!(stages(&pace), 1);
        assert!(seconds(&pace, 1) > guessed);
        let end = recipe.total_steps();
        // All stages write samples at their ends.
        assert!((seconds(&pace, end - 1) - 100.0).abs() < 10.0);
    }
}
