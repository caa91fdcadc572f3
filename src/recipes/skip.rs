//! Steps of a stage's data that are left out: what follows moves up.

use super::schema::{Skip, Stage};

impl Skip {
    /// The first step of the data behind it.
    pub fn end(&self) -> u64 {
        self.step + self.steps
    }

    /// Its steps in words.
    pub fn describe(&self) -> String {
        match self.steps {
            1 => format!("step {}", self.step),
            _ => format!("steps {} to {}", self.step, self.end() - 1),
        }
    }
}

impl Stage {
    /// The step of the stage's data that its step `step` learns from, both counted from 0.
    pub fn data_step(&self, step: u64) -> u64 {
        // In order, so that each finds those before it added.
        self.skip.iter().fold(step, |at, skip| if skip.step <= at { at + skip.steps } else { at })
    }

    /// Steps of data up to the end of the stage's first `steps` steps: those that are left out before it included.
    pub fn data_steps(&self, steps: u64) -> u64 {
        steps.checked_sub(1).map_or(0, |last| self.data_step(last) + 1)
    }

    /// Whether all of `skip` is left out.
    pub fn leaves_out(&self, skip: &Skip) -> bool {
        self.skip.iter().any(|it| it.step <= skip.step && skip.end() <= it.end())
    }

    /// Leaves more out.
    pub fn leave_out(&mut self, skip: Skip) {
        self.skip.push(skip);
        self.skip.sort_by_key(|skip| skip.step);
        let mut merged: Vec<Skip> = Vec::new();
        for skip in self.skip.drain(..) {
            match merged.last_mut().filter(|last| skip.step <= last.end()) {
                Some(last) => last.steps = skip.end().max(last.end()) - last.step,
                None => merged.push(skip),
            }
        }
        self.skip = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipes::Recipe;

    fn stage(skip: &[(u64, u64)]) -> Stage {
        let mut stage = Recipe::load("microcosm", &[]).unwrap().stages.swap_remove(0);
        stage.skip = skip.iter().map(|&(step, steps)| Skip { step, steps }).collect();
        stage
    }

    #[test]
    fn what_follows_moves_up() {
        for skip in [&[][..], &[(0, 1)], &[(0, 3), (3, 2), (6, 1)], &[(5, 7)], &[(1, 1), (3, 1), (5, 1)]] {
            let stage = stage(skip);
            let is_left_out = |at: u64| skip.iter().any(|&(step, steps)| (step..step + steps).contains(&at));
            let expected: Vec<u64> = (0..40).filter(|&at| !is_left_out(at)).take(20).collect();
            let found: Vec<u64> = (0..20).map(|step| stage.data_step(step)).collect();
            assert_eq!(found, expected, "{skip:?}");
            assert_eq!(stage.data_steps(0), 0);
            assert!((1..=20).all(|steps| stage.data_steps(steps) == expected[steps as usize - 1] + 1));
        }
    }

    #[test]
    fn what_is_left_out_is_in_order_and_without_overlaps() {
        let mut it = stage(&[(10, 2)]);
        let mut expected: Vec<u64> = vec![10, 11];
        for (step, steps) in [(20, 1), (3, 2), (12, 1), (4, 3), (0, 1), (19, 4), (1, 20)] {
            it.leave_out(Skip { step, steps });
            assert!(
                it.leaves_out(&Skip { step, steps }) && !it.leaves_out(&Skip { step, steps: steps + 90 })
            );
            expected.extend(step..step + steps);
            expected.sort();
            expected.dedup();
            let found: Vec<u64> = it.skip.iter().flat_map(|skip| skip.step..skip.end()).collect();
            assert_eq!(found, expected);
            assert!(it.skip.windows(2).all(|pair| pair[0].end() < pair[1].step), "{:?}", it.skip);
        }
    }
}
