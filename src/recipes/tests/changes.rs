//! What differs between two recipes.

use super::*;

/// What `after` changes of `before`, both given by overrides.
fn changes(before: &[&str], after: &[&str]) -> Vec<String> {
    told(&small(after).unwrap(), &small(before).unwrap())
}

fn told(after: &Recipe, before: &Recipe) -> Vec<String> {
    after.changes_since(before).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn each_key_is_told_with_its_place() {
    assert!(changes(&[], &[]).is_empty());
    assert!(
        changes(&["batch.micro_batch=2"], &["stages.decay.batch={sequences=4,micro_batch=1}"]).is_empty()
    );
    for (set, told) in [
        ("seed=3", "seed = 3 (was 8)"),
        // A line that another stage has too.
        ("stages.decay.sequence_length=16", "stages.decay.sequence_length = 16 (was 32)"),
        ("schedule.decay_fraction=0.5", "schedule.decay_fraction = 0.5 (was 0.2)"),
        ("stages.decay.rope_theta=20000.0", "stages.decay.rope_theta = 20000.0 (was not there)"),
        ("datasets.stories.documents=31", "datasets.stories.documents = 31 (was 30)"),
        ("checkpoint.every=51", "checkpoint.every = 51 (was 52)"),
        (
            "stages.decay.mixture={stories=0.9999999}",
            "stages.decay.mixture = { stories = 0.9999999 } (was { stories = 1.0 })",
        ),
    ] {
        assert_eq!(changes(&[], &[set]), [told]);
    }
    assert_eq!(
        changes(&["stages.decay.rope_theta=2e4"], &[]),
        ["no longer stages.decay.rope_theta = 20000.0"]
    );
}

#[test]
fn stages_are_compared_by_name_and_order() {
    let before = small(&[]).unwrap();
    let mut after = before.clone();
    after.stages.swap(0, 1);
    assert_eq!(told(&after, &before), ["stages are decay, stable (were stable, decay)"]);
    after.stages.pop();
    assert_eq!(told(&after, &before), ["stages are decay (were stable, decay)"]);
}

#[test]
fn a_long_value_is_cut() {
    let prompt = "é".repeat(9000);
    let told = changes(&[], &[&format!("sample.prompts=['{prompt}']")]);
    assert!(told.len() == 1 && told[0].chars().count() < 200, "{told:?}");
}

#[test]
fn what_is_written_is_read_back() {
    let before = small(&[]).unwrap();
    let after = Recipe::from_toml("r", &before.to_toml().unwrap()).unwrap();
    assert!(after.changes_since(&before).unwrap().is_empty());
}
