//! `docs/recipe.md` says what `src/recipes/schema.rs`, `src/nn/config.rs`, `src/nn/lora.rs` and the types that they take
//! from below say. `SMOLTER_WRITE_DOCS=1` writes it anew.

use smolter::recipes::Recipe;
use std::path::Path;

const HEAD: &str = "# Every key of a recipe

Made from the comments in `src/recipes/schema.rs`, `src/nn/config.rs` and `src/nn/lora.rs` by
`SMOLTER_WRITE_DOCS=1 cargo test --test tests recipe_docs`.

Any key can be changed on the command line by `--set path.to.key=value`, where an element of a list goes by its index or
by its name: `--set stages.decay.steps=100`. Counts may be written `4096`, `1e9` or `\"100M\"` (K, M, B, T). Relative
paths start at the folder of the recipe. A recipe for text of your own is written by `smolter init my.txt`.
";

/// Headings, and the types that they are about.
const SECTIONS: [(&str, &str); 19] = [
    ("The recipe itself", "Recipe"),
    ("`[model]`", "LlamaConfig"),
    ("`[tokenizer]`", "TokenizerChoice"),
    ("`tokenizer.train`", "TokenizerTraining"),
    ("`[optimizer]` and `[optimizers.NAME]`", "Optimizer"),
    ("`[schedule]` and `[schedules.NAME]`", "LearningRate"),
    ("`[batch]`", "Batch"),
    ("`[[datasets]]`", "Dataset"),
    ("`[datasets.score]`", "Score"),
    ("`datasets.columns`", "Columns"),
    ("`[[stages]]`", "Stage"),
    ("`[stages.lora]`", "Lora"),
    ("`skip` of a stage", "Skip"),
    ("`dpo` of a stage", "Preference"),
    ("`[held_out]`", "HeldOutText"),
    ("`[checkpoint]`", "Saving"),
    ("`[sample]`", "Sample"),
    ("`[evaluation]`", "Evaluation"),
    ("`[spikes]`", "Spikes"),
];

/// A field or a variant, as the source has it.
struct Key {
    name: String,
    ty: String,
    attributes: String,
    docs: Vec<String>,
}

/// The docs of a type, and its fields or variants.
fn keys_of(source: &str, name: &str) -> (Vec<String>, Vec<Key>) {
    let (mut docs, mut attributes, mut keys) = (Vec::new(), String::new(), Vec::new());
    let mut inside = None;
    for line in source.lines() {
        let text = line.trim();
        let begun =
            [format!("pub struct {name} {{"), format!("pub enum {name} {{")].contains(&text.to_string());
        if let Some(doc) = text.strip_prefix("///") {
            docs.push(doc.trim().to_string());
        } else if text.starts_with('#') {
            attributes += text;
        } else if begun {
            (inside, attributes) = (Some(std::mem::take(&mut docs)), String::new());
        } else if text == "}" && inside.is_some() {
            break;
        } else {
            if inside.is_some() {
                let field = text.trim_end_matches(',').trim_start_matches("pub ");
                let (name, ty) = field.split_once(": ").unwrap_or((field, ""));
                let (attributes, docs) = (attributes.clone(), docs.clone());
                keys.push(Key { name: name.into(), ty: ty.into(), attributes, docs });
            }
            (docs, attributes) = (Vec::new(), String::new());
        }
    }
    (inside.unwrap_or_else(|| panic!("there is no {name}")), keys)
}

/// What a function or `Default` of the source gives for a key.
fn default_of(source: &str, section: &str, key: &Key) -> Option<String> {
    let text = if let Some((_, rest)) = key.attributes.split_once("default = \"") {
        let function = rest.split('"').next().expect("a name");
        let body = source.split_once(&format!("fn {function}() ->")).expect("the function").1;
        body.split('{').nth(1).expect("a body").split('}').next().expect("its end").trim().to_string()
    } else {
        let body = source.split_once(&format!("impl Default for {section} {{"))?.1;
        let fields = body.split_once(&format!("        {section} {{")).expect("a value").1;
        let fields = fields.split('}').next().expect("its end");
        let value = fields.split_once(&format!("{}: ", key.name))?.1;
        // A list has commas too.
        let end = if value.starts_with('[') { value.find(']').map(|at| at + 1) } else { value.find(',') };
        value[..end.unwrap_or(value.len())].trim().to_string()
    };
    let text = text.replace("vec![", "[").replace(".into()", "").replace("Vec::new()", "[]").replace('_', "");
    // What is computed stands in the docs.
    Some(text).filter(|text| !text.contains('(') && text != "None")
}

fn type_of(ty: &str) -> &str {
    match ty {
        "u64" | "usize" | "u32" => "whole number",
        "f64" => "number",
        "[f64; 2]" => "two numbers",
        "String" | "PathBuf" => "string",
        "Vec<String>" | "Vec<PathBuf>" => "list of strings",
        "Vec<f64>" => "list of numbers",
        "bool" => "true or false",
        "BTreeMap<String, f64>" => "table of numbers",
        other => other.strip_prefix("Option<").map_or("", |inner| type_of(inner.trim_end_matches('>'))),
    }
}

/// Docs as Markdown: the links, which are rustdoc's, become the names that they show.
fn paragraph(docs: &[String]) -> String {
    let plain = |line: &String| if line.is_empty() { "\n\n".to_string() } else { format!("{line} ") };
    let text: String = docs.iter().map(plain).collect();
    let (mut out, mut rest) = (String::new(), text.trim());
    while let Some((before, after)) = rest.split_once("[`")
        && let Some((name, after)) = after.split_once("`]")
        && !name.contains(['[', '`'])
    {
        out += &format!("{before}`{name}`");
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(after, |(_, after)| after);
    }
    (out + rest).replace(" \n", "\n")
}

/// Variants of an enum, as they are written in TOML.
fn values(source: &str, ty: &str) -> String {
    let snake = |name: &str| {
        let mut out = String::new();
        for c in name.chars() {
            if c.is_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        }
        out
    };
    let (_, variants) = keys_of(source, ty);
    let lines = variants.iter().map(|it| format!("  - `\"{}\"`: {}\n", snake(&it.name), paragraph(&it.docs)));
    lines.collect()
}

fn document(schema: &str, config: &str, lora: &str, source: &str) -> String {
    let mut out = HEAD.to_string();
    for (heading, ty) in SECTIONS {
        let text = match ty {
            "LlamaConfig" => config,
            "Lora" => lora,
            "Columns" | "Score" => source,
            _ => schema,
        };
        let (docs, keys) = keys_of(text, ty);
        out += &format!("\n## {heading}\n\n{}\n\n", paragraph(&docs));
        // A comment is no key.
        for key in keys.iter().filter(|key| key.name != "comment") {
            let name = if key.name == "source" { "model.from" } else { &key.name };
            let mut notes = vec![type_of(&key.ty).to_string()];
            if let Some(default) = default_of(text, ty, key).filter(|it| it != "None") {
                notes.push(format!("default `{default}`"));
            } else if key.ty.starts_with("Option<") {
                notes.push("optional".into());
            }
            notes.retain(|note| !note.is_empty());
            let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
            out += &format!("- **`{name}`**{notes}: {}\n", paragraph(&key.docs).replace("\n\n", "\n  "));
            out += &match key.ty.trim_start_matches("Option<").trim_end_matches('>') {
                words @ ("StageKind" | "ScheduleKind" | "OnExhausted" | "ChatFormat" | "PreferenceKind"
                | "SpikeAction") => values(schema, words),
                words @ ("OnBroken" | "Judged") => values(source, words),
                _ => String::new(),
            };
        }
    }
    out
}

#[test]
fn the_list_of_keys_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("a file of the repository");
    let (schema, config, lora) =
        (read("src/recipes/schema.rs"), read("src/nn/config.rs"), read("src/nn/lora.rs"));
    let below = [
        "src/data/source.rs",
        "src/data/source/score.rs",
        "src/data/conversation/record.rs",
        "src/tokenizer/template/judged.rs",
    ];
    let document = document(&schema, &config, &lora, &below.map(read).concat());
    let path = root.join("docs/recipe.md");
    if std::env::var("SMOLTER_WRITE_DOCS").is_ok() {
        std::fs::write(&path, &document).expect("the document is written");
    }
    assert!(
        std::fs::read_to_string(&path).is_ok_and(|text| text == document),
        "docs/recipe.md is out of date: SMOLTER_WRITE_DOCS=1 cargo test --test tests recipe_docs"
    );
    // Every key of a resolved recipe is in it; names of datasets are keys of mixtures.
    for name in ["microcosm", "smollm2-135m", "smollm2-1.7b"] {
        let text = Recipe::load(name, &[]).and_then(|it| it.to_toml()).expect("a recipe");
        for line in text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')) {
            let key = line.split(" = ").next().expect("a key");
            let dataset = text.contains(&format!("name = \"{key}\""));
            assert!(dataset || document.contains(&format!("`{key}`")), "{name}: {key} is not described");
        }
    }
}
