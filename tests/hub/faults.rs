//! Servers that stall, lie or never end, and downloads that are killed or made twice at once.

use super::{
    COMMIT, Request, Server, assert_logits, at, forward, hash, part, repo, serve, snapshot, weights,
};
use crate::support::{Place, smolter};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A server's whole answer to a request. The connection is closed when it returns.
type Answer = fn(&Request, &mut TcpStream);

/// Bytes of the fixture's config.json, the first file that is asked for.
const SIZE: usize = 661;

fn head(stream: &mut TcpStream, status: &str, headers: &str) {
    let _ = write!(stream, "HTTP/1.1 {status}\r\nX-Repo-Commit: {COMMIT}\r\n{headers}\r\n");
}

/// The beginning of an answer with the whole file.
fn promise(stream: &mut TcpStream) {
    head(stream, "200 OK", &format!("ETag: \"{}\"\r\nContent-Length: {SIZE}\r\n", hash(b"", false)));
}

/// Until the client has gone.
fn endless(stream: &mut TcpStream) {
    while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
}

/// Writes `text` over and over, slowly.
fn trickle(stream: &mut TcpStream, text: &[u8]) {
    for byte in text.iter().cycle().take(200) {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn hold() {
    std::thread::sleep(Duration::from_secs(10));
}

fn redirect(stream: &mut TcpStream, location: &str) {
    head(stream, "302 Found", &format!("Location: {location}\r\nContent-Length: 0\r\n"));
}

/// Announces the right length when the first byte is asked for; `rest` answers the download.
fn probed(request: &Request, stream: &mut TcpStream, rest: impl Fn(&mut TcpStream)) {
    let etag = hash(b"", false);
    if request.range() == Some((0, Some(0))) {
        let range = format!("Content-Range: bytes 0-0/{SIZE}\r\nContent-Length: 1\r\nETag: \"{etag}\"\r\n");
        head(stream, "206 Partial Content", &range);
        let _ = stream.write_all(b"{");
    } else {
        rest(stream);
    }
}

const FAULTS: &[(&str, Answer)] = &[
    ("silent", |_, _| hold()),
    ("closes", |_, _| {}),
    ("no HTTP", |_, stream| drop(stream.write_all(b"220 smtp.example ESMTP\r\n"))),
    ("slow head", |_, stream| trickle(stream, b"HTTP/1.1 200 OK\r\nA: b\r\nA: b\r\n")),
    ("endless head", |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n").is_ok() {}
    }),
    ("stalls", |_, stream| {
        promise(stream);
        let _ = stream.write_all(&[b' '; 10]);
        hold();
    }),
    ("trickles", |_, stream| {
        promise(stream);
        trickle(stream, b" ");
    }),
    ("breaks off", |_, stream| {
        promise(stream);
        let _ = stream.write_all(&[b' '; 10]);
    }),
    ("redirects to itself", |request, stream| redirect(stream, &request.path)),
    ("redirects in a circle", |request, stream| {
        let other = if request.path.ends_with("?a") { "?b" } else { "?a" };
        redirect(stream, other);
    }),
    ("redirects on and on", |request, stream| redirect(stream, &format!("{}/a", request.path))),
    ("redirects slowly", |request, stream| {
        std::thread::sleep(Duration::from_millis(400));
        redirect(stream, &format!("{}/a", request.path));
    }),
    ("redirects nowhere", |_, stream| head(stream, "302 Found", "Content-Length: 0\r\n")),
    ("redirects to no server", |_, stream| redirect(stream, "file:///etc/passwd")),
    ("not modified", |_, stream| head(stream, "304 Not Modified", "")),
    ("no commit", |_, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}");
    }),
    ("endless, announced in the redirect", |request, stream| {
        if request.path.ends_with("?a") {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\n");
            endless(stream);
        } else {
            let etag = hash(b"", false);
            let about = format!("X-Linked-Size: {SIZE}\r\nX-Linked-ETag: \"{etag}\"\r\nLocation: ?a\r\n");
            head(stream, "302 Found", &format!("{about}Content-Length: 0\r\n"));
        }
    }),
    ("endless, announced by the first byte", |request, stream| {
        probed(request, stream, |stream| {
            head(stream, "200 OK", "");
            endless(stream);
        });
    }),
    ("endless in chunks", |request, stream| {
        probed(request, stream, |stream| {
            head(stream, "200 OK", "Transfer-Encoding: chunked\r\n");
            while stream.write_all(b"1000\r\n").is_ok() && stream.write_all(&[b' '; 4096]).is_ok() {
                if stream.write_all(b"\r\n").is_err() {
                    return;
                }
            }
        });
    }),
    ("endless, never announced", |_, stream| {
        head(stream, "200 OK", "ETag: \"a\"\r\n");
        endless(stream);
    }),
    ("another length than announced", |request, stream| {
        probed(request, stream, |stream| {
            head(stream, "200 OK", "Content-Length: 1000000000000\r\n");
            endless(stream);
        });
    }),
    ("more than such a file may have", |_, stream| {
        head(stream, "200 OK", "ETag: \"a\"\r\nContent-Length: 1000000000000\r\n");
        endless(stream);
    }),
    ("another range", |request, stream| {
        probed(request, stream, |stream| {
            head(stream, "206 Partial Content", "Content-Range: bytes 7-9/661\r\nContent-Length: 3\r\n");
            let _ = stream.write_all(b"abc");
        });
    }),
    ("packed", |_, stream| head(stream, "200 OK", "Content-Encoding: gzip\r\nContent-Length: 5\r\n")),
    ("a portal's page in its place", |_, stream| {
        head(stream, "200 OK", "ETag: \"x\"\r\nContent-Length: 13\r\n");
        let _ = stream.write_all(b"<html></html>");
    }),
    ("of one name for all", |request, stream| {
        probed(request, stream, |stream| {
            promise(stream);
            let _ = stream.write_all(&[b' '; SIZE]);
        });
    }),
];

/// Bytes of all files in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let bytes = |path: PathBuf| match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&path),
        metadata => metadata.map_or(0, |metadata| metadata.len()),
    };
    entries.flatten().map(|entry| bytes(entry.path())).sum()
}

#[test]
fn every_fault_ends_soon_in_one_line_and_leaves_the_cache_sound() {
    let good = Server::start();
    let test = |what: &str, answer: Answer| {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let endpoint = serve(move |request, stream| {
            counted.fetch_add(1, Ordering::Relaxed);
            answer(request, stream);
        });
        let (place, begun) = (Place::new(), Instant::now());
        let outcome = forward(&place, &endpoint, "hf://owner/name", &[("SMOLTER_HUB_TIMEOUT", "1")]);
        let took = begun.elapsed();
        assert!(matches!(outcome.code, Some(1 | 2)), "{what}: {outcome:#?}");
        assert!(outcome.stderr.contains("hf://owner/name"), "{what}: {outcome:#?}");
        outcome.is_one_line();
        // The machine may be busy; without the limit it would be for ever.
        assert!(took < Duration::from_secs(30), "{what}: {took:?}");
        assert!(requests.load(Ordering::Relaxed) < 25, "{what}: {requests:?} requests");
        let left = bytes_in(&place.path("cache"));
        assert!(left < 2 * SIZE as u64, "{what}: {left} bytes on disk");
        assert_logits(&place, forward(&place, &good.endpoint, "hf://owner/name", &[]));
    };
    std::thread::scope(|scope| {
        for part in FAULTS.chunks(FAULTS.len().div_ceil(8)) {
            scope.spawn(|| part.iter().for_each(|(what, answer)| test(what, *answer)));
        }
    });
}

#[test]
fn weights_that_announce_no_length_are_refused() {
    let good = Server::start();
    let files = good.set().files.clone();
    let endpoint = serve(move |request, stream| match files.get(request.file()) {
        Some(contents) if !request.file().ends_with(".safetensors") => {
            head(stream, "200 OK", &format!("Content-Length: {}\r\n", contents.len()));
            let _ = stream.write_all(contents);
        }
        Some(_) => {
            head(stream, "200 OK", "");
            endless(stream);
        }
        None => head(stream, "404 No", "Content-Length: 0\r\n"),
    });
    let place = Place::new();
    forward(&place, &endpoint, "hf://owner/name", &[])
        .expect(1, &["model.safetensors", "length"])
        .is_one_line();
    assert!(bytes_in(&place.path("cache")) < 1 << 16);
    assert_logits(&place, forward(&place, &good.endpoint, "hf://owner/name", &[]));
}

#[test]
fn a_timeout_that_is_none_is_refused() {
    let place = Place::new();
    for text in ["0", "-1", "soon", "NaN", "inf", "1e30"] {
        let variables = [("SMOLTER_HUB_TIMEOUT", text)];
        forward(&place, "http://127.0.0.1:1", "hf://owner/name", &variables)
            .expect(2, &["SMOLTER_HUB_TIMEOUT", text])
            .is_one_line();
    }
}

/// A server whose weights take their time, and know ranges if `ranges`; with the first bytes that were asked for.
fn slow(ranges: bool) -> (String, Arc<Mutex<Vec<usize>>>) {
    let (files, starts) = (Server::start().set().files.clone(), Arc::new(Mutex::new(Vec::new())));
    let noted = starts.clone();
    let endpoint = serve(move |request, stream| {
        let Some(contents) = files.get(request.file()) else {
            return head(stream, "404 No", "Content-Length: 0\r\n");
        };
        let large = request.file().ends_with(".safetensors");
        let etag = format!("ETag: \"{}\"\r\n", hash(contents, large));
        let range = request.range().filter(|_| ranges);
        let (start, last) = range.unwrap_or((0, None));
        let (body, size) = (&contents[start..last.map_or(contents.len(), |last| last + 1)], contents.len());
        let length = format!("{etag}Content-Length: {}\r\n", body.len());
        match range {
            None => head(stream, "200 OK", &length),
            Some(_) => {
                let end = start + body.len() - 1;
                let range = format!("{length}Content-Range: bytes {start}-{end}/{size}\r\n");
                head(stream, "206 Partial Content", &range);
            }
        }
        if large && last.is_none() && request.range().is_none_or(|(_, last)| last.is_none()) {
            noted.lock().expect("no panic").push(request.range().map_or(0, |(start, _)| start));
            for piece in body.chunks(1024) {
                if stream.write_all(piece).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        } else {
            let _ = stream.write_all(body);
        }
    });
    (endpoint, starts)
}

/// Begins to fetch.
fn spawn(place: &Place, endpoint: &str) -> Child {
    let mut command = smolter(&["export", "hf://owner/name", "--dtype", "f32", "--out"]);
    command.arg(place.path("exported"));
    at(&mut command, place, endpoint, &[]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

#[test]
fn a_download_that_is_killed_thirty_times_completes() {
    let ((endpoint, starts), place) = (slow(true), Place::new());
    let part = part(&place, &weights());
    let received = || part.metadata().map_or(0, |metadata| metadata.len());
    for _ in 0..30 {
        let (before, mut child) = (received(), spawn(&place, &endpoint));
        while received() <= before {
            assert!(child.try_wait().expect("a child").is_none(), "it is not done yet: {}", received());
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("killed");
        child.wait().expect("dead");
    }
    assert!(bytes_in(&place.path("cache")) < 2 * (weights().len() + 20_000) as u64);
    assert_logits(&place, forward(&place, &endpoint, "hf://owner/name", &[]));
    let starts = starts.lock().expect("no panic").clone();
    assert!(starts.len() == 31 && starts[0] == 0, "{starts:?}");
    assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "each goes on: {starts:?}");
    assert!(!part.exists());
}

#[test]
fn a_server_without_ranges_sends_the_file_anew() {
    let ((endpoint, starts), place) = (slow(false), Place::new());
    let part = part(&place, &weights());
    std::fs::create_dir_all(part.parent().expect("a folder")).expect("a folder");
    std::fs::write(&part, &weights()[..5000]).expect("a file");
    assert_logits(&place, forward(&place, &endpoint, "hf://owner/name", &[]));
    assert_eq!(*starts.lock().expect("no panic"), [5000]);
}

#[test]
fn several_processes_fetch_one_model_once() {
    let ((endpoint, starts), place) = (slow(true), Place::new());
    let mut children = Vec::new();
    for _ in 0..4 {
        children.push(spawn(&place, &endpoint));
    }
    // They all write the same export; that of this one is looked at.
    assert_logits(&place, forward(&place, &endpoint, "hf://owner/name", &[]));
    for mut child in children {
        child.wait().expect("it ends");
    }
    assert_eq!(*starts.lock().expect("no panic"), [0]);
    assert_eq!(std::fs::read(snapshot(&place).join("model.safetensors")).expect("weights"), weights());
}

#[test]
fn what_the_cache_has_under_its_checksum_is_not_fetched() {
    let ((endpoint, starts), place) = (slow(true), Place::new());
    let blob = repo(&place).join("blobs").join(hash(&weights(), true));
    std::fs::create_dir_all(blob.parent().expect("a folder")).expect("a folder");
    std::fs::write(&blob, weights()).expect("a file");
    assert_logits(&place, forward(&place, &endpoint, "hf://owner/name", &[]));
    assert!(starts.lock().expect("no panic").is_empty());
    // Unless it is something else.
    std::fs::remove_dir_all(repo(&place)).expect("removed");
    std::fs::create_dir_all(blob.parent().expect("a folder")).expect("a folder");
    std::fs::write(&blob, b"something else").expect("a file");
    assert_logits(&place, forward(&place, &endpoint, "hf://owner/name", &[]));
    assert_eq!(*starts.lock().expect("no panic"), [0]);
}
