//! Datasets of the Hub: what is listed, fetched and kept, and that no interruption changes a token.

use super::{TOKENIZER, at, hash, serve};
use crate::support::{Outcome, Place, run, smolter};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use smolter::data::shard::{TokenSet, Verify};
use smolter::tokenizer::Tokenizer;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub(super) const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";

/// 40 steps of 4 sequences of 16 tokens; a third of them is generated.
const RECIPE: &str = r#"name = "streamed"

[model]
vocab_size = 417
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 8
max_position_embeddings = 16

[tokenizer]
path = "TOKENIZER"

[schedule]
kind = "constant"
peak_lr = 1e-3

[batch]
sequences = 4

[[datasets]]
name = "web"
paths = "hf://datasets/owner/texts/data"
tokens = 100_000

[[datasets]]
name = "sums"
microcosm = "drills"
documents = 200

[[stages]]
name = "all"
tokens = 2_560
sequence_length = 16
mixture = { web = 0.7, sums = 0.3 }

[held_out]
fraction = 0.05
sequences = 2
every = 20

[checkpoint]
every = 20
"#;

/// What the server has and does.
#[derive(Default)]
pub(super) struct Shelf {
    /// Files by path, by commit.
    pub(super) commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The commit that `main` is at.
    head: String,
    /// Entries of a page of a listing.
    page: usize,
    /// What is sent in place of the pages of a listing.
    listing: Option<String>,
    /// Bytes after which the next transfer of a file breaks, or stalls.
    pub(super) breaks: HashMap<String, usize>,
    stalls: HashMap<String, usize>,
    /// Whether a transfer stalls now.
    stalled: bool,
    /// All requests: server, path, and what they say of who asks.
    requests: Vec<(&'static str, String, Option<String>)>,
    /// Paths of files in the order in which they were asked for, and the first byte.
    served: Vec<(String, usize)>,
    /// The folder of downloads, and what was in it whenever a file was asked for.
    pub(super) watched: Option<PathBuf>,
    pub(super) seen: Vec<usize>,
}

/// A Hub with the dataset `owner/texts`. Files of Parquet lie on another server.
pub(super) struct Library {
    pub(super) endpoint: String,
    shelf: Arc<Mutex<Shelf>>,
}

impl Library {
    pub(super) fn start(files: BTreeMap<String, Vec<u8>>) -> Library {
        let commits = BTreeMap::from([(FIRST.to_string(), files)]);
        let shelf = Shelf { commits, head: FIRST.into(), page: 3, ..Shelf::default() };
        let shelf = Arc::new(Mutex::new(shelf));
        let far = shelf.clone();
        let elsewhere = serve(move |request, stream| {
            note(&far, "elsewhere", &request.path, request.header("authorization"));
            send(&far, &request.path, request.range().map_or(0, |(start, _)| start), stream);
        });
        let near = shelf.clone();
        let endpoint = serve(move |request, stream| {
            note(&near, "endpoint", &request.path, request.header("authorization"));
            match request.path.strip_prefix("/api/datasets/owner/texts/") {
                Some(question) => answer(&near.lock().expect("no panic"), question, stream),
                None if request.path.ends_with(".parquet") => {
                    let location = format!("{elsewhere}{}", request.path);
                    status(stream, 302, &format!("Location: {location}\r\n"), "");
                }
                None => send(&near, &request.path, request.range().map_or(0, |(start, _)| start), stream),
            }
        });
        Library { endpoint, shelf }
    }

    pub(super) fn set(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().expect("no panic")
    }

    /// Paths of the files that were asked for, and first bytes; they are forgotten then.
    pub(super) fn served(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.set().served)
    }
}

fn note(shelf: &Mutex<Shelf>, server: &'static str, path: &str, token: Option<&str>) {
    let mut shelf = shelf.lock().expect("no panic");
    shelf.requests.push((server, path.into(), token.map(String::from)));
}

fn status(stream: &mut TcpStream, code: u16, headers: &str, body: &str) {
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {code} Said\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// Answers a question about the dataset.
fn answer(shelf: &Shelf, question: &str, stream: &mut TcpStream) {
    let (path, query) = question.split_once('?').unwrap_or((question, ""));
    if path == "revision/main" {
        return status(stream, 200, "", &format!("{{\"_id\": \"x\", \"sha\": \"{}\"}}", shelf.head));
    }
    let place = path.strip_prefix("tree/").unwrap_or_default();
    let (commit, folder) = place.split_once('/').unwrap_or((place, ""));
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let Some(files) = shelf.commits.get(commit) else { return status(stream, 404, "", "{}") };
    if let Some(listing) = &shelf.listing {
        return status(stream, 200, "", listing);
    }
    let is_deep = query.contains("recursive=true");
    let mut lines = BTreeSet::new();
    for (path, contents) in files.iter().filter(|(path, _)| path.starts_with(&prefix)) {
        let rest = &path[prefix.len()..];
        if let Some((folder, _)) = rest.split_once('/') {
            lines.insert(format!("{{\"type\": \"directory\", \"path\": \"{prefix}{folder}\", \"size\": 0}}"));
        }
        if is_deep || !rest.contains('/') {
            let (size, small, large) = (contents.len(), hash(contents, false), hash(contents, true));
            let lfs = format!(", \"lfs\": {{\"oid\": \"{large}\", \"size\": {size}, \"pointerSize\": 134}}");
            let (size, lfs) = if path.ends_with(".parquet") { (134, &*lfs) } else { (size, "") };
            lines.insert(format!(
                "{{\"type\": \"file\", \"path\": \"{path}\", \"oid\": \"{small}\", \"size\": {size}{lfs}}}"
            ));
        }
    }
    if lines.is_empty() {
        return status(stream, 404, "", "{\"error\": \"no such folder\"}");
    }
    let lines: Vec<String> = lines.into_iter().collect();
    let start: usize = query.split_once("cursor=").map_or(0, |(_, cursor)| cursor.parse().expect("a number"));
    let end = (start + shelf.page).min(lines.len());
    // The address is somebody else's, which a client with a token must not mind.
    let next = format!("Link: <http://127.0.0.1:1/x?recursive=true&cursor={end}>; rel=\"next\"\r\n");
    let next = if end < lines.len() { &next } else { "" };
    status(stream, 200, next, &format!("[{}]", lines[start..end].join(", ")));
}

/// Sends a file from the byte `start` on.
fn send(shelf: &Mutex<Shelf>, path: &str, start: usize, stream: &mut TcpStream) {
    let mut shelf = shelf.lock().expect("no panic");
    let place = path.strip_prefix("/datasets/owner/texts/resolve/").unwrap_or_default();
    let (commit, path) = place.split_once('/').unwrap_or_default();
    let path = path.replace("%20", " ");
    let Some(contents) = shelf.commits.get(commit).and_then(|files| files.get(&path)).cloned() else {
        return status(stream, 404, "", "");
    };
    shelf.served.push((path.clone(), start));
    if let Some(folder) = &shelf.watched {
        let count = std::fs::read_dir(folder).map_or(0, Iterator::count);
        shelf.seen.push(count);
    }
    let whole = &contents[start.min(contents.len())..];
    let (length, end, size) = (whole.len(), contents.len().saturating_sub(1), contents.len());
    let _ = write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n\
         Content-Range: bytes {start}-{end}/{size}\r\nConnection: close\r\n\r\n"
    );
    if let Some(bytes) = shelf.breaks.remove(&path) {
        let _ = stream.write_all(&whole[..bytes]);
    } else if let Some(bytes) = shelf.stalls.remove(&path) {
        let _ = stream.write_all(&whole[..bytes]);
        shelf.stalled = true;
        drop(shelf);
        std::thread::sleep(Duration::from_secs(20));
    } else {
        let _ = stream.write_all(whole);
    }
}

/// Eight files of JSON Lines below `data`, and others that no recipe here means.
fn texts() -> BTreeMap<String, Vec<u8>> {
    let line = |file: usize, i: usize| {
        let words = "over the lazy dog and the quick brown fox ".repeat(1 + i % 4);
        format!("{{\"text\": \"file {file}, document {i}: {words}\"}}\n")
    };
    let file = |file: usize| (0..20).map(|i| line(file, i)).collect::<String>().into_bytes();
    let mut files: BTreeMap<String, Vec<u8>> =
        (0..8).map(|i| (format!("data/part {}/{i}.jsonl", i % 2), file(i))).collect();
    files.insert("data/README.md".into(), b"not text".to_vec());
    files.insert("other/9.jsonl".into(), b"{\"text\": \"not meant\"}\n".to_vec());
    files
}

fn place() -> Place {
    let place = Place::new();
    place.recipe(&RECIPE.replace("TOKENIZER", TOKENIZER));
    place
}

fn command(mut command: Command, place: &Place, endpoint: &str) -> Command {
    at(&mut command, place, endpoint, &[]);
    command
}

pub(super) fn train(place: &Place, run_folder: &str, endpoint: &str, overrides: &[&str]) -> Outcome {
    run(&mut command(place.train(run_folder, "reference", overrides), place, endpoint))
}

pub(super) fn resume(place: &Place, run_folder: &str, endpoint: &str) -> Outcome {
    run(&mut command(place.resume(run_folder, "reference"), place, endpoint))
}

/// The sets of a run, by name of file.
fn sets(place: &Place, run: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(place.path(run).join("data")).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    paths
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path))
        .filter(|(name, _)| name.ends_with(".tokens") || name == "web.json" || name == "web.held-out.json")
        .map(|(name, path)| (name, std::fs::read(path).expect("a file")))
        .collect()
}

/// The documents of a set, as text.
fn documents(place: &Place, run: &str, name: &str) -> Vec<String> {
    let set = TokenSet::open(place.path(run).join("data"), name, Verify::Full).expect("a set");
    let tokenizer = Tokenizer::load(TOKENIZER).expect("the fixture");
    let text = |i| {
        let ids = set.tokens(set.document(i));
        tokenizer.decode(&ids[..ids.len() - 1])
    };
    (0..set.documents()).map(text).collect()
}

#[test]
fn as_many_files_as_needed_give_the_tokens_that_they_give_here() {
    let (library, place) = (Library::start(texts()), place());
    library.set().watched = Some(place.path("run/data/web.downloads"));
    train(&place, "run", &library.endpoint, &[]).expect(0, &[]);
    let served = library.served();
    assert!((2..8).contains(&served.len()), "{served:?}");
    assert!(served.iter().all(|(path, start)| path.starts_with("data/part ") && *start == 0), "{served:?}");
    // Enough: nothing is read twice, and more than is needed by no more than a file.
    let set = TokenSet::open(place.path("run/data"), "web", Verify::Full).expect("a set");
    let needed = 2560 * 7 / 10;
    assert!(set.len() > needed && set.len() < needed * 2, "{} of {needed}", set.len());
    // One file at a time, and none in the end.
    assert!(library.set().seen.iter().all(|&count| count <= 1), "{:?}", library.set().seen);
    let left = ["web.downloads", "web.partial.json"].map(|name| place.path("run/data").join(name).exists());
    assert_eq!(left, [false, false]);
    // The commit stands in the run's recipe.
    let recipe = std::fs::read_to_string(place.path("run/recipe.toml")).expect("a recipe");
    assert!(recipe.contains(&format!("\"hf://datasets/owner/texts@{FIRST}/data\"")), "{recipe}");
    assert!(recipe.contains("tokens = 100000"), "{recipe}");

    // The same files from a folder, in the same order.
    for (i, (path, _)) in served.iter().enumerate() {
        let file = place.path("files").join(format!("{i}.jsonl"));
        std::fs::create_dir_all(place.path("files")).expect("a folder");
        std::fs::write(file, &library.set().commits[FIRST][path]).expect("a file");
    }
    let files = format!("datasets.web.paths={}", place.path("files").display());
    let asked = library.set().requests.len();
    train(&place, "here", &library.endpoint, &[&files]).expect(0, &[]);
    assert_eq!(library.set().requests.len(), asked);
    let tokens = |run| {
        let mut sets = sets(&place, run);
        sets.retain(|name, _| name.ends_with(".tokens"));
        sets
    };
    assert_eq!(tokens("run"), tokens("here"));
    assert!(place.state("run", 40) == place.state("here", 40), "other weights");
    // Another seed, another order.
    train(&place, "seed", &library.endpoint, &["data_seed=9"]).expect(0, &[]);
    assert_ne!(library.served(), served);
}

#[test]
fn a_run_takes_its_mixture_within_half_a_percent() {
    let (library, place) = (Library::start(texts()), place());
    let steps = ["stages.all.tokens=64_000"];
    train(&place, "run", &library.endpoint, &steps).expect(0, &[]);
    let metrics = std::fs::read_to_string(place.path("run/metrics.jsonl")).expect("metrics");
    let mut taken: BTreeMap<String, u64> = BTreeMap::new();
    for line in metrics.lines() {
        let step: serde_json::Value = serde_json::from_str(line).expect("JSON");
        for (name, dataset) in step["datasets"].as_object().expect("datasets") {
            *taken.entry(name.clone()).or_default() += dataset["tokens"].as_u64().expect("tokens");
        }
    }
    for (name, share) in [("web", 0.7), ("sums", 0.3)] {
        let expected = 64_000.0 * share;
        let difference = (taken[name] as f64 - expected).abs() / expected;
        assert!(difference <= 0.005, "{name}: {} of {expected}", taken[name]);
    }
}

#[test]
fn no_interruption_changes_a_token() {
    let (library, place) = (Library::start(texts()), place());
    let all = ["stages.all.tokens=20_480"];
    train(&place, "whole", &library.endpoint, &all).expect(0, &[]);
    let order: Vec<String> = library.served().into_iter().map(|(path, _)| path).collect();
    assert_eq!(order.len(), 8, "all files are needed");

    // The connection breaks in the third file, until the program gives up.
    library.set().breaks.insert(order[2].clone(), 0);
    // Other shared tokens would make this test easy.
    let _ = std::fs::remove_dir_all(place.path(".tokens"));
    let broken = train(&place, "run", &library.endpoint, &all);
    let broken = broken.expect(1, &["data/part", ".jsonl cannot be fetched", "run again"]);
    assert!(broken.stdout.contains("what was fetched is kept; continue with: smolter train --resume"));
    assert_eq!(library.served().len(), 3);
    // Killed in the middle of the fourth, when its second half does not come.
    library.set().stalls.insert(order[3].clone(), 500);
    let mut killed = command(place.resume("run", "reference"), &place, &library.endpoint);
    let mut child = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    while !library.set().stalled {
        assert!(child.try_wait().expect("its state").is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    // What has arrived is on disk a little later.
    let part = place.path("run/data/web.downloads");
    let bytes = || {
        let entries = std::fs::read_dir(&part).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|it| it.len()).sum::<u64>()
    };
    while bytes() < 500 {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().and_then(|()| child.wait()).expect("it is killed");
    let paths = |served: Vec<(String, usize)>| served.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(paths(library.served()), order[2..4]);
    // The main branch goes on meanwhile, and the run does not mind.
    let mut other = texts();
    other.values_mut().for_each(|contents| contents.reverse());
    library.set().commits.insert(SECOND.into(), other);
    library.set().head = SECOND.into();
    // A file that is not what its checksum says ends it too; mended, it goes on.
    let good = library.set().commits[FIRST][&order[5]].clone();
    let mut bad = good.clone();
    bad[700] ^= 1;
    library.set().commits.get_mut(FIRST).expect("a commit").insert(order[5].clone(), bad);
    let outcome = resume(&place, "run", &library.endpoint);
    outcome.expect(2, &["damaged", "checksum", &order[5], "run again"]);
    library.set().commits.get_mut(FIRST).expect("a commit").insert(order[5].clone(), good);
    let served = library.served();
    assert_eq!(served[0], (order[3].clone(), 500), "what had arrived is used");
    resume(&place, "run", &library.endpoint).expect(0, &[]);
    assert_eq!(paths(library.served()), order[5..]);
    assert_eq!(sets(&place, "run"), sets(&place, "whole"));
    assert!(place.state("run", 320) == place.state("whole", 320), "other weights");

    // No network is needed any more.
    let asked = library.set().requests.len();
    resume(&place, "run", "http://127.0.0.1:1").expect(0, &[]);
    assert_eq!(library.set().requests.len(), asked);
    // Lost tokens are made again from the same commit, as its list says.
    std::fs::remove_file(place.path("run/data/web-00000.tokens")).expect("it goes");
    let _ = std::fs::remove_dir_all(place.path(".tokens"));
    resume(&place, "run", &library.endpoint).expect(0, &["web is tokenised again"]);
    assert_eq!(sets(&place, "run"), sets(&place, "whole"));
    let revisions = library.set().requests.iter().filter(|(_, path, _)| path.contains("/revision/")).count();
    assert_eq!(revisions, 2, "the commit is asked for once per run");
}

#[test]
fn kills_at_any_time_lose_no_more_than_the_file_in_work() {
    let (library, place) = (Library::start(texts()), place());
    let all = ["stages.all.tokens=20_480"];
    train(&place, "whole", &library.endpoint, &all).expect(0, &[]);
    let _ = std::fs::remove_dir_all(place.path(".tokens"));
    library.served();
    let run_folder = place.path("run");
    let mut first = true;
    for round in 0..60 {
        let start = match first {
            true => place.train("run", "reference", &all),
            false => place.resume("run", "reference"),
        };
        let mut start = command(start, &place, &library.endpoint);
        let mut child = start.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        // Times that grow, so that some kill hits every phase, and the end is reached.
        std::thread::sleep(Duration::from_millis(15 + 7 * round));
        let done = run_folder.join("data/web.json").exists();
        child.kill().and_then(|()| child.wait()).expect("it is killed");
        first = !run_folder.join("recipe.toml").exists();
        if done {
            break;
        }
    }
    resume(&place, "run", &library.endpoint).expect(0, &[]);
    assert_eq!(sets(&place, "run"), sets(&place, "whole"));
    assert!(place.state("run", 320) == place.state("whole", 320), "other weights");
}

#[test]
fn the_token_goes_to_the_endpoint_and_pages_are_asked_for_there() {
    let column = |texts: Vec<String>| Arc::new(StringArray::from(texts)) as ArrayRef;
    let file = |file: usize| {
        let texts = (0..40).map(|i| format!("row {i} of file {file}, the quick brown fox")).collect();
        parquet(vec![("text", column(texts))])
    };
    let files = (0..8).map(|i| (format!("data/{i}.parquet"), file(i))).collect();
    let (library, place) = (Library::start(files), place());
    let mut start = place.train("run", "reference", &[]);
    at(&mut start, &place, &library.endpoint, &[("HF_TOKEN", "hf_secret")]);
    run(&mut start).expect(0, &[]);
    let requests = std::mem::take(&mut library.set().requests);
    let pages = requests.iter().filter(|(_, path, _)| path.contains("/tree/")).count();
    assert_eq!(pages, 3, "eight files on pages of three");
    for (server, path, token) in &requests {
        let expected = (*server == "endpoint").then_some("Bearer hf_secret");
        assert_eq!(token.as_deref(), expected, "{server} {path}");
    }
    assert!(requests.iter().any(|(server, ..)| *server == "elsewhere"));
    let kept = std::fs::read_to_string(place.path("run/recipe.toml")).expect("a recipe");
    assert!(!kept.contains("hf_secret"));
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("it is written");
    writer.close().expect("it is closed");
    bytes
}

#[test]
fn scores_and_lengths_decide_what_is_kept() {
    let score = |i: i64| i % 4;
    let rows: Vec<i64> = (0..2000).collect();
    let text = |i: &i64| format!("row {i}{}", " fox".repeat(if i % 3 == 0 { 40 } else { 1 }));
    let texts: Vec<String> = rows.iter().map(text).collect();
    let scores: Vec<i64> = rows.iter().map(|&i| score(i)).collect();
    let file = parquet(vec![
        ("text", Arc::new(StringArray::from(texts.clone())) as ArrayRef),
        ("edu_int_score", Arc::new(Int64Array::from(scores)) as ArrayRef),
    ]);
    let (library, place) = (Library::start(BTreeMap::from([("data/a.parquet".into(), file)])), place());
    let kept = "datasets.web.score={field='edu_int_score',keep=[0.0,0.25,0.5]}";
    let sets = [kept, "held_out.fraction=0", "datasets.web.min_tokens=30"];
    let outcome = train(&place, "run", &library.endpoint, &sets).expect(0, &[]);
    let found: BTreeSet<String> = documents(&place, "run", "web").into_iter().collect();
    let mut counts = [0; 4];
    for (i, text) in rows.iter().zip(&texts) {
        let is_in = found.contains(text);
        assert!(!is_in || i % 3 == 0, "{text} is too short");
        counts[score(*i) as usize] += usize::from(is_in);
    }
    // A twelfth of the rows has each score and is long.
    let all = (0..2000).filter(|i| i % 3 == 0 && i % 4 == 3).count();
    assert_eq!((counts[0], counts[3]), (0, all));
    assert!((20..65).contains(&counts[1]) && (60..110).contains(&counts[2]), "{counts:?} of {all}");
    for words in ["documents left out for their score", "documents left out for fewer than min_tokens"] {
        assert!(outcome.stdout.contains(words), "{outcome:#?}");
    }
    // The same rows as JSON Lines, here: the text decides, not the file.
    let line = |i: &i64| format!("{{\"edu_int_score\": {}, \"text\": \"{}\"}}\n", score(*i), text(i));
    std::fs::write(place.path("a.jsonl"), rows.iter().map(line).collect::<String>()).expect("a file");
    let here = format!("datasets.web.paths={}", place.path("a.jsonl").display());
    train(&place, "here", &library.endpoint, &[&sets[..], &[&here]].concat()).expect(0, &[]);
    assert_eq!(documents(&place, "here", "web"), documents(&place, "run", "web"));
    // A file without the column.
    let wrong = "datasets.web.score={field='score',keep=[0.0]}";
    let outcome = train(&place, "wrong", &library.endpoint, &[wrong]);
    outcome.expect(2, &["no column of numbers \"score\"", "edu_int_score", "score.field"]);
    let outcome = train(&place, "wrong-here", &library.endpoint, &[wrong, &here]);
    outcome.expect(2, &["line 1: no score \"score\" among: edu_int_score, text", "score.field"]);
}

#[test]
fn what_cannot_be_had_is_one_line_and_leaves_no_folder() {
    let (library, place) = (Library::start(texts()), place());
    for (name, words) in [
        ("owner/nothing", &["no such dataset"][..]),
        ("owner/texts@v9/data", &["no such dataset, revision or file (v9)"]),
        ("owner/texts/nowhere", &["no such dataset, revision or file (nowhere/)"]),
        ("owner/texts/data/*.md", &["no .jsonl, .ndjson, .json, .txt or .parquet file"]),
    ] {
        let set = format!("datasets.web.paths=hf://datasets/{name}");
        let words = [words, &["hf://datasets/", name.split(['@', '/']).nth(1).expect("a name")]].concat();
        train(&place, "run", &library.endpoint, &[&set]).expect(2, &words);
    }
    for (listing, why) in [
        ("nothing", "answers as no Hub does"),
        (
            "[{\"type\": \"file\", \"path\": \"data/a.jsonl\", \"oid\": \"x\", \"size\": 9}]",
            "has no checksum",
        ),
    ] {
        library.set().listing = Some(listing.into());
        train(&place, "listing", &library.endpoint, &[]).expect(1, &[why]);
    }
    assert!(!place.path("run").exists());
    let mut offline = command(place.train("run", "reference", &[]), &place, &library.endpoint);
    run(offline.env("HF_HUB_OFFLINE", "1")).expect(2, &["HF_HUB_OFFLINE"]);
    let here = place.path("tiny.toml");
    let set = format!("datasets.web.paths=['hf://datasets/owner/texts/data','{}']", here.display());
    train(&place, "run", &library.endpoint, &[&set]).expect(2, &["datasets.0.paths", "two datasets"]);
}

#[test]
fn a_cap_is_refused_before_anything_is_asked_for() {
    let (library, place) = (Library::start(texts()), place());
    let cap = "datasets.web.max_epochs=2";
    let words = ["datasets.0.max_epochs is 2", "stage all", "2.29 epochs", "of web", "redistribute"];
    let declared = [cap, "datasets.web.tokens=800"];
    train(&place, "run", &library.endpoint, &declared).expect(2, &words);
    assert!(library.set().requests.is_empty() && !place.path("run").exists());
    // Nobody said how much there is: told when it is known, before the first step.
    let all = &texts()["data/part 0/0.jsonl"];
    let few = all.split_inclusive(|&byte| byte == b'\n').take(5).collect::<Vec<_>>().concat();
    std::fs::write(place.path("a.jsonl"), few).expect("a file");
    let here = format!("datasets.web.paths={}", place.path("a.jsonl").display());
    train(&place, "run", &library.endpoint, &[cap, &here])
        .expect(2, &["datasets.web.max_epochs is 2", "epochs"]);
    assert!(!place.path("run").exists());
    let known = [cap, &here, "datasets.web.on_exhausted=redistribute"];
    let outcome = train(&place, "run", &library.endpoint, &known).expect(0, &[]);
    assert!(outcome.stdout.contains("web: its cap of 2 epochs is reached"), "{outcome:#?}");
}

#[test]
fn a_tokenizer_of_the_hub_is_fetched_alone_and_kept() {
    let (server, place) = (super::Server::start(), place());
    let sets =
        ["tokenizer.path=hf://owner/name", "datasets.web.paths=a.jsonl", "datasets.web.on_broken=skip"];
    std::fs::write(place.path("a.jsonl"), &texts()["data/part 0/0.jsonl"]).expect("a file");
    let mut start = command(place.train("run", "reference", &sets), &place, &server.endpoint);
    run(start.current_dir(place.path(""))).expect(0, &[]);
    let asked: Vec<String> = server.set().downloads.iter().map(|(path, _)| path.clone()).collect();
    assert!(asked.iter().all(|path| path.contains("tokenizer")), "{asked:?}");
    // The run has it.
    std::fs::remove_dir_all(place.path("cache")).expect("it goes");
    resume(&place, "run", "http://127.0.0.1:1").expect(0, &[]);
    let same =
        |path: &Path| std::fs::read(path).expect("a file") == std::fs::read(TOKENIZER).expect("a file");
    assert!(same(&place.path("run/data/tokenizer/tokenizer.json")));
}

#[test]
fn conversations_after_text_of_the_hub_do_not_change_how_much_is_fetched() {
    let (library, place) = (Library::start(texts()), place());
    train(&place, "text", &library.endpoint, &[]).expect(0, &[]);
    let served = library.served();
    let life = RECIPE.replace("TOKENIZER", TOKENIZER).replace("embeddings = 16", "embeddings = 128");
    let stages = r#"
[[stages]]
name = "chat"
kind = "sft"
epochs = 0.2
sequence_length = 64
mixture = { chat = 1.0 }

[[stages]]
name = "preferences"
kind = "dpo"
epochs = 1
sequence_length = 128
mixture = { pairs = 1.0 }

[held_out]"#;
    let datasets = r#"
[[datasets]]
name = "chat"
microcosm = "everyday"
documents = 30

[[datasets]]
name = "pairs"
microcosm = "pairs"
documents = 8

[[stages]]"#;
    place.recipe(&life.replace("\n[held_out]", stages).replacen("\n[[stages]]", datasets, 1));
    let outcome = train(&place, "life", &library.endpoint, &[]).expect(0, &[]);
    assert_eq!(library.served(), served, "{outcome:#?}");
    assert_eq!(sets(&place, "life")["web-00000.tokens"], sets(&place, "text")["web-00000.tokens"]);
    let metrics = std::fs::read_to_string(place.path("life/metrics.jsonl")).expect("metrics");
    for dataset in ["web", "chat", "pairs"] {
        assert!(metrics.contains(&format!("\"{dataset}\":{{\"tokens\"")), "{metrics}");
    }
}

#[test]
fn the_large_recipes_are_planned_in_seconds_without_a_network() {
    let begun = std::time::Instant::now();
    let mut plan = smolter(&["plan", "--recipe", "smollm2-1.7b", "--memory", "80GiB"]);
    plan.env("HF_ENDPOINT", "http://127.0.0.1:1");
    let outcome = run(&mut plan).expect(0, &[]);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    for stage in ["stable-1", "stable-2", "stable-3", "decay", "extend: 35,763 steps of 256 x 8192 tokens"] {
        assert!(outcome.stdout.contains(&format!("stage {stage}")), "{}", outcome.stdout);
    }
}
