//! Stages that branch, share schedules and bring settings of their own.

use super::*;
use crate::recipes::timeline::lineage;

/// A trunk of two stages, a decay from the middle of the first, one from its end, and what follows from that.
const STAGES: &str = r#"
[schedules.trunk]
kind = "wsd"
peak_lr = 1e-2
warmup_steps = 10
decay_fraction = 0.25

[schedules.fall]
kind = "cosine"
peak_lr = 1e-2
warmup_steps = 0

[optimizers.calm]
weight_decay = 0.1

[[stages]]
name = "base"
kind = "pretrain"
tokens = 12_800    # 100 steps
sequence_length = 32
schedule = "trunk"
mixture = { web = 1.0 }

[[stages]]
name = "more"
kind = "pretrain"
tokens = 19_200    # 100 steps of 64 tokens
sequence_length = 16
schedule = "trunk"
mixture = { web = 0.5, stories = 0.5 }

[[stages]]
name = "early"
kind = "pretrain"
from = "base@60"
tokens = 8_960    # 7,680 and 5 steps of 256 tokens
sequence_length = 32
schedule = "fall"
optimizer = "calm"
reset_optimizer = true
batch = { sequences = 8, micro_batch = 2 }
mixture = { stories = 1.0 }

[[stages]]
name = "late"
kind = "pretrain"
from = "base"
tokens = 15_360    # 20 steps
sequence_length = 32
schedule = "trunk"
mixture = { web = 1.0 }

[[stages]]
name = "last"
kind = "pretrain"
tokens = 16_640    # 10 steps
sequence_length = 32
schedule = "fall"
mixture = { code = 1.0 }
"#;

/// [`SMALL`] with [`STAGES`] for its own, three datasets read from files and a tokenizer that is not trained.
pub fn text() -> String {
    let text =
        SMALL.replace("train = { vocab_size = 64, sample_documents = 10 }", "path = \"tokenizer.json\"");
    let (head, rest) = text.split_once("[schedule]").unwrap();
    let (_, tail) = rest.split_once("[batch]").unwrap();
    let batch = tail.split_once("[[datasets]]").unwrap().0;
    let datasets = ["web", "stories", "code"]
        .map(|name| format!("[[datasets]]\nname = \"{name}\"\npaths = [\"{name}\"]\n"));
    format!("{head}[batch]{batch}{}{STAGES}", datasets.join("\n"))
}

fn branched(overrides: &[&str]) -> Result<Recipe> {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    parse("r.toml", &text(), Path::new(""), &overrides, &source::open_local)
}

#[test]
fn branches_go_on_from_where_they_leave_the_trunk() {
    let recipe = branched(&[]).unwrap();
    let span = |stage, origin, (start_step, end_step), start_tokens, sequences, tokens_per_step, counts| {
        let (schedule_start, updates_start) = counts;
        let sequences_per_step = sequences;
        Span {
            stage,
            origin,
            start_step,
            end_step,
            start_tokens,
            sequences_per_step,
            tokens_per_step,
            schedule_start,
            updates_start,
            anew: false,
        }
    };
    let at = |stage, step| Origin::Step { stage, step };
    let expected = [
        span(0, Origin::Noise, (0, 100), 0, 4, 128, (0, 0)),
        span(1, at(0, 100), (100, 200), 12_800, 4, 64, (100, 100)),
        span(2, at(0, 60), (200, 205), 7_680, 8, 256, (0, 0)),
        span(3, at(0, 100), (205, 225), 12_800, 4, 128, (100, 100)),
        span(4, at(3, 225), (225, 235), 15_360, 4, 128, (0, 120)),
    ];
    assert_eq!(recipe.spans(), expected);
    assert_eq!(recipe.span_of(3), expected[3]);
    assert_eq!((recipe.total_steps(), recipe.total_tokens()), (235, 16_640));
    assert_eq!(recipe.kept_steps(), [60, 100, 200, 205, 225, 235]);
    assert_eq!(lineage(&recipe.spans(), 0), []);
    assert_eq!(lineage(&recipe.spans(), 2), [(0, 60)]);
    assert_eq!(lineage(&recipe.spans(), 4), [(0, 100), (3, 20)]);
    assert!(
        recipe.describe().contains(" 24.3K tokens in 235 steps, 5 stages (base, "),
        "{}",
        recipe.describe()
    );
}

#[test]
fn stages_take_the_settings_that_they_name() {
    let recipe = branched(&[]).unwrap();
    // The trunk is as long as its longest branch: 200 steps, not 120.
    let trunk = Schedule::Wsd { peak: 1e-2, min: 0.0, warmup_steps: 10, decay_start: 150, decay_steps: 50 };
    let fall = |total_steps| Schedule::Cosine { peak: 1e-2, min: 0.0, warmup_steps: 0, total_steps };
    assert_eq!(recipe.stage_schedules(), [trunk.clone(), trunk.clone(), fall(10), trunk, fall(10)]);
    assert_eq!((recipe.optimizer_of(2).weight_decay, recipe.optimizer_of(3).weight_decay), (0.1, 0.01));
    assert_eq!(recipe.batch_of(2), Batch { sequences: 8, micro_batch: 2 });
    assert_eq!(recipe.batch_of(3), recipe.batch);
}

#[test]
fn a_named_schedule_over_all_stages_is_that_of_the_1_7b() {
    let text = EMBEDDED[3].1;
    let named = text
        .replace("[schedule]", "[schedules.pretrain]")
        .replace("kind = \"pretrain\"\n", "kind = \"pretrain\"\nschedule = \"pretrain\"\n")
        .replace("kind = \"extend_context\"\n", "kind = \"extend_context\"\nschedule = \"pretrain\"\n");
    let named = parse("named", &named, Path::new(""), &[], &source::open_local).unwrap();
    let plain = load("smollm2-1.7b", &[]);
    assert_eq!(named.schedule, None);
    assert_eq!(named.spans(), plain.spans());
    assert_eq!(named.stage_schedules(), plain.stage_schedules());
}

#[test]
fn a_schedule_starts_again_after_another_one() {
    let between = "name = \"more\"\nkind = \"pretrain\"\ntokens = 19_200    # 100 steps of 64 tokens\n\
                   sequence_length = 16\nschedule = \"";
    let text = text().replacen(&format!("{between}trunk"), &format!("{between}fall"), 1);
    let text = text.replacen("from = \"base\"\n", "", 1).replacen("from = \"base@60\"", "from = \"more\"", 1);
    let text = text.replace("tokens = 8_960", "tokens = 20_480").replace("15_360", "23_040");
    let recipe =
        parse("r.toml", &text.replace("16_640", "24_320"), Path::new(""), &[], &source::open_local).unwrap();
    let counts: Vec<_> =
        recipe.spans().iter().map(|span| (span.schedule_start, span.updates_start)).collect();
    // trunk, fall, fall with fresh moments, trunk, fall
    assert_eq!(counts, [(0, 0), (0, 100), (100, 0), (0, 5), (0, 25)]);
}

#[test]
fn a_branched_recipe_loads_back_identical() {
    let recipe = branched(&["checkpoint.every=7"]).unwrap();
    let again = parse("again", &recipe.to_toml().unwrap(), Path::new(""), &[], &source::open_local).unwrap();
    assert_eq!(again, recipe);
    for stage in 0..5 {
        assert_eq!(again.key(stage), recipe.key(stage));
    }
}

#[test]
fn a_stage_has_a_key_that_stages_off_its_lineage_leave_alone() {
    let original = branched(&[]).unwrap();
    let changed = |sets: &[&str]| -> Vec<usize> {
        let recipe = branched(sets).unwrap();
        (0..original.stages.len()).filter(|&stage| recipe.key(stage) != original.key(stage)).collect()
    };
    let none: [usize; 0] = [];
    for (set, stages) in [
        ("stages.base.rope_theta=2e4", &[0, 1, 2, 3, 4][..]),
        ("datasets.web.max_epochs=2", &[0, 1, 2, 3, 4]),
        ("schedules.trunk.peak_lr=2e-2", &[0, 1, 2, 3, 4]),
        ("stages.more.mixture={ web = 1.0 }", &[1]),
        ("stages.more.rope_theta=2e4", &[1]),
        ("stages.early.mixture={ web = 1.0 }", &[2]),
        ("stages.early.reset_optimizer=false", &[2]),
        ("stages.early.batch.sequences=4", &[2, 3, 4]), // and the steps of the run after it
        ("stages.early.batch.micro_batch=4", &none),
        ("stages.late.batch={ sequences = 4, micro_batch = 2 }", &none),
        ("stages.late.optimizer=calm", &[3, 4]),
        ("optimizers.calm.eps=1e-6", &[2]),
        ("schedules.fall.min_lr=1e-3", &[2, 4]),
        ("datasets.code.max_epochs=2", &[4]),
        ("datasets.stories.max_epochs=2", &[1, 2]),
        ("stages.last.tokens=20_000", &[4]),
        ("stages.early.from=base@61", &[2]),
        ("stages.late.from=base@100", &none),
        ("batch.micro_batch=2", &none),
        ("batch.sequences=2", &[0, 1, 2, 3, 4]),
    ] {
        assert_eq!(changed(&[set]), stages, "{set}");
    }
}

#[test]
fn the_key_of_a_stage_holds_whatever_comes_after() {
    let key = |recipe: &Recipe| recipe.key(0);
    let original = small(&[]).unwrap();
    for set in [
        "stages.decay.tokens=99_999",
        "stages.decay.sequence_length=16",
        "stages.decay.rope_theta=5e4",
        "stages.decay.batch={ sequences = 2 }",
        "stages.decay.reset_optimizer=true",
    ] {
        assert_eq!(key(&small(&[set]).unwrap()), key(&original), "{set}");
    }
    let mut longer = original.clone();
    longer.stages.push(Stage { name: "third".into(), tokens: Some(20_000), ..original.stages[1].clone() });
    assert_eq!(key(&longer), key(&original));
    let mut shorter = original.clone();
    shorter.stages.pop();
    assert_eq!((shorter.hash(), key(&shorter)), (key(&original), key(&original)));
    for set in ["stages.stable.tokens=12_801", "stages.stable.sequence_length=16", "seed=9"] {
        assert_ne!(key(&small(&[set]).unwrap()), key(&original), "{set}");
    }
    // The tokenizer is trained on all datasets, whichever stages use them.
    let more = SMALL.replacen(
        "[[stages]]",
        "[[datasets]]\nname = \"code\"\nmicrocosm = \"programs\"\ndocuments = 3\n[[stages]]",
        1,
    );
    assert_ne!(
        key(&parse("r.toml", &more, Path::new(""), &[], &source::open_local).unwrap()),
        key(&original)
    );
}

/// The line and the column where `part` begins.
fn place(text: &str, part: &str) -> String {
    let before = &text[..text.find(part).unwrap()];
    let column = before.len() - before.rfind('\n').map_or(0, |i| i + 1) + 1;
    format!("{}:{column}", before.lines().count() + usize::from(column == 1))
}

#[test]
fn mistakes_in_names_and_branches_have_line_column_and_remedy() {
    for (from, to, at, expected) in [
        (
            "from = \"base\"",
            "from = \"bass\"",
            "from = \"bass\"",
            "stages.3.from is 'bass', but no earlier stage has that name; did you mean 'base'?",
        ),
        (
            "from = \"base\"",
            "from = \"nowhere\"",
            "from = \"nowhere\"",
            "stages.3.from is 'nowhere', but no earlier stage has that name; known: base, more, early",
        ),
        (
            "from = \"base\"",
            "from = \"late\"",
            "from = \"late\"",
            "stages.3.from is 'late', but no earlier stage",
        ),
        (
            "base@60",
            "base@0",
            "from = \"base@0\"",
            "stages.2.from is 'base@0', but what follows '@' must be a step of 'base', from 1 to 100",
        ),
        ("base@60", "base@101", "from = \"base@101\"", "stages.2.from is 'base@101', but what"),
        (
            "base@60",
            "more@100",
            "from = \"more@100\"",
            "stages.2.from is 'more@100', but what follows '@' must be a step of 'more', from 101 to 200",
        ),
        ("base@60", "base@x", "from = \"base@x\"", "stages.2.from is 'base@x', but what"),
        (
            "base@60",
            "base@70",
            "tokens = 8_960",
            "stages.2.tokens is 8960, but must be above 8960: it counts from the start of the run",
        ),
        (
            "name = \"base\"\n",
            "name = \"base\"\nfrom = \"base\"\n",
            "from = \"base\"",
            "stages.0.from is 'base', but no stage comes before the first one",
        ),
        (
            "schedule = \"trunk\"",
            "schedule = \"trnk\"",
            "schedule = \"trnk\"",
            "stages.0.schedule is 'trnk'; did you mean 'trunk'?",
        ),
        (
            "schedule = \"trunk\"\n",
            "",
            "[[stages]]",
            "stages.0.schedule is missing: write it, or a [schedule] for all stages that have none; known: fall, ",
        ),
        (
            "\"calm\"",
            "\"clam\"",
            "optimizer = \"clam\"",
            "stages.2.optimizer is 'clam'; did you mean 'calm'?",
        ),
        (
            "[optimizers.calm]\nweight_decay = 0.1",
            "",
            "optimizer = \"calm\"",
            "stages.2.optimizer is 'calm', but there is no [optimizers.calm]: write it, or leave the key out",
        ),
        (
            "optimizer = \"calm\"",
            "",
            "calm]",
            "optimizers.calm is used by no stage: name it in one, or delete it",
        ),
        (
            "[schedules.fall]",
            "[schedules.low]\nkind = \"constant\"\npeak_lr = 1.0\nwarmup_steps = 0\n[schedules.fall]",
            "low]",
            "schedules.low is used by no stage: name it in one, or delete it",
        ),
        (
            "[optimizers.calm]",
            "[optimizers.\"a.b\"]\n[optimizers.calm]",
            "\"a.b\"",
            "optimizers.a.b is 'a.b', but must be a letter, then letters",
        ),
        (
            "[optimizers.calm]\nweight_decay",
            "[optimizers.calm]\nweight_dekay",
            "weight_dekay",
            "unknown key 'weight_dekay' in [optimizers.calm]; did you mean 'weight_decay'?",
        ),
        ("kind = \"cosine\"\n", "", "[schedules.fall]", "missing key 'kind' in [schedules.fall]"),
        (
            "kind = \"cosine\"",
            "kind = \"cosin\"",
            "\"cosin\"",
            "schedules.fall.kind is 'cosin'; did you mean 'cosine'?",
        ),
        (
            "warmup_steps = 0",
            "warmup_steps = 11",
            "warmup_steps = 11",
            "schedules.fall.warmup_steps is 11, but the stages that use it have only 10 steps",
        ),
        (
            "warmup_steps = 10\n",
            "warmup_steps = 160\n",
            "decay_fraction",
            "schedules.trunk.decay_fraction makes 50 steps of decay after 160 of warmup, but the stages",
        ),
        (
            "weight_decay = 0.1",
            "weight_decay = -1",
            "weight_decay = -1",
            "optimizers.calm.weight_decay is -1, but must not be negative",
        ),
        (
            "micro_batch = 2 }",
            "micro_batch = 3 }",
            "micro_batch = 3 }",
            "stages.2.batch.micro_batch is 3, but must divide the 8 sequences",
        ),
        (
            "micro_batch = 2 }",
            "micro_batc = 2 }",
            "micro_batc = 2 }",
            "unknown key 'micro_batc' in [stages.2.batch]; did you mean 'micro_batch'?",
        ),
        (
            "reset_optimizer = true",
            "reset_optimizer = 1",
            "1\nbatch",
            "stages.2.reset_optimizer is integer 1, but must be true or false",
        ),
    ] {
        let text = text();
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1);
        let error = parse("r.toml", &text, Path::new(""), &[], &source::open_local)
            .map(|_| ())
            .expect_err(to)
            .to_string();
        let expected = format!("r.toml:{}: {expected}", place(&text, at));
        assert!(error.lines().any(|line| line.starts_with(&expected)), "{to:?}\n  {error}\n  {expected}");
    }
    let error =
        changed("[schedule]\nkind = \"wsd\"\npeak_lr = 3e-3\nwarmup_steps = 20\ndecay_fraction = 0.2\n", "");
    let error = error.unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert!(
        lines.len() == 2
            && lines[0].ends_with("stages.0.schedule is missing: write a [schedule] for all stages"),
        "{error}"
    );
}
