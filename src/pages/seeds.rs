//! Runs that differ in nothing but their seeds, and what is to be said of them together.

use super::run::Run;
use crate::recipes::Recipe;

/// Runs that differ in nothing but their seeds.
pub struct Group {
    /// Indices of the runs, two or more.
    pub runs: Vec<usize>,
}

/// All groups among these runs.
pub fn groups(runs: &[Run]) -> Vec<Group> {
    let mut groups: Vec<(Recipe, Vec<usize>)> = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let Some(recipe) = run.overview.recipe.as_ref().map(without_seeds) else { continue };
        match groups.iter_mut().find(|(other, _)| recipe.changes_since(other).is_ok_and(|it| it.is_empty())) {
            Some((_, members)) => members.push(index),
            None => groups.push((recipe, vec![index])),
        }
    }
    groups.into_iter().filter(|(_, runs)| runs.len() > 1).map(|(_, runs)| Group { runs }).collect()
}

fn without_seeds(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    (recipe.name, recipe.comment) = (String::new(), String::new());
    (recipe.seed, recipe.data_seed, recipe.evaluation.seed) = (0, 0, 0);
    recipe
}

impl Group {
    /// What its column is called.
    pub fn name(&self, runs: &[Run]) -> String {
        format!("{}: mean of {} seeds", runs[self.runs[0]].name, self.runs.len())
    }

    /// Mean and sample standard deviation of what the runs have, if two or more have it.
    pub fn mean(&self, values: &[Option<f64>]) -> Option<(f64, f64)> {
        let values: Vec<f64> = self.runs.iter().filter_map(|&run| values[run]).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (values.len() > 1).then(|| (mean, (squares / (count - 1.0)).sqrt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_that_of_a_sample() {
        let group = Group { runs: vec![0, 2, 3] };
        let (mean, spread) = group.mean(&[Some(1.0), Some(50.0), Some(2.0), Some(3.0)]).unwrap();
        assert_eq!((mean, spread), (2.0, 1.0));
        assert_eq!(group.mean(&[Some(1.0), Some(1.0), None, Some(2.0)]).unwrap().0, 1.5);
        assert!(group.mean(&[Some(1.0), Some(1.0), None, None]).is_none());
    }
}
