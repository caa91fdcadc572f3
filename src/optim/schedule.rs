//! Learning-rate schedules.

/// The learning rate as a function of the step, in f64.
///
/// Steps count optimizer updates from 1: the first update uses `lr(1)`, the last of N uses `lr(N)`.
#[derive(Clone, Debug, PartialEq)]
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

impl Schedule {
    /// The learning rate of update `step`, counted from 1; `lr(0)` is where the warmup starts.
    pub fn lr(&self, step: u64) -> f64 {
        let &(Schedule::Wsd { peak, warmup_steps, .. }
        | Schedule::Cosine { peak, warmup_steps, .. }
        | Schedule::Constant { peak, warmup_steps }) = self;
        if warmup_steps > 0 && step <= warmup_steps {
            return peak * step as f64 / warmup_steps as f64;
        }
        match *self {
            Schedule::Wsd { min, decay_start, decay_steps, .. } => {
                if step < decay_start || decay_steps == 0 {
                    return peak;
                }
                let left = decay_steps.saturating_sub(step - decay_start);
                min + (peak - min) * left as f64 / decay_steps as f64
            }
            Schedule::Cosine { min, total_steps, .. } => {
                let length = total_steps.saturating_sub(warmup_steps);
                if step >= total_steps || length == 0 {
                    return min;
                }
                let progress = (step - warmup_steps) as f64 / length as f64;
                min + (peak - min) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Schedule::Constant { .. } => peak,
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
}
