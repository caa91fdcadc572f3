//! T2: what is asked of a model while it is trained: the same as `smolter eval` asks afterwards, and the same again after
//! any interruption.

use crate::support::{Place, copy, devices, run, signal, smolter, spawn_until};
use serde_json::Value;
use smolter::checkpoint::folder;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Text, twice as long text with another theta, conversations with adapters, pairs: 4, 2, 3 and 2 steps.
const RECIPE: &str = r#"name = "tiny"

[model]
vocab_size = 384
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 192
initializer_std = 0.2

[tokenizer]
train = { vocab_size = 384, sample_documents = 60 }

[schedule]
kind = "constant"
peak_lr = 2e-3

[batch]
sequences = 2

[[datasets]]
name = "lessons"
microcosm = "lessons"
documents = 60

[[datasets]]
name = "drills"
microcosm = "drills"
documents = 60

[[datasets]]
name = "talk"
microcosm = "everyday"
documents = 20

[[datasets]]
name = "pairs"
microcosm = "pairs"
documents = 20

[[stages]]
name = "text"
steps = 4
sequence_length = 32
evaluate = ["facts", "preference", "loss"]
mixture = { lessons = 0.5, drills = 0.5 }

[[stages]]
name = "longer"
steps = 2
sequence_length = 64
rope_theta = 50_000
evaluate = ["preference", "facts"]
mixture = { lessons = 0.5, drills = 0.5 }

[[stages]]
name = "chat"
kind = "sft"
steps = 3
sequence_length = 64
rope_theta = 50_000
evaluate = ["constraints", "preference"]
lora = { rank = 2, alpha = 4 }
mixture = { talk = 1.0 }

[[stages]]
name = "prefer"
kind = "dpo"
steps = 2
sequence_length = 64
rope_theta = 50_000
mixture = { pairs = 1.0 }

[held_out]
fraction = 0.1
sequences = 2
every = 3

[checkpoint]
every = 100
keep = 1

[sample]
prompts = ["Where does Ada live?", "The"]
tokens = 6
temperature = 0

[evaluation]
items = 5
every = 128
seed = 3
"#;

/// Ends of the stages.
const ENDS: [u64; 4] = [4, 6, 9, 11];

/// Steps that are evaluated: the stages' ends but the last, and wherever 128 tokens are full in a stage that is.
const EVALUATED: [u64; 7] = [2, 4, 5, 6, 7, 8, 9];

fn place() -> Place {
    let place = Place::new();
    place.recipe(RECIPE);
    place
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn lines(path: &Path) -> Vec<Value> {
    text(path).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Everything that must be as in `whole`: weights, moments, metrics, scores, samples.
#[track_caller]
fn assert_same(place: &Place, name: &str) {
    let metrics =
        |run: &str| smolter::train::metrics::repeatable(&place.path(run).join("metrics.jsonl")).unwrap();
    assert!(place.state("whole", 11) == place.state(name, 11), "{name}: other weights");
    assert_eq!(metrics("whole"), metrics(name), "{name}: other metrics");
    for file in ["scores.jsonl", "samples.jsonl"] {
        assert_eq!(
            text(&place.path("whole").join(file)),
            text(&place.path(name).join(file)),
            "{name}: {file}"
        );
    }
}

#[test]
fn scores_are_those_of_eval() {
    for device in devices() {
        let place = place();
        let outcome = run(&mut place.train("run", device, &["checkpoint.keep=99"])).expect(0, &[]);
        let folder = place.path("run");
        let scores = lines(&folder.join("scores.jsonl"));
        let of = |step: u64| scores.iter().filter(move |line| line["step"] == step);
        let steps: Vec<u64> = (1..=11).filter(|&step| of(step).next().is_some()).collect();
        assert_eq!(steps, EVALUATED, "{device}");
        let names = |step: u64| of(step).map(|line| line["task"].as_str().unwrap()).collect::<Vec<_>>();
        // Those of the table, whatever the order in the recipe.
        assert_eq!(names(2), ["facts", "preference", "loss/lessons", "loss/drills"]);
        assert_eq!((names(6), names(9)), (vec!["facts", "preference"], vec!["constraints", "preference"]));
        let line = of(6).next().expect("a line");
        assert_eq!((&line["stage"], &line["tokens"]), (&"longer".into(), &512.into()));
        // What the program says of the same checkpoints afterwards.
        for (step, chat) in [(2, false), (4, false), (6, false), (9, true)] {
            let checkpoint = folder.join(format!("checkpoints/step-{step:06}"));
            let checkpoint = checkpoint.to_string_lossy();
            let json = place.path("answers.json");
            let tasks: Vec<&str> =
                names(step).iter().map(|name| name.split('/').next().expect("a name")).collect();
            let mut eval = smolter(&["eval", &checkpoint, "--device", device, "--limit", "5", "--seed", "3"]);
            eval.args(["--tasks", &tasks.join(",")]).arg("--json").arg(&json);
            run(if chat { eval.arg("--chat") } else { &mut eval }).expect(0, &[]);
            let told: Value = serde_json::from_str(&text(&json)).expect("JSON");
            let close = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5;
            for line in of(step) {
                assert_eq!(line["chat"], chat, "{line}");
                if let Some(dataset) = line["task"].as_str().unwrap().strip_prefix("loss/") {
                    let all = told["loss"].as_array().expect("losses");
                    let loss = all.iter().find(|loss| loss["dataset"] == dataset).expect("its loss");
                    assert!(close(&line["score"], &loss["model"]), "{device}: {line} {loss}");
                    assert!(close(&line["baseline"], &loss["ngram"]), "{device}: {line} {loss}");
                    assert!(close(&line["standard_error"], &loss["standard_error"]), "{line} {loss}");
                    continue;
                }
                let all = told["tasks"].as_array().expect("tasks");
                let task = all.iter().find(|task| task["task"] == line["task"]).expect("its task");
                assert!(close(&line["score"], &task["accuracy"]), "{device}, step {step}: {line} {task}");
                assert!(close(&line["guessing"], &task["guessing"]), "{line} {task}");
                assert_eq!(line["items"], task["answers"].as_array().expect("answers").len());
            }
        }
        for word in ["constraints", "loss/lessons", "above guessing", "5-gram", "longer"] {
            assert!(outcome.stdout.contains(word), "no {word} in {}", outcome.stdout);
        }
        assert!(outcome.stdout.lines().all(|line| !line.contains('±') || line.chars().count() <= 80));
    }
}

#[test]
fn samples_are_what_generate_writes() {
    let place = place();
    run(&mut place.train("run", "reference", &["checkpoint.keep=99"])).expect(0, &[]);
    let samples = lines(&place.path("run/samples.jsonl"));
    let ends: Vec<u64> = samples.iter().step_by(2).map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!((samples.len(), ends), (8, ENDS.to_vec()));
    for line in &samples {
        let checkpoint =
            place.path("run").join(format!("checkpoints/step-{:06}", line["step"].as_u64().unwrap()));
        let (checkpoint, prompt) = (checkpoint.to_string_lossy(), line["prompt"].as_str().unwrap());
        let chat = line["step"].as_u64() > Some(6);
        assert_eq!(line["chat"], chat);
        let mut generate =
            smolter(&["generate", &checkpoint, "--device", "reference", "--logprobs", "-n", "6"]);
        generate.args(["-p", prompt]);
        let told = run(if chat { generate.arg("--chat") } else { &mut generate }).expect(0, &[]).stdout;
        let told: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(line["text"], told["text"], "{line}");
    }
}

#[test]
fn what_is_cut_off_comes_again_as_it_was() {
    for device in devices() {
        let place = place();
        let keep = ["checkpoint.keep=99"];
        run(&mut place.train("whole", device, &keep)).expect(0, &[]);
        let whole = place.path("whole");
        // Killed behind a checkpoint: before its scores (between stages, in a stage with adapters, before these are
        // merged), or long after them.
        for (step, scored) in [(4, false), (5, true), (8, false), (9, false)] {
            let name = format!("cut-{step}");
            let broken = place.path(&name);
            copy(&whole, &broken);
            for (later, path) in folder::list(&broken).expect("checkpoints") {
                if later > step {
                    std::fs::remove_dir_all(path).expect("a checkpoint");
                }
            }
            for file in ["scores.jsonl", "samples.jsonl"].into_iter().filter(|_| !scored) {
                let path = broken.join(file);
                let before = |line: &&str| {
                    serde_json::from_str::<Value>(line).expect("JSON")["step"].as_u64() < Some(step)
                };
                let kept: String =
                    text(&path).lines().filter(before).map(|line| line.to_string() + "\n").collect();
                std::fs::write(path, kept).expect("the file");
            }
            run(&mut place.resume(&name, device)).expect(0, &[]);
            assert_same(&place, &name);
        }
    }
}

#[test]
fn stops_and_kills_change_nothing() {
    let place = place();
    // Evaluations take most of the time.
    let many = ["evaluation.items=16", "evaluation.every=0", "stages.text.evaluate=['arithmetic']"];
    run(&mut place.train("whole", "reference", &many)).expect(0, &[]);
    for (name, by, code) in [("int", "-INT", Some(130)), ("kill", "-KILL", None)] {
        let mut child = spawn_until(&mut place.train(name, "reference", &many), &place.path(name), 4);
        std::thread::sleep(Duration::from_millis(100));
        signal(&child, by);
        let status = child.wait().expect("its end");
        // A quick machine may have come to the end.
        assert!(status.code() == code || status.success(), "{name}: {status}");
        run(place.resume(name, "reference").stdout(Stdio::null())).expect(0, &[]);
        assert_same(&place, name);
    }
    // A stop at a stage's end, and at the last step.
    for until in [4, 11] {
        let name = format!("until-{until}");
        run(place.train(&name, "reference", &many).args(["--until", &until.to_string()])).expect(0, &[]);
        run(&mut place.resume(&name, "reference")).expect(0, &[]);
        assert_same(&place, &name);
    }
}

#[test]
fn a_stage_without_held_out_text_has_no_losses() {
    let place = place();
    let none = [
        "held_out.fraction=0",
        "evaluation.every=0",
        "stages.text.evaluate=['microcosm']",
        "evaluation.items=2",
        "evaluation.items_of={arithmetic=3}",
    ];
    run(&mut place.train("run", "reference", &none)).expect(0, &[]);
    let scores = lines(&place.path("run/scores.jsonl"));
    let at_end = |step: u64| scores.iter().filter(|line| line["step"] == step).count();
    assert_eq!((at_end(4), at_end(6), scores.len()), (10, 2, 14));
    assert!(scores.iter().all(|line| line["items"] == if line["task"] == "arithmetic" { 3 } else { 2 }));
    assert!(!text(&place.path("run/scores.jsonl")).contains("loss/"));
    let loss = ["held_out.fraction=0", "stages.text.evaluate=['loss']"];
    run(&mut place.train("no", "reference", &loss)).expect(2, &["evaluate", "held_out.fraction"]);
    let typo = ["stages.chat.evaluate=['fact']"];
    run(&mut place.train("no", "reference", &typo))
        .expect(2, &["stages.2.evaluate.0", "did you mean 'facts'?"]);
    run(&mut place.train("no", "reference", &["evaluation.items=0"])).expect(2, &["evaluation.items"]);
    for set in ["evaluation.items_of={facts=0}", "evaluation.items_of={fact=3}"] {
        run(&mut place.train("no", "reference", &[set])).expect(2, &["evaluation.items_of.fact"]);
    }
    run(&mut place.train("no", "reference", &["evaluation.item=1"])).expect(2, &["did you mean 'items'?"]);
    assert!(!place.path("no").exists());
}

#[test]
fn held_out_losses_of_each_dataset_are_kept() {
    let place = Place::new();
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    let metrics = lines(&place.path("run/metrics.jsonl"));
    for line in &metrics {
        let measured = line["step"].as_u64().unwrap().is_multiple_of(6);
        assert_eq!(line.get("held_out_datasets").is_some(), measured, "{line}");
        let Some(losses) = line.get("held_out_datasets").and_then(Value::as_object) else { continue };
        assert_eq!(losses.keys().collect::<Vec<_>>(), ["facts", "sums"]);
        // Each has as many sequences here, so that the mean is that of both.
        let mean = losses.values().map(|loss| loss.as_f64().unwrap()).sum::<f64>() / 2.0;
        assert!((mean - line["held_out_loss"].as_f64().unwrap()).abs() < 1e-6, "{line}");
    }
    // Files of before the key existed.
    let old: String = metrics
        .iter()
        .cloned()
        .map(|mut line| {
            line.as_object_mut().expect("an object").remove("held_out_datasets");
            line.to_string() + "\n"
        })
        .collect();
    std::fs::write(place.path("run/metrics.jsonl"), old).expect("metrics");
    let show = smolter(&["runs", "show"]).arg(place.path("run")).output().expect("it runs");
    assert!(show.status.success() && String::from_utf8_lossy(&show.stdout).contains("held-out"));
}
