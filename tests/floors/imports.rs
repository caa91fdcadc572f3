//! Which file of a source tree uses what from which other file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// A path of modules, from the crate's root down.
pub type Module = Vec<String>;

/// The source files of a crate, read without comments, literals and tests.
pub struct Tree {
    files: BTreeMap<Module, File>,
}

struct File {
    path: String,
    tokens: Vec<String>,
    imports: Vec<Import>,
}

/// A name that `use` brings into a file; `*` for all names of a module.
struct Import {
    name: String,
    path: Vec<String>,
}

/// A path that a file names, from the crate's root on, and the module whose file defines what it means.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// As named, such as `graph::plan::Plan`.
    pub path: Vec<String>,
    /// Where it is defined, after all re-exports.
    pub defined_in: Module,
}

impl Tree {
    /// From files as (path, text). Files of tests and the root of the binary are left out.
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tree {
        let read = |(path, text): (&str, &str)| {
            let module = module_of(Path::new(path));
            let is_test = module.last().is_some_and(|name| name == "tests");
            (!is_test && module != ["main"]).then(|| {
                let tokens = tokens(&without_tests(&without_literals(text)));
                (module, File { path: path.into(), imports: imports(&tokens), tokens })
            })
        };
        Tree { files: files.into_iter().filter_map(read).collect() }
    }

    /// All modules that have a file.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.files.keys()
    }

    /// The file of a module.
    pub fn path(&self, module: &Module) -> &str {
        &self.files[module].path
    }

    /// Everything of this crate that a module's file names.
    pub fn references(&self, module: &Module) -> BTreeSet<Reference> {
        let file = &self.files[module];
        let imported = file.imports.iter().filter_map(|import| self.absolute(module, &import.path));
        let named = paths(&file.tokens).into_iter().filter_map(|path| {
            let alias = file.imports.iter().find(|import| import.name == path[0]);
            match alias.and_then(|import| self.absolute(module, &import.path)) {
                Some(start) => Some([&start[..], &path[1..]].concat()),
                None => self.absolute(module, &path),
            }
        });
        let reference = |path: Vec<String>| {
            let defined_in = self.definition(&path, 0);
            Reference { path, defined_in }
        };
        imported.chain(named).map(reference).collect()
    }

    /// A path from the root on, if it leads into this crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Vec<String>> {
        let child = || self.files.contains_key(&[module, &path[..1]].concat());
        match path[0].as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([module, &path[1..]].concat()),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                Some([&module[..module.len().checked_sub(up)?], &path[up..]].concat())
            }
            _ => child().then(|| [module, path].concat()),
        }
    }

    /// The module whose file defines what an absolute path names.
    fn definition(&self, path: &[String], depth: usize) -> Module {
        let known = (0..=path.len()).take_while(|&n| n == 0 || self.files.contains_key(&path[..n])).last();
        let (module, rest) = path.split_at(known.unwrap_or(0));
        let module = module.to_vec();
        let (Some(name), Some(file)) = (rest.first(), self.files.get(&module)) else { return module };
        for import in file.imports.iter().filter(|_| depth < 16) {
            let Some(target) = self.absolute(&module, &import.path) else { continue };
            if import.name == *name {
                return self.definition(&[&target[..], &rest[1..]].concat(), depth + 1);
            }
            if import.name == "*" && self.files.get(&target).is_some_and(|file| file.declares(name)) {
                return target;
            }
        }
        module
    }

    /// Which modules' files use which others. What passes between a module and those inside it does not count: the
    /// outer one lists the inner ones, and these use what it defines.
    pub fn uses(&self) -> BTreeMap<&Module, BTreeSet<&Module>> {
        let family = |a: &Module, b: &Module| a.starts_with(b) || b.starts_with(a);
        let used = |module| {
            let references = self.references(module).into_iter().map(|reference| reference.defined_in);
            let others = references.filter(|other| !family(module, other));
            others.filter_map(|other| Some(self.files.get_key_value(&other)?.0)).collect()
        };
        self.files.keys().map(|module| (module, used(module))).collect()
    }

    /// Circles of files that use each other: for each file in one, the shortest, as lines of paths.
    pub fn circles(&self) -> BTreeSet<String> {
        let uses = self.uses();
        let circles = uses.keys().filter_map(|start| {
            let mut circle = shortest_circle(&uses, start)?;
            let first = (0..circle.len()).min_by_key(|&i| circle[i])?;
            circle.rotate_left(first);
            circle.push(circle[0]);
            Some(circle.into_iter().map(|module| self.path(module)).collect::<Vec<_>>().join(" -> "))
        });
        circles.collect()
    }
}

impl File {
    fn declares(&self, name: &str) -> bool {
        let keywords = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "union"];
        self.tokens.windows(2).any(|pair| keywords.contains(&pair[0].as_str()) && pair[1] == name)
    }
}

fn shortest_circle<'a>(
    uses: &BTreeMap<&'a Module, BTreeSet<&'a Module>>,
    start: &'a Module,
) -> Option<Vec<&'a Module>> {
    let mut came_from = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(module) = queue.pop_front() {
        for &next in &uses[module] {
            if next == start {
                let back = std::iter::successors(Some(module), |at| came_from.get(at).copied());
                let mut circle: Vec<_> = back.collect();
                circle.reverse();
                return Some(circle);
            }
            if !came_from.contains_key(next) {
                came_from.insert(next, module);
                queue.push_back(next);
            }
        }
    }
    None
}

/// `src/a/b.rs` is `[a, b]`, `src/a/mod.rs` is `[a]`, `src/lib.rs` is the root.
fn module_of(path: &Path) -> Module {
    let parts = path.with_extension("");
    let mut module: Module = parts.iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
    module.pop_if(|last| last == "mod");
    if module == ["lib"] { Module::new() } else { module }
}

/// The text with comments and the insides of strings and characters left out; lines stay lines.
fn without_literals(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|after| (after.trim_start_matches('#'), after));
        let after_name = code.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !code.ends_with('b');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some((body, after)) = raw.filter(|(body, _)| body.starts_with('"') && !after_name) {
            let end = format!("\"{}", "#".repeat(after.len() - body.len()));
            let open = rest.len() - body.len() + 1;
            rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len())
        } else if c == '"' {
            literal(rest, '"').unwrap_or(rest.len())
        } else if c == '\'' {
            // A character, not a lifetime: closed after one, or after an escape.
            let is_character = rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'');
            if is_character { literal(rest, '\'').unwrap_or(rest.len()) } else { 0 }
        } else {
            0
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

/// Bytes of the literal that `text` begins with, up to the `quote` that closes it.
fn literal(text: &str, quote: char) -> Option<usize> {
    let mut escaped = true;
    let close = text.char_indices().find(|&(_, c)| {
        let closes = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    close.map(|(at, _)| at + 1)
}

/// The text without items under `#[cfg(test)]`, which end where they are indented.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let end = line.replace("#[cfg(test)]", "}");
            let item = lines.next().unwrap_or_default();
            if !item.trim_end().ends_with([';', '}', ',']) {
                lines.find(|line| *line == end);
            }
        } else {
            kept += line;
            kept += "\n";
        }
    }
    kept
}

/// Names, `::`, and single characters.
fn tokens(code: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(c) = rest.chars().next() {
        let length = if is_name(c) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        tokens.push(rest[..length].to_string());
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The place after `use` of every declaration; `use<'a>` in a type is none.
fn declarations(tokens: &[String]) -> impl Iterator<Item = usize> {
    let after = |at: usize| tokens.get(at + 1).map(String::as_str);
    (0..tokens.len()).filter(move |&at| tokens[at] == "use" && after(at) != Some("<")).map(|at| at + 1)
}

fn imports(tokens: &[String]) -> Vec<Import> {
    let mut found = Vec::new();
    for at in declarations(tokens) {
        let mut rest = tokens[at..].iter().map(String::as_str).peekable();
        use_tree(&mut rest, Vec::new(), &mut found);
    }
    found
}

/// `a::b`, `a::b as c`, `a::*` or `a::{..}`, of which `path` was read before.
fn use_tree<'a>(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    mut path: Vec<String>,
    found: &mut Vec<Import>,
) {
    while let Some(token) = tokens.next() {
        match token {
            "::" => continue,
            "{" => {
                while tokens.next_if_eq(&"}").is_none() && tokens.peek().is_some() {
                    use_tree(tokens, path.clone(), found);
                    tokens.next_if_eq(&",");
                }
                return;
            }
            "*" => return found.push(Import { name: "*".into(), path }),
            "self" if !path.is_empty() => {}
            name => path.push(name.into()),
        }
        if tokens.peek() != Some(&"::") {
            let renamed = tokens.next_if_eq(&"as").and_then(|_| tokens.next());
            let name = renamed.map(String::from).or(path.last().cloned()).unwrap_or_default();
            return found.push(Import { name, path });
        }
    }
}

/// Paths of two names or more outside `use`.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let inside: BTreeSet<usize> = declarations(tokens)
        .flat_map(|at| at..at + tokens[at..].iter().take_while(|token| *token != ";").count())
        .collect();
    let is_name =
        |at: usize| tokens.get(at).is_some_and(|it| it.starts_with(|c: char| c.is_alphabetic() || c == '_'));
    let goes_on = |at: usize| tokens.get(at).is_some_and(|it| it == "::") && is_name(at + 1);
    let begins = |at: &usize| {
        is_name(*at) && goes_on(at + 1) && (*at == 0 || tokens[at - 1] != "::") && !inside.contains(at)
    };
    let path = |start: usize| {
        let length = (0..).take_while(|n| goes_on(start + 1 + 2 * n)).count();
        (0..=length).map(|n| tokens[start + 2 * n].clone()).collect()
    };
    (0..tokens.len()).filter(begins).map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str) -> Module {
        path.split("::").filter(|part| !part.is_empty()).map(String::from).collect()
    }

    /// Where what `text` names is defined, if it is the file of module `ops::add`.
    fn defined(text: &str) -> String {
        let tree = Tree::new([
            ("src/lib.rs", "mod error;\npub use error::Error;"),
            ("src/error.rs", "pub struct Error;"),
            ("src/gpu/mod.rs", "mod a;\npub mod b;\npub use a::{Low, deep::Deep};\npub use b::*;"),
            ("src/gpu/a/mod.rs", "pub mod deep;\npub struct Low;"),
            ("src/gpu/a/deep.rs", "pub struct Deep;"),
            ("src/gpu/b.rs", "pub fn high() {}"),
            ("src/ops/mod.rs", "mod add;\nmod mul;\npub use self::mul::Mul as Times;\nuse crate::gpu;"),
            ("src/ops/mul.rs", "pub struct Mul;"),
            ("src/ops/add.rs", text),
        ]);
        let references = tree.references(&module("ops::add"));
        let defined: BTreeSet<String> = references.into_iter().map(|it| it.defined_in.join("::")).collect();
        Vec::from_iter(defined).join(" ")
    }

    #[test]
    fn names_lead_to_the_file_that_defines_them() {
        assert_eq!(defined("use crate::gpu::Low;"), "gpu::a");
        assert_eq!(defined("use crate::gpu::{\n    Deep,\n    b::{self as c},\n};"), "gpu::a::deep gpu::b");
        assert_eq!(defined("use crate::{Error, gpu::{high, Other}};"), "error gpu gpu::b");
        assert_eq!(defined("use super::Times;"), "ops::mul");
        assert_eq!(defined("use super::super::gpu::b as c;\nfn f() { c::high() }"), "gpu::b");
        assert_eq!(
            defined("use crate::gpu;\nfn f() -> gpu::Deep { gpu::Low::new::<u8>() }"),
            "gpu gpu::a gpu::a::deep"
        );
        assert_eq!(
            defined("fn f(x: super::gpu::Low) -> crate::Error { self::g() }"),
            "error gpu::a ops::add"
        );
        assert_eq!(defined("use std::fmt;\nfn f() -> impl Sized + use<> { Vec::<fmt::Error>::new() }"), "");
    }

    #[test]
    fn comments_literals_and_tests_name_nothing() {
        assert_eq!(defined("// use crate::gpu;\n/* crate::gpu */\n/// [`crate::gpu`]\nfn f() {}"), "");
        assert_eq!(defined("const A: &str = \"use crate::gpu; \\\" // \"; use super::Times;"), "ops::mul");
        assert_eq!(defined("const A: &str = r#\"\"use crate::gpu;\"#; use super::Times;"), "ops::mul");
        assert_eq!(
            defined("fn f<'a>(x: &'a [char]) { x == ['\"', '\\'', '/'] } use super::Times;"),
            "ops::mul"
        );
        assert_eq!(
            defined("#[cfg(test)]\nmod tests {\n    use crate::gpu;\n}\nuse super::Times;"),
            "ops::mul"
        );
        assert_eq!(defined("#[cfg(test)]\nmod tests;\nuse super::Times;"), "ops::mul");
    }

    fn circles(files: &[(&'static str, &'static str)]) -> String {
        Vec::from_iter(Tree::new(files.iter().copied()).circles()).join("; ")
    }

    #[test]
    fn circles_are_found_whatever_their_length() {
        let two = [
            ("src/a/mod.rs", "mod b;\nmod c;"),
            ("src/a/b.rs", "use super::c::C;"),
            ("src/a/c.rs", "fn f() -> super::b::B {}"),
        ];
        assert_eq!(circles(&two), "src/a/b.rs -> src/a/c.rs -> src/a/b.rs");
        let four = [
            ("src/a/x.rs", "use super::Y;"),
            ("src/a/y.rs", "use crate::{\n    b::B,\n};"),
            ("src/b.rs", "pub struct B(crate::d::e::E);"),
            ("src/d/mod.rs", "mod e;"),
            ("src/d/e.rs", "use crate::a::x;"),
            ("src/f.rs", "use crate::a::Y;"),
        ];
        let with = |module| circles(&[&[("src/a/mod.rs", module)], &four[..]].concat());
        let all = "src/a/x.rs -> src/a/y.rs -> src/b.rs -> src/d/e.rs -> src/a/x.rs";
        assert_eq!(with("mod x;\nmod y;\npub use y::Y;"), all);
        assert_eq!(with("mod x;\nmod y;\npub use self::y::*;\npub struct Y;"), "");
    }

    #[test]
    fn a_module_and_those_inside_it_are_one_family() {
        let family = [
            ("src/lib.rs", "mod a;\npub use a::b::B;"),
            ("src/a/mod.rs", "mod b;\nuse b::B;\npub struct A;"),
            ("src/a/b.rs", "mod c;\nuse super::A;\nuse c::C;"),
            ("src/a/b/c.rs", "use crate::a::A;\nuse super::B;"),
        ];
        assert_eq!(circles(&family), "");
    }
}
