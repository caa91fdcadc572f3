mod changes;
mod datasets;
mod mistakes;
mod stages;

use super::*;
use crate::data::microcosm::Register;
use crate::data::microcosm::village::Answers;
use crate::nn::LlamaConfig;
use crate::optim::schedule::Schedule;

/// A recipe that no tuning of the embedded ones changes.
const SMALL: &str = r#"name = "small"

[model]
vocab_size = 64
hidden_size = 16
intermediate_size = 40
num_hidden_layers = 1
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 4
max_position_embeddings = 32
rope_theta = 10_000
rms_norm_eps = 1e-5
tie_word_embeddings = true
initializer_std = 0.25

[tokenizer]
train = { vocab_size = 64, sample_documents = 10 }

[optimizer]
betas = [0.9, 0.95]

[schedule]
kind = "wsd"
peak_lr = 3e-3
warmup_steps = 20
decay_fraction = 0.2

[batch]
sequences = 4
micro_batch = 0

[[datasets]]
name = "stories"
microcosm = "tales"
documents = 30

[[stages]]
name = "stable"
kind = "pretrain"
tokens = 12_800
sequence_length = 32
mixture = { stories = 1.0 }

[[stages]]
name = "decay"
kind = "pretrain"
tokens = 16_640
sequence_length = 32
mixture = { stories = 1.0 }

[checkpoint]
every = 52

[sample]
temperature = 0.7
"#;

fn load(name: &str, overrides: &[&str]) -> Recipe {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    Recipe::load(name, &overrides).unwrap()
}

fn parse(label: &str, text: &str, folder: &Path, overrides: &[String], open: OpenModel) -> Result<Recipe> {
    Recipe::parse(label, text, folder, overrides, open).map(|reading| reading.recipe)
}

fn small(overrides: &[&str]) -> Result<Recipe> {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    parse("r.toml", SMALL, Path::new(""), &overrides, &source::open_local)
}

/// The small recipe with one piece of its text replaced.
fn changed(from: &str, to: &str) -> Result<Recipe> {
    assert!(SMALL.contains(from), "{from}");
    parse("r.toml", &SMALL.replacen(from, to, 1), Path::new(""), &[], &source::open_local)
}

fn line_of(text: &str) -> usize {
    SMALL.lines().position(|line| line.contains(text)).unwrap() + 1
}

/// Checkpoints hold the hash of their recipe: those saved by earlier versions must still be resumed.
#[test]
fn recipes_keep_the_hashes_that_old_checkpoints_hold() {
    let support = include_str!("../../tests/support.rs");
    let tiny = support.split_once("RECIPE: &str = r#\"").unwrap().1.split_once("\"#").unwrap().0;
    let old = |text| parse("old", text, Path::new(""), &[], &source::open_local).unwrap();
    let recipes = [
        // What smollm2-135m was before its datasets came from the Hub.
        (old(include_str!("../../tests/fixtures/recipes/of-local-files.toml")), "7a899474b9ab9170"),
        (old(tiny), "691d85cc848fdbe0"),
        (small(&[]).unwrap(), "66f79e208e62f59d"),
    ];
    for (recipe, hash) in recipes {
        assert_eq!(recipe.hash(), hash, "{}", recipe.name);
        assert_eq!(recipe.key(recipe.stages.len() - 1), hash, "{}", recipe.name);
    }
}

#[test]
fn smollm2_steps_and_schedules_are_the_published_ones() {
    for (name, per_step, total, decay_start, peak, extension) in [
        ("smollm2-135m", 1_048_576, 2_000_000, 1_600_000, 3e-3, 12_000_000_000),
        ("smollm2-360m", 1_572_864, 2_600_000, 2_080_000, 3e-3, 12_000_000_000),
        ("smollm2-1.7b", 2_097_152, 5_240_000, 4_716_000, 5e-4, 75_000_000_000),
    ] {
        let recipe = load(name, &[]);
        let spans = &recipe.spans()[..recipe.stages.len() - 2];
        assert!(spans.iter().all(|stage| stage.tokens_per_step == per_step), "{name}");
        let last = spans.len() - 1;
        assert_eq!(spans[last - 1].end_step, total, "{name}");
        assert_eq!(spans[last - 1].tokens_at(total), total * per_step, "{name}");
        let (min, warmup_steps, decay_steps) = (0.0, 2000, total - decay_start);
        let expected = Schedule::Wsd { peak, min, warmup_steps, decay_start, decay_steps };
        let schedules = recipe.stage_schedules();
        assert!(schedules[..last].iter().all(|schedule| *schedule == expected), "{name}");
        // The longer context: the last 75B tokens of the decay again, or 12B more at a tenth of the rate.
        let steps = spans[last].steps();
        assert_eq!(steps, u64::div_ceil(extension, per_step), "{name}");
        let schedule = schedules[last].clone();
        match name {
            "smollm2-1.7b" => {
                assert_eq!(spans[last].origin, Origin::Step { stage: 3, step: total - steps });
                assert_eq!((schedule, spans[last].schedule_start), (expected, total - steps));
            }
            _ => {
                assert_eq!(spans[last].origin, Origin::Step { stage: 0, step: total });
                let lr = |step| (schedule.lr(step) / peak * 1e9).round() / 1e9;
                assert_eq!((lr(0), lr(steps)), (0.1, 0.0), "{name}");
            }
        }
        let theta = if name == "smollm2-1.7b" { 130_000.0 } else { 100_000.0 };
        let (short, long) = (recipe.model_at(0), recipe.model_at(last));
        assert_eq!((short.rope_theta, long.rope_theta), (10_000.0, theta));
        let lengths = [0, last].map(|stage| recipe.stages[stage].sequence_length);
        assert_eq!(lengths, [2048, 8192]);
        let preset = LlamaConfig::preset(name).unwrap();
        assert_eq!(recipe.model, LlamaConfig { max_position_embeddings: 8192, ..preset });
        assert_eq!(recipe.optimizer, Optimizer::default());
    }
}

#[test]
fn smollm2_learns_to_chat_as_published() {
    for (name, data, peak) in [
        ("smollm2-135m", "smol-smoltalk", 1e-3),
        ("smollm2-360m", "smol-smoltalk", 1e-3),
        ("smollm2-1.7b", "smoltalk", 3e-4),
    ] {
        let recipe = load(name, &[]);
        let [.., extend, chat, preferences] = &recipe.stages[..] else { panic!("{name}") };
        let last = recipe.stages.len() - 1;
        assert_eq!((chat.kind, preferences.kind), (StageKind::Sft, StageKind::Dpo));
        assert!(chat.mixture.keys().eq([data]) && preferences.mixture.keys().eq(["ultrafeedback"]));
        assert!(chat.packs() && chat.judged() == crate::tokenizer::Judged::All && !chat.document_mask);
        assert_eq!((chat.sequence_length, preferences.sequence_length), (8192, 1024));
        let dpo = preferences.dpo.as_ref().unwrap();
        assert_eq!((dpo.beta, dpo.max_prompt_length, dpo.loss), (0.5, Some(512), PreferenceKind::Sigmoid));
        for (i, peak) in [(last - 1, peak), (last, 1e-6)] {
            let (stage, span, schedule) = (&recipe.stages[i], &recipe.spans()[i], &recipe.schedules);
            assert_eq!(span.origin, Origin::Step { stage: i - 1, step: span.start_step });
            assert_eq!(
                (stage.epochs, stage.rope_theta, stage.reset_optimizer),
                (Some(2.0), extend.rope_theta, true)
            );
            assert_eq!(recipe.batch_of(i).sequences, 128);
            let optimizer = recipe.optimizer_of(i);
            assert_eq!((optimizer.betas, optimizer.weight_decay), ([0.9, 0.999], 0.0));
            let schedule = &schedule[stage.schedule.as_ref().unwrap()];
            assert_eq!((schedule.kind, schedule.peak_lr, schedule.min_lr), (ScheduleKind::Cosine, peak, 0.0));
            assert_eq!((schedule.warmup_fraction, schedule.warmup_steps), (Some(0.1), None));
        }
        // How much text is fetched does not depend on conversations that nobody has counted.
        assert!(recipe.needs()[0].is_some(), "{name}");
    }
}

#[test]
fn the_stages_of_the_1_7b_follow_one_another() {
    let recipe = load("smollm2-1.7b", &[]);
    let spans = recipe.spans();
    let ends: Vec<u64> = spans.iter().map(|span| span.end_step).collect();
    // 6T and 8T tokens in whole steps of 2,097,152.
    assert_eq!(ends[..5], [2_861_023, 3_814_698, 4_716_000, 5_240_000, 5_275_763]);
    for pair in spans[..4].windows(2) {
        assert_eq!(pair[1].origin, Origin::Step { stage: pair[0].stage, step: pair[0].end_step });
        assert_eq!(pair[1].start_step, pair[0].end_step);
        assert_eq!(pair[1].schedule_start, pair[0].end_step);
        assert_eq!(pair[1].updates_start, pair[0].end_step);
        assert_eq!(pair[1].start_tokens, pair[0].end_step * 2_097_152);
    }
    let weights = recipe.weights_at(1);
    assert_eq!((weights[0], weights[1], weights[2], weights[3]), (0.45, 0.30, 0.20, 0.0));
}

#[test]
fn a_longer_context_has_four_tenths_of_long_documents() {
    for name in ["smollm2-135m", "smollm2-360m", "smollm2-1.7b"] {
        let recipe = load(name, &[]);
        let last = recipe.stages.len() - 3;
        assert_eq!(recipe.stages[last].kind, StageKind::ExtendContext);
        let (before, after) = (recipe.weights_at(last - 1), recipe.weights_at(last));
        let mut long = 0.0;
        for (i, dataset) in recipe.datasets.iter().enumerate() {
            match dataset.min_tokens {
                Some(least) => {
                    assert_eq!((least, before[i]), (8192, 0.0), "{name}");
                    long += after[i];
                }
                None => assert!((after[i] - 0.6 * before[i]).abs() < 1e-9, "{name}: {}", dataset.name),
            }
        }
        assert!((long - 0.4).abs() < 1e-9, "{name}");
    }
}

#[test]
fn microcosm_is_the_default_and_has_every_role_of_the_real_recipe() {
    let recipe = load(EMBEDDED[0].0, &[]);
    assert_eq!(recipe.name, "microcosm");
    let made: Vec<&str> = recipe.datasets.iter().filter_map(|dataset| dataset.microcosm.as_deref()).collect();
    let all = Register::ALL.into_iter().map(Register::name).chain(Answers::all().map(Answers::name));
    for name in all {
        assert!(made.contains(&name), "{name} is not in it");
    }
    let kinds: Vec<StageKind> = recipe.stages.iter().map(|stage| stage.kind).collect();
    let last = [StageKind::Sft, StageKind::Dpo];
    assert!(kinds.starts_with(&[StageKind::Pretrain; 2]) && kinds.ends_with(&last), "{kinds:?}");
}

#[test]
fn stages_take_whole_steps_and_may_change_rope_and_length() {
    let recipe = small(&["stages.decay.rope_theta=2e4"]).unwrap();
    assert_eq!(recipe.total_steps(), 130);
    let (peak, min, warmup_steps) = (3e-3, 0.0, 20);
    let wsd = Schedule::Wsd { peak, min, warmup_steps, decay_start: 104, decay_steps: 26 };
    assert_eq!(recipe.stage_schedules(), [wsd.clone(), wsd]);
    assert_eq!((recipe.model_at(0).rope_theta, recipe.model_at(1).rope_theta), (1e4, 2e4));
    assert_eq!(
        (recipe.seed, &recipe.held_out, &recipe.optimizer),
        (8, &HeldOutText::default(), &Optimizer::default())
    );

    let spans = small(&["stages.0.tokens=12_801", "stages.1.sequence_length=16"]).unwrap().spans();
    assert_eq!((spans[0].end_step, spans[1].start_tokens), (101, 101 * 128));
    assert_eq!((spans[1].tokens_per_step, spans[1].sequences_per_step), (64, 4));
    assert_eq!(spans[1].steps(), (16_640u64 - 101 * 128).div_ceil(64));
}

#[test]
fn a_resolved_recipe_loads_back_identical() {
    let dir = tempfile::tempdir().unwrap();
    for (name, _) in EMBEDDED {
        let recipe = load(name, &["checkpoint.every=7", "sample.prompts=['a', \"b\\n\"]", "name=again"]);
        let path = dir.path().join("recipe.toml");
        std::fs::write(&path, recipe.to_toml().unwrap()).unwrap();
        let again = load(path.to_str().unwrap(), &[]);
        assert_eq!(again, recipe);
        assert_eq!(again.hash(), recipe.hash());
    }
}

#[test]
fn the_hash_changes_with_the_result_and_with_nothing_else() {
    let hash = |set: &str| load("smollm2-135m", &[set]).hash();
    let original = load("smollm2-135m", &[]).hash();
    for set in [
        "name=other",
        "checkpoint.every=1",
        "checkpoint.keep=9",
        "batch.micro_batch=8",
        "held_out.every=5",
        "sample.tokens=5",
        "datasets.stack-edu.paths=elsewhere/stack-edu",
        "datasets.finemath.tokens=35B",
        "datasets.finemath.on_exhausted=redistribute",
    ] {
        assert_eq!(hash(set), original, "{set}");
    }
    for set in [
        "seed=9",
        "data_seed=9",
        "schedules.pretrain.peak_lr=2e-3",
        "batch.sequences=1024",
        "held_out.fraction=0.5",
        "datasets.finemath.paths=finemath-3plus",
        "datasets.finemath.paths=hf://datasets/other/finemath/finemath-3plus",
        "datasets.dclm-edu.score.keep=[0.0,0.25,1.0]",
        "datasets.dclm-edu.min_tokens=10",
        "datasets.finemath.on_broken=refuse",
        "model.initializer_std=0.02",
        "stages.0.rope_theta=1e5",
        "stages.0.tokens=2097153000000",
        "optimizer.betas=[0.9,0.99]",
    ] {
        assert_ne!(hash(set), original, "{set}");
    }
}

#[test]
fn relative_paths_start_at_the_recipe_and_those_of_overrides_at_the_current_folder() {
    let dir = tempfile::tempdir().unwrap();
    let text = SMALL.replacen("microcosm = \"tales\"\ndocuments = 30", "paths = [\"a.txt\", \"/b\"]", 1);
    let path = dir.path().join("r.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let recipe = load(path, &[]);
    assert_eq!(recipe.datasets[0].paths, [dir.path().join("a.txt"), std::path::absolute("/b").unwrap()]);
    let error = recipe.check_files(None).unwrap_err().to_string();
    assert!(error.contains("datasets.stories.paths") && error.contains("a.txt does not exist"), "{error}");
    let recipe = load(path, &["datasets.stories.paths=['c.txt']"]);
    assert_eq!(recipe.datasets[0].paths, [std::env::current_dir().unwrap().join("c.txt")]);
}

#[test]
fn names_that_are_no_recipe_are_answered_with_the_nearest() {
    let error = |name: &str| Recipe::load(name, &[]).unwrap_err();
    assert_eq!(
        error("smollm2-135").to_string(),
        "smollm2-135: neither a recipe's name nor a .toml file, nor text that exists; did you mean 'smollm2-135m'?"
    );
    let text = error("gpt").to_string();
    let known = "known: microcosm, smollm2-135m, smollm2-360m, smollm2-1.7b, finetune, preference";
    assert!(text.ends_with(known), "{text}");
    let missing = error("no/such.toml");
    assert!(matches!(missing, Error::Io { .. }) && missing.exit_code() == 2, "{missing}");
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), b"name = \"\xff\"").unwrap();
    assert!(error(file.path().to_str().unwrap()).to_string().contains("not UTF-8"));
}

#[test]
fn mistakes_in_values_name_line_key_and_remedy() {
    for (from, to, line, expected) in [
        ("peak_lr", "peek_lr", "peak_lr", ":1: unknown key 'peek_lr' in [schedule]; did you mean 'peak_lr'?"),
        ("peak_lr = 3e-3", "peak_lr = -1", "peak_lr", ":1: schedule.peak_lr is -1, but must be positive"),
        ("peak_lr = 3e-3", "peak_lr = nan", "peak_lr", ":1: schedule.peak_lr is NaN, but must be positive"),
        ("\"wsd\"", "\"wds\"", "\"wsd\"", ":8: schedule.kind is 'wds'; did you mean 'wsd'?"),
        ("\"wsd\"", "\"cosine\"", "decay_f", ":1: schedule.decay_fraction is only for kind = \"wsd\""),
        (
            "decay_fraction = 0.2",
            "",
            "[schedule]",
            ":2: schedule needs one of decay_steps and decay_fraction",
        ),
        (
            "decay_fraction = 0.2",
            "decay_steps = 120",
            "decay_f",
            ":1: schedule.decay_steps makes 120 steps of decay after 20 of warmup, but the run has only 130 steps",
        ),
        (
            "warmup_steps = 20",
            "warmup_steps = 131",
            "warmup",
            ":1: schedule.warmup_steps is 131, but the run has",
        ),
        (
            "sequences = 4",
            "sequences = 0",
            "sequences = 4",
            ":1: batch.sequences is 0, but must be at least 1",
        ),
        (
            "micro_batch = 0",
            "micro_batch = 3",
            "micro_batch",
            ":1: batch.micro_batch is 3, but must divide the 4 sequences of a batch, or be 0",
        ),
        ("every = 52", "every = 0", "every = 52", ":1: checkpoint.every is 0, but must be at least 1"),
        (
            "stories = 1.0",
            "storie = 1.0",
            "stories = 1.0",
            ":13: stages.0.mixture.storie names no dataset; did you",
        ),
        (
            "stories = 1.0",
            "stories = 0.9",
            "stories = 1.0",
            ":1: stages.0.mixture has weights that sum to 0.9, but",
        ),
        (
            "{ stories = 1.0 }",
            "{}",
            "stories = 1.0",
            ":1: stages.0.mixture is empty, but must share out the tokens",
        ),
        ("12_800", "0", "12_800", ":1: stages.0.tokens is 0, but must be at least 1"),
        ("16_640", "12_800", "16_640", ":1: stages.1.tokens is 12800, but must be above 12800: it counts"),
        ("12_800", "16_513", "16_640", ":1: stages.1.tokens is 16640, but must be above 16640: it counts"),
        (
            "\"decay\"",
            "\"stable\"",
            "\"decay\"",
            ":1: stages.1.name is 'stable', but an earlier stage has that name",
        ),
        (
            "\"pretrain\"",
            "\"extend_context\"",
            "\"pretrain\"",
            ":1: stages.0.kind is 'extend_context', but there is no stage before it to go on from",
        ),
        (
            "\"pretrain\"",
            "\"train\"",
            "\"pretrain\"",
            ":8: stages.0.kind is 'train'; known: pretrain, extend_context",
        ),
        (
            "sequence_length = 32",
            "sequence_length = 33",
            "sequence_length",
            ":1: stages.0.sequence_length is 33",
        ),
        (
            "num_key_value_heads = 2",
            "num_key_value_heads = 3",
            "num_key",
            ":1: model.num_key_value_heads is 3, but",
        ),
        (
            "train = {",
            "train2 = {",
            "train = {",
            ":1: unknown key 'train2' in [tokenizer]; did you mean 'train'?",
        ),
        ("train = {", "path = \"a\"\ntrain = {", "[tokenizer]", ":2: tokenizer needs one of path"),
        (
            "{ vocab_size = 64",
            "{ vocab_size = 999",
            "train = {",
            ":11: tokenizer.train.vocab_size is 999, but model.vocab_size is 64",
        ),
        ("[0.9, 0.95]", "[0.9, 1.0]", "betas", ":15: optimizer.betas.1 is 1, but must be from 0 to below 1"),
        (
            "[0.9, 0.95]",
            "[0.9]",
            "betas",
            ":9: optimizer.betas is length 1, but must be an array of length 2",
        ),
        ("documents = 30", "documents = 0", "documents = 30", ":1: datasets.0.documents is 0, but must"),
        ("documents = 30", "", "[[datasets]]", ":1: datasets.0.documents goes with microcosm"),
        (
            "documents = 30",
            "paths = [\"x\"]",
            "[[datasets]]",
            ":1: datasets.0 ('stories') needs one of microcosm",
        ),
        (
            "name = \"stories\"",
            "name = \"1\"",
            "name = \"stories\"",
            ":1: datasets.0.name is '1', but must be a letter",
        ),
        (
            "documents = 30",
            "on_broken = \"drop\"",
            "documents = 30",
            ":13: datasets.0.on_broken is 'drop'; known: ",
        ),
        (
            "temperature = 0.7",
            "temperature = inf",
            "temperature",
            ":1: sample.temperature is inf, but must not be",
        ),
        ("hidden_size = 16", "", "[model]", ":1: missing key 'hidden_size' in [model]"),
        (
            "[model]",
            "[model]\npreset = \"smollm2-1.7\"",
            "vocab",
            ":10: model.preset is 'smollm2-1.7'; did you mean",
        ),
        (
            "hidden_size",
            "prest = \"a\"\nhidden_size",
            "hidden_size",
            ":1: unknown key 'prest' in [model]; did you mean",
        ),
    ] {
        let error = changed(from, to).map(|_| ()).expect_err(to).to_string();
        let expected = format!("r.toml:{}{expected}", line_of(line));
        assert!(error.lines().any(|line| line.starts_with(&expected)), "{to:?}\n  {error}\n  {expected}");
        assert!(error.lines().all(|line| line.starts_with("r.toml:")), "{error}");
    }
}

#[test]
fn a_mistake_that_an_override_makes_names_the_override() {
    for (set, expected) in [
        ("batch.micro_batch=3", "batch.micro_batch is 3, but must divide the 4 sequences"),
        ("stages.stable.mixture.web=0.5", "stages.0.mixture.web names no dataset; known: stories"),
        ("datasets.0.microcosm=story", "datasets.0.microcosm is 'story'; known: lessons, "),
        ("model.head_dim=3", "model.head_dim is 3, but must be even"),
        ("stages.late.tokens=3", "there is no 'late' among the 2 there; known: stable, decay"),
    ] {
        let error = small(&[set]).unwrap_err().to_string();
        let expected = format!("--set {set}: {expected}");
        assert!(error.lines().any(|line| line.starts_with(&expected)), "{error}");
    }
}

#[test]
fn a_preset_takes_overrides_of_its_fields() {
    let recipe = load("smollm2-360m", &["model.num_hidden_layers=2", "model.preset=smollm2-135m"]);
    let preset = LlamaConfig::smollm2_135m();
    let expected = LlamaConfig { num_hidden_layers: 2, max_position_embeddings: 8192, ..preset };
    assert_eq!(recipe.model, expected);
}

#[test]
fn a_length_in_epochs_is_settled_when_the_text_is_counted() {
    let mut recipe = changed("tokens = 12_800", "epochs = 2.5").unwrap();
    assert!(recipe.describe().contains("about "), "{}", recipe.describe());
    let reread = |recipe: &Recipe| {
        let text = recipe.to_toml().unwrap();
        parse("r.toml", &text, Path::new(""), &[], &source::open_local).unwrap()
    };
    assert_eq!(reread(&recipe), recipe);
    recipe.settle_epochs(|_, _| 5_000).unwrap();
    // 12,500 tokens are 97 whole steps of 128.
    assert_eq!((recipe.stages[0].epochs, recipe.stages[0].tokens), (None, Some(97 * 128)));
    assert_eq!(reread(&recipe), recipe);
    // The stage after it would end where it begins.
    let mut recipe = changed("tokens = 12_800", "epochs = 2.5").unwrap();
    let error = recipe.settle_epochs(|_, _| 10_000).unwrap_err().to_string();
    assert!(error.contains("stages.1.tokens is 16640, but must be above"), "{error}");
}

#[test]
fn shares_of_a_schedule_may_fill_an_odd_number_of_steps() {
    let halves = |sum: &str, tokens: &str| {
        let text = SMALL.replacen("warmup_steps = 20\ndecay_fraction = 0.2", sum, 1);
        let text = text.replacen("16_640", tokens, 1);
        parse("r.toml", &text, Path::new(""), &[], &source::open_local)
    };
    let recipe = halves("warmup_fraction = 0.5\ndecay_fraction = 0.5", "16_512").unwrap();
    let Schedule::Wsd { warmup_steps, decay_start, decay_steps, .. } = recipe.stage_schedules()[0] else {
        panic!("another kind")
    };
    assert_eq!((warmup_steps <= decay_start, decay_start + decay_steps), (true, 129));
    let error = halves("warmup_fraction = 0.6\ndecay_fraction = 0.5", "16_512").unwrap_err().to_string();
    assert!(error.contains("warmup_fraction and decay_fraction sum to 1.1"), "{error}");
}

#[test]
fn a_vocabulary_follows_the_tokenizers_however_that_is_written() {
    for size in ["64", "\"64\"", "6.4e1"] {
        let text = SMALL.replacen("vocab_size = 64\nhidden", "hidden", 1);
        let text = text.replacen("{ vocab_size = 64", &format!("{{ vocab_size = {size}"), 1);
        let recipe = parse("r.toml", &text, Path::new(""), &[], &source::open_local);
        assert_eq!(recipe.unwrap().model.vocab_size, 64, "{size}");
    }
}

#[test]
fn one_line_describes_a_recipe() {
    assert_eq!(
        load("smollm2-1.7b", &[]).describe(),
        "smollm2-1.7b: 1.71B parameters, about 11.06T tokens in about 5275765 steps, 7 stages (stable-1, stable-2, \
         stable-3, decay, extend, chat, preferences)"
    );
    assert!(
        load("smollm2-135m", &[])
            .describe()
            .starts_with("smollm2-135m: 134.5M parameters, about 2.11T tokens")
    );
}

/// Whatever a file says, the answer is a recipe that can be asked about, or a few lines with their places.
#[test]
fn no_text_panics_or_answers_without_a_place() {
    let answer = |text: &str| match parse("r.toml", text, Path::new(""), &[], &source::open_local) {
        Ok(recipe) => {
            for span in recipe.spans() {
                let lr = recipe.stage_schedules()[span.stage].lr(span.schedule_start + span.steps());
                assert!(lr.is_finite() && span.steps() > 0 && !recipe.key(span.stage).is_empty(), "{text}");
            }
            assert!(!recipe.describe().is_empty() && recipe.kept_steps().is_sorted(), "{text}");
            recipe.to_toml().unwrap();
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.lines().count() <= 21, "{error}");
            assert!(error.lines().all(|line| line.starts_with("r.toml:")), "{error}");
        }
    };
    for text in [SMALL, &stages::text()] {
        for i in 0..text.len() {
            answer(&text[..i]);
            for wrong in ["\"", "]", "=", "\n", "0", "é"] {
                answer(&format!("{}{wrong}{}", &text[..i], &text[i + 1..]));
            }
        }
        for line in text.lines().filter(|line| line.contains('=')) {
            let key = line.split('=').next().unwrap();
            for value in [
                "0",
                "-1",
                "4611686018427387904",
                "9223372036854775807",
                "1e308",
                "nan",
                "[]",
                "{}",
                "''",
                "'base@1'",
                "true",
            ] {
                answer(&text.replace(line, &format!("{key} = {value}")));
            }
        }
    }
}
