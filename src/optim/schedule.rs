//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// The learning rate as a function of the step, in f64.
///
/// Steps count optimizer updates from 1: the first update uses `lr(1)`, the last of N uses `lr(N)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Warmup-stable-decay with linear decay, as nanotron computes it (SmolLM2, arXiv 2502.02737, section 4.1).
    Wsd {
        /// Learning rate of the stable part.
        peak: f64,
        /// Learning rate after the decay.
        min: f64,
        /// Steps of the linear rise from 0.
        warmup_steps: u64,
        /// Last step of the stable part.
        decay_start: u64,
        /// Steps of the linear fall to `min`.
        decay_steps: u64,
    },
    /// Linear warmup, then half a cosine from `peak` to `min` (Loshchilov & Hutter, 2017).
    Cosine {
        /// Learning rate after the warmup.
        peak: f64,
        /// Learning rate at the end.
        min: f64,
        /// Steps of the linear rise from 0.
        warmup_steps: u64,
        /// Step at which `min` is reached.
        total_steps: u64,
    },
    /// Linear warmup, then the same rate for ever.
    Constant {
        /// Learning rate after the warmup.
        peak: f64,
        /// Steps of the linear rise from 0.
        warmup_steps: u64,
    },
}

/// What the learning rate does over a stretch of steps.
#[derive(PartialEq)]
enum Piece {
    /// From 0 at step 0 to `peak` at step `steps`.
    Rise { peak: f64, steps: u64 },
    /// The same rate for ever.
    Flat(f64),
    /// From `peak` at step `start` linearly to `min` after `steps` more, and on.
    Fall { peak: f64, min: f64, start: u64, steps: u64 },
    /// The same by half a cosine.
    HalfCosine { peak: f64, min: f64, start: u64, steps: u64 },
}

impl Piece {
    fn lr(&self, step: u64) -> f64 {
        match *self {
            Piece::Rise { peak, steps } => peak * step as f64 / steps as f64,
            Piece::Flat(rate) => rate,
            Piece::Fall { peak, min, start, steps } => {
                let left = steps.saturating_sub(step - start);
                min + (peak - min) * left as f64 / steps as f64
            }
            Piece::HalfCosine { peak, min, start, steps } => {
                let progress = (step - start) as f64 / steps as f64;
                min + (peak - min) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

impl Schedule {
    /// The learning rate of update `step`, counted from 1; `lr(0)` is where the warmup starts.
    pub fn lr(&self, step: u64) -> f64 {
        self.piece(step).lr(step)
    }

    /// The first of the updates 1 to `steps` at which `other` has another learning rate.
    ///
    /// Stretches on which both follow one formula are not walked through.
    pub fn differs_before(&self, other: &Schedule, steps: u64) -> Option<u64> {
        let mut borders = [self.borders(), other.borders()].concat();
        borders.push(steps);
        borders.retain(|&border| border <= steps);
        borders.sort_unstable();
        let mut first = 1;
        for last in borders {
            let differs = |&step: &u64| self.lr(step) != other.lr(step);
            if first <= last
                && self.piece(first) != other.piece(first)
                && let Some(step) = (first..=last).find(differs)
            {
                return Some(step);
            }
            first = first.max(last.saturating_add(1));
        }
        None
    }

    /// The piece that `step` lies on.
    fn piece(&self, step: u64) -> Piece {
        let &(Schedule::Wsd { peak, warmup_steps, .. }
        | Schedule::Cosine { peak, warmup_steps, .. }
        | Schedule::Constant { peak, warmup_steps }) = self;
        if warmup_steps > 0 && step <= warmup_steps {
            return Piece::Rise { peak, steps: warmup_steps };
        }
        match *self {
            Schedule::Wsd { min, decay_start, decay_steps, .. } if step >= decay_start && decay_steps > 0 => {
                Piece::Fall { peak, min, start: decay_start, steps: decay_steps }
            }
            Schedule::Cosine { min, total_steps, .. } => {
                let length = total_steps.saturating_sub(warmup_steps);
                if step >= total_steps || length == 0 {
                    return Piece::Flat(min);
                }
                Piece::HalfCosine { peak, min, start: warmup_steps, steps: length }
            }
            _ => Piece::Flat(peak),
        }
    }

    /// The last step of every piece but the last.
    fn borders(&self) -> Vec<u64> {
        match *self {
            Schedule::Wsd { warmup_steps, decay_start, .. } => {
                vec![warmup_steps, decay_start.saturating_sub(1)]
            }
            Schedule::Cosine { warmup_steps, total_steps, .. } => {
                vec![warmup_steps, total_steps.saturating_sub(1)]
            }
            Schedule::Constant { warmup_steps, .. } => vec![warmup_steps],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_points(schedule: &Schedule, points: &[(u64, f64)]) {
        for &(step, lr) in points {
            assert!((schedule.lr(step) - lr).abs() < 1e-12, "step {step}: {} is not {lr}", schedule.lr(step));
        }
    }

    #[test]
    fn wsd_is_smollm2s() {
        let (peak, min) = (3e-3, 0.0);
        let schedule =
            Schedule::Wsd { peak, min, warmup_steps: 2000, decay_start: 1_600_000, decay_steps: 400_000 };
        assert_points(
            &schedule,
            &[
                (0, 0.0),
                (1, 1.5e-6),
                (1000, 1.5e-3),
                (2000, 3e-3),
                (2001, 3e-3),
                (1_600_000, 3e-3),
                (1_600_001, 3e-3 * 399_999.0 / 400_000.0),
                (1_700_000, 2.25e-3),
                (1_800_000, 1.5e-3),
                (1_999_999, 7.5e-9),
                (2_000_000, 0.0),
                (2_500_000, 0.0),
            ],
        );
    }

    #[test]
    fn wsd_ends_at_its_minimum_and_needs_no_warmup_or_decay() {
        let down = Schedule::Wsd { peak: 1.0, min: 0.2, warmup_steps: 0, decay_start: 10, decay_steps: 4 };
        assert_points(&down, &[(0, 1.0), (1, 1.0), (10, 1.0), (11, 0.8), (12, 0.6), (14, 0.2), (99, 0.2)]);
        let flat = Schedule::Wsd { peak: 1.0, min: 0.0, warmup_steps: 0, decay_start: 10, decay_steps: 0 };
        assert_points(&flat, &[(9, 1.0), (10, 1.0), (99, 1.0)]);
    }

    #[test]
    fn cosine_falls_by_half_in_the_middle() {
        let schedule = Schedule::Cosine { peak: 1.0, min: 0.1, warmup_steps: 10, total_steps: 110 };
        let third = 0.1 + 0.9 * 0.75;
        assert_points(&schedule, &[(5, 0.5), (10, 1.0), (60, 0.55), (110, 0.1), (999, 0.1)]);
        let quick = Schedule::Cosine { peak: 1.0, min: 0.1, warmup_steps: 0, total_steps: 3 };
        assert_points(&quick, &[(0, 1.0), (1, third), (3, 0.1)]);
    }

    #[test]
    fn constant_keeps_its_peak_after_the_warmup() {
        let schedule = Schedule::Constant { peak: 0.5, warmup_steps: 2 };
        assert_points(&schedule, &[(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.5), (u64::MAX, 0.5)]);
        assert_points(&Schedule::Constant { peak: 0.5, warmup_steps: 0 }, &[(0, 0.5), (1, 0.5)]);
    }

    fn wsd(peak: f64, warmup_steps: u64, decay_start: u64, decay_steps: u64) -> Schedule {
        Schedule::Wsd { peak, min: 0.0, warmup_steps, decay_start, decay_steps }
    }

    fn cosine(peak: f64, warmup_steps: u64, total_steps: u64) -> Schedule {
        Schedule::Cosine { peak, min: 0.0, warmup_steps, total_steps }
    }

    #[test]
    fn two_schedules_differ_where_walking_through_them_says() {
        let constant = |peak, warmup_steps| Schedule::Constant { peak, warmup_steps };
        let all = [
            wsd(1.0, 4, 20, 10),
            wsd(1.0, 4, 25, 10),
            wsd(1.0, 4, 20, 12),
            wsd(1.0, 4, 3, 10),
            wsd(1.0, 4, 1, 10),
            wsd(1.0, 0, 20, 0),
            wsd(1.0, 0, 0, 9),
            Schedule::Wsd { peak: 1.0, min: 1.0, warmup_steps: 0, decay_start: 8, decay_steps: 5 },
            cosine(1.0, 4, 30),
            cosine(1.0, 4, 31),
            cosine(1.0, 9, 9),
            cosine(1.0, 9, 5),
            constant(1.0, 4),
            constant(1.0, 0),
            constant(2.0, 8), // rises as that of 1.0 over 4
        ];
        for a in &all {
            for b in &all {
                for steps in [0, 1, 4, 5, 19, 20, 21, 25, 26, 40] {
                    let walked = (1..=steps).find(|&step| a.lr(step) != b.lr(step));
                    assert_eq!(a.differs_before(b, steps), walked, "{a:?} {b:?} {steps}");
                }
            }
        }
    }

    #[test]
    fn a_later_end_differs_from_the_first_decay_on_however_far_that_is() {
        let far = 1 << 60;
        assert_eq!(wsd(1.0, 9, far, 10).differs_before(&wsd(1.0, 9, 2 * far, 10), far + 5), Some(far + 1));
        assert_eq!(wsd(1.0, 9, far, 10).differs_before(&wsd(1.0, 9, 2 * far, 10), far), None);
        assert_eq!(cosine(1.0, 9, far).differs_before(&cosine(1.0, 9, far), u64::MAX), None);
        assert_eq!(cosine(1.0, 9, 1000).differs_before(&cosine(1.0, 9, 1001), 10), Some(10));
    }

    #[test]
    fn a_schedule_comes_back_from_json_to_the_digit() {
        let mut peak = 0.1;
        for _ in 0..1000 {
            peak *= 0.977_237_220_955_810_7; // 17 digits, as sweeps write them
            let schedule = wsd(peak, 1, 2, u64::MAX);
            let json = serde_json::to_string(&schedule).unwrap();
            assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule, "{json}");
        }
    }
}
