//! Several mistakes at once, and what flags change.

use super::*;

/// The mistakes in the small recipe with pieces of its text replaced, without the places.
fn mistakes(pieces: &[(&str, &str)]) -> Vec<String> {
    let text = pieces.iter().fold(SMALL.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    let error = parse("r.toml", &text, Path::new(""), &[], &source::open_local).unwrap_err().to_string();
    error.lines().map(|line| line.splitn(4, ':').nth(3).unwrap().trim().to_string()).collect()
}

fn assert_told(pieces: &[(&str, &str)], expected: &[&str]) {
    let told = mistakes(pieces);
    let as_expected = told.iter().zip(expected).all(|(line, words)| line.starts_with(words));
    assert!(told.len() == expected.len() && as_expected, "{told:#?}\n{expected:#?}");
}

#[test]
fn no_mistake_hides_another() {
    let two_lengths = "steps = 0\nschedule = \"zz\"\ntokens = 12_800";
    assert_told(
        &[("tokens = 12_800", two_lengths)],
        &[
            "stages.0 ('stable') needs one of",
            "stages.0.steps is 0",
            "stages.0.schedule is 'zz', but there is no",
        ],
    );
    let fields = ("documents = 30", "documents = 30\nfields = []\non_broken = \"drop\"");
    assert_told(
        &[fields, ("{ stories = 1.0 }", "{ storie = 1.0 }")],
        &[
            "datasets.0.fields is empty",
            "datasets.0.on_broken is 'drop'",
            "stages.0.mixture.storie names no dataset",
        ],
    );
    // Where a name cannot be read, nobody knows.
    assert_told(&[("name = \"stories\"", "name = 3")], &["datasets.0.name is integer 3"]);
}

#[test]
fn one_mistake_is_told_once() {
    assert_told(
        &[("kind = \"wsd\"", "kind = \"constnat\""), ("decay_fraction = 0.2", "")],
        &["schedule.kind is 'constnat'"],
    );
    assert_told(&[("peak_lr = 3e-3", "peak_lr = nan")], &["schedule.peak_lr is NaN, but must be positive"]);
    assert_told(&[("decay_fraction = 0.2", "decay_fraction = 1.2")], &["schedule.decay_fraction is 1.2"]);
    assert_told(&[("warmup_steps = 20", "warmup_steps = 131")], &["schedule.warmup_steps is 131, but"]);
    assert_told(
        &[("microcosm = \"tales\"\ndocuments = 30", "paths = 7")],
        &["datasets.0.paths is integer 7"],
    );
    assert_told(
        &[("stories = 1.0", "stories = -1.0")],
        &["stages.0.mixture.stories is -1, but must be at least"],
    );
    let heads = ("num_attention_heads = 4\nnum_key_value_heads = 2\nhead_dim = 4", "num_attention_heads = 5");
    assert_told(&[heads], &["model.num_attention_heads is 5, but must divide hidden_size 16"]);
}

#[test]
fn weights_and_numbers_of_datasets_have_bounds() {
    for (weight, told) in [("0.0000001", "is 0.0000001, but must be at least 0.000001"), ("0", "is 0, but")] {
        let mixture = format!("{{ stories = 1.0, more = {weight} }}");
        let more = "[[datasets]]\nname = \"more\"\nmicrocosm = \"programs\"\ndocuments = 3\n\n[[stages]]";
        assert_told(
            &[("[[stages]]", more), ("{ stories = 1.0 }", &mixture)],
            &[&format!("stages.0.mixture.more {told}")],
        );
    }
    let many = |count: usize| {
        let one = |i: usize| format!("{{ name = \"d{i}\", microcosm = \"programs\", documents = 3 }}");
        let list = (0..count).map(one).collect::<Vec<_>>().join(", ");
        let (before, rest) = SMALL.split_once("[[datasets]]").unwrap();
        let (_, after) = rest.split_once("[[stages]]").unwrap();
        let text =
            format!("datasets = [{list}]\n{before}[[stages]]{after}").replace("stories = 1.0", "d7 = 1.0");
        parse("r.toml", &text, Path::new(""), &[], &source::open_local)
    };
    assert_eq!(many(65_535).unwrap().datasets.len(), 65_535);
    let error = many(65_536).unwrap_err().to_string();
    assert!(error.starts_with("r.toml:1:1: datasets has 65536 datasets, but may have 65535"), "{error}");
}

#[test]
fn missing_files_are_told_among_other_mistakes_and_alone_do_not_refuse() {
    let paths = ("microcosm = \"tales\"\ndocuments = 30", "paths = [\"/no/a.txt\", \"/no/b.txt\"]");
    let expected = [
        "datasets.0.paths.0 is /no/a.txt, which does not exist: put it there",
        "datasets.0.paths.1 is /no/b.txt, which does not exist",
        "checkpoint.every is 0",
    ];
    assert_told(&[paths, ("every = 52", "every = 0")], &expected);
    let text = SMALL.replacen(paths.0, paths.1, 1);
    let reading = Recipe::parse("r.toml", &text, Path::new(""), &[], &source::open_local).unwrap();
    let line = line_of("microcosm = ");
    assert_eq!(reading.missing.len(), 2);
    assert!(reading.missing[1].starts_with(&format!("r.toml:{line}:23: datasets.0.paths.1")), "{reading:?}");
    let error = reading.recipe.check_files(None).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 2, "{error}");
}

/// A recipe of one stage of 450 steps.
const ONE_STAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/recipes/one-stage.toml");

/// Warmup, start and steps of the decay of the first stage.
fn rise_and_fall(recipe: &Recipe) -> (u64, u64, u64) {
    match recipe.stage_schedules()[0] {
        Schedule::Wsd { warmup_steps, decay_start, decay_steps, .. } => {
            (warmup_steps, decay_start, decay_steps)
        }
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_schedule_is_fitted_to_a_length_that_overrides_give() {
    assert_eq!(rise_and_fall(&load(ONE_STAGE, &[])), (45, 67, 383));
    for (set, expected) in [
        (&["batch.sequences=8"][..], (22, 34, 191)),
        (&["--batch=8"], (22, 34, 191)),
        (&["stages.0.sequence_length=128", "batch.sequences=16"], (22, 34, 191)),
        (&["stages.pretrain.tokens=102400"], (10, 15, 85)),
        (&["--steps=100"], (10, 15, 85)),
        // What fits stays as it is.
        (&["batch.sequences=4"], (45, 67, 383)),
        (&["--steps=400"], (45, 60, 340)),
        (&["schedule.peak_lr=1e-3"], (45, 67, 383)),
        (&["schedule.warmup_steps=14", "--steps=100"], (14, 15, 85)),
    ] {
        assert_eq!(rise_and_fall(&load(ONE_STAGE, set)), expected, "{set:?}");
    }
    let refused = |set: &[&str]| {
        let set: Vec<String> = set.iter().map(|it| it.to_string()).collect();
        Recipe::load(ONE_STAGE, &set).unwrap_err().to_string()
    };
    let error = refused(&["schedule.warmup_steps=16", "--steps=100"]);
    assert!(error.contains("makes 85 steps of decay after 16 of warmup"), "{error}");
    for (set, other) in [
        (["stages.pretrain.steps=7", "--steps=5"], "stages.pretrain.steps=7"),
        (["stages.0.tokens=7000", "--epochs=1"], "stages.0.tokens=7000"),
        (["schedule.peak_lr=1e-3", "--lr=2e-3"], "schedule.peak_lr=1e-3"),
    ] {
        let error = refused(&set);
        assert!(error.ends_with(&format!("--set {other} gives it too: leave one of them out")), "{error}");
    }
    let both = load(ONE_STAGE, &["batch.micro_batch=3", "--batch=6"]);
    assert_eq!((both.batch.sequences, both.batch.micro_batch), (6, 3));
}

#[test]
fn a_schedule_is_fitted_to_epochs_when_they_are_counted() {
    let mut recipe = load(ONE_STAGE, &["--epochs=0.2"]);
    let changes = recipe.settle_epochs(|_, _| 50_000).unwrap();
    // 50,000 tokens are 48 whole steps, of which the decay takes 41.
    assert_eq!((recipe.total_steps(), rise_and_fall(&recipe)), (48, (4, 7, 41)));
    assert!(
        changes.len() == 1 && changes[0].contains("of the 48 steps that the epochs make, 4 are"),
        "{changes:?}"
    );
    let mut long = load(ONE_STAGE, &["--epochs=2"]);
    assert!(long.settle_epochs(|_, _| 50_000).unwrap().is_empty());
    assert_eq!(rise_and_fall(&long).0, 45);
}
