//! The schedules of a recipe and the steps that they have: what flags made too short for them is fitted, the rest
//! checked.

use std::collections::HashSet;

use super::check::{below, check_named, not_negative, positive};
use super::problem::{KeyPath, Problems, key_path};
use super::schema::{LearningRate, Recipe, ScheduleKind};
use super::timeline::{schedule_lengths, spans};

/// Steps of each schedule, and of the run; none where they are not known yet, or not right.
struct Lengths {
    schedules: Vec<(Option<String>, u64)>,
    run: u64,
}

impl Lengths {
    fn of(problems: &mut Problems, recipe: &Recipe) -> Self {
        // How many steps an epoch has is known when the text has been tokenised.
        let known = recipe.stages.iter().all(|stage| stage.epochs.is_none());
        let timed = |it: &[String]| problems.are_none_at(it);
        let spans = if known && timed(key_path!["batch"]) && timed(key_path!["stages"]) {
            spans(recipe).map_err(|problem| problems.add(problem)).unwrap_or_default()
        } else {
            Vec::new()
        };
        let schedules = schedule_lengths(recipe, &spans);
        Lengths {
            schedules: schedules.into_iter().map(|(name, length)| (name.map(String::from), length)).collect(),
            run: spans.last().map_or(0, |span| span.end_step),
        }
    }

    /// [`UNKNOWN_LENGTH`] for a schedule that has none.
    fn get(&self, name: Option<&str>) -> u64 {
        let found = self.schedules.iter().find(|(it, _)| it.as_deref() == name);
        found.map_or(UNKNOWN_LENGTH, |(_, length)| *length)
    }
}

/// The schedules of a recipe, with their names and places.
fn schedules(recipe: &mut Recipe) -> impl Iterator<Item = (Option<&str>, KeyPath, &mut LearningRate)> {
    let own = recipe.schedule.iter_mut().map(|it| (None, key_path!["schedule"].to_vec(), it));
    let named = recipe.schedules.iter_mut();
    own.chain(named.map(|(name, it)| (Some(name.as_str()), key_path!["schedules", name].to_vec(), it)))
}

/// Adds all mistakes to `problems`. Where the length of the run was given by an override, a rise and a fall that were
/// meant for a longer one are cut down to it, unless they were given so too.
pub(super) fn fit_and_check(
    problems: &mut Problems,
    recipe: &mut Recipe,
    is_overridden: impl Fn(&[String]) -> bool,
) {
    let lengths = Lengths::of(problems, recipe);
    if decides_length(recipe).iter().any(|key| is_overridden(key)) {
        for (name, place, schedule) in schedules(recipe) {
            fit(schedule, lengths.get(name), |key| !is_overridden(&below(&place, key)));
        }
    }
    check_with(problems, recipe, &lengths);
}

/// Fits the schedules to lengths in epochs that have just been counted, which nobody could know before, and adds all
/// other mistakes to `problems`. Returns what was changed, a line each.
pub(super) fn fit_to_epochs(problems: &mut Problems, recipe: &mut Recipe) -> Vec<String> {
    let lengths = Lengths::of(problems, recipe);
    let mut changes = Vec::new();
    for (name, place, schedule) in schedules(recipe) {
        let length = lengths.get(name);
        let warmup = schedule.warmup_steps(length);
        if warmup.saturating_add(schedule.decay_steps(length)) <= length {
            continue;
        }
        fit(schedule, length, |_| true);
        let (place, now, decay) =
            (place.join("."), schedule.warmup_steps(length), schedule.decay_steps(length));
        changes.push(format!(
            "{place}: of the {length} steps that the epochs make, {now} are warmup (not {warmup}) and {decay} decay"
        ));
    }
    check_with(problems, recipe, &lengths);
    changes
}

/// Keys that decide how many steps a run has.
fn decides_length(recipe: &Recipe) -> Vec<KeyPath> {
    let of_stage = |i: usize| {
        let own = ["tokens", "steps", "epochs", "sequence_length"];
        let own = own.into_iter().map(move |key| key_path!["stages", i, key].to_vec());
        own.chain([key_path!["stages", i, "batch", "sequences"].to_vec()])
    };
    let stages = (0..recipe.stages.len()).flat_map(of_stage);
    stages.chain([key_path!["batch", "sequences"].to_vec()]).collect()
}

/// Cuts the steps of a rise and a fall that were meant for a longer run down to one of `length` steps, where the keys are
/// free to be changed.
fn fit(schedule: &mut LearningRate, length: u64, is_free: impl Fn(&str) -> bool) {
    let tenth = length / 10;
    if schedule.decay_steps.is_some_and(|decay| decay > length - tenth) && is_free("decay_steps") {
        schedule.decay_steps = Some(length - tenth);
    }
    let room = length.saturating_sub(schedule.decay_steps(length));
    let is_long = |warmup: u64| warmup > room || warmup > length / 2;
    if schedule.warmup_steps.is_some_and(is_long) && is_free("warmup_steps") {
        schedule.warmup_steps = Some(tenth.min(room));
    }
}

/// Steps that are more than enough for any schedule.
const UNKNOWN_LENGTH: u64 = 1 << 62;

fn check_with(problems: &mut Problems, recipe: &Recipe, lengths: &Lengths) {
    if let Some(schedule) = &recipe.schedule {
        check_schedule(problems, schedule, lengths.get(None), lengths.run, key_path!["schedule"]);
    }
    let used: HashSet<&String> = recipe.stages.iter().filter_map(|stage| stage.schedule.as_ref()).collect();
    for (name, schedule) in &recipe.schedules {
        let place = key_path!["schedules", name];
        check_named(problems, name, used.contains(name), place);
        check_schedule(problems, schedule, lengths.get(Some(name)), lengths.run, place);
    }
}

/// A schedule over `length` steps of a run of `all`; [`UNKNOWN_LENGTH`] where it is not known.
fn check_schedule(problems: &mut Problems, schedule: &LearningRate, length: u64, all: u64, place: &[String]) {
    positive(problems, schedule.peak_lr, &below(place, "peak_lr"));
    not_negative(problems, schedule.min_lr, &below(place, "min_lr"));
    if problems.are_none_at(&below(place, "peak_lr")) {
        problems.require(schedule.min_lr <= schedule.peak_lr, &below(place, "min_lr"), || {
            format!("is {}, but must not be above peak_lr {}", schedule.min_lr, schedule.peak_lr)
        });
    }
    let only = || {
        let whose = if length == all { "the run has" } else { "the stages that use it have" };
        format!("but {whose} only {length} steps")
    };
    let either = |one: &str, one_given: bool, other: &str, other_given: bool| {
        (below(place, if one_given { one } else { other }), usize::from(one_given) + usize::from(other_given))
    };
    let (warmup_key, given) = either(
        "warmup_steps",
        schedule.warmup_steps.is_some(),
        "warmup_fraction",
        schedule.warmup_fraction.is_some(),
    );
    problems
        .require(given <= 1, &warmup_key, || "stands beside warmup_fraction: leave one of them out".into());
    let (decay_key, given) = either(
        "decay_steps",
        schedule.decay_steps.is_some(),
        "decay_fraction",
        schedule.decay_fraction.is_some(),
    );
    for (key, fraction) in
        [("warmup_fraction", schedule.warmup_fraction), ("decay_fraction", schedule.decay_fraction)]
    {
        let Some(fraction) = fraction else { continue };
        problems.require((0.0..=1.0).contains(&fraction), &below(place, key), || {
            format!("is {fraction}, but must be from 0 to 1")
        });
    }
    if let (Some(warmup), Some(decay)) = (schedule.warmup_fraction, schedule.decay_fraction)
        && ["warmup_fraction", "decay_fraction"].iter().all(|key| problems.are_none_at(&below(place, key)))
    {
        let sum = warmup + decay;
        problems.require(sum <= 1.0 + 1e-9, &below(place, "warmup_fraction"), || {
            format!("and decay_fraction sum to {sum}, but must not exceed 1")
        });
    }
    let warmup = schedule.warmup_steps(length);
    problems.require(warmup <= length, &warmup_key, || format!("is {warmup}, {}", only()));
    if !problems.is_read(&below(place, "kind")) {
        return;
    }
    if schedule.kind != ScheduleKind::Wsd {
        return problems.require(given == 0, &decay_key, || "is only for kind = \"wsd\"".into());
    }
    problems.require(given == 1, place, || "needs one of decay_steps and decay_fraction".into());
    let decay = schedule.decay_steps(length);
    let fits = decay <= length.saturating_sub(warmup) || !problems.are_none_at(&warmup_key);
    problems.require(fits, &decay_key, || {
        format!("makes {decay} steps of decay after {warmup} of warmup, {}", only())
    });
}
