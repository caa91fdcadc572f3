//! T2: run folders. Each has one process at a time, comes back from what is left of it, and never trains on silently
//! with something else than it began with. Every remedy that a message gives is tried.

use crate::support::{Outcome, Place, copy, cut_short, flip_a_bit, run, signal, smolter, spawn_until};
use smolter::checkpoint::folder;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// 28 steps.
const LONGER: [&str; 2] = ["stages.0.tokens=1280", "stages.1.tokens=2304"];

/// What makes `sums` a dataset of text in the file `text.jsonl`, which this writes.
fn text(place: &Place, variant: &str) -> String {
    let line = |i: usize| format!("{{\"text\": \"{i} {variant} make {}, as everyone knows.\"}}\n", 2 * i);
    let path = place.path("text.jsonl");
    std::fs::write(&path, (0..90).map(line).collect::<String>()).expect("text");
    format!("datasets.1={{name = \"sums\", paths = ['{}']}}", path.display())
}

/// A run that has stopped after step 5 of 12, and the same in one go, called `whole`.
fn stopped(overrides: &[&str]) -> Place {
    let place = Place::new();
    run(&mut place.train("whole", "reference", overrides)).expect(0, &[]);
    run(place.train("run", "reference", overrides).args(["--until", "5"])).expect(0, &[]);
    // What is damaged must not have other names.
    std::fs::remove_dir_all(place.path(".tokens")).expect("a folder");
    place
}

/// Resumes `name` to its end and requires that it is as if nothing had happened.
#[track_caller]
fn resumed(place: &Place, name: &str, words: &[&str]) -> Outcome {
    let outcome = run(&mut place.resume(name, "reference")).expect(0, words);
    assert!(place.state("whole", 12) == place.state(name, 12), "{name} has other weights: {outcome:#?}");
    outcome
}

#[test]
fn starts_at_once_get_folders_of_their_own() {
    let place = Place::new();
    let start = |out: Option<&str>| {
        let mut command = smolter(&["train", "--device", "reference", "--recipe", "tiny.toml"]);
        out.iter().for_each(|out| {
            command.args(["--out", out]);
        });
        command.current_dir(place.path("")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    let children: Vec<_> = (0..4).map(|_| start(None)).collect();
    let mut folders: Vec<String> = Vec::new();
    for child in children {
        let output = child.wait_with_output().expect("its end");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{stdout}");
        folders
            .push(stdout.lines().find_map(|line| line.strip_prefix("run folder: ")).expect("a line").into());
    }
    folders.sort();
    assert_eq!(folders, ["runs/tiny", "runs/tiny-2", "runs/tiny-3", "runs/tiny-4"]);
    for folder in &folders {
        assert!(place.state(folder, 12) == place.state("runs/tiny", 12));
    }

    let mut codes = Vec::new();
    for child in [start(Some("one")), start(Some("one"))] {
        let output = child.wait_with_output().expect("its end");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        codes.push(output.status.code().expect("no signal"));
        let refused = ["in use by process", "holds a run already", "is not empty"];
        assert!(output.status.success() || refused.iter().any(|why| stderr.contains(why)), "{stderr}");
    }
    codes.sort();
    assert_eq!(codes, [0, 2]);
}

#[test]
fn a_live_run_is_not_resumed_until_its_process_is_gone() {
    let place = Place::new();
    run(&mut place.train("whole", "reference", &LONGER)).expect(0, &[]);
    let mut child = spawn_until(&mut place.train("run", "reference", &LONGER), &place.path("run"), 5);
    // It must not get to its end meanwhile.
    signal(&child, "-STOP");
    let holder = format!("in use by process {}", child.id());
    run(&mut place.resume("run", "reference")).expect(2, &[&holder]).is_one_line();
    run(&mut place.train("run", "reference", &LONGER)).expect(2, &[&holder]).is_one_line();
    child.kill().expect("a kill");
    child.wait().expect("its end");
    run(&mut place.resume("run", "reference")).expect(0, &[]);
    assert!(place.state("whole", 28) == place.state("run", 28));
}

#[test]
fn a_lost_recipe_is_that_of_the_last_checkpoint() {
    let place = stopped(&[]);
    type Loss = (&'static str, fn(&Path));
    let lost: [Loss; 4] = [
        ("removed", |path| std::fs::remove_file(path).expect("it goes")),
        ("empty", |path| std::fs::write(path, "").expect("a file")),
        ("short", cut_short),
        ("folder", |path| {
            std::fs::remove_file(path).expect("it goes");
            std::fs::create_dir(path).expect("a folder");
        }),
    ];
    for (name, damage) in lost {
        copy(&place.path("run"), &place.path(name));
        let recipe = place.path(name).join("recipe.toml");
        damage(&recipe);
        resumed(&place, name, &["recipe.toml", "the recipe is that of the last checkpoint"]);
        assert_eq!(
            std::fs::read(&recipe).expect("a recipe"),
            std::fs::read(place.path("whole/recipe.toml")).expect("a recipe")
        );
        assert!(name == "removed" || place.path(name).join("recipe.toml.damaged").exists());
    }
    // With nothing but its checkpoints a run goes on too.
    copy(&place.path("run/checkpoints"), &place.path("bare/checkpoints"));
    resumed(&place, "bare", &["recipe.toml", "no sound lines of steps 1-5", "facts is tokenised again"]);
}

#[test]
fn a_recipe_that_was_changed_is_told_or_refused_with_the_way_back() {
    let place = stopped(&[]);
    let change = |name: &str, from: &str, to: &str| {
        copy(&place.path("run"), &place.path(name));
        let path = place.path(name).join("recipe.toml");
        let text = std::fs::read_to_string(&path).expect("a recipe");
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("a recipe");
        path
    };
    change("told", "keep = 2", "keep = 3");
    resumed(&place, "told", &["recipe.toml: changed since the last checkpoint: checkpoint.keep = 3 (was 2)"]);
    // The other stage has that line too.
    change("other", "sequence_length = 32", "sequence_length = 16");
    run(&mut place.resume("other", "reference")).expect(
        0,
        &["recipe.toml: changed since the last checkpoint: stages.long.sequence_length = 16 (was 32)"],
    );
    let recipe = change("refused", "peak_lr = 0.001", "peak_lr = 0.003");
    let saved = place.path("refused/checkpoints/step-000005/trainer/recipe.toml");
    let way = format!("copy {} there", saved.display());
    run(&mut place.resume("refused", "reference")).expect(2, &[&way]);
    std::fs::copy(&saved, &recipe).expect("a copy");
    resumed(&place, "refused", &[]);
}

#[test]
fn a_recipe_is_not_written_again_without_need() {
    let place = stopped(&[]);
    let path = place.path("run/recipe.toml");
    let inode = |path: &Path| std::fs::metadata(path).expect("a recipe").modified().expect("a time");
    let before = inode(&path);
    resumed(&place, "run", &[]);
    assert_eq!(inode(&path), before);
}

#[test]
fn a_damaged_tokenizer_is_taken_from_the_checkpoint() {
    let place = stopped(&[]);
    for (name, damage) in [("flipped", flip_a_bit as fn(&Path)), ("short", cut_short)] {
        copy(&place.path("run"), &place.path(name));
        let tokenizer = place.path(name).join("data/tokenizer/tokenizer.json");
        damage(&tokenizer);
        resumed(
            &place,
            name,
            &[&place.path(name).join("data/tokenizer").to_string_lossy(), "checkpoint's tokenizer"],
        );
        let whole = place.path("whole/data/tokenizer/tokenizer.json");
        assert!(std::fs::read(tokenizer).expect("mended") == std::fs::read(whole).expect("a tokenizer"));
    }
    // Before the first checkpoint it can be trained again.
    copy(&place.path("run"), &place.path("early"));
    std::fs::remove_dir_all(place.path("early/checkpoints")).expect("checkpoints");
    flip_a_bit(&place.path("early/data/tokenizer/tokenizer.json"));
    resumed(&place, "early", &["data/tokenizer: damaged; it is made again"]);
}

#[test]
fn before_the_first_checkpoint_a_changed_recipe_is_told() {
    let place = stopped(&[]);
    let early = |name: &str| {
        copy(&place.path("run"), &place.path(name));
        std::fs::remove_dir_all(place.path(name).join("checkpoints")).expect("checkpoints");
        place.path(name).join("recipe.toml")
    };
    early("same");
    let outcome = resumed(&place, "same", &[]);
    assert!(outcome.stderr.is_empty() && outcome.stdout.contains("steps 1-5 dropped"), "{outcome:#?}");
    let recipe = early("changed");
    let text = std::fs::read_to_string(&recipe).expect("a recipe");
    std::fs::write(&recipe, text.replacen("peak_lr = 0.001", "peak_lr = 0.003", 1)).expect("a recipe");
    let told = "recipe.toml: changed since the beginning: schedule.peak_lr = 0.003 (was 0.001)";
    run(&mut place.resume("changed", "reference")).expect(0, &[told]);
    // It began again with that.
    std::fs::remove_dir_all(place.path("changed/checkpoints")).expect("checkpoints");
    let outcome = run(&mut place.resume("changed", "reference")).expect(0, &[]);
    assert!(!outcome.stderr.contains("changed"), "{outcome:#?}");
    cut_short(&early("short"));
    resumed(&place, "short", &["recipe.toml", "the recipe is that of the beginning"]);
    std::fs::remove_file(early("lost")).expect("it goes");
    resumed(&place, "lost", &["recipe.toml", "the recipe is that of the beginning"]);
    early("flipped");
    flip_a_bit(&place.path("flipped/begun.json"));
    resumed(&place, "flipped", &["begun.json: damaged"]);
}

#[test]
fn before_the_first_checkpoint_other_text_is_told_or_refused() {
    let place = Place::new();
    let dataset = text(&place, "twice");
    run(&mut place.train("whole", "reference", &[&dataset])).expect(0, &[]);
    run(place.train("run", "reference", &[&dataset]).args(["--until", "5"])).expect(0, &[]);
    std::fs::remove_dir_all(place.path(".tokens")).expect("a folder");
    std::fs::remove_dir_all(place.path("run/checkpoints")).expect("checkpoints");
    for name in ["changed", "no tokens", "no tokenizer", "gone"] {
        copy(&place.path("run"), &place.path(name));
    }
    let original = std::fs::read(place.path("text.jsonl")).expect("text");
    text(&place, "doubled");
    resumed(&place, "changed", &["sums: its text was changed; the run goes on with the tokens that it has"]);
    std::fs::remove_file(place.path("no tokens/data/sums.json")).expect("it goes");
    run(&mut place.resume("no tokens", "reference")).expect(2, &["its text is another by now", "back"]);
    std::fs::remove_dir_all(place.path("no tokenizer/data/tokenizer")).expect("it goes");
    run(&mut place.resume("no tokenizer", "reference")).expect(2, &["made again it is another", "back"]);
    std::fs::remove_file(place.path("text.jsonl")).expect("text");
    resumed(&place, "gone", &[]);
    std::fs::write(place.path("text.jsonl"), original).expect("text");
    resumed(&place, "no tokens", &["sums is tokenised again"]);
    resumed(&place, "no tokenizer", &[]);
}

#[test]
fn text_is_not_needed_while_the_tokens_are_there_and_other_text_is_refused() {
    let place = Place::new();
    let dataset = text(&place, "twice");
    run(&mut place.train("whole", "reference", &[&dataset])).expect(0, &[]);
    run(place.train("run", "reference", &[&dataset]).args(["--until", "5"])).expect(0, &[]);
    std::fs::remove_dir_all(place.path(".tokens")).expect("a folder");
    for name in ["gone", "changed", "lost"] {
        copy(&place.path("run"), &place.path(name));
    }
    let original = std::fs::read(place.path("text.jsonl")).expect("text");
    std::fs::remove_file(place.path("text.jsonl")).expect("text");
    resumed(&place, "gone", &[]);
    text(&place, "doubled");
    resumed(&place, "changed", &["sums: its text was changed; the run goes on with the tokens that it has"]);
    for file in ["sums-00000.tokens", "sums.json", "sums.held-out.json", "sums.held-out-00000.tokens"] {
        let name = format!("lost {file}");
        copy(&place.path("lost"), &place.path(&name));
        std::fs::remove_file(place.path(&name).join("data").join(file)).expect("it goes");
        let words = ["dataset sums", "its text is another by now", "put ", "text.jsonl back"];
        run(&mut place.resume(&name, "reference")).expect(2, &words);
    }
    std::fs::remove_file(place.path("text.jsonl")).expect("text");
    run(&mut place.resume("lost sums.json", "reference"))
        .expect(2, &["text cannot be read", "text.jsonl back"]);
    copy(&place.path("lost"), &place.path("early"));
    std::fs::remove_dir_all(place.path("early/checkpoints")).expect("checkpoints");
    // As an earlier version leaves it.
    std::fs::remove_file(place.path("early/begun.json")).expect("it goes");
    let way = format!("change datasets.sums.paths in {}", place.path("early/recipe.toml").display());
    run(&mut place.resume("early", "reference")).expect(2, &["text.jsonl does not exist", &way]);
    std::fs::write(place.path("text.jsonl"), original).expect("text");
    for file in ["sums-00000.tokens", "sums.json", "sums.held-out.json", "sums.held-out-00000.tokens"] {
        resumed(&place, &format!("lost {file}"), &["sums is tokenised again"]);
    }
}

/// Every file of the run that decides anything: flipped, it is named or mended, and what the message says helps.
#[test]
fn a_flipped_bit_anywhere_is_named_or_mended() {
    let place = stopped(&[]);
    let mut files: Vec<PathBuf> = Vec::new();
    collect(&place.path("run"), &mut files);
    let names = |path: &Path| path.strip_prefix(place.path("run")).expect("inside").to_path_buf();
    for (i, file) in files.iter().map(|file| names(file)).filter(|name| !name.ends_with("lock")).enumerate() {
        let name = format!("flipped-{i}");
        copy(&place.path("run"), &place.path(&name));
        let damaged = place.path(&name).join(&file);
        flip_a_bit(&damaged);
        let outcome = run(&mut place.resume(&name, "reference"));
        if outcome.code == Some(0) {
            assert!(
                place.state("whole", 12) == place.state(&name, 12),
                "{file:?}: other weights: {outcome:#?}"
            );
            continue;
        }
        outcome.expect(2, &[&file.to_string_lossy(), "remove it"]);
        std::fs::remove_file(&damaged).expect("it goes");
        resumed(&place, &name, &[]);
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
    files.sort();
}

/// Pipes and folders where files should be: nothing waits for them, and what the message says helps.
#[cfg(unix)]
#[test]
fn what_is_no_file_neither_hangs_nor_ends_a_run() {
    let place = stopped(&[]);
    let step = "checkpoints/step-000005";
    let files = [
        "lock",
        "recipe.toml",
        "metrics.jsonl",
        "checkpoints",
        "data",
        "begun.json",
        "data/tokenizer",
        "data/tokenizer/tokenizer.json",
        "data/tokenizer/made-from",
        "data/facts.json",
        "data/facts-00000.tokens",
        "data/sums.held-out.json",
        ".tmp-recipe.toml",
        "ending.json",
        ".tmp-ending.json",
        "events",
        "metrics.jsonl.tmp",
        "checkpoints/.tmp-step-000012",
        "checkpoints/step-000011",
        &format!("{step}/trainer/recipe.toml"),
        &format!("{step}/model.safetensors"),
    ];
    for (i, file) in files.iter().enumerate() {
        for kind in ["pipe", "folder"] {
            let name = format!("{kind}-{i}");
            copy(&place.path("run"), &place.path(&name));
            let path = place.path(&name).join(file);
            // What is not there does not matter.
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            if kind == "pipe" {
                assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
            } else {
                std::fs::create_dir(&path).expect("a folder");
            }
            let outcome = within(Duration::from_secs(60), &mut place.resume(&name, "reference"));
            if file.starts_with(step) {
                // The checkpoint before it is whole.
                outcome.expect(0, &["warning: skipped a checkpoint", file]);
                assert!(place.state("whole", 12) == place.state(&name, 12), "{kind} {file}");
            } else if outcome.code != Some(0) {
                outcome.expect(2, &[file, "remove it"]);
                std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).expect("it goes");
                resumed(&place, &name, &[]);
            } else {
                assert!(place.state("whole", 12) == place.state(&name, 12), "{kind} {file}");
            }
        }
    }
}

/// As [`run`], but a command that takes longer is ended and fails.
#[track_caller]
fn within(limit: Duration, command: &mut Command) -> Outcome {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let begun = Instant::now();
    while child.try_wait().expect("its state").is_none() {
        if begun.elapsed() > limit {
            child.kill().expect("a kill");
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("its end");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn lost_lines_of_metrics_are_told() {
    let place = stopped(&[]);
    let metrics = |name: &str| place.path(name).join("metrics.jsonl");
    copy(&place.path("run"), &place.path("deleted"));
    std::fs::remove_file(metrics("deleted")).expect("it goes");
    resumed(&place, "deleted", &["metrics.jsonl: no sound lines of steps 1-5"]);
    let text = std::fs::read_to_string(metrics("run")).expect("metrics");
    let kept: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    std::fs::write(metrics("run"), kept).expect("metrics");
    resumed(&place, "run", &["metrics.jsonl: no sound lines of steps 4-5"]);
}

#[cfg(unix)]
#[test]
fn two_signals_at_once_are_one_and_a_hangup_goes_on() {
    let place = Place::new();
    run(&mut place.train("whole", "reference", &LONGER)).expect(0, &[]);
    let child = spawn_until(&mut place.train("run", "reference", &LONGER), &place.path("run"), 5);
    signal(&child, "-TERM");
    signal(&child, "-TERM");
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    let (last, _) = folder::newest_whole(&place.path("run")).expect("a folder").expect("a checkpoint");
    assert!((5..28).contains(&last.state.step), "stopped after step {}", last.state.step);
    run(&mut place.resume("run", "reference")).expect(0, &[]);
    assert!(place.state("whole", 28) == place.state("run", 28));

    let overrides = [LONGER[0], LONGER[1], "checkpoint.every=1000", "checkpoint.keep=99"];
    let child = spawn_until(&mut place.train("hung-up", "reference", &overrides), &place.path("hung-up"), 2);
    signal(&child, "-HUP");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}");
    assert!(place.state("whole", 28) == place.state("hung-up", 28));
    let saved: Vec<u64> =
        folder::list(&place.path("hung-up")).expect("a list").iter().map(|it| it.0).collect();
    // Beside the ends of the two stages.
    assert_eq!(saved.len(), 3, "{saved:?}");
}

#[cfg(unix)]
#[test]
fn a_run_interrupted_in_preparation_ends_at_once_and_can_be_resumed() {
    let place = Place::new();
    let many = ["datasets.facts.documents=100000"];
    let mut command = place.train("run", "reference", &many);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    while !place.path("run/data/tokenizer/made-from").exists() {
        assert!(child.try_wait().expect("its state").is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(1));
    }
    let begun = Instant::now();
    signal(&child, "-TERM");
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(143));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(place.path("run/recipe.toml").exists() && !place.path("run/metrics.jsonl").exists());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let way = format!("continue with: smolter train --resume {}", place.path("run").display());
    assert!(stderr.contains(&way), "{stderr}");
}

#[cfg(unix)]
#[test]
fn a_proof_that_is_stopped_leaves_nothing() {
    let place = Place::new();
    for place_of_signal in ["whole/metrics.jsonl", "killed/lock"] {
        let mut command = place.train("proof", "reference", &[]);
        let mut child = command.arg("--verify-resume").stdout(Stdio::null()).spawn().expect("it starts");
        while !place.path("proof").join(place_of_signal).exists() {
            assert!(child.try_wait().expect("its state").is_none(), "it ended early");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, "-TERM");
        assert_eq!(child.wait().expect("its end").code(), Some(143), "{place_of_signal}");
        assert!(!place.path("proof").exists(), "{place_of_signal}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let place = Place::new();
    let train = place.train("run", "reference", &LONGER);
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' INT; exec \"$@\"", "bash"]).arg(train.get_program()).args(train.get_args());
    let child = spawn_until(&mut command, &place.path("run"), 3);
    signal(&child, "-INT");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_checkpoint_too_many_goes_when_a_run_is_resumed() {
    let place = Place::new();
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    let steps =
        || -> Vec<u64> { folder::list(&place.path("run")).expect("a list").iter().map(|it| it.0).collect() };
    let before = steps();
    // As a kill between the last save and the removal of the oldest one leaves it.
    copy(&place.path("run/checkpoints/step-000012"), &place.path("run/checkpoints/step-000004"));
    run(&mut place.resume("run", "reference")).expect(0, &[]);
    assert_eq!(steps(), before);
}

#[test]
fn checkpoints_by_time_change_nothing_else() {
    let place = Place::new();
    let overrides = ["checkpoint.every=1000", "checkpoint.keep=3"];
    run(&mut place.train("whole", "reference", &overrides)).expect(0, &[]);
    run(&mut place.train("timed", "reference", &[overrides[0], overrides[1], "checkpoint.minutes=1e-9"]))
        .expect(0, &[]);
    let steps = |name: &str| -> Vec<u64> {
        folder::list(&place.path(name)).expect("a list").iter().map(|it| it.0).collect()
    };
    assert_eq!((steps("whole"), steps("timed")), (vec![6, 12], vec![6, 10, 11, 12]));
    assert!(place.state("whole", 12) == place.state("timed", 12));
    run(&mut place.train("run", "reference", &["checkpoint.minutes=-1"])).expect(2, &["checkpoint.minutes"]);
}

#[test]
fn a_start_that_fails_leaves_no_folder() {
    let place = Place::new();
    let text = text(&place, "twice");
    let path = place.path("text.jsonl").to_string_lossy().into_owned();
    let missing = text.replace(&path, &place.path("missing.jsonl").to_string_lossy());
    run(&mut place.train("run", "reference", &[&missing]))
        .expect(2, &["missing.jsonl, which does not exist"]);
    run(&mut place.train(
        "run",
        "reference",
        &["stages.1.tokens=1000000000", "datasets.0.max_epochs=1.0", "datasets.1.max_epochs=1.0"],
    ))
    .expect(2, &[]);
    run(place.train("run", "reference", &[]).args(["--memory", "1000"])).expect(2, &["does not fit"]);
    std::fs::write(&path, "{").expect("text");
    run(&mut place.train("run", "reference", &[&text])).expect(2, &["text.jsonl: line 1"]);
    assert!(!place.path("run").exists());
    std::fs::create_dir(place.path("run")).expect("a folder");
    run(place.train("run", "reference", &[]).args(["--memory", "1000"])).expect(2, &["does not fit"]);
    assert_eq!(std::fs::read_dir(place.path("run")).expect("it stays").count(), 0);
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
}

#[test]
fn files_of_the_user_stay() {
    let place = Place::new();
    let mine = place.path("mine/notes.txt");
    std::fs::create_dir(place.path("mine")).expect("a folder");
    std::fs::write(&mine, "mine").expect("a file");
    run(&mut place.train("mine", "reference", &[])).expect(2, &["mine: is not empty", "--out"]);
    run(place.train("mine", "reference", &[]).arg("--verify-resume")).expect(2, &["mine: is not empty"]);
    assert_eq!(std::fs::read_dir(place.path("mine")).expect("it stays").count(), 1);

    text(&place, "twice");
    let (text, out) = (place.path("text.jsonl"), place.path("mine"));
    let train = || {
        let mut command = smolter(&["data", "tokenizer", "--vocab-size", "300"]);
        command.arg(&text).arg("--out").arg(&out);
        command
    };
    run(&mut train()).expect(0, &[]);
    let made = std::fs::read(out.join("tokenizer.json")).expect("a tokenizer");
    run(train().args(["--documents", "3"])).expect(2, &["tokenizer.json: is there already", "--out"]);
    assert!(std::fs::read(out.join("tokenizer.json")).expect("a tokenizer") == made);
}

#[test]
fn a_model_that_is_not_what_was_saved_is_not_run() {
    let place = Place::new();
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    let step = place.path("run/checkpoints/step-000012");
    let weights = step.join("model.safetensors");
    flip_a_bit(&weights);
    let generate = |model: &Path| {
        let mut command =
            smolter(&["generate", "--prompt", "a", "--max-tokens", "2", "--device", "reference"]);
        command.arg(model);
        command
    };
    let words = [&*weights.to_string_lossy(), "damaged", "without trainer/"];
    run(&mut generate(&step)).expect(2, &words).is_one_line();
    // Both ways out.
    run(&mut generate(&place.path("run/checkpoints/step-000008"))).expect(0, &[]);
    copy(&step, &place.path("as-it-is"));
    std::fs::remove_dir_all(place.path("as-it-is/trainer")).expect("a folder");
    run(&mut generate(&place.path("as-it-is"))).expect(0, &[]);
    run(&mut generate(&place.path("run"))).expect(0, &["warning: ", "skipped a checkpoint"]);
}

/// What a killed process was about to share has nobody to finish it.
#[test]
fn what_the_dead_were_about_to_share_goes() {
    let place = Place::new();
    let mut dead = std::process::Command::new("true").spawn().expect("it starts");
    dead.wait().expect("it ends");
    let left = place.path(&format!(".tokens/.tmp-facts-0000000000000000-{}", dead.id()));
    std::fs::create_dir_all(&left).expect("a folder");
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    assert!(!left.exists() && place.path(".tokens").is_dir());
}
