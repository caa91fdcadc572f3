//! Recipes from the command line: other people's models to begin with, text of the user's own, mistakes.

use crate::support::{Outcome, Place, RECIPE, devices, run, smolter};
use smolter::graph::Backend;
use smolter::infer;
use smolter::infer::scorer::{Bucket, Output, Row, Scorer, ScorerGraph};
use smolter::model::ModelFolder;
use smolter::recipes::Recipe;
use smolter::train::corpus::Corpus;
use smolter::train::kinds::batches_of;
use smolter::train::objective::Shape;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// [`RECIPE`] with another `[model]` and no `[tokenizer]`.
fn beginning_with(model: &str) -> String {
    let (before, after) = RECIPE.split_once("[model]").expect("a model");
    let (_, after) = after.split_once("[schedule]").expect("a schedule");
    format!("{before}[model]\n{model}\n[schedule]{after}")
}

/// The mean loss of a run's first step by the scorer, given the model that it begins with.
fn scored(run: &Path, model: &ModelFolder, device: &str) -> f64 {
    let resolved = run.join("recipe.toml");
    let recipe = Recipe::load(&resolved.to_string_lossy(), &[]).expect("the resolved recipe");
    let corpus = Arc::new(Corpus::prepare(&recipe, &run.join("data"), None).expect("the tokens"));
    let length = recipe.stages[0].sequence_length;
    let sequences = recipe.batch_of(0).sequences;
    let recompute = smolter::graph::recompute::Policy::None;
    let shape = Shape { micro_batch: sequences, passes: 1, length, recompute };
    let consumed = vec![0; recipe.datasets.len()];
    let data = batches_of(&recipe, 0, &consumed, &corpus, None).expect("its batches");
    let batch = data.step(0, shape).expect("the first step").remove(0);
    let row = |(ids, labels): (&[u32], &[u32])| Row::whole([ids, &labels[length - 1..]].concat());
    let rows: Vec<Row> = batch.ids.chunks(length).zip(batch.labels.chunks(length)).map(row).collect();
    let backend = Backend::open(device).expect("it opens");
    let graph = ScorerGraph::new(&model.architecture, &[Bucket { length, rows: sequences }], Output::Nll);
    let store = infer::load(&backend, model, &[&graph.graph]).expect("the weights");
    let scores =
        Scorer::new(&backend, graph, &store).expect("a scorer").score(&rows).expect("scores").concat();
    scores.iter().map(|&x| f64::from(x)).sum::<f64>() / scores.len() as f64
}

fn first_loss(run: &Path) -> f64 {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).expect("the metrics");
    let line: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    line["loss"].as_f64().expect("a loss")
}

#[test]
fn a_run_begins_with_the_model_that_the_recipe_names() {
    for device in devices() {
        let place = Place::new();
        run(place.train("first", device, &["schedule.peak_lr=0.05"]).args(["--until", "8"])).expect(0, &[]);
        // A run folder, one checkpoint, and a path relative to the recipe.
        let checkpoint = place.path("first/checkpoints/step-000008");
        for from in ["first".to_string(), checkpoint.display().to_string()] {
            place.recipe(&beginning_with(&format!("from = '{from}'")));
            let _ = std::fs::remove_dir_all(place.path("second"));
            run(place.train("second", device, &[]).args(["--until", "1"])).expect(0, &[]);
            let model = ModelFolder::open(&checkpoint).expect("a model");
            let (trained, scored) =
                (first_loss(&place.path("second")), scored(&place.path("second"), &model, device));
            assert!((trained - scored).abs() < 1e-5, "{device}: {trained} in training, {scored} scored");
            let noise = first_loss(&place.path("first"));
            assert!((trained - noise).abs() > 0.01, "{device}: {trained} is the loss of noise, {noise}");
        }
    }
}

#[test]
fn a_run_needs_its_source_only_to_begin() {
    let place = Place::new();
    let train = |name: &str, until: &str| {
        run(place.train(name, "reference", &[]).args(["--until", until])).expect(0, &[])
    };
    train("first", "4");
    place.recipe(&beginning_with("from = 'first'\nrope_theta = 30_000"));
    let straight = ["straight", "stopped", "unborn"];
    run(&mut place.train(straight[0], "reference", &[])).expect(0, &[]);
    train(straight[1], "5");
    let resolved = std::fs::read_to_string(place.path("stopped/recipe.toml")).expect("the resolved recipe");
    for words in ["from = ", "from_hash = ", "rope_theta = 30000", "hidden_size = 32"] {
        assert!(resolved.contains(words), "no {words} in {resolved}");
    }
    // Killed before its first checkpoint.
    train(straight[2], "1");
    std::fs::remove_dir_all(place.path("unborn/checkpoints")).unwrap();
    run(&mut place.resume("unborn", "reference")).expect(0, &[]);
    assert!(place.state("straight", 12) == place.state("unborn", 12), "begun anew, it differs");

    std::fs::rename(place.path("first"), place.path("elsewhere")).unwrap();
    run(&mut place.resume("stopped", "reference")).expect(0, &[]);
    assert!(place.state("straight", 12) == place.state("stopped", 12), "the resumed run differs");

    // Another model at the same place is not what the run began with.
    std::fs::remove_dir_all(place.path("unborn/checkpoints")).unwrap();
    run(&mut place.resume("unborn", "reference")).expect(2, &["first", "no such folder"]);
    place.recipe(RECIPE);
    run(place.train("first", "reference", &["seed=9"]).args(["--until", "4"])).expect(0, &[]);
    run(&mut place.resume("unborn", "reference")).expect(2, &["first has changed"]);
}

#[test]
fn a_run_that_is_killed_while_it_tokenises_knows_its_source() {
    let place = Place::new();
    run(place.train("first", "reference", &[]).args(["--until", "1"])).expect(0, &[]);
    place.recipe(&beginning_with("from = 'first'"));
    let (mut train, resolved) = (place.train("cut", "reference", &[]), place.path("cut/recipe.toml"));
    let mut child = train.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    while !resolved.exists() {
        assert!(child.try_wait().expect("its state").is_none(), "it ended without a recipe");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().and_then(|()| child.wait()).expect("it is killed");
    let resolved = std::fs::read_to_string(resolved).expect("the resolved recipe");
    assert!(resolved.contains("from_hash = "), "{resolved}");
}

#[test]
fn mistakes_about_the_model_to_begin_with_are_placed() {
    let place = Place::new();
    run(place.train("first", "reference", &[]).args(["--until", "1"])).expect(0, &[]);
    for (model, words) in [
        ("from = 'nowhere'", &["tiny.toml:4:8: model.from: ", "no such folder"][..]),
        ("from = 'tiny.toml'", &["tiny.toml:4:8: model.from: ", "is a file"]),
        ("from = 3", &["tiny.toml:4:8: model.from is of type integer, but must be a string"]),
        ("from = 'hf://a'", &["tiny.toml:4:8: model.from: ", "hf://owner/name"]),
        ("from = 'first'\nhidden_size = 64", &["tiny.toml:5:1: model.hidden_size is 64", "has 32"]),
        ("from = 'first'\nrms_norm_eps = 1e-6", &["tiny.toml:5:1: model.rms_norm_eps"]),
        ("from = 'first'\npreset = 'smollm2-135m'", &["tiny.toml:5:10: model.preset stands beside"]),
        ("from = 'first'\nmax_position_embeddings = 16", &["sequence_length is 32", "from 1 to"]),
        ("from = 'first'\n[tokenizer]\nx = 1", &["tiny.toml:6:1: unknown key 'x' in [tokenizer]"]),
    ] {
        place.recipe(&beginning_with(model));
        run(&mut place.train("run", "reference", &[])).expect(2, words).is_one_line();
        assert!(!place.path("run").exists(), "a refused recipe leaves no folder");
    }
    // The first stage cannot go on from another one.
    place.recipe(&RECIPE.replacen("kind = \"pretrain\"", "kind = \"pretrain\"\nfrom = \"x\"", 1));
    run(&mut place.train("run", "reference", &[])).expect(2, &["stages.0.from", "in [model]"]).is_one_line();
}

#[test]
fn five_mistakes_are_five_lines_with_their_places() {
    let place = Place::new();
    let wrong = RECIPE
        .replace("hidden_size = 32", "hiden_size = 32")
        .replace("\"constant\"", "\"constnat\"")
        .replace("sequences = 4\n\n[[datasets]]", "sequences = \"many\"\n\n[[datasets]]")
        .replace("microcosm = \"drills\"", "microcosm = \"drill\"")
        .replace("every = 4", "every = 0");
    place.recipe(&wrong);
    let line = |text: &str| wrong.lines().position(|it| it == text).expect("the line") + 1;
    let expected = [
        (line("hiden_size = 32"), "did you mean 'hidden_size'?"),
        (line("kind = \"constnat\""), "did you mean 'constant'?"),
        (line("sequences = \"many\""), "must be a whole number"),
        (line("microcosm = \"drill\""), "did you mean 'drills'?"),
        (line("every = 0"), "must be at least 1"),
    ];
    for command in ["train", "plan"] {
        let outcome = run(smolter(&[command]).arg(place.path("tiny.toml")));
        assert_eq!(outcome.code, Some(2), "{outcome:#?}");
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{outcome:#?}");
        for (got, (line, words)) in lines.iter().zip(expected) {
            let place = format!("error: {}:{line}:", place.path("tiny.toml").display());
            assert!(got.starts_with(&place) && got.contains(words), "{got}\n{place} {words}");
        }
    }
}

#[test]
fn a_model_goes_with_its_own_tokenizer() {
    let place = Place::new();
    std::fs::write(place.path("my.txt"), prose(40)).unwrap();
    let folder = place.path("");
    let mine = ["train", "my.txt", "--steps", "2", "--device", "reference", "-o"];
    let train = |arguments: &[&str]| run(within(&folder, &mine).args(arguments));
    train(&["first"]).expect(0, &[]);
    // Made for text, a recipe takes shape and tokenizer from the model that it is told to begin with.
    train(&["second", "--set", "model.from=first/../first"]).expect(0, &[]);
    let tokenizer = |run: &str| std::fs::read(place.path(run).join("data/tokenizer/tokenizer.json")).unwrap();
    assert!(tokenizer("first") == tokenizer("second"), "the second run has another tokenizer");
    let resolved = std::fs::read_to_string(place.path("second/recipe.toml")).expect("the recipe");
    assert!(!resolved.contains("train = ") && !resolved.contains(".."), "{resolved}");

    let model = |tokenizer: &str| beginning_with(&format!("from = 'first'\n[tokenizer]\n{tokenizer}"));
    place.recipe(&model("train = { vocab_size = 512, sample_documents = 9 }"));
    run(&mut place.train("third", "reference", &[]))
        .expect(2, &["tiny.toml:6:1: tokenizer.train stands beside model.from", "leave [tokenizer] out"])
        .is_one_line();
    let path = place.path("first/data/tokenizer/tokenizer.json");
    place.recipe(&model(&format!("path = '{}'", path.display())));
    run(smolter(&["plan"]).arg(place.path("tiny.toml"))).expect(0, &[]);
    // Two tokens exchanged.
    let text = String::from_utf8(tokenizer("first")).unwrap();
    let mut other: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vocabulary = other["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let (a, b) = (vocabulary["a"].clone(), vocabulary["b"].clone());
    vocabulary.insert("a".into(), b);
    vocabulary.insert("b".into(), a);
    std::fs::write(place.path("other.json"), other.to_string()).unwrap();
    place.recipe(&model("path = 'other.json'"));
    run(&mut place.train("third", "reference", &[]))
        .expect(2, &["tiny.toml:6:1: tokenizer.path has \"b\" as token", "names \"a\""])
        .is_one_line();
}

/// Text with words, about `kilobytes` long.
fn prose(kilobytes: usize) -> String {
    let words = ["the", "mill", "by", "a", "river", "turns", "slowly", "and", "nobody", "knows", "why"];
    let word = |i: usize| words[(i.wrapping_mul(2_654_435_761) >> 7) % words.len()];
    let sentence = |i: usize| (0..9).map(|j| word(9 * i + j)).collect::<Vec<_>>().join(" ") + ".\n";
    let mut text = String::new();
    for i in 0.. {
        text += &sentence(i);
        if i % 5 == 4 {
            text.push('\n');
        }
        if text.len() >= kilobytes * 1000 {
            break;
        }
    }
    text
}

/// The program in a folder.
fn within(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = smolter(arguments);
    command.current_dir(folder);
    command
}

#[test]
fn text_of_ones_own_is_trained_on() {
    let place = Place::new();
    let folder = place.path("");
    let lines = |text: &str| serde_json::json!({ "id": 1, "content": text }).to_string() + "\n";
    std::fs::write(place.path("my.txt"), prose(100)).unwrap();
    std::fs::write(place.path("same.txt"), "a".repeat(100_000)).unwrap();
    let rows: String = prose(100).split("\n\n").map(lines).collect();
    std::fs::write(place.path("rows.jsonl"), rows).unwrap();
    std::fs::create_dir(place.path("books")).unwrap();
    std::fs::write(place.path("books/one.txt"), prose(60)).unwrap();
    std::fs::write(place.path("books/two.txt"), prose(70)).unwrap();
    for (text, name) in [("my.txt", "my"), ("rows.jsonl", "rows"), ("books", "books"), ("same.txt", "same")] {
        let outcome = run(&mut within(&folder, &["train", text, "--device", "reference", "--steps", "2"]));
        let outcome = outcome.expect(0, &[]);
        assert!(outcome.stdout.contains("2 steps"), "{outcome:#?}");
        let run_folder = place.path("runs").join(name);
        let recipe = std::fs::read_to_string(run_folder.join("recipe.toml")).expect("the recipe");
        assert!(recipe.starts_with("# Made by smolter for ") && recipe.contains(text), "{recipe}");
        let model = ModelFolder::open(&run_folder).expect("a model");
        assert_eq!(model.architecture.vocab_size(), 512);
    }
    // As long as it says when nobody says otherwise.
    let plan = run(&mut within(&folder, &["plan", "my.txt"])).expect(0, &[]);
    assert!(plan.stdout.contains("about") && plan.stdout.contains("1 stage (train)"), "{plan:#?}");
    let epochs = ["train", "my.txt", "--epochs", "0.5", "--batch", "8", "--seq-len", "64", "-o", "short"];
    run(within(&folder, &epochs).args(["--device", "reference", "--lr", "1e-3"])).expect(0, &[]);
    let recipe = Recipe::load(&place.path("short/recipe.toml").to_string_lossy(), &[]).expect("the recipe");
    let stage = &recipe.stages[0];
    assert_eq!((stage.epochs, stage.steps, stage.sequence_length), (None, None, 64));
    assert_eq!((recipe.batch_of(0).sequences, recipe.schedule.as_ref().unwrap().peak_lr), (8, 1e-3));
    assert!((3..100).contains(&recipe.total_steps()), "{} steps", recipe.total_steps());
}

#[test]
fn text_that_will_not_do_is_refused_in_one_line() {
    let place = Place::new();
    let folder = place.path("");
    std::fs::write(place.path("tiny.txt"), prose(5)).unwrap();
    std::fs::write(place.path("latin.txt"), b"caf\xe9 au lait\n".repeat(5000)).unwrap();
    std::fs::write(place.path("ids.jsonl"), "{\"id\": 7}\n".repeat(5000)).unwrap();
    std::fs::write(place.path("wide.txt"), [&b"\xff\xfe"[..], &b"a\0".repeat(50_000)].concat()).unwrap();
    std::fs::write(place.path("picture.png"), b"\x89PNG").unwrap();
    std::fs::create_dir(place.path("empty")).unwrap();
    for (text, words) in [
        ("tiny.txt", "too little to learn from"),
        ("latin.txt", "convert the file to UTF-8"),
        ("ids.jsonl", "fields = "),
        ("picture.png", "not a kind of file"),
        ("wide.txt", "iconv -f UTF-16 -t UTF-8"),
        ("empty", "no .jsonl"),
        ("absent.txt", "nor text that exists"),
    ] {
        let outcome = run(&mut within(&folder, &["train", text, "--device", "reference"]));
        outcome.expect(2, &[text, words]).is_one_line();
        assert!(!place.path("runs").exists(), "{text} left a folder");
    }
    std::fs::create_dir_all(place.path("run/checkpoints")).unwrap();
    std::fs::write(place.path("run/recipe.toml"), RECIPE).unwrap();
    run(&mut within(&folder, &["train", "run"]))
        .expect(2, &["is a run folder", "--resume run"])
        .is_one_line();
    for (arguments, words) in [
        (&["train", "microcosm", "tiny.txt"][..], "'microcosm' is a recipe, but 2 names are given"),
        (&["train", "tiny.txt", "ok.toml"], "'ok.toml' is a recipe, but 2 names are given"),
        (
            &["train", "--resume", "run", "--steps", "9"],
            "--resume goes on with the recipe in run/recipe.toml",
        ),
        (&["generate", "empty", "-p", "a"], "config.json, model.safetensors and tokenizer.json"),
        (&["data", "tokenizer", "latin.txt", "-o", "t"], "with --skip-broken"),
        (&["data", "tokenizer", "ids.jsonl", "-o", "t"], "with --field"),
    ] {
        run(&mut within(&folder, arguments)).expect(2, &[words]).is_one_line();
    }
}

#[test]
fn init_writes_a_recipe_that_trains() {
    let place = Place::new();
    let folder = place.path("");
    std::fs::write(place.path("my.txt"), prose(40)).unwrap();
    let init = |arguments: &[&str]| run(within(&folder, &["init"]).args(arguments));
    let plan = |recipe: &str| run(&mut within(&folder, &["plan", recipe])).expect(0, &[]);
    init(&["my.txt"]).expect(0, &[]);
    let text = std::fs::read_to_string(place.path("recipe.toml")).expect("a recipe");
    assert!(text.contains("paths = [\"my.txt\"]") && text.matches('#').count() > 15, "{text}");
    plan("recipe.toml");
    init(&["my.txt"]).expect(2, &["recipe.toml: exists already"]).is_one_line();
    assert_eq!(std::fs::read_to_string(place.path("recipe.toml")).unwrap(), text, "it was overwritten");
    for (arguments, written) in [
        (&["project", "my.txt"][..], "project/recipe.toml"),
        (&["mine.toml", "my.txt"], "mine.toml"),
        (&["deep/down/mine.toml", "my.txt"], "deep/down/mine.toml"),
    ] {
        init(arguments).expect(0, &[]);
        plan(written);
    }
    plan("project");
    init(&["nowhere"]).expect(2, &["no text there"]).is_one_line();
    run(&mut within(&folder, &["train", "project", "--steps", "1", "--device", "reference"])).expect(0, &[]);
}

#[test]
fn recipes_are_printed_as_they_are_written() {
    let printed =
        |arguments: &[&str]| -> Outcome { run(smolter(&["recipes"]).args(arguments)).expect(0, &[]) };
    for (name, text) in smolter::recipes::EMBEDDED {
        assert_eq!(printed(&[name]).stdout, text);
        let changed = printed(&[name, "--set", "seed=77"]).stdout;
        assert!(changed.contains("seed = 77") && changed.contains("rms_norm_eps"), "{changed}");
    }
}

/// A recipe of one stage on generated text.
const ONE_STAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/recipes/one-stage.toml");

#[test]
fn flags_mean_what_they_say() {
    let planned = |arguments: &[&str]| run(smolter(&["plan"]).args(arguments)).expect(0, &[]).stdout;
    let plan = planned(&[ONE_STAGE, "--steps", "10", "--batch", "6", "--seq-len", "512", "--lr", "1e-2"]);
    assert!(plan.contains("10 steps of 6 x 512 tokens"), "{plan}");
    for steps in ["1", "2", "7", "89", "1K"] {
        let plan = planned(&[ONE_STAGE, "--steps", steps]);
        assert!(plan.contains(&format!("{} steps of 4 x 256", steps.replace("1K", "1,000"))), "{plan}");
    }
    for (arguments, words) in [
        (&["microcosm", "--steps", "5"][..], "--set stages.NAME.steps=5"),
        (&[ONE_STAGE, "--lr", "0"], "--lr 0: schedule.peak_lr is 0, but must be positive"),
        (&[ONE_STAGE, "--steps", "0"], "a whole number above 0"),
        (&[ONE_STAGE, "--steps", "2", "--epochs", "2"], "--epochs"),
    ] {
        let outcome = run(smolter(&["plan"]).args(arguments));
        assert!(outcome.code == Some(2) && outcome.stderr.contains(words), "{outcome:#?}");
    }
}
