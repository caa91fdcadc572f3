//! `hf://` names, against a server on the loopback that does what the Hub does, or fails as it may fail.

mod conversations;
mod datasets;
mod faults;
mod origins;

use crate::support::{Outcome, Place, run, smolter};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama_grouped");
const TOKENIZER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer/tokenizer.json");
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does.
#[derive(Default)]
struct Behaviour {
    /// Contents by name. Those ending in `.safetensors` are in Git LFS: elsewhere, behind a redirect.
    files: BTreeMap<String, Vec<u8>>,
    /// Bytes of the body after which the connection breaks, for each coming download of a file.
    breaks: HashMap<String, VecDeque<usize>>,
    /// A file that comes with one wrong bit.
    corrupt: Option<String>,
    /// Refuses requests without this token.
    token: Option<String>,
    /// Answers this to everything.
    status: Option<u16>,
    /// Sent instead of the right ETag.
    etag: Option<String>,
    /// Requests: path, and first byte of the range. Those that only ask for the first byte are not noted.
    downloads: Vec<(String, usize)>,
    /// All requests.
    requests: usize,
}

/// The server; it serves the model `owner/name`, branches `main` and `v1`, until the end of the tests.
struct Server {
    endpoint: String,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Server {
    /// Serves the fixture model with the fixture tokenizer.
    fn start() -> Server {
        let read = |path: &str| std::fs::read(path).expect("a fixture");
        let mut files = BTreeMap::new();
        for name in ["config.json", "model.safetensors"] {
            files.insert(name.to_string(), read(&format!("{MODEL}/{name}")));
        }
        files.insert("tokenizer.json".into(), read(TOKENIZER));
        files.insert("tokenizer_config.json".into(), b"{}".into());
        let behaviour = Arc::new(Mutex::new(Behaviour { files, ..Behaviour::default() }));
        let shared = behaviour.clone();
        let endpoint = serve(move |request, stream| {
            let own = format!("http://{}", stream.local_addr().expect("an address"));
            answer(request, stream, &shared, &own);
        });
        Server { endpoint, behaviour }
    }

    fn set(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().expect("no panic")
    }

    /// Takes the list of downloads of a file: their first bytes.
    fn downloads(&self, file: &str) -> Vec<usize> {
        let mut behaviour = self.set();
        let (wanted, others) = behaviour.downloads.drain(..).partition(|(path, _)| path.ends_with(file));
        behaviour.downloads = others;
        Vec::into_iter(wanted).map(|(_, start)| start).collect()
    }
}

/// A request as it came.
struct Request {
    path: String,
    /// By name in small letters.
    headers: HashMap<String, String>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The last part of the path, without a query.
    fn file(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }

    /// First byte and, if it is given, last byte of the range that is asked for.
    fn range(&self) -> Option<(usize, Option<usize>)> {
        let (start, end) = self.header("range")?.strip_prefix("bytes=")?.split_once('-').expect("a range");
        Some((start.parse().expect("a number"), end.parse().ok()))
    }
}

/// A server until the end of the tests, which lets `respond` answer each request, on a thread of its own; its address.
fn serve(respond: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let respond = Arc::new(respond);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let respond = respond.clone();
            std::thread::spawn(move || respond(&read(&stream), &mut stream));
        }
    });
    endpoint
}

fn read(stream: &TcpStream) -> Request {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_string();
    let header = |line: String| {
        line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
    };
    Request { path, headers: lines.take_while(|line| !line.is_empty()).filter_map(header).collect() }
}

/// Answers one request.
fn answer(request: &Request, stream: &mut TcpStream, behaviour: &Mutex<Behaviour>, own: &str) {
    let path = request.path.clone();
    let mut behaviour = behaviour.lock().expect("no panic");
    behaviour.requests += 1;
    let (elsewhere, file) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["", "owner", "name", "resolve", "main" | "v1" | COMMIT, file] => (false, file.to_string()),
        ["", "elsewhere", file] => (true, file.to_string()),
        _ => (false, String::new()),
    };
    let contents = behaviour.files.get(&file).cloned();
    let refused = behaviour.token.as_ref().is_some_and(|token| {
        !elsewhere && request.header("authorization") != Some(&format!("Bearer {token}"))
    });
    let status = behaviour.status.or(refused.then_some(401)).or(contents.is_none().then_some(404));
    if let Some(status) = status {
        let _ = write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let mut contents = contents.unwrap_or_default();
    let large = file.ends_with(".safetensors");
    let etag = behaviour.etag.clone().unwrap_or_else(|| hash(&contents, large));
    if large && !elsewhere {
        let _ = write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {own}/elsewhere/{file}\r\nX-Linked-ETag: \"{etag}\"\r\nETag: \"pointer\"\r\n\
             X-Repo-Commit: {COMMIT}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        return;
    }
    let (start, last) = request.range().unwrap_or((0, None));
    let total = contents.len();
    if start >= total {
        let _ = write!(stream, "HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let end = last.map_or(total, |last| last + 1);
    if behaviour.corrupt.as_ref() == Some(&file) {
        contents[total / 2] ^= 1;
    }
    let mut body = &contents[start..end];
    let _ = write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{total}\r\n\
         ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        body.len(),
        end - 1,
    );
    if end == total && !(start == 0 && total == 1) {
        behaviour.downloads.push((path, start));
        if let Some(bytes) = behaviour.breaks.get_mut(&file).and_then(VecDeque::pop_front) {
            body = &body[..bytes];
        }
    }
    let _ = stream.write_all(body);
}

/// The ETag of the Hub.
fn hash(contents: &[u8], large: bool) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if large {
        return hex(&Sha256::digest(contents));
    }
    let git = Sha1::new().chain_update(format!("blob {}\0", contents.len())).chain_update(contents);
    hex(&git.finalize())
}

/// The program with its cache in `place`, asked for the logits of `model`.
fn forward(place: &Place, endpoint: &str, model: &str, variables: &[(&str, &str)]) -> Outcome {
    let mut command = smolter(&["debug", "forward", "--device", "reference", "--model", model]);
    command.arg("--input").arg(format!("{MODEL}/input.safetensors"));
    command.arg("--out").arg(place.path("logits.safetensors"));
    at(&mut command, place, endpoint, variables);
    let _ = std::fs::remove_file(place.path("logits.safetensors"));
    run(&mut command)
}

/// Lets a command fetch from `endpoint` into the cache in `place`, whatever the environment of the tests is.
fn at(command: &mut Command, place: &Place, endpoint: &str, variables: &[(&str, &str)]) {
    for name in
        ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "http_proxy", "https_proxy", "all_proxy", "no_proxy"]
    {
        command.env_remove(name).env_remove(name.to_ascii_uppercase());
    }
    command.env("HF_HOME", place.path("cache")).env("HF_ENDPOINT", endpoint);
    command.env_remove("SMOLTER_HUB_TIMEOUT").envs(variables.iter().copied());
}

/// The model gave what the same model gives from its folder.
#[track_caller]
fn assert_logits(place: &Place, outcome: Outcome) {
    outcome.expect(0, &[]);
    let fetched = std::fs::read(place.path("logits.safetensors")).expect("logits");
    forward(place, "http://127.0.0.1:1", MODEL, &[]).expect(0, &[]);
    assert!(fetched == std::fs::read(place.path("logits.safetensors")).expect("logits"));
}

fn repo(place: &Place) -> PathBuf {
    place.path("cache/hub/models--owner--name")
}

fn snapshot(place: &Place) -> PathBuf {
    repo(place).join("snapshots").join(COMMIT)
}

/// The one unfinished download of a file with these contents.
fn part(place: &Place, contents: &[u8]) -> PathBuf {
    repo(place).join("blobs").join(hash(contents, true)).with_extension("incomplete")
}

fn weights() -> Vec<u8> {
    std::fs::read(Path::new(MODEL).join("model.safetensors")).expect("a fixture")
}

#[test]
fn a_named_model_is_fetched_once() {
    let (server, place) = (Server::start(), Place::new());
    assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name", &[]));
    let names = |folder: PathBuf| {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    };
    let files: Vec<String> = server.set().files.keys().cloned().collect();
    assert_eq!(names(snapshot(&place)), files);
    // All from the commit that the branch was at in the beginning.
    let downloads = std::mem::take(&mut server.set().downloads);
    assert_eq!(downloads.len(), files.len());
    for (path, start) in downloads {
        assert!(start == 0 && (path.contains(COMMIT) || path.contains("elsewhere")), "{path}");
    }
    // The cache is enough, by branch and by commit, with a dead server and without the network.
    let requests = server.set().requests;
    assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name", &[]));
    assert_logits(&place, forward(&place, "http://127.0.0.1:1", "hf://owner/name", &[]));
    let offline = [("HF_HUB_OFFLINE", "1")];
    assert_logits(
        &place,
        forward(&place, "http://127.0.0.1:1", &format!("hf://owner/name@{COMMIT}"), &offline),
    );
    assert_eq!(server.set().requests, requests);
    forward(&place, &server.endpoint, "hf://owner/name@v1", &offline)
        .expect(2, &["hf://owner/name@v1", "HF_HUB_OFFLINE"]);
    assert_eq!(server.set().requests, requests);
    // Another branch at the same commit has the same files.
    assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name@v1", &[]));
    assert_eq!(server.set().downloads, []);
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let (server, place) = (Server::start(), Place::new());
    let half = weights().len() / 2;
    server.set().breaks.insert("model.safetensors".into(), [half, 100].into());
    assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name", &[]));
    assert_eq!(server.downloads("model.safetensors"), [0, half, half + 100]);
}

#[test]
fn a_download_that_never_ends_is_kept_for_the_next_run() {
    let (server, place) = (Server::start(), Place::new());
    let half = weights().len() / 2;
    server.set().breaks.insert("model.safetensors".into(), [half, 0].into());
    forward(&place, &server.endpoint, "hf://owner/name", &[])
        .expect(1, &["hf://owner/name", "model.safetensors", "run again"]);
    assert_eq!(part(&place, &weights()).metadata().expect("the first half").len(), half as u64);
    assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name", &[]));
    assert_eq!(server.downloads("model.safetensors"), [0, half, half]);
    assert_eq!(server.downloads("/config.json"), [0]);
}

#[test]
fn an_unfinished_download_that_is_wrong_does_no_harm() {
    let (server, place) = (Server::start(), Place::new());
    let part = part(&place, &weights());
    std::fs::create_dir_all(part.parent().expect("a folder")).expect("a folder");
    // Ended, but not yet renamed.
    std::fs::write(&part, weights()).expect("a file");
    assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name", &[]));
    assert!(server.downloads("model.safetensors").is_empty(), "it is whole");
    // Too long, and not of this file at all.
    std::fs::remove_dir_all(repo(&place)).expect("removed");
    std::fs::create_dir_all(part.parent().expect("a folder")).expect("a folder");
    std::fs::write(&part, vec![7; weights().len() + 10]).expect("a file");
    assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name", &[]));
}

#[test]
fn a_file_with_the_wrong_checksum_is_refused_and_removed() {
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        let (server, place) = (Server::start(), Place::new());
        server.set().corrupt = Some(file.into());
        forward(&place, &server.endpoint, "hf://owner/name", &[])
            .expect(2, &[file, "damaged", "checksum", "run again"]);
        assert!(!snapshot(&place).join(file).exists() && !snapshot(&place).join(file).is_symlink());
        let etag = hash(&server.set().files[file], file.ends_with(".safetensors"));
        assert!(!repo(&place).join("blobs").join(etag).exists());
        server.set().corrupt = None;
        assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name", &[]));
    }
}

#[test]
fn what_the_server_refuses_is_one_line() {
    let (server, place) = (Server::start(), Place::new());
    let ask = |model: &str| forward(&place, &server.endpoint, model, &[]);
    ask("hf://owner/nothing").expect(2, &["hf://owner/nothing", "no such model", &server.endpoint]);
    ask("hf://owner/name@v2").expect(2, &["hf://owner/name@v2", "revision"]);

    server.set().token = Some("secret".into());
    let outcome = forward(&place, &server.endpoint, "hf://owner/name", &[("HF_TOKEN", "wrong")]);
    assert!(!outcome.expect(2, &["hf://owner/name", "401", "HF_TOKEN"]).stderr.contains("wrong"));
    ask("hf://owner/name").expect(2, &["private or gated", "HF_TOKEN"]);
    assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name", &[("HF_TOKEN", "secret")]));

    let place = Place::new();
    let ask = || forward(&place, &server.endpoint, "hf://owner/name", &[]);
    std::fs::create_dir_all(place.path("cache")).expect("a folder");
    std::fs::write(place.path("cache/token"), "secret\n").expect("the token of `hf auth login`");
    let tokenizer = server.set().files.remove("tokenizer.json").expect("a file");
    ask().expect(2, &["hf://owner/name", "tokenizer.json"]);
    server.set().files.insert("tokenizer.json".into(), tokenizer);
    server.set().status = Some(503);
    ask().expect(1, &["503"]);
    server.set().status = None;
    assert_logits(&place, ask());
}

#[test]
fn a_server_or_proxy_that_is_down_is_one_line() {
    let place = Place::new();
    // Nobody listens there. A port that was just free may be another test's by now.
    let closed = "http://127.0.0.1:1";
    forward(&place, closed, "hf://owner/name", &[]).expect(1, &["hf://owner/name", closed, "network"]);
    let server = Server::start();
    forward(&place, &server.endpoint, "hf://owner/name", &[("HTTP_PROXY", closed)]).expect(1, &["proxy"]);
    forward(&place, "no address", "hf://owner/name", &[]).expect(2, &["HF_ENDPOINT"]);
    assert_eq!(server.set().requests, 0);
}

#[test]
fn bad_names_are_refused_before_anything_is_asked() {
    let (server, place) = (Server::start(), Place::new());
    for name in [
        "hf://",
        "hf://x",
        "hf:///x",
        "hf://x/",
        "hf://../..",
        "hf://a/..",
        "hf://a/b/c",
        "hf://a/b@",
        "hf://a/b@..",
        "hf://a/b@../../c",
        "hf://a/b@c//d",
        "hf://a b/c",
        "hf://a/b?c",
        "hf://a/b%2Fc",
        "hf://a\\b/c",
        "hf://a/b@c@d",
        "hf://é/b",
        "hf://.a/b",
        "hf://a/b..c",
    ] {
        forward(&place, &server.endpoint, name, &[]).expect(2, &[name, "owner/name"]);
    }
    forward(&place, &server.endpoint, "owner/name", &[]).expect(2, &["owner/name", "hf://"]);
    assert_eq!(server.set().requests, 0);
    assert!(!place.path("cache").exists());
}

#[test]
fn weights_in_several_files_are_fetched_by_their_index() {
    let (server, place) = (Server::start(), Place::new());
    let index = |second: &str| {
        let map = serde_json::json!({"weight_map": {"a": "model-1.safetensors", "b": second, "c": "model-1.safetensors"}});
        map.to_string().into_bytes()
    };
    {
        let files = &mut server.set().files;
        let weights = files.remove("model.safetensors").expect("a file");
        files.insert("model-1.safetensors".into(), weights.clone());
        files.insert("model-2.safetensors".into(), [weights, vec![0]].concat());
        files.insert("model.safetensors.index.json".into(), index("../../../evil"));
    }
    let ask = || forward(&place, &server.endpoint, "hf://owner/name", &[]);
    ask().expect(2, &["model.safetensors.index.json", "weight_map"]);
    std::fs::remove_dir_all(repo(&place)).expect("removed");

    server.set().files.insert("model.safetensors.index.json".into(), index("model-3.safetensors"));
    ask().expect(2, &["model-3.safetensors"]);
    std::fs::remove_dir_all(repo(&place)).expect("removed");

    // What the loader makes of these shards is not the matter here.
    server.set().files.insert("model.safetensors.index.json".into(), index("model-2.safetensors"));
    server.set().downloads.clear();
    ask();
    for shard in ["model-1.safetensors", "model-2.safetensors"] {
        assert_eq!(std::fs::read(snapshot(&place).join(shard)).expect("a shard"), server.set().files[shard]);
        assert_eq!(server.downloads(shard), [0]);
    }
    let requests = server.set().requests;
    ask();
    assert_eq!(server.set().requests, requests, "the cache is enough");
}

#[test]
fn an_etag_that_is_no_hash_neither_leads_out_of_the_cache_nor_spoils_it() {
    for etag in ["../../../../evil", "/evil", "..", "", "same"] {
        let (server, place) = (Server::start(), Place::new());
        server.set().etag = Some(etag.into());
        assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name", &[]));
        let blobs = std::fs::read_dir(repo(&place).join("blobs")).expect("the cache");
        for blob in blobs.map(|entry| entry.expect("an entry").path()) {
            let (name, contents) = (blob.file_name().unwrap().to_owned(), std::fs::read(&blob).unwrap());
            let named = [true, false].map(|large| hash(&contents, large).into());
            assert!(named.contains(&name), "'{etag}': {} is not named by what it is", blob.display());
        }
        // The right ETags find the same files.
        server.set().etag = None;
        assert_logits(&place, forward(&place, &server.endpoint, "hf://owner/name", &[]));
    }
}
