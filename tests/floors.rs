//! The source tree's own rules: imports go downward only, no files use each other in a circle, none is too long.

mod imports;

use imports::{Module, Tree};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a module may import, besides itself.
enum May {
    /// Nothing but these, which lie below it.
    Import(&'static [&'static str]),
    /// Everything below it.
    ImportAllBelow,
}
use May::{Import, ImportAllBelow};

/// The modules of the crate, from the bottom up.
const FLOORS: [(&str, May); 24] = [
    ("error", Import(&[])),
    ("panics", Import(&[])),
    ("files", Import(&["error"])),
    ("report", Import(&["error"])),
    ("hub", Import(&["error", "files", "report"])),
    ("checkpoint", Import(&["error", "files"])),
    ("tokenizer", Import(&["error", "panics", "files"])),
    ("data", Import(&["error", "panics", "files", "hub", "checkpoint", "tokenizer"])),
    ("gpu", Import(&["error", "files", "report"])),
    ("ops", Import(&["error", "gpu"])),
    ("graph", Import(&["error", "report", "gpu", "ops"])),
    ("optim", Import(&["error", "gpu", "ops", "graph"])),
    ("nn", Import(&["error", "files", "gpu", "ops", "graph", "optim"])),
    ("model", Import(&["error", "files", "checkpoint", "tokenizer", "nn"])),
    ("infer", ImportAllBelow),
    ("recipes", Import(&["error", "files", "report", "hub", "tokenizer", "data", "optim", "nn", "model"])),
    ("eval", ImportAllBelow),
    ("train", ImportAllBelow),
    ("ablation", ImportAllBelow),
    ("check", ImportAllBelow),
    ("bench", ImportAllBelow),
    ("pages", ImportAllBelow),
    ("cli", ImportAllBelow),
    // The library's root re-exports the error type; the binary's root uses the library.
    ("lib", Import(&["error"])),
];

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

/// The crate's files.
fn tree() -> Tree {
    let read = |path: &PathBuf| std::fs::read_to_string(root().join(path)).expect("a source file");
    let files: Vec<(String, String)> =
        files("src", "rs").iter().map(|path| (path.to_string_lossy().into_owned(), read(path))).collect();
    Tree::new(files.iter().map(|(path, text)| (path.as_str(), text.as_str())))
}

fn allowed(module: &str, import: &str) -> bool {
    let place = |name: &str| FLOORS.iter().position(|(module, _)| *module == name);
    let (Some(floor), Some(below)) = (place(module), place(import)) else { return false };
    let listed = match FLOORS[floor].1 {
        Import(list) => list.contains(&import),
        ImportAllBelow => true,
    };
    module == import || below < floor && listed
}

/// The module of the first floor of a path.
fn top(module: &[String]) -> &str {
    module.first().map_or("lib", |name| name)
}

/// Imports of modules that a module must not import, as lines.
fn wrong_imports(tree: &Tree) -> Vec<String> {
    let wrong = |module: &Module| {
        let mut lines = BTreeSet::new();
        for reference in tree.references(module) {
            // The root stands for what it re-exports; any other module that is named is imported itself.
            let named = Some(top(&reference.path)).filter(|name| FLOORS.iter().any(|(it, _)| it == name));
            for import in named.into_iter().chain([top(&reference.defined_in)]) {
                if !allowed(top(module), import) {
                    let (file, path) = (tree.path(module), reference.path.join("::"));
                    lines.insert(format!("{file}: {} must not import {import} ({path})", top(module)));
                }
            }
        }
        lines
    };
    tree.modules().flat_map(wrong).collect()
}

#[test]
fn imports_go_downward() {
    let wrong = wrong_imports(&tree());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let circles = Vec::from_iter(tree().circles());
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    for module in tree().modules() {
        let name = top(module);
        assert!(FLOORS.iter().any(|(floor, _)| *floor == name), "src/{name} has no floor");
    }
}

#[test]
fn no_floor_lists_what_is_not_below_it() {
    for (module, may) in &FLOORS {
        let Import(list) = may else { continue };
        for import in *list {
            assert!(allowed(module, import), "{import} is not below {module}");
        }
    }
}

#[test]
fn an_upward_import_is_seen() {
    let wrong = |text: &str| {
        let files = [
            ("src/lib.rs", "mod error;\npub use error::Error;"),
            ("src/error.rs", "pub struct Error;"),
            ("src/gpu.rs", ""),
            ("src/graph/mod.rs", ""),
            ("src/train/mod.rs", ""),
            ("src/ops/mod.rs", ""),
            ("src/ops/add.rs", text),
        ];
        let lines = wrong_imports(&Tree::new(files));
        lines
            .iter()
            .map(|line| line.split_once("must not import ").expect("a line").1.to_string())
            .collect::<Vec<_>>()
    };
    assert!(wrong("use crate::gpu::Caps;\nuse crate::{Error, ops};\nuse super::Op;").is_empty());
    assert_eq!(wrong("use crate::graph::Graph;"), ["graph (graph::Graph)"]);
    assert_eq!(wrong("fn f() -> crate::train::Trainer {}")[0], "train (train::Trainer)");
    assert_eq!(wrong("use crate::{gpu::Caps, graph};")[0], "graph (graph)");
    assert_eq!(wrong("use super::super::graph;")[0], "graph (graph)");
    assert!(allowed("train", "graph") && allowed("train", "eval") && allowed("cli", "ops"));
    assert!(!allowed("graph", "nn") && !allowed("data", "gpu") && !allowed("train", "cli"));
    assert!(!allowed("recipes", "train") && !allowed("ops", "unheard_of") && !allowed("cli", ""));
    for (module, _) in &FLOORS {
        let both = |other: &str| module != &other && allowed(module, other) && allowed(other, module);
        assert!(FLOORS.iter().all(|(other, _)| !both(other)), "{module} has no place in the order");
    }
}

/// The macros panic when nobody can read what they print; the functions of `report::out` do not.
#[test]
fn only_report_prints() {
    let macros = ["print", "println", "eprint", "eprintln", "dbg"].map(|name| format!("{name}!"));
    let prints = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.split(|c: char| !c.is_alphanumeric() && !"_!".contains(c))
            .any(|word| macros.iter().any(|it| it == word))
    };
    assert!(prints("x => println!(\"{x}\"),") && !prints("// println!()") && !prints("out::print(x)"));
    for file in files("src", "rs") {
        let text = std::fs::read_to_string(root().join(&file)).expect("a source file");
        // Tests may: nothing depends on what they print.
        let text =
            if file.ends_with("tests.rs") { "" } else { text.split("#[cfg(test)]").next().unwrap_or("") };
        let found = text.lines().position(prints);
        let line = found.map_or(0, |line| line + 1);
        assert!(found.is_none(), "{}:{line}: use a function of report::out", file.display());
    }
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
