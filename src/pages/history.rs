//! What `metrics.jsonl` tells of a run, read once, in memory that does not grow with its length.

use crate::report::series::Series;
use crate::train::comparison::HeldOutPairs;
use crate::train::metrics::{Metrics, Preference};
use std::collections::BTreeMap;

/// Most names of datasets that are kept apart; metrics may be damaged.
const MOST_DATASETS: usize = 1000;

/// What the horizontal axis of all curves counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Tokens trained on.
    Tokens,
    /// Steps: where stages branch off, tokens are counted again.
    Steps,
}

impl Axis {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Tokens => "tokens",
            Axis::Steps => "steps",
        }
    }

    /// Where a step is on it.
    pub fn place(self, step: u64, tokens: u64) -> u64 {
        match self {
            Axis::Tokens => tokens,
            Axis::Steps => step,
        }
    }
}

/// The steps of a run, stage by stage.
#[derive(Default)]
pub struct History {
    /// As many as the run has stages.
    pub stages: Vec<StageHistory>,
    /// Sound lines.
    pub steps: u64,
    /// Last step.
    pub last_step: u64,
    /// Tokens trained on at the last step.
    pub tokens: u64,
    /// Seconds spent on steps.
    pub seconds: f64,
}

/// The steps of a stage.
#[derive(Default)]
pub struct StageHistory {
    /// Sound lines.
    pub steps: u64,
    /// Training loss.
    pub loss: Series,
    /// Learning rate.
    pub lr: Series,
    /// Norm of the gradients.
    pub grad_norm: Series,
    /// Tokens per second.
    pub speed: Series,
    /// Mean held-out loss.
    pub held_out: Series,
    /// The same by dataset.
    pub held_out_datasets: BTreeMap<String, Series>,
    /// What the training pairs earned.
    pub earned: Earned,
    /// What the held-out pairs earned.
    pub held_out_earned: Earned,
    /// How the held-out pairs compare with the model before the stage, as measured last.
    pub held_out_pairs: Option<HeldOutPairs>,
    /// Tokens by dataset.
    pub datasets: BTreeMap<String, u64>,
    /// Seconds of the steps whose speed is known, with their tokens and billions of operations.
    pub seconds: f64,
    /// See `seconds`.
    pub tokens: f64,
    /// See `seconds`.
    pub gflop: f64,
    /// Most bytes that were allocated.
    pub memory: u64,
}

/// What preference pairs earned.
#[derive(Default)]
pub struct Earned {
    /// Reward of the chosen answers.
    pub chosen: Series,
    /// Reward of the rejected answers.
    pub rejected: Series,
    /// Difference of the two.
    pub margin: Series,
    /// Share of the pairs whose chosen answer earned more.
    pub accuracy: Series,
}

impl Earned {
    fn push(&mut self, x: u64, earned: &Preference) {
        self.chosen.push(x, earned.chosen_reward);
        self.rejected.push(x, earned.rejected_reward);
        self.margin.push(x, earned.margin);
        self.accuracy.push(x, earned.accuracy);
    }
}

impl History {
    /// That of the steps `all`, where the last steps of the stages are `ends`.
    pub fn new(all: impl Iterator<Item = Metrics>, ends: &[u64], axis: Axis) -> History {
        let stages = ends.iter().map(|_| StageHistory::default()).collect();
        let mut history = History { stages, ..History::default() };
        let mut stage = 0;
        for metrics in all {
            // What comes twice or too late is damage.
            if metrics.step <= history.last_step {
                continue;
            }
            while stage + 1 < ends.len() && metrics.step > ends[stage] {
                stage += 1;
            }
            let time = metrics.timing.seconds - history.seconds;
            let goes_on = metrics.step == history.last_step + 1;
            if let Some(stage) = history.stages.get_mut(stage) {
                stage.push(&metrics, axis);
                if goes_on && time > 0.0 {
                    stage.spend(time, &metrics);
                }
            }
            history.steps += 1;
            (history.last_step, history.tokens) = (metrics.step, metrics.tokens);
            history.seconds = metrics.timing.seconds.max(history.seconds);
        }
        history
    }

    /// The stages that have steps, with their indices.
    pub fn begun(&self) -> impl Iterator<Item = (usize, &StageHistory)> {
        self.stages.iter().enumerate().filter(|(_, stage)| stage.steps > 0)
    }
}

impl StageHistory {
    fn push(&mut self, metrics: &Metrics, axis: Axis) {
        let x = axis.place(metrics.step, metrics.tokens);
        self.steps += 1;
        self.loss.push(x, metrics.loss);
        self.lr.push(x, metrics.lr);
        self.grad_norm.push(x, metrics.grad_norm);
        self.speed.push(x, metrics.timing.tokens_per_second);
        metrics.held_out_loss.into_iter().for_each(|loss| self.held_out.push(x, loss));
        metrics.preference.iter().for_each(|earned| self.earned.push(x, earned));
        metrics.held_out_preference.iter().for_each(|earned| self.held_out_earned.push(x, earned));
        if metrics.held_out_pairs.is_some() {
            self.held_out_pairs = metrics.held_out_pairs.clone();
        }
        for (name, part) in &metrics.datasets {
            if let Some(tokens) = of_name(&mut self.datasets, name) {
                *tokens = tokens.saturating_add(part.tokens);
            }
        }
        for (name, loss) in &metrics.held_out_datasets {
            of_name(&mut self.held_out_datasets, name).into_iter().for_each(|series| series.push(x, *loss));
        }
        self.memory = self.memory.max(metrics.timing.memory);
    }

    fn spend(&mut self, seconds: f64, metrics: &Metrics) {
        self.seconds += seconds;
        self.tokens += seconds * metrics.timing.tokens_per_second;
        self.gflop += seconds * metrics.timing.gflops;
    }

    /// Tokens per second over all steps, and billions of operations.
    pub fn pace(&self) -> Option<(f64, f64)> {
        let (tokens, gflop) = (self.tokens / self.seconds, self.gflop / self.seconds);
        (self.seconds > 0.0 && tokens.is_finite() && gflop.is_finite()).then_some((tokens, gflop))
    }

    /// The training loss at the beginning: the mean of its first twentieth.
    pub fn first_loss(&self) -> Option<f64> {
        let points = self.loss.points();
        mean(points[..points.len().div_ceil(20)].iter().map(|point| point.mean))
    }

    /// The training loss at the end: the mean of its last twentieth.
    pub fn final_loss(&self) -> Option<f64> {
        let points = self.loss.points();
        mean(points[points.len() - points.len().div_ceil(20)..].iter().map(|point| point.mean))
    }
}

/// What there is under a name; none for a new one where there are too many.
fn of_name<'a, T: Default>(all: &'a mut BTreeMap<String, T>, name: &str) -> Option<&'a mut T> {
    if !all.contains_key(name) && all.len() < MOST_DATASETS {
        all.insert(name.into(), T::default());
    }
    all.get_mut(name)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let count = values.len();
    (count > 0).then(|| values.sum::<f64>() / count as f64)
}

/// The last value of a series, as far as it was not thinned out.
pub fn last(series: &Series) -> Option<f64> {
    series.points().last().map(|point| point.mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::metrics::{DatasetMetrics, Timing};

    fn metrics(step: u64, seconds: f64) -> Metrics {
        Metrics {
            step,
            tokens: 8 * step,
            loss: 10.0 - step as f64,
            lr: 1e-3,
            grad_norm: 1.0,
            datasets: BTreeMap::from([("a".into(), DatasetMetrics { tokens: 8, loss: None })]),
            held_out_loss: (step == 4).then_some(2.5),
            held_out_datasets: BTreeMap::from([("a".into(), 0.5 * step as f64)]),
            preference: None,
            held_out_preference: None,
            held_out_pairs: None,
            timing: Timing { seconds, tokens_per_second: 16.0, gflops: 3.0, memory: step },
        }
    }

    #[test]
    fn steps_belong_to_their_stages() {
        let steps = [1, 2, 2, 1, 3, 5, 6].map(|step| metrics(step, 0.5 * step as f64));
        let history = History::new(steps.into_iter(), &[2, 4, 9], Axis::Tokens);
        let stages: Vec<u64> = history.stages.iter().map(|stage| stage.steps).collect();
        assert_eq!((stages, history.steps, history.last_step, history.tokens), (vec![2, 1, 2], 5, 6, 48));
        assert_eq!(history.stages[0].loss.ends(), Some((8, 16)));
        assert_eq!(history.stages[2].datasets["a"], 16);
        assert_eq!((history.stages[0].seconds, history.stages[0].tokens), (1.0, 16.0));
        // How long step 5 took is not known, since step 4 is missing.
        assert_eq!((history.stages[2].seconds, history.stages[2].pace()), (0.5, Some((16.0, 3.0))));
        assert_eq!((history.stages[2].first_loss(), history.stages[2].final_loss()), (Some(5.0), Some(4.0)));
        assert_eq!(history.begun().count(), 3);
        assert_eq!(last(&history.stages[2].held_out_datasets["a"]), Some(3.0));
    }

    #[test]
    fn a_run_without_a_recipe_is_one_stage() {
        let steps = [1, 4].map(|step| metrics(step, step as f64));
        let history = History::new(steps.into_iter(), &[u64::MAX], Axis::Steps);
        assert_eq!(last(&history.stages[0].held_out), Some(2.5));
        assert_eq!(history.stages[0].held_out.ends(), Some((4, 4)));
        let empty = History::new(std::iter::empty(), &[], Axis::Steps);
        assert_eq!((empty.begun().count(), empty.seconds), (0, 0.0));
    }
}
