//! `hf://` names, against a server on the loopback that does what the Hub does, or fails as it may fail.

use crate::support::{Outcome, Place, run, smolter};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
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
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let (shared, own) = (behaviour.clone(), endpoint.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, own) = (shared.clone(), own.clone());
                std::thread::spawn(move || answer(stream, &shared, &own));
            }
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

/// Answers one request and closes the connection.
fn answer(mut stream: TcpStream, behaviour: &Mutex<Behaviour>, own: &str) {
    let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines().map_while(Result::ok);
    let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_string();
    let headers: HashMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
        })
        .collect();
    let mut behaviour = behaviour.lock().expect("no panic");
    behaviour.requests += 1;
    let (elsewhere, file) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["", "owner", "name", "resolve", "main" | "v1" | COMMIT, file] => (false, file.to_string()),
        ["", "elsewhere", file] => (true, file.to_string()),
        _ => (false, String::new()),
    };
    let contents = behaviour.files.get(&file).cloned();
    let refused = behaviour
        .token
        .as_ref()
        .is_some_and(|token| !elsewhere && headers.get("authorization") != Some(&format!("Bearer {token}")));
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
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")).unwrap_or("0-");
    let (start, end) = range.split_once('-').expect("a range");
    let start: usize = start.parse().expect("a number");
    let total = contents.len();
    if start >= total {
        let _ = write!(stream, "HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let end = end.parse().map_or(total, |last: usize| last + 1);
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
    for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_ascii_uppercase());
    }
    command.env("HF_HOME", place.path("cache")).env("HF_ENDPOINT", endpoint);
    command.envs(variables.iter().copied());
    let _ = std::fs::remove_file(place.path("logits.safetensors"));
    run(&mut command)
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

/// A server that notes the headers of all requests, and answers each by `answer(path)`.
fn noting(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().expect("a socket")).lines().map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let path =
                request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_string();
            noted.lock().expect("no panic").push(request.join("\n").to_ascii_lowercase());
            let _ = stream.write_all(&answer(&path));
        }
    });
    (format!("127.0.0.1:{port}"), seen)
}

#[test]
fn a_token_goes_to_the_endpoint_and_nowhere_else() {
    for code in [301, 302, 303, 307, 308] {
        for kind in ["config.json", "tokenizer.json", "model.safetensors"] {
            let files = Server::start();
            let source = files.set().files.clone();
            let (other, at_other) = noting(move |path| {
                let contents =
                    source.get(path.rsplit('/').next().unwrap_or_default()).cloned().unwrap_or_default();
                let length = contents.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                [head.into_bytes(), contents].concat()
            });
            let source = files.set().files.clone();
            let target = other.replace("127.0.0.1", if code % 2 == 0 { "localhost" } else { "127.0.0.1" });
            let (endpoint, at_endpoint) = noting(move |path| {
                let name = path.rsplit('/').next().unwrap_or_default();
                let Some(contents) = source.get(name) else {
                    return b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
                };
                let (large, length) = (name.ends_with(".safetensors"), contents.len());
                let etag = hash(contents, large);
                let about = format!(
                    "ETag: \"{etag}\"\r\nX-Linked-ETag: \"{etag}\"\r\nX-Linked-Size: {length}\r\nX-Repo-Commit: {COMMIT}"
                );
                if name == kind {
                    let to = format!("http://{target}/elsewhere/{name}");
                    return format!("HTTP/1.1 {code} Moved\r\nLocation: {to}\r\n{about}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes();
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\n{about}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                [head.into_bytes(), contents.clone()].concat()
            });
            let place = Place::new();
            let token = [("HF_TOKEN", "hf_secret"), ("SMOLTER_HUB_TIMEOUT", "10")];
            let outcome = forward(&place, &format!("http://{endpoint}"), "hf://owner/name", &token);
            let (here, there) = (at_endpoint.lock().expect("no panic"), at_other.lock().expect("no panic"));
            assert!(!there.is_empty(), "{code} {kind}: the redirect was not followed: {outcome:#?}");
            assert!(
                here.iter().any(|request| request.contains("hf_secret")),
                "{code} {kind}: no token at home"
            );
            let leaked = there.iter().find(|request| request.contains("hf_secret"));
            assert_eq!(leaked, None, "{code} {kind}: the token went elsewhere");
        }
    }
}

#[test]
fn a_server_without_end_is_left_in_one_line() {
    let announced = 631;
    let endless = move |_: &str| {
        let body = vec![b' '; 4 << 20];
        let head = format!(
            "HTTP/1.1 200 OK\r\nETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Size: {announced}\r\nConnection: close\r\n\r\n",
            hash(b"", false)
        );
        [head.into_bytes(), body].concat()
    };
    let circle = |path: &str| {
        format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nETag: \"a\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let silent = |_: &str| {
        std::thread::sleep(std::time::Duration::from_secs(8));
        Vec::new()
    };
    type Answer = Box<dyn Fn(&str) -> Vec<u8> + Send>;
    let faults: [(&str, Answer); 3] =
        [("endless", Box::new(endless)), ("circle", Box::new(circle)), ("silent", Box::new(silent))];
    for (what, answer) in faults {
        let (endpoint, seen) = noting(answer);
        let (place, begun) = (Place::new(), std::time::Instant::now());
        let endpoint = format!("http://{endpoint}");
        let outcome = forward(&place, &endpoint, "hf://owner/name", &[("SMOLTER_HUB_TIMEOUT", "2")]);
        assert!(matches!(outcome.code, Some(1 | 2)), "{what}: {outcome:#?}");
        outcome.is_one_line();
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{what}: {:?}", begun.elapsed());
        assert!(seen.lock().expect("no panic").len() < 60, "{what}: asked too often");
        assert!(size_of_folder(&place.path("cache")) < 2 << 20, "{what}: the disk fills");
    }
}

fn size_of_folder(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |path: PathBuf| {
        if path.is_dir() { size_of_folder(&path) } else { path.metadata().map_or(0, |it| it.len()) }
    };
    entries.flatten().map(|entry| size(entry.path())).sum()
}
