//! What becomes of output that nobody reads, and what is shown of runs.

use crate::support::{Place, run, smolter};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a command line of the shell `sh` in the place, with `$S` for the program. Returns exit code and stderr.
fn shell(place: &Place, line: &str) -> (Option<i32>, String) {
    let program = smolter(&[]);
    let mut command = Command::new("bash");
    command.args(["-c", line]).env("S", program.get_program()).current_dir(place.path(""));
    let output = command.stdin(Stdio::null()).output().expect("bash starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{line}: {stderr}");
    (output.status.code(), stderr)
}

#[cfg(target_os = "linux")]
#[test]
fn training_outlives_whoever_reads_it() {
    let place = Place::new();
    let redirections = [
        "| head -1",
        ">&-",
        "2>&-",
        ">&- 2>&-",
        ">/dev/full",
        "2>/dev/full",
        ">/dev/full 2>&1",
        "2>&1 | true",
    ];
    for (i, redirection) in redirections.into_iter().enumerate() {
        let train = format!("set -o pipefail; $S train --device reference --recipe tiny.toml --out run-{i}");
        let (code, stderr) = shell(&place, &format!("{train} {redirection}"));
        assert_eq!(code, Some(0), "{redirection}: {stderr}");
        let done = place.path(&format!("run-{i}")).join("checkpoints/step-000012/model.safetensors");
        assert!(done.exists(), "{redirection}: {stderr}");
    }
}

/// What `script` of util-linux saw in a terminal of this size; `None` where there is none.
#[cfg(target_os = "linux")]
fn in_terminal(place: &Place, columns: u32, rows: u32, line: &str) -> Option<String> {
    let program = smolter(&[]);
    let line = format!("stty cols {columns} rows {rows}; {line}");
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("S", program.get_program()).env("TERM", "xterm");
    let output = command.current_dir(place.path("")).stdin(Stdio::null()).output();
    let output = output.inspect_err(|_| eprintln!("skipped: no script (apt-get install bsdutils)")).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("panicked"), "{text}");
    Some(text)
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_is_erased_in_a_terminal() {
    let place = Place::new();
    for (columns, rows) in [(80, 24), (40, 24), (80, 10), (1, 1)] {
        let train = "$S train --device reference --recipe tiny.toml --set sample.prompts=[]";
        let line = format!("{train} --out run-{columns}-{rows}");
        let Some(text) = in_terminal(&place, columns, rows, &line) else { return };
        let (before, last) = text.rsplit_once("saved ").expect("the last lines");
        assert!(
            !last.contains('\u{1b}') && last.contains("smolter runs show"),
            "{columns} x {rows}: {text:?}"
        );
        assert_eq!(
            before.contains("loss, o held-out"),
            (columns, rows) == (80, 24),
            "{columns} x {rows}: {text:?}"
        );
        assert!(before.contains("training ") == (columns > 10), "{columns} x {rows}: {text:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_is_asked_for_must_arrive() {
    let place = Place::new();
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    let tokens = "echo '\"a b\"' | $S data encode --tokenizer run/checkpoints/step-000012";
    for (i, command) in [
        "$S recipes",
        "$S recipes microcosm",
        "$S plan --recipe tiny.toml",
        "$S plan --recipe tiny.toml --tensors",
        "$S runs",
        "$S runs .",
        "$S runs show run",
        "$S generate run --prompt a --max-tokens 2 --device reference",
        "echo hello | $S chat run --device reference",
        "echo '[1]' | $S data decode --tokenizer run/checkpoints/step-000012",
        tokens,
        "$S --help",
        "$S data --help",
        "$S --version",
        "$S help train",
    ]
    .into_iter()
    .enumerate()
    {
        for (j, redirection) in [">/dev/full", ">&-", ">/dev/full 2>&-"].into_iter().enumerate() {
            let line = format!("{} {redirection}", command.replace("-N", &format!("-{i}-{j}")));
            let (code, stderr) = shell(&place, &line);
            // Commands that fail for another reason, as a base model in chat does, may say so.
            let expected = if command.contains("chat") { [1, 2] } else { [1, 1] };
            assert!(expected.map(Some).contains(&code), "{line}: {code:?} {stderr}");
            let lines = usize::from(!redirection.contains("2>&-"));
            assert!(stderr.lines().count() == lines || command.contains("chat"), "{line}: {stderr}");
        }
        // Whoever has seen enough is told nothing.
        let line = format!(
            "set -o pipefail; ({}) 2>err | true; cat err >&2",
            command.replace("-N", &format!("-{i}-p"))
        );
        let (_, stderr) = shell(&place, &line);
        assert!(!stderr.contains("Broken pipe"), "{line}: {stderr}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn measurements_do_not_begin_where_nobody_reads_them() {
    let place = Place::new();
    for command in ["bench", "doctor", "plan tiny.toml --measure"] {
        for redirection in [">&-", ">/dev/full"] {
            // Seconds of what would take minutes.
            let line = format!("timeout 20 $S {command} --device reference {redirection}");
            let (code, stderr) = shell(&place, &line);
            assert!(code == Some(1) && stderr.contains("standard output"), "{line}: {code:?} {stderr}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_was_made_is_no_failure() {
    let place = Place::new();
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    std::fs::write(place.path("text.txt"), "a few words ".repeat(2000)).expect("a text");
    for (i, redirection) in [">/dev/full", ">&-", ">/dev/full 2>&-"].into_iter().enumerate() {
        for (command, file) in [
            ("data tokenizer text.txt --vocab-size 300 --out", format!("tokenizer-{i}")),
            ("export run --out", format!("model-{i}.gguf")),
            ("init", format!("recipe-{i}.toml")),
        ] {
            let text = if command == "init" { "text.txt" } else { "" };
            let line = format!("$S {command} {file} {text} {redirection}");
            let (code, stderr) = shell(&place, &line);
            assert!(code == Some(0) && place.path(&file).exists(), "{line}: {code:?} {stderr}");
        }
    }
}

#[test]
fn a_run_stands_for_its_model() {
    let place = Place::new();
    run(place.train("run", "reference", &["checkpoint.every=100"]).args(["--until", "2"])).expect(0, &[]);
    let generate = |model: &Path| {
        let mut command =
            smolter(&["generate", "--prompt", "a", "--max-tokens", "3", "--device", "reference"]);
        run(command.arg(model))
    };
    let path = place.path("run");
    let outputs = ["", "checkpoints", "checkpoints/", "checkpoints/step-000002"]
        .map(|below| generate(&path.join(below)).expect(0, &[]).stdout);
    assert!(outputs.iter().all(|output| *output == outputs[0]), "{outputs:?}");
    std::fs::remove_dir_all(path.join("checkpoints")).expect("the checkpoints go");
    generate(&path)
        .expect(2, &["no checkpoint yet: it is at step 2, and the first comes by step 100"])
        .is_one_line();
}

#[test]
fn runs_are_listed_with_their_states() {
    let place = Place::new();
    run(&mut place.train("a run", "reference", &[])).expect(0, &[]);
    let stopped = run(place.train("it's", "reference", &[]).args(["--until", "3"])).expect(0, &[]);
    let quoted = place.path("it'\\''s").display().to_string();
    assert!(
        stopped.stdout.contains(&format!("continue with: smolter train --resume '{quoted}'")),
        "{stopped:#?}"
    );
    run(place.train("killed", "reference", &[]).args(["--until", "5"])).expect(0, &[]);
    std::fs::remove_file(place.path("killed/ending.json")).expect("a kill leaves no record");
    run(&mut place.train("bad", "reference", &["schedule.peak_lr=1e30"])).expect(1, &[]);
    let list = run(smolter(&["runs"]).arg(place.path(""))).expect(0, &[]).stdout;
    let row = |name: &str| list.lines().find(|line| line.trim().starts_with(name)).unwrap_or_default();
    assert!(row("a run").contains("finished  12/12") && row("a run").contains("step-000012"), "{list}");
    assert!(row("it's").contains("stopped") && row("it's").contains("3/12"), "{list}");
    assert!(row("killed").contains("failed") && row("bad").contains("failed"), "{list}");
    let show = |name: &str| run(smolter(&["runs", "show"]).arg(place.path(name))).expect(0, &[]).stdout;
    let shown = show("a run");
    assert!(shown.contains("step 1  loss, o held-out") && shown.contains("0:00:0"), "{shown}");
    assert!(!shown.contains("continue with") && show("killed").contains("continue with"));
    assert!(show("bad").contains("not finite") && !show("bad").contains("continue with"));
    run(smolter(&["runs", "show"]).arg(place.path("none"))).expect(2, &["no run here"]).is_one_line();
    run(smolter(&["runs"]).arg(place.path("none"))).expect(2, &["no such folder"]).is_one_line();
}

#[test]
fn times_and_events_go_on_when_a_run_does() {
    let place = Place::new();
    run(place.train("run", "reference", &[]).args(["--until", "5"])).expect(0, &[]);
    run(&mut place.resume("run", "reference")).expect(0, &[]);
    let text = std::fs::read_to_string(place.path("run/metrics.jsonl")).expect("the metrics");
    let timing = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        line["timing"]["seconds"].as_f64().expect("a number")
    };
    let seconds: Vec<f64> = text.lines().map(timing).collect();
    assert!(seconds.len() == 12 && seconds.is_sorted_by(|a, b| a < b), "{seconds:?}");
    let events = std::fs::read_dir(place.path("run/events")).expect("events").count();
    assert_eq!(events, 2);
}

#[test]
fn a_run_without_held_out_text_says_so() {
    let place = Place::new();
    let outcome = run(&mut place.train("run", "reference", &["held_out.fraction=0"])).expect(0, &[]);
    assert!(outcome.stdout.contains("no held-out loss will be measured"), "{outcome:#?}");
}
