//! What recipes say of datasets, and of how much the stages take from them.

use super::*;

/// Two datasets, one of the Hub, and three stages: the last branches off the middle of the second.
const TEXT: &str = r#"name = "taken"

[model]
vocab_size = 64
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 4
max_position_embeddings = 128

[tokenizer]
path = "hf://owner/tokenizer"

[schedule]
kind = "constant"
peak_lr = 1e-3

[batch]
sequences = 8

[[datasets]]
name = "web"
paths = "hf://datasets/owner/web/data/*.parquet"
tokens = "1M"
max_epochs = 4

[[datasets]]
name = "code"
paths = ["hf://datasets/owner/code", "hf://datasets/owner/more@v2/c"]

[[stages]]
name = "short"
tokens = 1_024_000
sequence_length = 32
mixture = { web = 0.75, code = 0.25 }

[[stages]]
name = "next"
tokens = 2_048_000
sequence_length = 32
mixture = { web = 0.5, code = 0.5 }

[[stages]]
name = "long"
kind = "extend_context"
from = "next@6000"
tokens = 2_048_000
sequence_length = 128
rope_theta = 1e5
batch = { sequences = 2 }
mixture = { web = 1.0 }
"#;

fn with(overrides: &[&str]) -> Result<Recipe> {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    parse("r.toml", TEXT, Path::new("here"), &overrides, &source::open_local)
}

fn line(overrides: &[&str]) -> String {
    with(overrides).unwrap_err().to_string()
}

#[test]
fn names_of_the_hub_stay_and_one_path_needs_no_list() {
    let recipe = with(&[]).unwrap();
    assert_eq!(recipe.tokenizer.path, Some("hf://owner/tokenizer".into()));
    assert_eq!(recipe.datasets[0].paths, [PathBuf::from("hf://datasets/owner/web/data/*.parquet")]);
    assert_eq!(recipe.datasets[0].tokens, Some(1_000_000));
    assert!(recipe.missing_files().next().is_none());
    let again = parse("r", &recipe.to_toml().unwrap(), Path::new(""), &[], &source::open_local);
    assert_eq!(again.unwrap(), recipe);
    // One flag replaces a dataset.
    for set in ["datasets.web.paths=a.jsonl", "datasets.web.paths=['a.jsonl']"] {
        let recipe = with(&[set]).unwrap();
        assert_eq!(recipe.datasets[0].paths, [std::path::absolute("a.jsonl").unwrap()]);
    }
}

#[test]
fn mistakes_about_datasets_have_their_places() {
    for (set, words) in [
        (
            "datasets.web.paths=hf://owner/web",
            "datasets.0.paths.0 is 'hf://owner/web', which names no dataset",
        ),
        ("datasets.web.paths=hf://datasets/owner", "write hf://datasets/OWNER/NAME/PATTERN"),
        ("datasets.web.paths=['hf://datasets/a/b','src']", "datasets.0.paths has files of the Hub beside"),
        ("datasets.web.paths=7", "datasets.0.paths is integer 7, but must be a list"),
        ("datasets.web.tokens=0", "datasets.0.tokens is 0, but must be at least 1"),
        ("datasets.web.tokens=many", "datasets.0.tokens is string \"many\", but must be a whole number"),
        ("datasets.web.on_exhausted=stop", "datasets.0.on_exhausted is 'stop'; known: refuse, redistribute"),
        ("datasets.web.score={field='s'}", "missing key 'keep' in [datasets.0.score]"),
        (
            "datasets.web.score={field='s',keep=[0.5,2]}",
            "datasets.0.score.keep.1 is 2, but must be from 0 to 1",
        ),
        ("datasets.web.score={field='s',keep=[],a=1}", "unknown key 'a' in [datasets.0.score]"),
        ("tokenizer={train={vocab_size=64,sample_documents=9}}", "tokenizer.train reads all datasets"),
        (
            "stages.short.kind=extend_context",
            "stages.0.kind is 'extend_context', but there is no stage before it",
        ),
        ("stages.long.sequence_length=32", "must exceed the 32 of stage next, which it goes on from"),
        ("stages.next.kind=extend_context", "stages.1.sequence_length is 32, but a stage of kind"),
    ] {
        let error = line(&[set]);
        assert!(error.starts_with("--set ") || error.starts_with("r.toml:"), "{error}");
        assert!(error.contains(words) && error.lines().count() == 1, "{set}: {error}");
    }
}

#[test]
fn only_text_is_chosen_by_scores_and_lengths() {
    for (kind, what) in [("sft", "conversations"), ("dpo", "preference pairs")] {
        let stage = format!(
            "stages=[{{name='chat',kind='{kind}',tokens=1_000_000,sequence_length=32,mixture={{code=1.0}}}}]"
        );
        for (set, key) in [("score={field='a',keep=[0.5]}", "score"), ("min_tokens=5", "min_tokens")] {
            let error = line(&[&stage, "datasets.code.paths=src", &format!("datasets.code.{set}")]);
            let words = format!("datasets.1.{key} is for text, but 'code' is of {what}");
            assert!(error.contains(&words) && error.lines().count() == 1, "{error}");
        }
    }
}

/// Of a dataset of which `tokens` are taken.
fn is_a_little_more(needed: Option<u64>, tokens: u64) -> bool {
    needed.is_some_and(|needed| needed > tokens && needed < tokens + tokens / 50 + 1000)
}

#[test]
fn needs_follow_from_the_longest_way_through_the_stages() {
    // Web: 768,000 in the first stage. Then 512,000 more, or half of that and 512,000 of the branch.
    let needs = with(&[]).unwrap().needs();
    assert!(is_a_little_more(needs[0], 768_000 + 256_000 + 512_000), "{needs:?}");
    assert!(is_a_little_more(needs[1], 256_000 + 512_000), "{needs:?}");
    // What a cap takes from one, the other must give.
    let capped = ["datasets.web.max_epochs=1", "datasets.web.on_exhausted=redistribute"];
    let needs = with(&[&capped[..], &["stages.long.mixture={web=0.5,code=0.5}"]].concat()).unwrap().needs();
    assert!(is_a_little_more(needs[0], 1_000_000), "{needs:?}");
    assert!(is_a_little_more(needs[1], 1_048_000), "{needs:?}");
    // Half an epoch is a share of the whole.
    let half = ["datasets.web.max_epochs=0.5", "datasets.web.tokens=8M"];
    assert!(is_a_little_more(with(&half).unwrap().needs()[0], 2 * 1_536_000));
    // Of as many epochs as asked for, or where nothing is left to take from, all is needed.
    assert_eq!(
        with(&["stages.long={name='long',epochs=1,sequence_length=32,mixture={web=1.0}}"]).unwrap().needs(),
        [None, None]
    );
    // But for conversations.
    let chat =
        ["datasets.code.paths=code.jsonl", "stages.short.mixture={web=1.0}", "stages.next.mixture={web=1.0}"];
    let long = "stages.long={name='long',kind='sft',epochs=1,sequence_length=32,mixture={code=1.0}}";
    let needs = with(&[&chat[..], &[long]].concat()).unwrap().needs();
    assert!(is_a_little_more(needs[0], 2_048_000), "{needs:?}");
    assert_eq!(with(&[&capped[..], &["datasets.web.tokens=1000"]].concat()).unwrap().needs(), [None, None]);
}

#[test]
fn caps_are_refused_by_declared_sizes() {
    with(&["datasets.web.max_epochs=1.6"]).unwrap();
    let error = line(&["datasets.web.max_epochs=1.5"]);
    let place = "--set datasets.web.max_epochs=1.5: datasets.0.max_epochs is 1.5, ";
    assert!(error.starts_with(place) && error.lines().count() == 1, "{error}");
    for words in ["stage long", "1.54 epochs of the 1000000 tokens of web", "on_exhausted = \"redistribute\""]
    {
        assert!(error.contains(words), "{error}");
    }
    // The size that was declared, or none, or another answer, is no mistake.
    for set in ["datasets.web.tokens=2M", "datasets.web.on_exhausted=redistribute"] {
        with(&["datasets.web.max_epochs=1.5", set]).unwrap();
    }
    let recipe = with(&["datasets.web.tokens=1B"]).unwrap();
    let known = recipe.check_caps(2, &[90_000, 1 << 40], &[0, 0], 4000).unwrap_err().to_string();
    assert!(known.contains("recipe taken: datasets.web.max_epochs is 4, but"), "{known}");
    recipe.check_caps(2, &[190_000, 1 << 40], &[0, 0], 4000).unwrap();
}

#[test]
fn embedded_recipes_take_what_their_mixtures_say() {
    for (name, _) in EMBEDDED {
        let recipe = load(name, &[]);
        for span in recipe.spans() {
            let tokens: Vec<u64> = recipe.datasets.iter().map(|it| it.tokens.unwrap_or(1 << 50)).collect();
            let mixture = recipe.mixture(span.stage, &tokens, &vec![0; tokens.len()]).unwrap();
            let sequences = span.steps() * span.sequences_per_step as u64;
            let shares = mixture.shares(sequences).unwrap();
            let all = (sequences * recipe.stages[span.stage].window()) as f64;
            for (share, weight) in shares.iter().zip(recipe.weights_at(span.stage)) {
                let expected = all * weight;
                let difference = (share.tokens as f64 - expected).abs();
                assert!(difference <= 0.005 * expected, "{name}: {} of {expected}", share.tokens);
            }
        }
    }
}
