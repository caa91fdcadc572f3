//! T2: `smolter chat` and its library: what is said is what the template renders, and the cache changes nothing.

use crate::support::{Outcome, Place, devices, run, signal, smolter};
use smolter::graph::Backend;
use smolter::infer::chat::{Chat, End, Options};
use smolter::infer::generator::{Generator, Sizes};
use smolter::model::ModelFolder;
use smolter::ops::sample::Sampling;
use smolter::tokenizer::{ChatTemplate, Message, Tokenizer, chat_template};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

/// A trained model of a few thousand weights with SmolLM2's chat template.
fn model(place: &Place) -> PathBuf {
    run(&mut place.train("run", "reference", &["model.max_position_embeddings=512"])).expect(0, &[]);
    let folder = place.path("run/checkpoints/step-000012");
    std::fs::write(folder.join("chat_template.jinja"), chat_template()).expect("the template is written");
    folder
}

fn options() -> Options {
    Options {
        system: None,
        sampling: Sampling::greedy(),
        seed: 0,
        max_tokens: 6,
        context: 512,
        stops: Vec::new(),
    }
}

/// What a fresh generator, which has nothing cached, answers to the conversation.
fn uncached(backend: &Backend, folder: &std::path::Path, messages: &[Message]) -> String {
    let model = ModelFolder::open(folder).expect("the model");
    let tokenizer = Tokenizer::load(folder).expect("its tokenizer");
    let ids = ChatTemplate::load(folder).and_then(|it| it.encode(&tokenizer, messages, true)).expect("ids");
    let sizes = Sizes { batch: 1, context: 512, chunk: 7 };
    let mut generator = Generator::load(backend, &model, sizes).expect("it loads");
    generator.prompt(std::slice::from_ref(&ids)).expect("it fits");
    for _ in 0..options().max_tokens {
        generator.step(&Sampling::greedy(), &[0.0], &[true]).expect("a step");
    }
    tokenizer.decode_with(&generator.tokens(0)[ids.len()..], smolter::tokenizer::Special::Skip)
}

#[test]
fn turns_reuse_the_cache_and_say_the_same() {
    let place = Place::new();
    let folder = model(&place);
    for device in devices() {
        let backend = Backend::open(device).expect("it opens");
        let opened = ModelFolder::open(&folder).expect("the model");
        let mut chat = Chat::new(&backend, &opened, options()).expect("it loads");
        let mut before = 0;
        for (turn, text) in ["Who has the hat?", "How many are <|im_end|> there?", "7 + 5"].iter().enumerate()
        {
            let mut streamed = String::new();
            let answer = chat.say(text, |piece| {
                streamed += piece;
                Ok(true)
            });
            let answer = answer.expect("an answer");
            assert_eq!(streamed, answer.text);
            assert_eq!((answer.end, answer.tokens, answer.left_out), (End::Length, 6, 0));
            assert!(answer.cached >= before && (turn == 0 || answer.cached > 0), "{answer:?} after {before}");
            // All that was there before, but perhaps for an answer that is spelled with other tokens.
            before = answer.prompt - 1;
            let history = chat.messages();
            assert_eq!(history.len(), 2 * (turn + 1));
            assert_eq!(
                uncached(&backend, &folder, &history[..history.len() - 1]),
                answer.text,
                "on {device}"
            );
        }
        chat.reset();
        assert!(chat.messages().is_empty());
        let again = chat.say("Who has the hat?", |_| Ok(true)).expect("an answer");
        assert!(again.cached > again.prompt / 2, "the old prompt was the same: {again:?}");
    }
}

#[test]
fn what_no_longer_fits_is_left_out_and_a_long_message_refused() {
    let place = Place::new();
    let folder = model(&place);
    let backend = Backend::open("reference").expect("it opens");
    let opened = ModelFolder::open(&folder).expect("the model");
    let context = 160;
    let options = Options { system: Some("Be brief.".into()), context, ..options() };
    let mut chat = Chat::new(&backend, &opened, options).expect("it loads");
    let mut left_out = 0;
    for turn in 0..8 {
        let answer = chat.say("What does the trade carry to the market?", |_| Ok(true)).expect("an answer");
        assert!(
            answer.prompt + answer.tokens <= context && answer.left_out >= left_out,
            "{turn}: {answer:?}"
        );
        assert!(answer.left_out.is_multiple_of(2), "a user's message comes first: {answer:?}");
        left_out = answer.left_out;
    }
    assert!(left_out > 0);
    assert_eq!(chat.messages().len(), 1 + 16, "nothing is forgotten");
    let error = chat.say(&"a b c d ".repeat(100), |_| Ok(true)).expect_err("it does not fit");
    assert!(error.exit_code() == 2 && error.to_string().contains("room for"), "{error}");
    assert_eq!(chat.messages().len(), 17, "the conversation is as before");
    let cut = chat.say("And?", |_| Ok(false)).expect("an answer");
    assert_eq!((cut.end, cut.tokens), (End::Interrupted, 1));
}

/// Runs `smolter chat` with these lines typed into a pipe.
fn chat(folder: &std::path::Path, arguments: &[&str], lines: &str) -> Outcome {
    let mut command = smolter(&["chat", "--device", "reference", "--max-tokens", "5"]);
    let mut child = command
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let _ = child.stdin.take().expect("a pipe").write_all(lines.as_bytes()); // it may have ended already
    let output = child.wait_with_output().expect("its output");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn a_conversation_is_saved_and_goes_on() {
    let place = Place::new();
    let folder = model(&place);
    let file = place.path("talk.json");
    let saved = || -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(&file).expect("the file")).expect("JSON")
    };
    let name = file.display();
    let outcome = chat(&folder, &["--stats"], &format!("One \\\ntwo\n\nthree\n/save {name}\n/exit\nfour\n"));
    let outcome = outcome.expect(0, &["saved 4 messages", "prompt tokens were cached"]);
    let first = saved();
    assert_eq!(first["messages"][0], serde_json::json!({"role": "user", "content": "One \ntwo"}));
    let answer = first["messages"][1]["content"].as_str().expect("text").to_string();
    assert!(outcome.stdout.starts_with(&answer), "{outcome:#?}");

    chat(&folder, &[], &format!("x\n/save {name}\n")).expect(2, &["talk.json", "is there already"]);
    assert_eq!(saved(), first);
    std::fs::remove_file(&file).expect("it is there");
    let with = format!("/load {name}\nfour\n/save {name}2\n/reset\n/save {name}\n");
    std::fs::write(&file, first.to_string()).expect("it is written");
    chat(&folder, &[], &with).expect(2, &["loaded 4 messages", "saved 6 messages", "is there already"]);
    chat(&folder, &["--load", &name.to_string(), "--system", "s"], "").expect(0, &[]);
}

#[test]
fn answers_are_made_anew_and_otherwise() {
    let place = Place::new();
    let folder = model(&place);
    let (file, template) = (place.path("talk.json"), place.path("plain.jinja"));
    let plain = "{% for m in messages %}{{ m.content }}\n{% endfor %}";
    std::fs::write(&template, plain).expect("the template is written");
    let arguments = ["--chat-template", template.to_str().expect("UTF-8"), "--temperature", "1.5"];
    let lines = format!(
        "one\n/regen\n/set\n/set temperature 0\n/set top-k=3\n/set max_tokens 2\n/set seed 9\n/set\ntwo\n/save {}\n",
        file.display()
    );
    let settings = "temperature 0, top_p 0.9, top_k 3, min_p 0, repetition_penalty 1, max_tokens 2, seed 9";
    let outcome = chat(&folder, &arguments, &lines).expect(0, &["temperature 1.5, top_p 0.9", settings]);
    let answers: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("(cut after")).collect();
    assert!(answers[2].contains("after 2 tokens"), "{outcome:#?}");
    let saved = std::fs::read_to_string(&file).expect("the file");
    let saved: serde_json::Value = serde_json::from_str(&saved).expect("JSON");
    assert_eq!(
        saved["messages"].as_array().map(Vec::len),
        Some(4),
        "an answer made anew takes the old one's place"
    );
    for (line, words) in [
        ("/regen", "say something first"),
        ("/set colour 1", "/set knows no"),
        ("/set temperature -1", "a number of at least 0"),
        ("/set max_tokens 0", "above 0"),
        ("/set seed x", "/set temperature 0.2"),
    ] {
        chat(&folder, &[], &format!("{line}\n")).expect(2, &[words]).is_one_line();
    }
    chat(&folder, &["--chat-template", "nowhere.jinja"], "").expect(2, &["nowhere.jinja"]);
}

/// Thousands of turns are no more work than those that fit, and can be given up.
#[test]
fn a_long_history_is_cut_to_what_fits() {
    let place = Place::new();
    let folder = model(&place);
    let file = place.path("long.json");
    let turn = |i: usize| [Message::new("user", format!("turn {i}")), Message::new("assistant", "so it is")];
    let messages: Vec<Message> = (0..4000).flat_map(turn).collect();
    std::fs::write(&file, serde_json::json!({ "messages": messages }).to_string()).expect("it is written");
    let backend = Backend::open("reference").expect("it opens");
    let opened = ModelFolder::open(&folder).expect("the model");
    let mut chat = Chat::new(&backend, &opened, options()).expect("it loads");
    chat.load(&file).expect("it is a conversation");
    chat.give_up_when(|| true);
    let answer = chat.say("and now?", |_| Ok(true)).expect("no answer");
    assert_eq!((answer.end, answer.tokens, chat.messages().len()), (End::Interrupted, 0, 8000));
    chat.give_up_when(|| false);
    let answer = chat.say("and now?", |_| Ok(true)).expect("an answer");
    let room = 512 - options().max_tokens;
    assert!(answer.left_out.is_multiple_of(2) && answer.prompt <= room / 2, "{answer:?}");
    // One turn more would not have left half.
    let (left, template) = (answer.left_out, ChatTemplate::load(&folder).expect("it has one"));
    let tokenizer = Tokenizer::load(&folder).expect("it has one");
    let length =
        |from: usize| template.encode(&tokenizer, &chat.messages()[from..8001], true).expect("ids").len();
    assert!(length(left) == answer.prompt && length(left - 2) > room / 2, "{answer:?}");
}

#[test]
fn what_cannot_be_chatted_with_is_named() {
    let place = Place::new();
    let folder = model(&place);
    chat(&folder, &[], "/savé it\n/unknown\n").expect(2, &["no command /savé"]);
    chat(&folder, &[], "/save\n").expect(2, &["/save FILE"]);
    chat(&folder, &["--load", "nowhere.json"], "").expect(2, &["nowhere.json"]);
    chat(&folder, &["--temperature", "-1"], "").code.filter(|&code| code == 2).expect("exit code 2");
    std::fs::remove_file(folder.join("chat_template.jinja")).expect("it is there");
    chat(&folder, &[], "hello\n").expect(2, &["no chat template"]);
}

/// Nobody types into a pipe, so Ctrl-C is for the program.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_conversation_that_is_piped() {
    let place = Place::new();
    let folder = model(&place);
    let mut command = smolter(&["chat", "--device", "reference", "--max-tokens", "2"]);
    let command = command.arg(&folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || while input.write_all(b"hello\n").is_ok() {});
    let mut output = child.stdout.take().expect("a pipe");
    std::io::Read::read_exact(&mut output, &mut [0]).expect("an answer");
    let reader = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    signal(&child, "-INT");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    reader.join().expect("no panic").expect("it is read to its end");
    writer.join().expect("the pipe is closed");
}
