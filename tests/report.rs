//! T2: reports of runs. What must be there is there, the page needs nothing else, and no file can put markup into it.

use crate::support::{Outcome, Place, copy, run, smolter};
use std::path::Path;

/// What must never come out as it is.
const SCRIPT: &str = "<script>alert('1')</script>";

const SCORES: &str = r#"{"step":4,"stage":"short","tokens":256,"task":"sums","chat":false,"items":50,"score":0.1,"standard_error":0.04,"guessing":0.05}
{"step":6,"stage":"short","tokens":384,"task":"sums","chat":false,"items":50,"score":0.2,"standard_error":0.05,"guessing":0.05}
{"step":6,"stage":"short","tokens":384,"task":"loss/facts","chat":false,"items":640,"score":5.25,"standard_error":0.01,"baseline":4.5}
{"step":12,"stage":"long","tokens":1152,"task":"sums","chat":false,"items":50,"score":0.9,"standard_error":0.042,"guessing":0.05}
{"step":12,"stage":"long","tokens":1152,"task":"sums","chat":true,"items":50,"score":0.06,"standard_error":0.03,"guessing":0.05}
{"step":12,"stage":"long","tokens":1152,"task":"loss/facts","chat":false,"items":640,"score":4.125,"standard_error":0.01,"baseline":4.5}
"#;

const SAMPLES: &str = r#"{"step":6,"stage":"short","chat":false,"prompt":"Where | does","text":" it `end`?\n```\n# No"}
{"step":12,"stage":"long","chat":true,"prompt":"Where | does","text":"<script>alert('1')</script> & \u202egnp.exe"}
"#;

const HISTORY: &str = r#"{"step":3,"stage":"short","kind":"spike","loss":9.5,"expected":5.75,"datasets":["facts"]}
{"step":3,"stage":"short","kind":"rewind","to":2,"skipped":[{"step":2,"steps":1}]}
{"step":7,"stage":"long","kind":"intervention","set":["stages.long.mixture={facts=<b>}"],"before":["x"]}
"#;

/// A finished run with everything that a run can have.
fn finished(place: &Place, name: &str, overrides: &[&str]) -> Outcome {
    let outcome = run(&mut place.train(name, "reference", overrides)).expect(0, &[]);
    for (file, text) in [("scores", SCORES), ("samples", SAMPLES), ("history", HISTORY)] {
        std::fs::write(place.path(name).join(format!("{file}.jsonl")), text).expect("a file");
    }
    outcome
}

fn report(place: &Place, arguments: &[&str]) -> Outcome {
    run(smolter(&["report"]).args(arguments).current_dir(place.path("")))
}

/// The two files in a folder, checked.
fn files(folder: &Path) -> (String, String) {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a report");
    let (html, markdown) = (read("report.html"), read("report.md"));
    assert_well_formed(&html);
    let text = outside_of_fences(&markdown);
    assert!(!text.contains("<script") && !text.contains("<b>"), "{text}");
    (html, markdown)
}

/// Markdown without the blocks of text that are shown as they are.
fn outside_of_fences(markdown: &str) -> String {
    let mut fence: Option<usize> = None;
    let mut outside = String::new();
    for line in markdown.lines() {
        let marks = line.chars().take_while(|&c| c == '`').count();
        match fence {
            Some(open) if marks >= open && line.len() == marks => fence = None,
            Some(_) => {}
            None if marks >= 3 => fence = Some(marks),
            None => outside += &format!("{line}\n"),
        }
    }
    assert!(fence.is_none(), "a fence stays open: {markdown}");
    outside
}

/// Requires that every element is closed where it was opened, and that nothing is fetched or run.
fn assert_well_formed(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("a document type");
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a stray > in {:?}", &rest[..at.min(200)]);
        rest = &rest[at..];
        let end = if rest.starts_with("<!--") { "-->" } else { ">" };
        let (tag, behind) = rest.split_once(end).unwrap_or_else(|| panic!("no end of {rest:.100}"));
        rest = behind;
        let tag = tag[1..].trim_start_matches("!--");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or("");
        assert!(!["script", "link", "img", "iframe", "object"].contains(&name), "<{tag}>");
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        for attribute in ["src=", "onload=", "onclick=", "style="] {
            assert!(!tag.contains(attribute), "<{tag}>");
        }
        assert!(!tag.contains("href=") || tag.contains("href=\"#part-"), "<{tag}>");
        if end == "-->" || name == "meta" || tag.ends_with('/') {
        } else if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{open:?} <{tag}>");
        } else {
            open.push(name);
        }
        if name == "style" && !tag.starts_with('/') {
            let (style, behind) = rest.split_once("</style>").expect("the end of the styles");
            assert!(!style.contains("url(") && !style.contains("@import") && !style.contains('<'));
            open.pop();
            rest = behind;
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[track_caller]
fn assert_has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "'{word}' is not in {text}");
    }
}

#[test]
fn a_run_that_ends_has_its_report() {
    let place = Place::new();
    let outcome = finished(&place, "run", &[]);
    let line = outcome.stdout.lines().find(|line| line.starts_with("report:")).expect("a line");
    assert!(line.contains("run/report.html"), "{line}");
    let (html, _) = files(&place.path("run"));
    assert_has(&html, &["no scores: the run folder has no scores.jsonl", "None were recorded."]);

    report(&place, &["run"]).expect(0, &[]);
    let (html, markdown) = files(&place.path("run"));
    for text in [&html, &markdown] {
        assert_has(text, &["tiny: ", "finished", "12 of 12", "reference executor"]);
        // The stages, their data, and what was planned.
        assert_has(text, &["short", "long", "facts", "/ 70.0", "/ 50.0", "memory plan", "weights", "1 x 4"]);
        // Of two evaluations in a stage the last one counts.
        assert_has(text, &["20.0 ± 5.0", "90.0 ± 4.2", "sums (chat)", "6.0 ± 3.0", "5.250 ± 0.010", "4.500"]);
        assert!(!text.contains("10.0 ± 4.0"));
        assert_has(
            text,
            &["after short, step 6, continued", "after long, step 12, asked in a chat", "gnp.exe"],
        );
        assert_has(text, &["spike", "5.750 was expected", "back to step 2", "intervention"]);
        assert_has(
            text,
            &["run/recipe.toml --device reference --memory ", "[[stages]]", "hashes of the data"],
        );
        assert!(!text.contains('\u{202e}'));
    }
    assert_has(
        &html,
        &["&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;", "\\u{202e}", "<svg", "prefers-color-scheme"],
    );
    assert_has(&html, &["<td class=\"good\">90.0 ± 4.2</td>", "<td class=\"quiet\">6.0 ± 3.0</td>"]);
    assert_has(&html, &["<td class=\"bad\">5.250 ± 0.010</td>", "<td class=\"good\">4.125 ± 0.010</td>"]);
    assert_has(&markdown, &["### Where \\| does", "````text", "| --- |"]);
    assert!(markdown.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "no curve in {markdown}");
    assert!(!html.contains(SCRIPT) && !html.contains("{facts=<b>}"), "{html}");
    // It is the same at any time.
    report(&place, &["run"]).expect(0, &[]);
    assert_eq!(files(&place.path("run")), (html, markdown));
}

#[test]
fn runs_stand_side_by_side() {
    let place = Place::new();
    finished(&place, "a", &[]);
    finished(&place, "b", &["seed=9"]);
    finished(&place, "c", &["schedule.peak_lr=3e-3"]);
    std::fs::remove_file(place.path("c/scores.jsonl")).expect("a file");
    let other = SCORES.replace("\"score\":0.9", "\"score\":0.8");
    std::fs::write(place.path("b/scores.jsonl"), other).expect("a file");
    let outcome = report(&place, &["a", "b", "c"]).expect(0, &[]);
    assert_eq!(outcome.stdout, "report.html\nreport.md\n");
    let (html, markdown) = files(&place.path(""));
    for text in [&html, &markdown] {
        assert_has(text, &["a: mean of 2 seeds", "85.0 ± 7.1", "seed = 9 (was 8)", "lr = 0.003 (was 0.001)"]);
        assert_has(
            text,
            &["c: no scores: the run folder has no scores.jsonl", "a/recipe.toml", "c/recipe.toml"],
        );
    }
    for run in ["a", "b", "c"] {
        assert_has(&html, &[&format!("</i>{run}</li>"), &format!("<th scope=\"col\">{run}</th>")]);
    }
}

#[test]
fn what_is_damaged_or_missing_is_told() {
    let place = Place::new();
    finished(&place, "run", &[]);
    let metrics = std::fs::read_to_string(place.path("run/metrics.jsonl")).expect("metrics");
    let broken = |name: &str, damage: &dyn Fn(&Path)| {
        copy(&place.path("run"), &place.path(name));
        damage(&place.path(name));
        report(&place, &[name]).expect(0, &[]);
        files(&place.path(name)).0
    };
    let html = broken("lines", &|run| {
        let lines = metrics.lines().enumerate();
        let damaged: String =
            lines.map(|(i, line)| if i == 3 { "{\n".into() } else { format!("{line}\n") }).collect();
        std::fs::write(
            run.join("metrics.jsonl"),
            damaged.replace("\"facts\"", "\"<script>alert('1')</script>\""),
        )
        .expect("a file");
        std::fs::write(run.join("scores.jsonl"), format!("{SCORES}{{\"step\":\n\u{fffd}\n")).expect("a file");
        std::fs::write(run.join("samples.jsonl"), vec![b'a'; 3 << 20]).expect("a file");
    });
    assert_has(
        &html,
        &["1 of 12 steps have no sound line of metrics", "scores.jsonl: 2 lines damaged and left out"],
    );
    assert_has(&html, &["of samples.jsonl, all damaged", "&lt;script&gt;alert"]);
    let html =
        broken("no recipe", &|run| std::fs::write(run.join("recipe.toml"), "name = 7").expect("a file"));
    assert_has(&html, &["no recipe that can be read", "<svg", "20.0 ± 5.0", "reference executor"]);
    let html = broken("no steps", &|run| std::fs::remove_file(run.join("metrics.jsonl")).expect("a file"));
    assert_has(&html, &["no curves: ", "20.0 ± 5.0", "0 of 12"]);
    let html = broken("bare", &|run| {
        for file in
            ["begun.json", "sittings.jsonl", "scores.jsonl", "samples.jsonl", "history.jsonl", "ending.json"]
        {
            std::fs::remove_file(run.join(file)).expect("a file");
        }
    });
    assert_has(&html, &["device and memory are not known", "no hashes of the data", "no samples"]);

    std::fs::create_dir(place.path("empty")).expect("a folder");
    for name in ["empty", "none"] {
        report(&place, &[name]).expect(2, &["no run here"]).is_one_line();
    }
    report(&place, &["run", "--bench", "run/ending.json"])
        .expect(2, &["no result of smolter bench"])
        .is_one_line();
}

#[test]
fn a_report_goes_where_it_is_told_and_overwrites_nothing_else() {
    let place = Place::new();
    finished(&place, "run", &[]);
    for (out, there) in [
        ("a.html", &["a.html"][..]),
        ("b.md", &["b.md"]),
        ("new/c", &["new/c/report.html", "new/c/report.md"]),
    ] {
        let outcome = report(&place, &["run", "--out", out]).expect(0, &[]);
        assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), there);
        assert!(there.iter().all(|path| place.path(path).is_file()));
    }
    std::fs::write(place.path("mine.md"), "# mine").expect("a file");
    report(&place, &["run", "--out", "mine.md"]).expect(2, &["mine.md", "--out"]).is_one_line();
    assert_eq!(std::fs::read_to_string(place.path("mine.md")).expect("a file"), "# mine");
    // Nor does a run that ends.
    let before = std::fs::read(place.path("mine.md")).expect("a file");
    std::fs::write(place.path("run/report.md"), before).expect("a file");
    report(&place, &["run"]).expect(2, &["run/report.md"]).is_one_line();
}

#[test]
fn the_speed_is_a_share_of_a_peak_that_was_measured() {
    let place = Place::new();
    run(&mut place.train("run", "reference", &[])).expect(0, &[]);
    let (html, _) = files(&place.path("run"));
    assert_has(&html, &["no share of the device&#39;s peak"]);
    // As if it had been trained on that adapter.
    let sittings = std::fs::read_to_string(place.path("run/sittings.jsonl")).expect("sittings");
    std::fs::write(
        place.path("run/sittings.jsonl"),
        sittings.replace("\"adapter\":null", "\"adapter\":\"A <b>\""),
    )
    .expect("a file");
    let bench = |name: &str| {
        format!(
            r#"{{"measured_at":"today","adapter":{{"name":"{name}"}},"peaks":{{"f32":{{"best":123e9,"ways":[]}}}}}}"#
        )
    };
    std::fs::write(place.path("other.json"), bench("B")).expect("a file");
    std::fs::write(place.path("bench.json"), bench("A <b>")).expect("a file");
    report(&place, &["run", "--bench", "other.json"]).expect(0, &[]);
    assert_has(
        &files(&place.path("run")).0,
        &["it was not measured. smolter bench --json FILE on A &lt;b&gt;"],
    );
    report(&place, &["run", "--bench", "other.json", "--bench", "bench.json"]).expect(0, &[]);
    assert_has(
        &files(&place.path("run")).0,
        &["The peak is 123 GFLOP/s of f32 multiply-adds on A &lt;b&gt;", " %</td>"],
    );
}
