//! Who gets to see the token, and what is printed of secrets.

use super::{COMMIT, MODEL, Request, Server, at, hash, part, serve, snapshot, weights};
use crate::support::{Outcome, Place, RECIPE, run, smolter};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Every request: the origin that it was for, its path, its `Authorization` and its range.
type Notes = Arc<Mutex<Vec<(String, String, Option<String>, Option<usize>)>>>;

/// A server that notes requests for it. Its answer to one is a redirect to `leads(path)`, or else the file.
fn noting(
    notes: &Notes,
    files: &BTreeMap<String, Vec<u8>>,
    status: u16,
    leads: impl Fn(&Request) -> Option<String> + Send + Sync + 'static,
) -> String {
    let (notes, files) = (notes.clone(), files.clone());
    serve(move |request, stream| {
        let origin = format!("http://{}", request.header("host").unwrap_or_default());
        let token = request.header("authorization").map(str::to_string);
        let start = request.range().filter(|(_, last)| last.is_none()).map(|(start, _)| start);
        notes.lock().expect("no panic").push((origin, request.path.clone(), token, start));
        let Some(contents) = files.get(request.file()) else {
            let _ = write!(stream, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        };
        let (size, etag) = (contents.len(), hash(contents, request.file().ends_with(".safetensors")));
        let about = format!(
            "X-Linked-ETag: \"{etag}\"\r\nX-Linked-Size: {size}\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close"
        );
        if let Some(location) = leads(request) {
            let _ = write!(
                stream,
                "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n{about}\r\nContent-Length: 0\r\n\r\n"
            );
            return;
        }
        let (start, last) = request.range().unwrap_or((0, None));
        let body = &contents[start..last.map_or(size, |last| last + 1)];
        let (length, last) = (body.len(), start + body.len() - 1);
        let _ = write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\n{about}\r\nContent-Length: {length}\r\n\
             Content-Range: bytes {start}-{last}/{size}\r\n\r\n"
        );
        let _ = stream.write_all(body);
    })
}

fn is_asked_first(request: &Request) -> bool {
    request.path.contains("/resolve/")
}

/// Runs a command that needs a model, however it ends: the fixtures' tokenizer and weights do not belong together.
fn fetch(command: &str, place: &Place, endpoint: &str, variables: &[(&str, &str)]) -> Outcome {
    let model = "hf://owner/name";
    let mut command = match command {
        "generate" => smolter(&["generate", model, "--prompt", "a", "--device", "reference"]),
        "export" => {
            let mut command = smolter(&["export", model, "--out"]);
            command.arg(place.path("exported"));
            command
        }
        "train" => {
            let (_, rest) = RECIPE.split_once("[schedule]").expect("a schedule");
            place.recipe(&format!("name = \"tiny\"\n[model]\nfrom = \"{model}\"\n[schedule]{rest}"));
            place.train("run", "reference", &[])
        }
        _ => {
            let mut command = smolter(&["debug", "forward", "--device", "reference", "--model", model]);
            command.arg("--input").arg(Path::new(MODEL).join("input.safetensors"));
            command.arg("--out").arg(place.path("logits.safetensors"));
            command
        }
    };
    at(&mut command, place, endpoint, variables);
    run(&mut command)
}

#[test]
fn a_token_goes_to_the_endpoint_and_nowhere_else() {
    let files = Server::start().set().files.clone();
    let half = weights().len() / 2;
    for (command, status) in
        ["generate", "export", "train", "debug"].iter().cycle().zip([301, 302, 303, 307, 308].repeat(2))
    {
        for way in ["port", "name", "without scheme", "user", "path", "relative", "there and back"] {
            let notes = Notes::default();
            let back = Arc::new(Mutex::new(None::<String>));
            let home = back.clone();
            // Another port. For one way, it sends the client home again.
            let other = noting(&notes, &files, status, move |request| {
                let home = home.lock().expect("no panic").clone();
                home.map(|home| format!("{home}/again/{}", request.file()))
            });
            let port = other.rsplit(':').next().expect("a port").to_string();
            let endpoint = noting(&notes, &files, status, move |request| {
                let own = request.header("host").unwrap_or_default();
                let (own_port, file) = (own.rsplit(':').next().unwrap_or_default(), request.file());
                is_asked_first(request).then(|| match way {
                    "port" | "there and back" => format!("http://127.0.0.1:{port}/elsewhere/{file}?signed=1"),
                    "name" => format!("http://localhost:{own_port}/elsewhere/{file}"),
                    "without scheme" => format!("//localhost:{own_port}/elsewhere/{file}"),
                    "user" => format!("http://{own}:x@127.0.0.1:{port}/elsewhere/{file}"),
                    "path" => format!("/elsewhere/{file}"),
                    _ => format!("../../elsewhere/{file}"),
                })
            });
            if way == "there and back" {
                *back.lock().expect("no panic") = Some(endpoint.clone());
            }
            let place = Place::new();
            let part = part(&place, &weights());
            std::fs::create_dir_all(part.parent().expect("a folder")).expect("a folder");
            std::fs::write(&part, &weights()[..half]).expect("a file");
            let outcome = fetch(command, &place, &endpoint, &[("HF_TOKEN", "hf_secret")]);
            let what = format!("{command} {status} {way}: {outcome:#?}");
            for (name, contents) in &files {
                let fetched = std::fs::read(snapshot(&place).join(name)).ok();
                assert!(fetched.as_ref() == Some(contents), "{name}, {what}");
            }
            let notes = notes.lock().expect("no panic");
            for (origin, path, token, _) in notes.iter() {
                let expected = (*origin == endpoint).then_some("Bearer hf_secret");
                assert_eq!(token.as_deref(), expected, "{origin} {path}, {what}");
            }
            let away = notes.iter().any(|(origin, ..)| *origin != endpoint);
            assert_eq!(away, !["path", "relative"].contains(&way), "{what}");
            let goes_on = |(_, path, _, start): &(String, String, Option<String>, Option<usize>)| {
                !path.contains("/resolve/") && *start == Some(half)
            };
            assert!(notes.iter().any(goes_on), "the download went on, {what}");
        }
    }
}

#[test]
fn what_is_no_token_is_said_so_and_not_shown() {
    let server = Server::start();
    for token in ["hf_sec ret", "hf_sec\nret", "hf_sec\r\nX-Evil: ret", "hf_sec\u{1}ret", "hf_sec\u{e9}ret"] {
        let place = Place::new();
        let in_variable = fetch("generate", &place, &server.endpoint, &[("HF_TOKEN", token)]);
        std::fs::create_dir_all(place.path("cache")).expect("a folder");
        std::fs::write(place.path("cache/token"), token).expect("a file");
        let in_file = fetch("generate", &place, &server.endpoint, &[]);
        for (outcome, place) in [(in_variable, "HF_TOKEN"), (in_file, "cache/token")] {
            let outcome = outcome.expect(2, &[place, "no token"]);
            outcome.is_one_line();
            assert!(!outcome.stderr.contains("hf_sec") && !outcome.stderr.contains("network"), "{outcome:?}");
        }
    }
    assert_eq!(server.set().requests, 0);
    // A line break at the end is no part of it.
    server.set().token = Some("hf_secret".into());
    fetch("export", &Place::new(), &server.endpoint, &[("HF_TOKEN", " hf_secret\n")]).expect(0, &[]);
}

#[test]
fn a_password_in_the_endpoint_stays_there_and_is_never_printed() {
    let files = Server::start().set().files.clone();
    let notes = Notes::default();
    let other = noting(&notes, &files, 302, |_| None);
    let endpoint = noting(&notes, &files, 302, move |request| {
        is_asked_first(request).then(|| format!("{other}/{}", request.file()))
    });
    let with_password = |endpoint: &str| endpoint.replace("http://", "http://me:pa55word@");
    fetch("export", &Place::new(), &with_password(&endpoint), &[]).expect(0, &[]);
    for (origin, path, sent, _) in notes.lock().expect("no panic").iter() {
        let expected = (*origin == endpoint).then_some("Basic bWU6cGE1NXdvcmQ=");
        assert_eq!(sent.as_deref(), expected, "{origin} {path}");
    }

    let server = Server::start();
    let silent = |endpoint: &str, code: i32, words: &[&str]| {
        let variables = [("HF_TOKEN", "hf_secret"), ("SMOLTER_HUB_TIMEOUT", "1")];
        let outcome = fetch("generate", &Place::new(), endpoint, &variables).expect(code, words);
        outcome.is_one_line();
        let printed = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(
            !printed.contains("pa55") && !printed.contains("word") && !printed.contains("secret"),
            "{printed}"
        );
    };
    for (status, code) in [(401, 2), (403, 2), (404, 2), (429, 1), (503, 1)] {
        server.set().status = Some(status);
        silent(&with_password(&server.endpoint), code, &[&server.endpoint]);
    }
    let stalled = serve(|_, _| std::thread::sleep(std::time::Duration::from_secs(5)));
    let circle = serve(|request, stream| {
        let _ =
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", request.path);
    });
    for endpoint in ["http://127.0.0.1:1", stalled.as_str(), circle.as_str()] {
        silent(&with_password(endpoint), 1, &[endpoint]);
    }
    for endpoint in [
        "me:pa55word@127.0.0.1",
        "ftp://me:pa55word@127.0.0.1",
        "http://me:pa55word@127.0.0.1:port",
        "http://me:pa55word@ 127.0.0.1",
        "http://me:pa55word@",
        "http://127.0.0.1/?key=pa55word",
    ] {
        silent(endpoint, 2, &["HF_ENDPOINT"]);
    }
}
