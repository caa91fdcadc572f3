//! T2: fine-tuning on conversations: whole runs, exact resume, and what a step sees, against `transformers`.

use crate::support::{Place, devices, run, smolter};
use serde_json::{Value, json};
use std::path::Path;

/// Four steps on text, then two passes over 38 conversations, four at a time.
const RECIPE: &str = r#"name = "tiny-sft"

[model]
vocab_size = 400
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
max_position_embeddings = 64
rope_theta = 10_000
rms_norm_eps = 1e-5
tie_word_embeddings = true
initializer_std = 0.1

[tokenizer]
train = { vocab_size = 400, sample_documents = 60 }

[schedule]
kind = "constant"
peak_lr = 3e-3
warmup_steps = 2

[batch]
sequences = 4

[[datasets]]
name = "facts"
microcosm = "lessons"
documents = 40

[[datasets]]
name = "chat"
paths = ["chat.jsonl"]
on_broken = "skip"

[[stages]]
name = "base"
steps = 4
sequence_length = 32
mixture = { facts = 1.0 }

[[stages]]
name = "chat"
kind = "sft"
epochs = 2
sequence_length = 64
reset_optimizer = true
mixture = { chat = 1.0 }

[held_out]
fraction = 0.1
sequences = 4
every = 4

[checkpoint]
every = 100

[sample]
prompts = ["what is 3 plus 4?"]
tokens = 8
"#;

/// Conversations in four forms; the sixth and the seventh are broken.
fn chat() -> String {
    let record = |i: usize| {
        let (a, b) = (i % 9, i * 7 % 9);
        let (question, answer) = (format!("what is {a} plus {b}?"), format!("It is {}.", a + b));
        let said = |role: &str, content: &str| json!({"role": role, "content": content});
        match i % 4 {
            _ if i == 5 => json!({"messages": [said("wizard", "no")]}),
            0 => {
                let more = [said("user", "and more?"), said("assistant", &answer)];
                let turns = [said("system", "You add."), said("user", &question), said("assistant", &answer)];
                let all: Vec<Value> = turns.into_iter().chain(more).collect();
                json!({"messages": all})
            }
            1 => json!({"system": "You add.", "conversations": [
                {"from": "human", "value": question}, {"from": "gpt", "value": answer}]}),
            2 => json!({"system": "You add.", "prompt": question, "response": answer}),
            _ => json!({"system": "You add.", "instruction": "Add.", "input": question, "output": answer}),
        }
    };
    (0..40).map(|i| if i == 6 { "{\n".into() } else { format!("{}\n", record(i)) }).collect()
}

fn place() -> Place {
    let place = Place::new();
    place.recipe(RECIPE);
    std::fs::write(place.path("chat.jsonl"), chat()).expect("the conversations are written");
    place
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// The losses of a run, step by step.
fn losses(place: &Place, name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(place.path(name).join("metrics.jsonl")).expect("metrics");
    let loss =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["loss"].as_f64().expect("a loss");
    text.lines().map(loss).collect()
}

/// The number of steps that a run has done.
fn steps(place: &Place, name: &str) -> u64 {
    losses(place, name).len() as u64
}

#[test]
fn a_base_model_becomes_a_chat_model_and_a_resumed_run_is_the_same_to_the_bit() {
    let rows = ["stages.chat.packing=false", "stages.chat.loss_on=assistant"];
    let masked = ["stages.chat.document_mask=true", "stages.base.document_mask=true"];
    for device in devices() {
        for (name, overrides) in [("packed", &[][..]), ("rows", &rows), ("masked", &masked)] {
            let place = place();
            let words = [
                "2 broken records skipped",
                "chat.jsonl: line 6: the role of message 1 is \"wizard\"",
                "line 7",
            ];
            run(&mut place.train("whole", device, overrides)).expect(0, &words);
            let samples = std::fs::read_to_string(place.path("whole/samples.jsonl")).expect("samples");
            let chat: Vec<bool> = samples.lines().map(|line| line.contains("\"chat\":true")).collect();
            assert_eq!(chat, [false, true], "{name}: {samples}");
            let (steps, losses) = (steps(&place, "whole"), losses(&place, "whole"));
            assert!(losses[losses.len() - 1] < losses[4] - 0.2, "{name} on {device}: {losses:?}");
            for until in [4, 7] {
                let stopped = format!("stopped-{until}");
                let until = until.to_string();
                let outcome =
                    run(place.train(&stopped, device, overrides).args(["--until", &until])).expect(0, &[]);
                // What was left out of tokens that runs share is told by each of them.
                assert!(
                    [", shared", words[0], words[1]].iter().all(|it| outcome.stdout.contains(it)),
                    "{outcome:?}"
                );
                run(&mut place.resume(&stopped, device)).expect(0, &[]);
                assert!(
                    place.state("whole", steps) == place.state(&stopped, steps),
                    "{name} on {device}: resumed after step {until}, it differs"
                );
            }
            let checkpoint = |step: u64| place.path(&format!("whole/checkpoints/step-{step:06}"));
            let base = read(&checkpoint(4).join("tokenizer_config.json"));
            assert_eq!((&base["chat_template"], &base["eos_token"]), (&Value::Null, &json!("<|endoftext|>")));
            let tuned = checkpoint(steps);
            let config = read(&tuned.join("tokenizer_config.json"));
            assert!(config["chat_template"].as_str().is_some_and(|it| it.contains("add_generation_prompt")));
            let roles = ["bos_token", "eos_token", "pad_token"].map(|role| config[role].as_str());
            assert_eq!(roles, [Some("<|im_start|>"), Some("<|im_end|>"), Some("<|im_end|>")]);
            for file in ["config.json", "generation_config.json"] {
                let ids = ["bos_token_id", "eos_token_id", "pad_token_id"]
                    .map(|key| read(&tuned.join(file))[key].as_u64());
                assert_eq!(ids, [Some(1), Some(2), Some(2)], "{file}");
            }
        }
    }
}

/// What `debug batch` writes of the first step of the stage `chat`.
fn batch(place: &Place, overrides: &[&str]) -> (Value, String) {
    let mut command = smolter(&["debug", "batch", "--stage", "chat", "--recipe"]);
    command.arg(place.path("tiny.toml")).arg("--out").arg(place.path("batch.json"));
    overrides.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    let outcome = run(&mut command).expect(0, &[]);
    (read(&place.path("batch.json")), outcome.stdout)
}

fn numbers(value: &Value) -> Vec<i64> {
    value.as_array().expect("a list").iter().map(|it| it.as_i64().expect("a number")).collect()
}

#[test]
fn tokens_and_judged_tokens_are_those_of_transformers() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let place = place();
    std::fs::copy(fixtures.join("conversations/chat.jsonl"), place.path("chat.jsonl")).expect("a copy");
    let tokenizer = format!("tokenizer={{path = {:?}}}", fixtures.join("tokenizer/tokenizer.json"));
    let expected = read(&fixtures.join("conversations/expected.json"));
    let mut expected: Vec<(Vec<i64>, Vec<i64>)> = expected
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (numbers(&row["ids"]), numbers(&row["judged"])))
        .collect();
    let count = format!("batch.sequences={}", expected.len());
    let common = [
        tokenizer.as_str(),
        &count,
        "held_out.fraction=0",
        "model.max_position_embeddings=200",
        "stages.chat.sequence_length=200",
        "stages.chat.packing=false",
    ];
    let rows = |loss_on: &str| {
        let loss = format!("stages.chat.loss_on={loss_on}");
        let (file, shown) = batch(&place, &[&common[..], &[loss.as_str()]].concat());
        let mut rows: Vec<(Vec<i64>, Vec<i64>)> = file["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| {
                let length = row["length"].as_u64().expect("a length") as usize;
                let (ids, labels) = (numbers(&row["input_ids"]), numbers(&row["labels"]));
                assert_eq!((ids.len(), labels.len()), (200, 200));
                assert!(labels[length - 1..].iter().all(|&label| label == -100), "padding is judged");
                assert!(
                    (0..length - 1).all(|t| labels[t] == -100 || labels[t] == ids[t + 1]),
                    "a label is not the next token"
                );
                let judged = (0..length).map(|t| i64::from(t > 0 && labels[t - 1] >= 0)).collect();
                (ids[..length].to_vec(), judged)
            })
            .collect();
        rows.sort();
        let weights = file["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .flat_map(|row| row["weights"].as_array().expect("a list"));
        let sum: f64 = weights.map(|weight| weight.as_f64().expect("a weight")).sum();
        assert!((sum - 1.0).abs() < 1e-9, "weights sum to {sum}");
        (rows, shown)
    };
    expected.sort();
    let (ours, shown) = rows("assistant");
    assert_eq!(ours, expected);
    assert!(shown.contains("assistant\n\u{27e6}42<|im_end|>\u{27e7}\n"), "{shown}");
    // A fault is seen.
    let judged = &mut expected[0].1;
    let end = judged.iter().rposition(|&it| it == 1).expect("a judged token");
    judged[end] = 0;
    assert_ne!(ours, expected);
    expected[0].1[end] = 1;
    // All of them, but for the first, which nothing foretells.
    let (ours, _) = rows("all");
    for ((ids, judged), (expected, _)) in ours.iter().zip(&expected) {
        assert_eq!(ids, expected);
        assert_eq!(judged.iter().sum::<i64>() as usize, ids.len() - 1);
    }
}

#[test]
fn packed_conversations_follow_one_another_and_a_mask_divides_them() {
    let place = place();
    let common = ["held_out.fraction=0", "batch.sequences=8"];
    let (file, _) = batch(&place, &common);
    let mut ends = 0;
    for row in file["rows"].as_array().expect("rows") {
        let (ids, labels) = (numbers(&row["input_ids"]), numbers(&row["labels"]));
        assert_eq!(ids[1..], labels[..63]);
        ends += ids.iter().filter(|&&id| id == 0).count();
        assert_eq!(numbers(&row["positions"]), (0..64).collect::<Vec<i64>>());
        assert_eq!(numbers(&row["segments"]), vec![0; 64]);
    }
    assert!(ends >= 4, "{ends} conversations end in eight windows");
    let (masked, _) = batch(&place, &[&common[..], &["stages.chat.document_mask=true"]].concat());
    for (row, whole) in
        masked["rows"].as_array().expect("rows").iter().zip(file["rows"].as_array().expect("rows"))
    {
        assert_eq!(row["input_ids"], whole["input_ids"]);
        let (ids, labels) = (numbers(&row["input_ids"]), numbers(&row["labels"]));
        let (mut position, mut segment) = (0, 0);
        for t in 0..64 {
            assert_eq!(
                (numbers(&row["positions"])[t], numbers(&row["segments"])[t]),
                (position, segment),
                "token {t}"
            );
            position += 1;
            if ids[t] == 0 {
                assert_eq!(labels[t], -100, "a conversation foretells the next");
                (position, segment) = (0, segment + 1);
            }
        }
    }
    // Judged on the assistant alone, the end of text is none of its words.
    let (said, _) = batch(&place, &[&common[..], &["stages.chat.loss_on=assistant"]].concat());
    let labels: Vec<i64> =
        said["rows"].as_array().expect("rows").iter().flat_map(|row| numbers(&row["labels"])).collect();
    assert!(labels.contains(&2) && !labels.contains(&0) && !labels.contains(&1), "{labels:?}");
}

#[test]
fn text_between_conversations_is_learned_as_in_pretraining() {
    let place = place();
    let replay = ["stages.chat.mixture={chat = 0.5, facts = 0.5}", "datasets.facts.replay=true"];
    let said = ["held_out.fraction=0", "batch.sequences=8", "stages.chat.loss_on=assistant"];
    for more in [&[][..], &["stages.chat.document_mask=true"], &["stages.chat.packing=false"]] {
        let (file, _) = batch(&place, &[&replay[..], &said, more].concat());
        let rows = file["rows"].as_array().expect("rows");
        let of = |name: &str| rows.iter().filter(|row| row["dataset"] == name).collect::<Vec<_>>();
        let (text, chat) = (of("facts"), of("chat"));
        assert_eq!((text.len(), chat.len()), (4, 4), "{more:?}");
        for row in text {
            let (ids, labels) = (numbers(&row["input_ids"]), numbers(&row["labels"]));
            assert_eq!(ids.len(), 64);
            // Every token, but for the first one of a document that sees no other.
            let begun = |t: usize| more.contains(&"stages.chat.document_mask=true") && ids[t] == 0;
            assert!((0..63).all(|t| labels[t] == if begun(t) { -100 } else { ids[t + 1] }), "{row}");
            assert!(!ids.contains(&1), "text has no template: {row}");
        }
        for row in chat {
            assert!(numbers(&row["labels"]).contains(&-100), "{row}");
        }
    }
    // What is held out of it is judged there too; and a run goes on as it would have.
    let rows = [&replay[..], &["stages.chat.packing=false", "stages.chat.loss_on=assistant"]].concat();
    let whole = run(&mut place.train("whole", "reference", &rows)).expect(0, &[]);
    assert!(whole.stdout.contains("facts"), "{}", whole.stdout);
    run(place.train("stopped", "reference", &rows).args(["--until", "7"])).expect(0, &[]);
    run(&mut place.resume("stopped", "reference")).expect(0, &[]);
    let steps = steps(&place, "whole");
    assert!(place.state("whole", steps) == place.state("stopped", steps));
    let columns = [&replay[..], &["datasets.facts.columns={messages = 'a'}"]].concat();
    for (overrides, words) in [
        (&["stages.chat.mixture={facts = 1.0}", replay[1]][..], "no conversations, only text"),
        (&columns, "datasets.facts.columns"),
        (&replay[..1], "replay = true"),
    ] {
        run(&mut place.train("bad", "reference", overrides)).expect(2, &[words]);
    }
}

#[test]
fn what_does_not_fit_is_one_line() {
    let place = place();
    for (overrides, words) in [
        (
            &["stages.chat.packing=false", "stages.chat.sequence_length=4"][..],
            &["stage chat", "chat has an answer within 4 tokens"][..],
        ),
        (&["stages.chat.mixture={facts = 1.0}"], &["text in stage 'base' and conversations in stage 'chat'"]),
        (&["stages.base.mixture={chat = 1.0}"], &["chat", "text in stage 'base'"]),
        (&["stages.base.packing=false"], &["stages.base.packing", "only for kind = \"sft\""]),
        (&["stages.chat.packing=false", "stages.chat.document_mask=true"], &["document_mask", "packing"]),
        (&["datasets.chat.on_broken=refuse"], &["chat.jsonl: line 6", "wizard", "on_broken"]),
        (&["datasets.facts.decontaminate=['a.jsonl']"], &["datasets.facts.decontaminate", "conversations"]),
        (&["datasets.chat.decontaminate=['a.jsonl']"], &["decontaminate", "a.jsonl, which does not exist"]),
        (&["tokenizer.chat_template=own"], &["tokenizer.chat_template", "smollm2"]),
        (&["datasets.chat.columns={mesages = 'chat'}"], &["messages"]),
    ] {
        let name = overrides.join(" ");
        let outcome = run(&mut place.train(&name.replace(['/', '.'], "-"), "reference", overrides));
        outcome.expect(2, words);
    }
}
