//! Conversations and pairs of the Hub: tables and lines, file by file, with the tokens that the same files here give.

use super::TOKENIZER;
use super::datasets::{FIRST, Library, resume, train};
use crate::support::Place;
use std::collections::BTreeMap;

const RECIPE: &str = r#"name = "talk"

[model]
vocab_size = 417
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 8
max_position_embeddings = 256

[tokenizer]
path = "TOKENIZER"

[schedule]
kind = "constant"
peak_lr = 1e-3

[batch]
sequences = 4

[[datasets]]
name = "talk"
paths = "hf://datasets/owner/texts/talk"
on_broken = "skip"

[[datasets]]
name = "pairs"
paths = "hf://datasets/owner/texts/pairs/train-*"
on_broken = "skip"

[[stages]]
name = "chat"
kind = "sft"
epochs = 1
sequence_length = 256
loss_on = "assistant"
packing = false
mixture = { talk = 1.0 }

[[stages]]
name = "prefer"
kind = "dpo"
epochs = 1
sequence_length = 256
mixture = { pairs = 1.0 }

[held_out]
fraction = 0.2
every = 20

[checkpoint]
every = 20
"#;

fn files() -> BTreeMap<String, Vec<u8>> {
    let table = |name: &str| {
        let path = format!("{}/tests/fixtures/tables/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("a fixture")
    };
    let names = [
        ("talk/0.parquet", "messages.parquet"),
        ("talk/1.parquet", "sharegpt.parquet"),
        ("talk/2.jsonl", "alpaca.jsonl"),
        ("pairs/train-0.parquet", "preferences.parquet"),
        ("pairs/test-0.parquet", "messages.parquet"),
    ];
    let mut files: BTreeMap<String, Vec<u8>> =
        names.iter().map(|(path, name)| (path.to_string(), table(name))).collect();
    let lines = (0..9).map(|i| {
        format!("{{\"prompt\": \"count to {i}\", \"chosen\": \"so: {i}\", \"rejected\": \"no\"}}\n")
    });
    files.insert("pairs/train-1.jsonl".into(), lines.collect::<String>().into_bytes());
    files
}

/// All sets of a run, whole.
fn sets(place: &Place, run: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(place.path(run).join("data")).expect("a folder").flatten();
    let name = |path: &std::path::Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let paths = entries.map(|entry| entry.path()).filter(|path| name(path).ends_with(".tokens"));
    paths.map(|path| (name(&path), std::fs::read(path).expect("a file"))).collect()
}

#[test]
fn tables_of_the_hub_give_the_tokens_that_they_give_here() {
    let (library, place) = (Library::start(files()), Place::new());
    place.recipe(&RECIPE.replace("TOKENIZER", TOKENIZER));
    library.set().watched = Some(place.path("run/data/talk.downloads"));
    let counts = [
        "talk: 30 documents, ",
        "talk: 6 broken records skipped, first: ",
        "pairs: 18 pairs, ",
        "pairs: 1 pairs left out whose answers are equal",
        "pairs: 2 broken records skipped, first: ",
        "preferences.parquet: row 3: no \"rejected\" among: prompt, prompt_id",
    ];
    // The second file breaks until the program gives up; the run goes on behind the first.
    let order: Vec<String> = {
        let whole = train(&place, "whole", &library.endpoint, &[]).expect(0, &[]);
        let said =
            format!("{}{}", whole.stdout, whole.stderr).replace("train-0.parquet", "preferences.parquet");
        counts.iter().for_each(|words| assert!(said.contains(words), "{words}: {said}"));
        library.served().into_iter().map(|(path, _)| path).collect()
    };
    assert_eq!(order.len(), 5, "{order:?}");
    assert!(order[..3].iter().all(|path| path.starts_with("talk/")), "{order:?}");
    assert!(order[3..].iter().all(|path| path.starts_with("pairs/train-")), "{order:?}");
    let _ = std::fs::remove_dir_all(place.path(".tokens"));
    library.set().breaks.insert(order[1].clone(), 0);
    train(&place, "run", &library.endpoint, &[]).expect(1, &["cannot be fetched", "run again"]);
    library.served();
    let resumed = resume(&place, "run", &library.endpoint).expect(0, &[]);
    let said = format!("{}{}", resumed.stdout, resumed.stderr);
    assert!(counts[..2].iter().all(|words| said.contains(words)), "{said}");
    assert_eq!(library.served().len(), 4, "the first file is not fetched again");
    assert!(library.set().seen.iter().all(|&count| count <= 1), "{:?}", library.set().seen);
    let whole = sets(&place, "whole");
    assert!(
        ["talk.judged-00000.tokens", "talk.held-out.judged-00000.tokens"]
            .iter()
            .all(|it| whole.contains_key(*it)),
        "{:?}",
        whole.keys()
    );
    assert_eq!(sets(&place, "run"), whole);

    // The same files from folders, in the same order.
    let mut overrides = Vec::new();
    for (dataset, order) in [("talk", &order[..3]), ("pairs", &order[3..])] {
        let folder = place.path("files").join(dataset);
        std::fs::create_dir_all(&folder).expect("a folder");
        for (i, path) in order.iter().enumerate() {
            let ending = path.rsplit('.').next().expect("an ending");
            let contents = library.set().commits[FIRST][path].clone();
            std::fs::write(folder.join(format!("{i}.{ending}")), contents).expect("a file");
        }
        overrides.push(format!("datasets.{dataset}.paths={}", folder.display()));
    }
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    train(&place, "here", "http://127.0.0.1:1", &overrides).expect(0, &[]);
    assert_eq!(sets(&place, "here"), whole);
    let last = |run: &str| {
        let steps = std::fs::read_dir(place.path(run).join("checkpoints")).expect("checkpoints").flatten();
        let last = steps.map(|entry| entry.path()).max().expect("a checkpoint");
        std::fs::read(last.join("model.safetensors")).expect("weights")
    };
    assert!(last("run") == last("whole") && last("here") == last("whole"), "other weights");
}
