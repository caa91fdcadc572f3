//! Finds loss spikes: steps whose loss is far above what the steps before them in the same stage lead to expect.
//!
//! Expected of each dataset is the median of its last losses: of a mixture every step has other parts, and their losses differ
//! by more than a spike does. What the step's loss exceeds that by, weighted by the step's parts, is compared with the same
//! of the last `WINDOW` steps: with a robust line through them, or with the median of the last `RECENT` of them where that
//! is higher, since a loss that falls flattens out. A spike is above that by more than a number of standard deviations, and
//! by `LEAST_RISE`. These are robust too, of the differences between one step and the next, which a fall hardly changes. So
//! a loss may fall as it likes, or rise slowly, as it may while the learning rate does, and outliers of before do not hide a
//! spike.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Steps that are remembered.
const WINDOW: usize = 64;

/// The last of them, whose median no step is expected to fall below.
const RECENT: usize = 12;

/// Steps of a stage that must be known before one is judged.
const LEAST_STEPS: usize = 16;

/// Losses of a dataset that must be known before one is judged.
const LEAST_LOSSES: usize = 4;

/// Least rise, in nats per token: where batches are large, noise is small, and so is what exceeds it.
const LEAST_RISE: f64 = 0.2;

/// Usual steps after which a spike is over.
const CALM: u64 = 2;

/// Longest spike in steps: what stays is a new level.
const LONGEST: u64 = 32;

/// What few steps tell of the deviation is uncertain: it is taken to be larger, by this divided by their number.
const UNCERTAIN: f64 = 4.0;

/// From a median distance to a standard deviation, where noise is normal.
const NORMAL: f64 = 1.4826;

/// A dataset's part of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part<'a> {
    /// Its name.
    pub dataset: &'a str,
    /// How much it counts beside the others.
    pub weight: f64,
    /// Mean loss.
    pub loss: f64,
}

/// What a step means.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Nothing.
    Usual,
    /// The first step of a spike.
    Begun {
        /// The loss that was expected of it.
        expected: f64,
        /// The datasets whose loss rose, the largest share of the rise first.
        datasets: Vec<String>,
    },
    /// A spike goes on, or it is not known yet whether it does.
    GoesOn,
    /// A spike is over.
    Over(Spike),
}

/// First and last step of a spike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spike {
    /// The first one that was too high.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

impl Spike {
    /// The longest one that begins with `first`.
    pub fn longest(first: u64) -> Spike {
        Spike { first, last: first + LONGEST - 1 }
    }
}

/// The last steps of a stage; plain data, so that a run goes on with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detector {
    /// Names, whose indices steps have.
    datasets: Vec<String>,
    /// Those that were usual.
    steps: VecDeque<Seen>,
    /// The spike that goes on.
    spike: Option<Spike>,
}

/// A step: (dataset, weight, loss) of its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    step: u64,
    parts: Vec<(usize, f32, f32)>,
}

impl Detector {
    /// Judges the step that follows those before by its parts. A spike is `threshold` standard deviations high.
    pub fn observe(&mut self, step: u64, parts: &[Part], threshold: f64) -> Finding {
        let seen = Seen {
            step,
            parts: parts
                .iter()
                .map(|it| (self.index(it.dataset), it.weight as f32, it.loss as f32))
                .collect(),
        };
        let Some((expected, datasets)) = self.rise(&seen, threshold) else {
            self.remember(seen);
            return match self.spike {
                Some(spike) if step - spike.last >= CALM => self.end().map_or(Finding::Usual, Finding::Over),
                Some(_) => Finding::GoesOn,
                None => Finding::Usual,
            };
        };
        let Some(spike) = &mut self.spike else {
            self.spike = Some(Spike { first: step, last: step });
            return Finding::Begun { expected, datasets };
        };
        spike.last = step;
        if step - spike.first + 1 < LONGEST {
            return Finding::GoesOn;
        }
        self.steps.clear();
        self.end().map_or(Finding::Usual, Finding::Over)
    }

    /// The spike that goes on.
    pub fn spike(&self) -> Option<Spike> {
        self.spike
    }

    /// Ends the spike that goes on.
    pub fn end(&mut self) -> Option<Spike> {
        self.spike.take()
    }

    fn index(&mut self, dataset: &str) -> usize {
        self.datasets.iter().position(|it| it == dataset).unwrap_or_else(|| {
            self.datasets.push(dataset.to_string());
            self.datasets.len() - 1
        })
    }

    fn remember(&mut self, seen: Seen) {
        self.steps.push_back(seen);
        if self.steps.len() > WINDOW {
            self.steps.pop_front();
        }
    }

    /// If the step is too high: the loss that was expected, and the datasets that rose.
    fn rise(&self, seen: &Seen, threshold: f64) -> Option<(f64, Vec<String>)> {
        let usual = self.usual_losses();
        let known: Vec<(f64, f64)> =
            self.steps.iter().filter_map(|it| Some((it.step as f64, excess(it, &usual)?))).collect();
        if known.len() < LEAST_STEPS {
            return None;
        }
        let (line, deviation) = (robust_line(&known), deviation(&known));
        let recent = median(known[known.len() - RECENT..].iter().map(|&(_, excess)| excess));
        let expected = line(seen.step as f64).max(recent);
        let rise = excess(seen, &usual)? - expected;
        if rise <= (threshold * deviation).max(LEAST_RISE) {
            return None;
        }
        let (mut loss, mut weight, mut rose) = (0.0, 0.0, Vec::new());
        for &(dataset, part, own) in &seen.parts {
            let (part, own) = (f64::from(part), f64::from(own));
            // Of what is not known nothing else can be expected.
            let before = usual.get(&dataset).map_or(own, |usual| usual + expected);
            (loss, weight) = (loss + part * before, weight + part);
            if own - before > LEAST_RISE {
                rose.push((part * (own - before), dataset));
            }
        }
        rose.sort_by(|a, b| b.0.total_cmp(&a.0));
        Some((loss / weight, rose.iter().map(|&(_, dataset)| self.datasets[dataset].clone()).collect()))
    }

    /// The median loss of each dataset that was met often enough.
    fn usual_losses(&self) -> BTreeMap<usize, f64> {
        let mut losses: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for &(dataset, _, loss) in self.steps.iter().flat_map(|it| &it.parts) {
            losses.entry(dataset).or_default().push(f64::from(loss));
        }
        losses.retain(|_, losses| losses.len() >= LEAST_LOSSES);
        losses.into_iter().map(|(dataset, losses)| (dataset, median(losses))).collect()
    }
}

/// How far a step's loss is above the usual ones of its parts, if most of it is known.
fn excess(seen: &Seen, usual: &BTreeMap<usize, f64>) -> Option<f64> {
    let (mut sum, mut known, mut all) = (0.0, 0.0, 0.0);
    for &(dataset, weight, loss) in &seen.parts {
        let weight = f64::from(weight);
        all += weight;
        if let Some(usual) = usual.get(&dataset) {
            (sum, known) = (sum + weight * (f64::from(loss) - usual), known + weight);
        }
    }
    (known > 0.5 * all).then(|| sum / known)
}

/// A robust line (Theil and Sen) through points in the order of x.
fn robust_line(points: &[(f64, f64)]) -> impl Fn(f64) -> f64 + use<> {
    let pairs = points.iter().enumerate().flat_map(|(i, a)| points[..i].iter().map(move |b| (a, b)));
    let slope = median(pairs.map(|(a, b)| (a.1 - b.1) / (a.0 - b.0)));
    let height = median(points.iter().map(|point| point.1 - slope * point.0));
    move |x| height + slope * x
}

/// The robust standard deviation of points around a curve that changes little from one to the next.
fn deviation(points: &[(f64, f64)]) -> f64 {
    let differences: Vec<f64> = points.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    let middle = median(differences.iter().copied());
    let distance = median(differences.iter().map(|difference| (difference - middle).abs()));
    NORMAL * distance / 2.0_f64.sqrt() * (1.0 + UNCERTAIN / points.len() as f64)
}

/// # Panics
/// If there are no values.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[half - 1] + values[half]) / 2.0 } else { values[half] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Losses of a mixture of three datasets far apart, of which a step has four sequences of any: `level` of the step, and
    /// noise.
    struct Mixed {
        rng: ChaCha8Rng,
        detector: Detector,
        noise: f64,
    }

    const NAMES: [&str; 3] = ["code", "stories", "sums"];

    impl Mixed {
        fn new(seed: u64, noise: f64) -> Mixed {
            Mixed { rng: ChaCha8Rng::seed_from_u64(seed), detector: Detector::default(), noise }
        }

        /// A step at this level, whose parts `raise` raises.
        fn step(&mut self, step: u64, level: f64, raise: impl Fn(&str) -> f64) -> Finding {
            let mut losses: [Vec<f64>; 3] = Default::default();
            for _ in 0..4 {
                let dataset = self.rng.random_range(0..NAMES.len());
                // The sum of twelve is nearly normal.
                let normal = (0..12).map(|_| self.rng.random::<f64>()).sum::<f64>() - 6.0;
                let own = level * (1.0 + 0.4 * dataset as f64) + self.noise * normal + raise(NAMES[dataset]);
                losses[dataset].push(own);
            }
            let parts = NAMES.iter().zip(&losses).filter(|(_, losses)| !losses.is_empty());
            let parts: Vec<Part> = parts
                .map(|(dataset, losses)| {
                    let weight = losses.len() as f64;
                    Part { dataset, weight, loss: losses.iter().sum::<f64>() / weight }
                })
                .collect();
            self.detector.observe(step, &parts, THRESHOLD)
        }
    }

    const THRESHOLD: f64 = 5.0;

    /// A loss as it falls, and rises a little while the learning rate is warmed up anew.
    fn falling(step: u64) -> f64 {
        let x = step as f64;
        let warmed = if (300..360).contains(&step) { (x - 300.0) * 0.004 } else { 0.0 };
        1.5 + 5.0 * (-x / 40.0).exp() + warmed
    }

    #[test]
    fn noise_and_falling_losses_are_no_spikes() {
        for seed in 0..6 {
            for noise in [0.0, 0.01, 0.3] {
                let mut run = Mixed::new(seed, noise);
                for step in 1..=500 {
                    let found = run.step(step, falling(step), |_| 0.0);
                    assert_eq!(found, Finding::Usual, "seed {seed}, noise {noise}, step {step}");
                }
            }
        }
    }

    #[test]
    fn a_spike_is_found_from_its_first_to_its_last_step() {
        for (seed, start, length, level) in [
            (1, 40, 1, falling as fn(u64) -> f64),
            (2, 150, 7, falling),
            (3, 150, 7, |_| 2.0),
            (4, 335, 3, falling),
        ] {
            let mut run = Mixed::new(seed, 0.2);
            let mut found = Vec::new();
            for step in 1..=400 {
                let high = (start..start + length).contains(&step);
                let finding = run.step(step, level(step), |_| if high { 3.0 } else { 0.0 });
                if let Finding::Begun { expected, .. } = &finding {
                    // Between the lowest and the highest dataset.
                    assert!((0.9 * level(step)..2.0 * level(step)).contains(expected), "{expected}");
                }
                found.extend(Some((step, finding)).filter(|(_, it)| *it != Finding::Usual));
            }
            assert!(matches!(found[0], (step, Finding::Begun { .. }) if step == start), "{found:?}");
            let spike = Spike { first: start, last: start + length - 1 };
            let (end, over) = found.last().unwrap();
            assert_eq!((*end, over), (spike.last + CALM, &Finding::Over(spike)));
            assert_eq!(found.len() as u64, length + CALM, "{found:?}");
        }
    }

    #[test]
    fn the_datasets_that_rose_are_named() {
        let mut run = Mixed::new(5, 0.1);
        for step in 1..=200 {
            assert_eq!(run.step(step, 2.0, |_| 0.0), Finding::Usual);
        }
        let raise = |name: &str| if name == "sums" { 5.0 } else { 0.0 };
        let found = (201..).map(|step| run.step(step, 2.0, raise)).find(|it| *it != Finding::Usual);
        let Some(Finding::Begun { datasets, .. }) = found else { panic!("{found:?}") };
        assert_eq!(datasets, ["sums"]);
    }

    #[test]
    fn what_is_not_known_yet_is_no_spike() {
        let mut detector = Detector::default();
        let part = |dataset, loss| Part { dataset, weight: 1.0, loss };
        // The first steps of a stage may bring anything.
        for step in 1..=LEAST_STEPS as u64 {
            assert_eq!(
                detector.observe(step, &[part("a", 3.0 + (step % 7) as f64)], THRESHOLD),
                Finding::Usual
            );
        }
        let mut detector = Detector::default();
        for step in 1..=60 {
            detector.observe(step, &[part("a", 2.0)], THRESHOLD);
        }
        assert_eq!(detector.observe(61, &[part("b", 9.0)], THRESHOLD), Finding::Usual);
        assert_eq!(detector.observe(62, &[part("a", 2.15)], THRESHOLD), Finding::Usual);
        assert!(matches!(detector.observe(63, &[part("a", 2.3)], THRESHOLD), Finding::Begun { .. }));
    }

    #[test]
    fn what_stays_is_a_new_level_and_reported_once() {
        let mut run = Mixed::new(6, 0.1);
        let level = |step| if step <= 100 { 2.0 } else { 4.0 };
        let found: Vec<Finding> = (1..=400).map(|step| run.step(step, level(step), |_| 0.0)).collect();
        let begun = found.iter().filter(|it| matches!(it, Finding::Begun { .. })).count();
        let over: Vec<_> = found.iter().filter(|it| matches!(it, Finding::Over(_))).collect();
        assert_eq!(begun, 1);
        assert_eq!(over, [&Finding::Over(Spike::longest(101))]);
    }

    #[test]
    fn a_detector_that_was_written_down_goes_on_as_it_was() {
        let mut run = Mixed::new(7, 0.3);
        for step in 1..=300 {
            run.step(step, falling(step), |_| if step % 90 < 3 { 4.0 } else { 0.0 });
            let text = serde_json::to_string(&run.detector).unwrap();
            assert_eq!(serde_json::from_str::<Detector>(&text).unwrap(), run.detector);
        }
    }
}
