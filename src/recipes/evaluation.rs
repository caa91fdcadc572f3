//! What the model is asked in training: names of tasks, and what a stage's `evaluate` means.

use super::problem::{Problems, key_path, suggest};
use super::schema::Recipe;

/// The tasks about the generated village, in the order of tables.
pub const TASKS: [&str; 10] = [
    "facts",
    "facts-cloze",
    "facts-choice",
    "arithmetic",
    "programs",
    "needle-short",
    "needle-long",
    "constraints",
    "stories",
    "preference",
];

/// The loss on held-out text, beside the tasks.
pub const LOSS: &str = "loss";

/// All of [`TASKS`], and [`LOSS`] where text is held out.
const GROUP: &str = "microcosm";

impl Recipe {
    /// What the model is given at the end of a stage: names of [`TASKS`] in their order, then [`LOSS`].
    pub fn evaluated_at(&self, stage: usize) -> Vec<&'static str> {
        let asked = &self.stages[stage].evaluate;
        let names = |name: &str| asked.iter().any(|it| it == name);
        let tasks = TASKS.into_iter().filter(|name| names(name) || names(GROUP));
        let loss = Some(LOSS).filter(|name| names(name) || names(GROUP) && self.held_out.fraction > 0.0);
        tasks.chain(loss).collect()
    }

    /// How many items a task has.
    pub fn items_of(&self, task: &str) -> usize {
        self.evaluation.items_of.get(task).copied().unwrap_or(self.evaluation.items)
    }
}

pub(super) fn check(problems: &mut Problems, recipe: &Recipe) {
    for (name, &items) in &recipe.evaluation.items_of {
        let place = key_path!["evaluation", "items_of", name];
        problems.require(TASKS.contains(&name.as_str()), place, || {
            format!("is no task; {}", suggest(name, &TASKS))
        });
        check_items(problems, items, place);
    }
    let known = [&[GROUP, LOSS][..], &TASKS].concat();
    for (i, stage) in recipe.stages.iter().enumerate() {
        for (j, name) in stage.evaluate.iter().enumerate() {
            let place = key_path!["stages", i, "evaluate", j];
            problems.require(known.contains(&name.as_str()), place, || {
                format!("is '{name}'; {}", suggest(name, &known))
            });
            let is_measured = name != LOSS || recipe.held_out.fraction > 0.0;
            problems.require(is_measured, place, || {
                "is the loss on held-out text, but held_out.fraction is 0: raise that, or leave it out".into()
            });
        }
    }
    let evaluation = &recipe.evaluation;
    check_items(problems, evaluation.items, key_path!["evaluation", "items"]);
    for (key, number) in [("every", evaluation.every), ("seed", evaluation.seed)] {
        problems.require(i64::try_from(number).is_ok(), key_path!["evaluation", key], || {
            "must be below 2^63".into()
        });
    }
}

fn check_items(problems: &mut Problems, items: usize, place: &[String]) {
    problems.require((1..=MOST_ITEMS).contains(&items), place, || {
        format!("is {items}, but must be from 1 to {MOST_ITEMS}")
    });
}

/// Most items of a task: their answers are kept in memory.
const MOST_ITEMS: usize = 100_000;
