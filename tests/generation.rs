//! T2: greedy continuations of the models of `fixtures/` are torch's, alone and side by side, with the cache and without.

use crate::support::{Place, devices, fixtures, run, smolter};
use serde::Deserialize;
use smolter::graph::Backend;
use smolter::infer::generator::{Choice, Generator, Sizes};
use smolter::model::ModelFolder;
use smolter::ops::sample::Sampling;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// Largest error of a log-probability, in nats.
const LOGPROB: f32 = 1e-4;

/// `greedy.json`: token ids of prompts, and what torch continues them with.
#[derive(Deserialize)]
struct Golden {
    prompts: Vec<Vec<u32>>,
    tokens: Vec<Vec<u32>>,
    logprobs: Vec<Vec<f32>>,
}

impl Golden {
    fn read(fixture: &Path) -> Golden {
        let text = std::fs::read_to_string(fixture.join("greedy.json")).expect("the fixture");
        let golden: Golden = serde_json::from_str(&text).expect("the fixture is as it was made");
        assert!(golden.prompts.len() == 3 && golden.tokens.iter().all(|row| row.len() == 24));
        golden
    }

    /// Tokens of the `i`th prompt and its continuation.
    fn whole(&self, i: usize) -> Vec<u32> {
        [self.prompts[i].clone(), self.tokens[i].clone()].concat()
    }
}

/// A generator with the weights of `model`; `chunk` is below the longest prompt, so that prefill takes several.
fn generator(backend: &Backend, model: &ModelFolder, batch: usize) -> Generator {
    Generator::load(backend, model, Sizes { batch, context: 48, chunk: 5 }).unwrap()
}

/// The likeliest next token of every sequence.
fn step(generator: &mut Generator, batch: usize) -> Vec<Choice> {
    let choices = generator.step(&Sampling::greedy(), &vec![0.0; batch], &vec![true; batch]).unwrap();
    choices.into_iter().map(|choice| choice.expect("the context has room")).collect()
}

/// What is wrong with the `i`th continuation, if anything.
fn difference(got: &[Choice], golden: &Golden, i: usize) -> Option<String> {
    let want = golden.tokens[i].iter().zip(&golden.logprobs[i]);
    if got.len() != want.len() {
        return Some(format!("{} tokens of {}", got.len(), want.len()));
    }
    let wrong = |(got, (&token, &logprob)): (&Choice, (&u32, &f32))| {
        let near = (got.logprob - logprob).abs() <= LOGPROB;
        (got.token != token || !near).then(|| format!("{got:?}, not {token} with {logprob}"))
    };
    got.iter().zip(want).find_map(wrong)
}

/// Calls `check` with every fixture on every device.
fn everywhere(check: impl Fn(&Backend, &ModelFolder, &Golden, &str)) {
    for device in devices() {
        let backend = Backend::open(device).unwrap();
        for fixture in fixtures() {
            let what = format!("{} on {device}", fixture.display());
            check(&backend, &ModelFolder::open(&fixture).unwrap(), &Golden::read(&fixture), &what);
        }
    }
}

#[test]
fn continuations_are_those_of_torch_alone_and_side_by_side() {
    everywhere(|backend, model, golden, what| {
        let rows = golden.prompts.len();
        let mut together = generator(backend, model, rows);
        together.prompt(&golden.prompts).unwrap();
        let steps: Vec<Vec<Choice>> = golden.tokens[0].iter().map(|_| step(&mut together, rows)).collect();
        let mut alone = generator(backend, model, 1);
        for (i, prompt) in golden.prompts.iter().enumerate() {
            let row: Vec<Choice> = steps.iter().map(|step| step[i]).collect();
            assert_eq!(difference(&row, golden, i), None, "{what}, prompt {i} side by side");
            alone.prompt(std::slice::from_ref(prompt)).unwrap();
            let row: Vec<Choice> = golden.tokens[i].iter().map(|_| step(&mut alone, 1)[0]).collect();
            assert_eq!(difference(&row, golden, i), None, "{what}, prompt {i} alone");
        }
    });
}

/// Every token again from a prompt of all before it, where nothing in the cache is of use: a prompt of another first
/// token comes between.
#[test]
fn the_cache_changes_nothing() {
    everywhere(|backend, model, golden, what| {
        let rows = golden.prompts.len();
        let mut generator = generator(backend, model, rows);
        let whole: Vec<Vec<u32>> = (0..rows).map(|i| golden.whole(i)).collect();
        let mut got = vec![Vec::new(); rows];
        for t in 0..golden.tokens[0].len() {
            let others: Vec<Vec<u32>> = whole.iter().map(|row| vec![(row[0] + 1) % 61; 2]).collect();
            generator.prompt(&others).unwrap();
            let prefixes: Vec<Vec<u32>> = whole
                .iter()
                .zip(&golden.prompts)
                .map(|(row, prompt)| row[..prompt.len() + t].to_vec())
                .collect();
            generator.prompt(&prefixes).unwrap();
            step(&mut generator, rows).into_iter().zip(&mut got).for_each(|(choice, row)| row.push(choice));
        }
        for (i, row) in got.iter().enumerate() {
            assert_eq!(difference(row, golden, i), None, "{what}, prompt {i}");
        }
    });
}

#[test]
fn planted_faults_are_seen() {
    let golden = Golden::read(&fixtures()[0]);
    let right: Vec<Choice> = golden.tokens[0]
        .iter()
        .zip(&golden.logprobs[0])
        .map(|(&token, &logprob)| Choice { token, logprob })
        .collect();
    assert_eq!(difference(&right, &golden, 0), None);
    let seen = |fault: &dyn Fn(&mut Vec<Choice>)| {
        let mut wrong = right.clone();
        fault(&mut wrong);
        difference(&wrong, &golden, 0).is_some()
    };
    assert!(seen(&|row| row[23].token ^= 1));
    assert!(seen(&|row| row[5].logprob += 1e-3));
    assert!(seen(&|row| row[5].logprob = f32::NAN));
    assert!(seen(&|row| row.truncate(23)));
    assert!(difference(&right, &golden, 1).is_some());
}

#[test]
fn prompts_come_from_anywhere_and_ends_are_told() {
    let place = Place::new();
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    let folder = place.path("run");
    let (model, file) = (folder.to_str().expect("UTF-8"), place.path("prompt.txt"));
    std::fs::write(&file, "7 + 5\n").expect("it is written");
    let generate =
        |arguments: &[&str]| smolter(&[&["generate", model, "--device", "reference"], arguments].concat());
    let expected = run(&mut generate(&["-p", "7 + 5", "-n", "4"])).expect(0, &["tokens/s"]).stdout;
    assert!(expected.starts_with("7 + 5"));
    let from_file =
        run(&mut generate(&["-f", file.to_str().expect("UTF-8"), "--max-tokens", "4"])).expect(0, &[]);
    assert_eq!(from_file.stdout, expected);
    let mut command = generate(&["--prompt", "-", "-n", "4"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(b"7 + 5\n").expect("it listens");
    assert_eq!(child.wait_with_output().expect("its output").stdout, expected.as_bytes());

    let reasons = |arguments: &[&str]| -> Vec<String> {
        let outcome = run(&mut generate(&[arguments, &["-p", "7", "--logprobs"]].concat())).expect(0, &[]);
        let lines =
            outcome.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        lines.map(|line| line["finish_reason"].as_str().expect("a reason").to_string()).collect()
    };
    assert_eq!(reasons(&["-n", "2"]), ["length"]);
    let varied = ["-n", "24", "--temperature", "5"];
    let text = run(&mut generate(&[&["-p", "7"], &varied[..]].concat()))
        .expect(0, &[])
        .stdout
        .trim_end()
        .to_string();
    let stop = text.chars().skip(1).find(|c| c.is_ascii_graphic()).expect("a character that can be typed");
    assert_eq!(reasons(&[&varied[..], &["--stop", &stop.to_string()]].concat()), ["stop"]);
    run(&mut generate(&["-p", "7", "-n", "900"])).expect(0, &["context of 32 tokens is full"]);
    for (flags, word) in [
        (["--temperature", "-1"], "a number of at least 0"),
        (["--top-k", "-1"], "a whole number of at least 0"),
        (["-n", "-1"], "a whole number of at least 0"),
    ] {
        let outcome = run(&mut generate(&[&["-p", "7"], &flags[..]].concat()));
        assert!(outcome.code == Some(2) && outcome.stderr.contains(word), "{outcome:#?}");
    }
    run(&mut generate(&["-p", "-", "-p", "-"])).expect(2, &["only one"]);
}
