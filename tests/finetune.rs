//! T2: the recipes that adapt a model: from somebody's conversations and pairs to a chat, and what is said of mistakes.

use crate::support::{Outcome, Place, devices, run, smolter};
use serde_json::json;
use smolter::train::metrics::{self, Metrics};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The model that is adapted: of the released ones' shape, but tiny.
const BASE: &str = r#"name = "base"

[model]
vocab_size = 320
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 400
initializer_std = 0.2

[tokenizer]
train = { vocab_size = 320, sample_documents = 40 }

[schedule]
kind = "constant"
peak_lr = 1e-3

[batch]
sequences = 2

[[datasets]]
name = "text"
paths = "text.jsonl"

[[stages]]
name = "text"
steps = 2
sequence_length = 32
mixture = { text = 1.0 }

[held_out]
fraction = 0
"#;

/// A conversation of each form, in turn.
fn conversation(i: usize) -> serde_json::Value {
    let (asked, said) = (format!("what is {i}?"), format!("it is {}.", "good ".repeat(i % 4)));
    match i % 5 {
        0 => {
            json!({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]})
        }
        1 => json!({"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]}),
        2 => json!({"prompt": asked, "completion": said}),
        3 => json!({"instruction": asked, "input": "", "output": said}),
        _ => json!({"system": "be kind.", "prompt": asked, "response": said}),
    }
}

/// A place with the model in `base`, and `chat.jsonl` and `pairs.jsonl`.
fn place() -> Place {
    let place = Place::new();
    let write = |name: &str, line: &dyn Fn(usize) -> serde_json::Value, count: usize| {
        let text: String = (0..count).map(|i| format!("{}\n", line(i))).collect();
        std::fs::write(place.path(name), text).expect("it is written");
    };
    write(
        "text.jsonl",
        &|i| json!({"text": format!("user: what is {i}? assistant: it is good. system")}),
        40,
    );
    write("chat.jsonl", &conversation, 30);
    let pair = |i: usize| json!({"prompt": format!("what is {i}?"), "chosen": "it is good.", "rejected": "n".repeat(1 + i % 9)});
    write("pairs.jsonl", &pair, 40);
    place.recipe(BASE);
    run(&mut place.train("base", "reference", &[])).expect(0, &[]);
    place
}

/// `smolter train RECIPE` on `file` of the place, from the model `from`.
fn adapt(place: &Place, recipe: &[&str], from: &str, file: &str, out: &str, more: &[&str]) -> Outcome {
    let mut command = smolter(&["train"]);
    command.args(recipe).arg("--out").arg(place.path(out));
    command.arg("--set").arg(format!("model.from={}", place.path(from).display()));
    command.arg("--set").arg(format!("datasets.mine.paths={}", place.path(file).display()));
    run(command.args(more))
}

fn lines(run: &Path) -> Vec<Metrics> {
    metrics::read(&run.join("metrics.jsonl")).expect("the metrics").collect()
}

/// The newest checkpoint of a run.
fn last(place: &Place, run: &str) -> PathBuf {
    let all = std::fs::read_dir(place.path(run).join("checkpoints")).expect("checkpoints").flatten();
    all.map(|entry| entry.path()).max().expect("a checkpoint")
}

fn adapter(place: &Place, run: &str) -> Vec<u8> {
    std::fs::read(last(place, run).join("adapter/adapter_model.safetensors")).expect("an adapter")
}

#[test]
fn conversations_make_a_model_that_answers() {
    let place = place();
    // More of them than a test has time for are not needed to learn them.
    let fast =
        ["--device", "reference", "--lr", "0.02", "--set", "checkpoint.every=3", "--set", "sample.tokens=4"];
    let outcome =
        adapt(&place, &["--recipe", "finetune"], "base", "chat.jsonl", "tuned", &fast).expect(0, &[]);
    for words in ["stage chat: trains", "rank 16", "smolter chat ", "for PEFT: "] {
        assert!(outcome.stdout.contains(words), "no '{words}' in {}", outcome.stdout);
    }
    let recipe = std::fs::read_to_string(place.path("tuned/recipe.toml")).expect("a recipe");
    let length = recipe.lines().find_map(|line| line.strip_prefix("sequence_length = ")).expect("a length");
    assert!(
        (60..190).contains(&length.parse::<u32>().expect("a number")) && !recipe.contains("fit_length"),
        "{recipe}"
    );
    let steps = lines(&place.path("tuned"));
    assert!(steps.len() >= 9 && steps[steps.len() - 1].loss < 0.7 * steps[0].loss, "{steps:?}");

    // By name alone, and cut off in the middle.
    let cut = [&fast[..], &["--until", "4"]].concat();
    adapt(&place, &["finetune"], "base", "chat.jsonl", "cut", &cut).expect(0, &[]);
    run(&mut place.resume("cut", "reference")).expect(0, &[]);
    assert!(adapter(&place, "cut") == adapter(&place, "tuned"), "resuming is not exact");
    // As few steps as are asked for, however long the conversations.
    let few =
        ["--device", "reference", "--steps", "2", "--set", "checkpoint.every=1", "--set", "sample.tokens=4"];
    adapt(&place, &["finetune"], "base", "chat.jsonl", "few", &few).expect(0, &[]);
    assert_eq!(lines(&place.path("few")).len(), 2);

    // What people do with it.
    let mut chat = smolter(&["chat", "--device", "reference", "--max-tokens", "4"]);
    run(chat.arg(place.path("tuned")).stdin(Stdio::null())).expect(0, &[]);
    let mut export = smolter(&["export", "--merge"]);
    run(export.arg(place.path("tuned")).arg("--out").arg(place.path("merged"))).expect(0, &[]);
    let mut answer =
        smolter(&["generate", "--chat", "--device", "reference", "--max-tokens", "4", "-p", "hi"]);
    run(answer.arg(place.path("merged"))).expect(0, &[]);
}

#[test]
fn pairs_shift_what_the_adapted_model_prefers() {
    for device in devices() {
        let place = place();
        let fast = [
            "--lr",
            "0.02",
            "--set",
            "checkpoint.every=3",
            "--set",
            "sample.tokens=4",
            "--set",
            "held_out.fraction=0.2",
            "--device",
            device,
        ];
        let outcome = adapt(&place, &["preference"], "base", "pairs.jsonl", "aligned", &fast).expect(0, &[]);
        for words in ["pairs are packed: ", "held-out pairs: loss"] {
            assert!(outcome.stdout.contains(words), "no '{words}' in {}", outcome.stdout);
        }
        let steps = lines(&place.path("aligned"));
        let (first, end) = (&steps[0], &steps[steps.len() - 1]);
        // The model without the adapter is what it is compared with: at first nothing is preferred.
        assert!((first.loss - 2f64.ln()).abs() < 1e-4, "{first:?}");
        assert!(end.loss < 0.5 && end.preference.is_some_and(|it| it.accuracy == 1.0), "{end:?}");
        let held_out = end.held_out_preference.expect("held-out pairs");
        assert!(held_out.accuracy > 0.9 && held_out.margin > 0.0, "{held_out:?}");
        let weights =
            |run: &str| std::fs::read(last(&place, run).join("model.safetensors")).expect("weights");
        assert!(weights("aligned") == weights("base"), "{device}: the base has changed");

        let cut = [&fast[..], &["--until", "4"]].concat();
        adapt(&place, &["--recipe", "preference"], "base", "pairs.jsonl", "cut", &cut).expect(0, &[]);
        run(&mut place.resume("cut", device)).expect(0, &[]);
        assert!(adapter(&place, "cut") == adapter(&place, "aligned"), "{device}: resuming is not exact");
        // A row for each answer: the same but for rounding.
        let alone = [&fast[..], &["--set", "stages.prefer.packing=false"]].concat();
        adapt(&place, &["preference"], "base", "pairs.jsonl", "alone", &alone).expect(0, &[]);
        for (packed, alone) in steps.iter().zip(lines(&place.path("alone"))).take(5) {
            let near = (packed.loss - alone.loss).abs() < 1e-3 * alone.loss.max(0.1);
            assert!(near, "{device}, step {}: {} packed, {} alone", alone.step, packed.loss, alone.loss);
            assert_eq!(packed.datasets["mine"].tokens, alone.datasets["mine"].tokens);
        }
    }
}

#[test]
fn what_is_not_given_is_told_with_the_flag_that_gives_it() {
    let place = place();
    for recipe in ["finetune", "preference"] {
        let train = |overrides: &[String]| {
            let mut command = smolter(&["train", "--recipe", recipe, "--device", "reference", "--out"]);
            command.arg(place.path("none"));
            overrides.iter().for_each(|set| {
                command.args(["--set", set]);
            });
            run(&mut command)
        };
        let from = format!("model.from={}", place.path("base").display());
        let paths = format!("datasets.mine.paths={}", place.path("chat.jsonl").display());
        let words = ["--set model.from=...", "--set datasets.mine.paths=..."];
        // Both at once, a line each.
        let nothing = train(&[]);
        assert!(nothing.code == Some(2) && nothing.stderr.lines().count() == 2, "{nothing:#?}");
        assert!(words.iter().all(|words| nothing.stderr.contains(words)), "{nothing:#?}");
        train(std::slice::from_ref(&from)).expect(2, &words[1..]).is_one_line();
        train(std::slice::from_ref(&paths)).expect(2, &words[..1]).is_one_line();
        train(&["model.from=nowhere".into(), paths]).expect(2, &["nowhere"]).is_one_line();
        let missing = train(&[from, "datasets.mine.paths=nowhere.jsonl".into()]);
        missing.expect(2, &["nowhere.jsonl"]).is_one_line();
        assert!(!place.path("none").exists());
        let listed = run(&mut smolter(&["recipes"])).expect(0, &[]).stdout;
        assert!(listed.contains(&format!("{recipe}: ")), "{listed}");
    }
}
