//! T2: `smolter eval` and its library: choices are those of the highest probability, answers those that `generate` gives.

use crate::support::{Place, copy, devices, run, smolter};
use smolter::eval::runner::{Examinee, Form};
use smolter::eval::task::{Expected, Item, Task};
use smolter::graph::Backend;
use smolter::infer;
use smolter::infer::scorer::{Bucket, Output, Row, Scorer, ScorerGraph};
use smolter::model::ModelFolder;
use smolter::tokenizer::Tokenizer;
use std::path::PathBuf;

/// A model of a few thousand weights that has read a little about the village.
fn model(place: &Place) -> PathBuf {
    place.recipe(crate::support::RECIPE);
    run(&mut place.train("run", "reference", &["model.max_position_embeddings=256"])).expect(0, &[]);
    place.path("run/checkpoints/step-000012")
}

fn item(question: &str, expected: Expected) -> Item {
    Item { text: "Rex is a dog.".into(), question: question.into(), expected, guess: 0.5 }
}

#[test]
fn choices_and_answers_are_the_models_own() {
    let place = Place::new();
    let folder = model(&place);
    let prompt = |question: &str| format!("Rex is a dog.\n\nQuestion: {question}\nAnswer:");
    // What the program itself says, behind the end of a document as tasks are asked.
    let asked = ["Who is Rex?", "What is 3 + 4? And what is it if nobody asks?"];
    let said = asked.map(|question| {
        let text = format!("<|endoftext|>{}", prompt(question));
        let path = folder.to_string_lossy().into_owned();
        let flags = [
            "generate",
            &path,
            "--device",
            "reference",
            "-n",
            "9",
            "--stop",
            "\n",
            "--logprobs",
            "-p",
            &text,
        ];
        let line = run(&mut smolter(&flags)).expect(0, &[]).stdout;
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        line["text"].as_str().expect("a text").trim().to_owned()
    });
    let choices = ["a dog.", "a cat and then some more", "7"].map(String::from).to_vec();
    for device in devices() {
        let backend = Backend::open(device).expect("it opens");
        let opened = ModelFolder::open(&folder).expect("a model");
        let tokenizer = Tokenizer::load(&folder).expect("its tokenizer");
        let graph = ScorerGraph::new(&opened.architecture, &[Bucket { length: 128, rows: 1 }], Output::Nll);
        let store = infer::load(&backend, &opened, &[&graph.graph]).expect("the weights");
        let mut scorer = Scorer::new(&backend, graph, &store).expect("a scorer");
        let mut per_character = |choice: &String| {
            let prompt =
                [vec![tokenizer.eos_id()], tokenizer.encode(&prompt(asked[0])).expect("ids")].concat();
            let row = Row::ending(&prompt, &tokenizer.encode(&format!(" {choice}")).expect("ids"));
            let nll: f32 = scorer.score(&[row]).expect("a score")[0].iter().sum();
            -nll / choice.len() as f32
        };
        let values: Vec<f32> = choices.iter().map(&mut per_character).collect();
        let best = (0..3).max_by(|&a, &b| values[a].total_cmp(&values[b])).expect("three");
        let choice = |gold| item(asked[0], Expected::Choice { choices: choices.clone(), gold });
        let exact = |i: usize, text: &str| item(asked[i], Expected::Exact(text.into()));
        let items = vec![
            exact(1, &said[1]),
            choice(best),
            exact(0, &said[0]),
            choice((best + 1) % 3),
            exact(0, "certainly not this"),
        ];
        let examinee = Examinee::load(&backend, &opened, &tokenizer, Form::Plain).expect("it loads");
        let task = Task { name: "mixed".into(), items, max_tokens: 9 };
        let score = examinee.run(&task, &mut |_| ()).expect("a score");
        let right: Vec<bool> = score.answers.iter().map(|it| it.right).collect();
        assert_eq!(right, [true, true, true, false, false], "{device}: {score:#?}");
        assert!(
            (score.accuracy() - 0.6).abs() < 1e-12
                && (score.standard_error() - (0.24f64 / 4.0).sqrt()).abs() < 1e-12
        );
    }
}

#[test]
fn the_command_asks_about_the_runs_village() {
    let place = Place::new();
    let folder = model(&place).to_string_lossy().into_owned();
    let json = place.path("answers.json").to_string_lossy().into_owned();
    let flags = ["eval", &folder, "--device", "reference", "--limit", "4", "--json", &json];
    let told = run(&mut smolter(&flags)).expect(0, &[]).stdout;
    for word in ["facts-cloze", "needle-long", "preference", "5-gram (Kneser-Ney)", " sums "] {
        assert!(told.contains(word), "no {word} in:\n{told}");
    }
    let answers = std::fs::read_to_string(&json).expect("the file");
    let answers: serde_json::Value = serde_json::from_str(&answers).expect("JSON");
    let tasks = answers["tasks"].as_array().expect("tasks");
    assert_eq!((tasks.len(), answers["world"].as_u64()), (10, Some(8)));
    assert!(
        tasks.iter().all(|task| task["answers"].as_array().is_some_and(|all| all.len() == 4)),
        "{answers}"
    );
    // The same again; and other items with another seed.
    let again = |seed: &str| {
        let flags = ["eval", &folder, "--device", "reference", "--limit", "4", "--json", &json];
        run(smolter(&flags).args(["--tasks", "facts-cloze,preference", "--seed", seed])).expect(0, &[]);
        let text = std::fs::read_to_string(&json).expect("the file");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["tasks"].clone()
    };
    let same = again("0");
    assert_eq!((&same[0], &same[1]), (&tasks[1], &tasks[9]));
    assert_ne!(again("1")[1]["answers"], same[1]["answers"]);
}

#[test]
fn mistakes_are_told() {
    let place = Place::new();
    let folder = model(&place);
    let path = folder.to_string_lossy().into_owned();
    run(&mut smolter(&["eval", &path, "--tasks", "fact"])).expect(2, &["possible values", "facts"]);
    run(&mut smolter(&["eval", &path, "--limit", "0"])).expect(2, &["above 0"]);
    let apart = place.path("apart");
    copy(&folder, &apart);
    let apart = apart.to_string_lossy().into_owned();
    let flags = ["eval", &apart, "--device", "reference", "--tasks", "loss"];
    run(&mut smolter(&flags)).expect(2, &["no run folder", "leave out --tasks loss"]);
}
