//! The source tree's own rules: imports go downward only, and no file is too long.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each module may import, besides itself. From the bottom up.
const FLOORS: [(&str, &[&str]); 20] = [
    ("error", &[]),
    ("panics", &[]),
    ("files", &["error"]),
    ("tokenizer", &["error", "files", "panics", "data", "checkpoint"]),
    ("data", &["error", "files", "panics", "tokenizer", "checkpoint"]),
    ("checkpoint", &["error", "files", "tokenizer", "data"]),
    ("gpu", &["error"]),
    ("ops", &["error", "gpu"]),
    ("graph", &["error", "gpu", "ops"]),
    ("nn", &["error", "files", "gpu", "ops", "graph", "optim"]),
    ("optim", &["error", "gpu", "ops", "graph", "nn"]),
    ("model", &["error", "files", "tokenizer", "data", "checkpoint", "nn"]),
    ("recipes", &["error", "files", "tokenizer", "data", "nn", "optim"]),
    ("train", &[BELOW, "eval", "generate", "report"]),
    ("eval", &[BELOW, "train", "generate", "report"]),
    ("generate", &[BELOW, "train", "eval", "report"]),
    ("report", &[BELOW, "train", "eval", "generate"]),
    ("bench", &[BELOW, "train", "generate", "report"]),
    ("cli", &[BELOW, "train", "eval", "generate", "report", "bench"]),
    // The library's root re-exports the error type; the binary's root uses the library.
    ("lib", &["error"]),
];

/// Everything up to `recipes`.
const BELOW: &str = "everything below";

const LONGEST: usize = 700;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files with this ending under `folder`, by path relative to the repository.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.extension().is_some_and(|it| it == ending) {
                found.push(path.strip_prefix(root()).expect("below the root").to_path_buf());
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), ending, &mut found);
    found.sort();
    found
}

fn allowed(module: &str, import: &str) -> bool {
    let order = |name: &str| FLOORS.iter().position(|(module, _)| *module == name);
    let Some(floor) = order(module) else { return false };
    let listed = |rule: &&str| *rule == import || *rule == BELOW && order(import) <= order("recipes");
    order(import).is_some() && (module == import || FLOORS[floor].1.iter().any(listed))
}

/// `src/a/b.rs` is `[a, b]`; `src/a/mod.rs` is `[a]`.
fn module_path(file: &Path) -> Vec<String> {
    let parts = file.with_extension("");
    let mut parts: Vec<String> =
        parts.iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
    parts.pop_if(|last| last == "mod");
    parts
}

/// The text without comments and without items under `#[cfg(test)]`, which end at the margin.
fn production(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            let item = lines.next().unwrap_or_default();
            if !item.ends_with([';', '}']) {
                lines.find(|line| *line == "}");
            }
        } else {
            kept += line.split("//").next().unwrap_or_default();
            kept += "\n";
        }
    }
    kept
}

/// Top-level modules that a file of module `path` names by `crate::` or by enough `super::`.
fn imports(path: &[String], text: &str) -> BTreeSet<String> {
    let text = production(text);
    let up = "super::".repeat(path.len());
    let mut found = BTreeSet::new();
    for prefix in ["crate::", up.as_str()] {
        for (at, _) in text.match_indices(prefix) {
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue; // `pub_crate::` or the tail of a longer path
            }
            found.insert(first_name(&text[at + prefix.len()..]));
        }
    }
    found
}

/// The identifier that `text` begins with. `use crate::{...}` has none, and so no floor: one `use` per module.
fn first_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// `crate::Error` and `crate::Result` are the root's names for those of `error`.
fn module_of(name: &str) -> &str {
    if ["Error", "Result"].contains(&name) { "error" } else { name }
}

#[test]
fn imports_go_downward() {
    let mut wrong = Vec::new();
    for file in files("src", "rs") {
        let path = module_path(&file);
        if path == ["main"] || path.last().is_some_and(|name| name == "tests") {
            continue;
        }
        let text = std::fs::read_to_string(root().join(&file)).expect("a source file");
        for import in imports(&path, &text) {
            if !allowed(&path[0], module_of(&import)) {
                wrong.push(format!("{}: {} must not import {import}", file.display(), path[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    for entry in std::fs::read_dir(root().join("src")).expect("src") {
        let name = module_path(&Path::new("src").join(entry.expect("an entry").file_name())).remove(0);
        assert!(
            name == "main" || FLOORS.iter().any(|(module, _)| *module == name),
            "src/{name} has no floor"
        );
    }
}

#[test]
fn an_upward_import_is_seen() {
    let path = |parts: &[&str]| parts.iter().map(|part| part.to_string()).collect::<Vec<_>>();
    let found =
        |parts: &[&str], text: &str| imports(&path(parts), text).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(found(&["ops", "add"], "use crate::graph::Graph;"), "graph");
    assert_eq!(found(&["ops", "add"], "fn f() -> crate::train::Trainer {}"), "train");
    assert_eq!(found(&["ops", "add"], "use super::super::nn;\nuse super::Op;"), "nn");
    assert_eq!(found(&["ops"], "use super::nn::{a, b};"), "nn");
    assert_eq!(found(&["ops"], "#[cfg(test)]\nmod tests {\n    use crate::nn;\n}\nuse crate::gpu;"), "gpu");
    assert_eq!(found(&["ops"], "#[cfg(test)]\nmod tests;\nuse crate::gpu; // not crate::nn"), "gpu");
    assert!(allowed("train", "graph") && allowed("train", "eval") && allowed("cli", "ops"));
    assert!(!allowed("graph", "nn") && !allowed("data", "gpu") && !allowed("train", "cli"));
    assert!(!allowed("recipes", "train") && !allowed("ops", "unheard_of") && !allowed("cli", ""));
}

#[test]
fn no_file_is_too_long() {
    let all = [files("src", "rs"), files("shaders", "wgsl"), files("tests", "rs")].concat();
    assert!(all.len() > 60, "only {} files found", all.len());
    for file in all {
        let lines = std::fs::read_to_string(root().join(&file)).expect("a source file").lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines, more than {LONGEST}", file.display());
    }
}
