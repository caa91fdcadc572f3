//! Chat templates of people who mean harm: each ends in one line, soon, and takes bounded memory.

use crate::support::{Place, run, smolter};
use smolter::tokenizer::chat_template;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Most time that a template may take, loading the model included.
const LONGEST: Duration = Duration::from_secs(5);

/// Loops of `body`, one inside the other.
fn loops(depth: usize, count: usize, body: &str) -> String {
    format!("{{% for i in range({count}) %}}").repeat(depth) + body + &"{% endfor %}".repeat(depth)
}

/// Sets `x`, and changes it over and over.
fn growing(start: &str, step: &str, times: usize) -> String {
    format!(
        "{{% set n = namespace(x={start}) %}}{{% for i in range({times}) %}}{{% set n.x = {step} %}}{{% endfor %}}\
         {{{{ n.x | length }}}}{{{{ n.x }}}}"
    )
}

/// What is written over and over between a beginning and an end.
fn nested(begin: &str, part: &str, times: usize, end: &str) -> String {
    format!("{begin}{}{end}", part.repeat(times))
}

fn hostile() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    // Values that hold themselves.
    for use_of in
        ["{{ n }}", "{{ n | tojson }}", "{{ n.a.a.a == n }}", "{{ n.a | string }}", "{{ [n] | sort }}", ""]
    {
        all.push(format!("{{% set n = namespace() %}}{{% set n.a = n %}}{use_of}{{{{ nothing.at_all }}}}"));
    }
    for use_of in ["{{ n.a }}", "{{ n.a | tojson }}", "{{ n.a == [] }}", "{{ n.a | string | length }}", ""] {
        let wrap = growing("[]", "[n.x]", 90_000).replace("n.x }}", "n.x | length }}");
        all.push(format!("{wrap}{}{{{{ nothing.at_all }}}}", use_of.replace("n.a", "n.x")));
    }
    all.push("{% set n = namespace() %}{% set n.a = [n] %}{% set n.b = {'n': n} %}{{ n }}".into());
    all.push("{% set n = namespace() %}{% set m = namespace(n=n) %}{% set n.m = m %}{{ n }}".into());
    // Widths and lengths of formatting.
    for width in ["99999999", "999999999", "4000000000", "99999999999999999999"] {
        all.push(format!("{{{{ '%{width}d' | format(1) }}}}{{{{ '%{width}d' % 1 }}}}"));
        all.push(format!("{{{{ '%.{width}f' | format(1.5) }}}}"));
        all.push(format!("{{{{ '{{:>{width}}}'.format(1) }}}}"));
        all.push(format!("{{{{ 'a' | center({width}) | length }}}}{{{{ nothing.at_all }}}}"));
        all.push(format!("{{{{ 'a\\nb' | indent({width}) }}}}{{{{ nothing.at_all }}}}"));
    }
    // Multiplication.
    for product in [
        "'a' * 100000000",
        "'a' * 99999999999",
        "100000000 * 'a'",
        "[1] * 100000000",
        "('a' * 10000) * 10000",
    ] {
        all.push(format!("{{% set a = {product} %}}{{{{ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a }}}}"));
        all.push(format!(
            "{{{{ (({product}) | list + ({product}) | list) | tojson }}}}{{{{ nothing.at_all }}}}"
        ));
    }
    all.push(format!("{{{{ {}9 }}}}{{{{ nothing.at_all }}}}", "9 ** ".repeat(2000)));
    all.push("{{ 'a'.replace('a', 'b' * 10000).replace('b', 'c' * 100000) }}".into());
    // Values that double.
    all.push(growing("'aa'", "n.x ~ n.x", 64));
    all.push(growing("'aa'", "n.x + n.x", 64));
    all.push(growing("[1, 2]", "n.x + n.x", 64));
    all.push(growing("[1]", "[n.x, n.x]", 64));
    all.push(growing("{}", "{'a': n.x, 'b': n.x}", 64));
    all.push(growing("'a'", "n.x.replace('a', 'aa')", 64));
    all.push(growing("'a'", "[n.x, n.x] | join(n.x)", 64));
    all.push(growing("'a'", "(n.x, n.x) | tojson", 64));
    // Loops, and what is computed in them.
    all.push(loops(5, 9999, ""));
    all.push(loops(3, 99_999, "{{ messages | tojson }}"));
    all.push(loops(3, 9999, "{% set a = 'a' * 10000 %}"));
    all.push(loops(2, 99_999, "{{ messages | tojson | tojson | length }}"));
    all.push("{{ range(100000000000) | list }}".into());
    all.push(
        "{% for i in range(99999) %}{% for m in range(99999) | list | reverse %}{% endfor %}{% endfor %}"
            .into(),
    );
    all.push("{% for i in range(99999) %}{{ strftime_now('%c' * 300) }}{% endfor %}".into());
    all.push(format!("{{{{ strftime_now('{}') }}}}", "%A %B".repeat(20_000)));
    all.push("{{ strftime_now('%Y' * 1000000) }}".into());
    all.push("{{ strftime_now('%99999999Y') }}{{ nothing.at_all }}".into());
    // Text that takes longer to encode than to make, and none.
    all.push("{{ 'a b ' * 2000000 }}".into());
    all.push("{{ 'hello world. ' * 5000000 }}".into());
    all.push("{{ '1' * 4000000 }}{{ ' 12' * 15000000 }}".into());
    all.push("{{ '\u{7684}' * 1300000 }}{{ ' x' * 10000000 }}".into());
    all.push("{% for i in range(60000) %}{{ 'some words ' * 50 }}{% endfor %}".into());
    all.push("{% set a = 1 %}".into());
    all.push("{{ raise_exception('x' * 10000000) }}".into());
    // Recursion.
    all.push("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into());
    all.push("{% macro f(a) %}{{ f(a ~ a) }}{% endmacro %}{{ f('aa') }}".into());
    all.push("{% macro f(n) %}{{ g(n) }}{{ g(n) }}{% endmacro %}{% macro g(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}".into());
    all.push("{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}".into());
    all.push("{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}".into());
    // Long sources.
    all.push(nested("{{ 1", "~1", 60_000, " }}{{ nothing.at_all }}"));
    all.push(nested("{{ 1", "+1", 60_000, " }}{{ nothing.at_all }}"));
    all.push(nested("{{ a", ".a", 60_000, " }}"));
    all.push(nested("{{ a", "|e", 60_000, " }}{{ nothing.at_all }}"));
    all.push(nested("{{ ", "not ", 30_000, "1 }}{{ nothing.at_all }}"));
    all.push(nested("{{ ", "-", 120_000, "1 }}{{ nothing.at_all }}"));
    all.push(nested("{{ ", "(", 120_000, ""));
    all.push(nested("{{ ", "[", 120_000, ""));
    all.push(nested("{{ ", "{1:", 40_000, ""));
    all.push(nested("", "{% if 1 %}", 12_000, ""));
    all.push(nested("{{ 1", " if 1 else 1", 10_000, " }}{{ nothing.at_all }}"));
    all
}

/// What is wrong with the way in which `smolter chat` takes a template, if anything.
fn judge(model: &Path, file: &Path, template: &str) -> Result<(), String> {
    std::fs::write(file, template).expect("the template is written");
    let begun = Instant::now();
    let mut command = smolter(&["chat", "--device", "reference", "--max-tokens", "2"]);
    let output = chat(command.arg(model).arg("--chat-template").arg(file));
    let took = begun.elapsed();
    let (code, stderr) = output;
    if code != Some(2) || stderr.lines().count() != 1 || !stderr.starts_with("error: ") {
        return Err(format!("ends with {code:?} and {stderr:?}"));
    }
    if !stderr.contains(&*file.to_string_lossy()) {
        return Err(format!("does not name the file: {stderr}"));
    }
    if took > LONGEST { Err(format!("takes {took:?}")) } else { Ok(()) }
}

/// Says a word; returns exit code and standard error.
fn chat(command: &mut Command) -> (Option<i32>, String) {
    use std::io::Write;
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let _ = child.stdin.take().expect("a pipe").write_all(b"hello\n"); // it may have ended already
    let output = child.wait_with_output().expect("its output");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[cfg(target_os = "linux")]
#[test]
fn hostile_templates_end_in_one_line() {
    let place = Place::new();
    run(&mut place.train("run", "reference", &["model.max_position_embeddings=512"])).expect(0, &[]);
    let model = place.path("run/checkpoints/step-000012");
    let all = hostile();
    assert!(all.len() >= 70, "{}", all.len());
    let (next, wrong) = (Mutex::new(all.iter().enumerate()), Mutex::new(Vec::new()));
    let work = |worker: usize| {
        let file = place.path(&format!("hostile-{worker}.jinja"));
        loop {
            let Some((i, template)) = next.lock().expect("no panic").next() else { return };
            if let Err(what) = judge(&model, &file, template) {
                let start: String = template.chars().take(200).collect();
                wrong.lock().expect("no panic").push(format!("{i} {start}\n    {what}"));
            }
        }
    };
    let work = &work;
    std::thread::scope(|scope| {
        for worker in 0..std::thread::available_parallelism().map_or(2, |n| n.get().min(4)) {
            scope.spawn(move || work(worker));
        }
    });
    let wrong = wrong.into_inner().expect("no panic");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // And a template that is none of those, but not plainly harmless either.
    let file = place.path("plain.jinja");
    let long = "{# a note #}".repeat(9_000);
    std::fs::write(&file, format!("{{% set greeting = 'a' * 3 %}}{long}{}", chat_template()))
        .expect("it is written");
    let mut command = smolter(&["chat", "--device", "reference", "--max-tokens", "2"]);
    let (code, stderr) = chat(command.arg(&model).arg("--chat-template").arg(&file));
    assert_eq!(code, Some(0), "{stderr}");
}
