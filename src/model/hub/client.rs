//! Requests to the Hub: which server may see the token, and how long an answer may take.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use std::{io, io::Read, thread};

use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode};

use super::address::{Address, Origin};
use crate::error::Error;
use crate::files;

const ENDPOINT: &str = "https://huggingface.co";

/// Redirects that are followed in a row.
const REDIRECTS: usize = 10;

/// Bytes per second below which a transfer counts as stalled: no model of any size would ever arrive.
pub const SLOWEST: u32 = 4 << 10;

/// Bytes that are handed over at once, and how often before the reader waits.
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 4;

/// The variable that says how long to wait, in seconds, and what it is if it is not set.
pub const TIMEOUT: &str = "SMOLTER_HUB_TIMEOUT";
const USUAL_TIMEOUT: f64 = 30.0;

/// An environment variable that is set to more than blanks.
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name)
        .map(|value| value.to_string_lossy().trim().to_string())
        .filter(|value| !value.is_empty())
}

/// The time that a transfer has left. It runs out after the timeout, whatever the server does meanwhile (connect,
/// redirect, answer); only bytes of a file bring it back, and no more than the timeout.
pub struct Patience {
    timeout: Duration,
    until: Instant,
}

impl Patience {
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn received(&mut self, bytes: usize) {
        let earned = Duration::from_secs(bytes as u64) / SLOWEST;
        self.until = (self.until + earned).min(Instant::now() + self.timeout);
    }

    /// Does what is no transfer, and takes no patience.
    pub fn pausing<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.until += begun.elapsed();
        result
    }
}

/// Why a request did not bring what it should.
#[derive(Debug)]
pub enum Fault {
    /// This server answered with this status.
    Status(Origin, StatusCode),
    /// The patience ran out.
    Late,
    /// The connection cannot be made, or broke.
    Network(String),
    /// An answer that no Hub would give.
    Wrong(String),
    /// A file that is not what the endpoint says.
    Damaged(String),
    /// Another process fetches the file, and gets no further.
    Busy,
    /// Not the server's fault.
    Local(Error),
}

/// What a request brings, or why it does not.
pub type Fetched<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Local(error)
    }
}

/// The beginning of a successful answer; the body follows.
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// Pieces of the body; an empty one is its end.
    body: Receiver<io::Result<Vec<u8>>>,
    /// What the endpoint itself said on the way. What others say of a file is no matter.
    said: HeaderMap,
}

/// A client of one Hub.
pub struct Client {
    agent: Agent,
    endpoint: Address,
    /// `name:password` in the endpoint's address.
    credentials: Option<String>,
    token: Option<String>,
    /// How long a transfer may stand still.
    pub timeout: Duration,
}

impl Client {
    /// The client that the environment describes; `token_file` holds the token if `HF_TOKEN` does not.
    ///
    /// # Errors
    /// [`Error::Input`] for a variable that cannot be used, which is not printed where it may hold a secret.
    pub fn from_environment(token_file: &std::path::Path) -> Result<Self, Error> {
        let endpoint = variable("HF_ENDPOINT").unwrap_or(ENDPOINT.into());
        let (endpoint, credentials) = Address::parse(&endpoint)
            .filter(|(address, _)| !address.has_query())
            .ok_or_else(|| {
            Error::input(
                "HF_ENDPOINT is not the address of a server: write it as https://host or http://host:port",
            )
        })?;
        let token = match variable("HF_TOKEN") {
            Some(token) => Some((token, "HF_TOKEN".to_string())),
            None => files::read(token_file, files::SETTINGS)
                .ok()
                .map(|bytes| {
                    (String::from_utf8_lossy(&bytes).trim().to_string(), token_file.display().to_string())
                })
                .filter(|(token, _)| !token.is_empty()),
        };
        if let Some((token, place)) = &token
            && !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Error::input(format!(
                "{place} holds no token: there is a blank, a line break or another character in it that no token has; \
                 copy it again from the Hub's page 'Access Tokens', or remove it"
            )));
        }
        let timeout = match variable(TIMEOUT) {
            None => USUAL_TIMEOUT,
            Some(text) => {
                let seconds = text.parse().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
                seconds.ok_or_else(|| {
                    Error::input(format!("{TIMEOUT}: '{text}' is not a number of seconds from 0.1 to 86400"))
                })?
            }
        };
        let timeout = Duration::from_secs_f64(timeout);
        let config = Agent::config_builder()
            .user_agent(concat!("smolter/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // What a broken server sends after the end of an answer cannot be taken for the next one.
            .max_idle_connections(0)
            // The caller gives up earlier; these end the thread that it leaves behind.
            .timeout_connect(Some(timeout * 2))
            .timeout_recv_response(Some(timeout * 2))
            .timeout_per_read(Some(timeout * 2))
            .build();
        Ok(Client {
            agent: config.into(),
            endpoint,
            credentials,
            token: token.map(|(token, _)| token),
            timeout,
        })
    }

    /// The endpoint's server, without secrets.
    pub fn endpoint(&self) -> &Origin {
        &self.endpoint.origin
    }

    /// A full measure of time for one transfer.
    pub fn patience(&self) -> Patience {
        Patience { timeout: self.timeout, until: Instant::now() + self.timeout }
    }

    /// The answer to a request for `path` below the endpoint, or for its bytes `range` (`first-last` or `first-`),
    /// wherever redirects lead.
    pub fn get(&self, path: &str, range: Option<&str>, patience: &Patience) -> Fetched<Answer> {
        let mut address = self.endpoint.join(path);
        let mut said = HeaderMap::new();
        for _ in 0..=REDIRECTS {
            let own = address.origin == self.endpoint.origin;
            let answer = self.ask(&address, range, patience)?;
            if own {
                for (name, value) in &answer.headers {
                    said.insert(name, value.clone());
                }
            }
            match answer.status.as_u16() {
                301 | 302 | 303 | 307 | 308 => {
                    let location = answer.headers.get("location").and_then(|it| it.to_str().ok());
                    let target = location.and_then(|location| address.redirect(location));
                    address = target.ok_or_else(|| {
                        Fault::Wrong(format!("{} redirects to what is no address", address.origin))
                    })?;
                }
                200 | 206 if text(&answer.headers, "content-encoding").is_some_and(|it| it != "identity") => {
                    return Err(Fault::Wrong(format!("{} packs a file, unasked", address.origin)));
                }
                // Of an empty file, no range can be had.
                200 | 206 | 416 => return Ok(Answer { said, ..answer }),
                _ => return Err(Fault::Status(address.origin, answer.status)),
            }
        }
        Err(Fault::Wrong(format!("more than {REDIRECTS} redirects, the last to {}", address.origin)))
    }

    /// One request. The token is for the endpoint's own server, and nobody else.
    ///
    /// A thread of its own waits for the network, so that nothing there can take longer than the caller's patience.
    fn ask(&self, address: &Address, range: Option<&str>, patience: &Patience) -> Fetched<Answer> {
        let own = address.origin == self.endpoint.origin;
        let credentials = self.credentials.as_deref().filter(|_| own);
        let mut request = self.agent.get(address.request(credentials)).header("accept-encoding", "identity");
        if let Some(token) = self.token.as_deref().filter(|_| own) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header("range", format!("bytes={range}"));
        }
        let (beginning, answer) = sync_channel(1);
        let work = move || {
            let (parts, body) = match request.call() {
                Ok(response) => response.into_parts(),
                Err(error) => return drop(beginning.send(Err(Fault::Network(error.to_string())))),
            };
            let (chunks, received) = sync_channel(CHUNKS);
            let answer = Answer {
                status: parts.status,
                headers: parts.headers,
                body: received,
                said: HeaderMap::new(),
            };
            if beginning.send(Ok(answer)).is_ok() {
                forward(body.into_reader(), |chunk| chunks.send(chunk).is_ok());
            }
        };
        thread::Builder::new().spawn(work).map_err(|error| Fault::Network(error.to_string()))?;
        match answer.recv_timeout(patience.left()) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(Fault::Late),
            Err(RecvTimeoutError::Disconnected) => Err(Fault::Network("the request was given up".into())),
        }
    }
}

/// Hands the pieces of a body to `send`, which says whether anybody still wants them; the last one is empty.
fn forward(mut body: impl Read, send: impl Fn(io::Result<Vec<u8>>) -> bool) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = body.read(&mut chunk).map(|n| {
            chunk.truncate(n);
            chunk
        });
        let last = !matches!(&read, Ok(chunk) if !chunk.is_empty());
        if !send(read) || last {
            return;
        }
    }
}

/// A header's text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

impl Answer {
    /// The commit that the endpoint took the file from.
    pub fn commit(&self) -> Option<&str> {
        text(&self.said, "x-repo-commit")
    }

    /// What the endpoint calls the file's contents, without quotes.
    pub fn etag(&self) -> Option<&str> {
        // A file of Git LFS lies elsewhere: the answer's own tag is that of the note which says where.
        let etag = text(&self.said, "x-linked-etag").or(text(&self.said, "etag"))?;
        Some(etag.trim_start_matches("W/").trim_matches('"'))
    }

    /// Bytes of the whole file, if anybody announces them.
    pub fn size(&self) -> Fetched<Option<u64>> {
        let linked = text(&self.said, "x-linked-size").and_then(|size| size.parse().ok());
        let here = match self.status {
            StatusCode::OK => self.length(),
            _ => text(&self.headers, "content-range")
                .and_then(|range| range.rsplit_once('/'))
                .and_then(|(_, size)| size.parse().ok()),
        };
        match (linked, here) {
            (Some(linked), Some(here)) if linked != here => {
                Err(Fault::Wrong(format!("a length of {linked} bytes is announced, then one of {here}")))
            }
            _ => Ok(linked.or(here)),
        }
    }

    /// The file's byte with which the body begins, after bytes from `asked` on were asked for.
    pub fn start(&self, asked: u64) -> Fetched<u64> {
        let range = text(&self.headers, "content-range").unwrap_or_default();
        let start = match self.status {
            StatusCode::OK => Some(0),
            StatusCode::PARTIAL_CONTENT => range
                .strip_prefix("bytes ")
                .and_then(|range| range.split_once('-'))
                .and_then(|(start, _)| start.parse().ok()),
            _ => None,
        };
        start
            .filter(|start| *start == 0 || *start == asked)
            .ok_or_else(|| Fault::Wrong(format!("bytes from {asked} on were asked for, and '{range}' came")))
    }

    /// Bytes of the body, if they are announced.
    pub fn length(&self) -> Option<u64> {
        text(&self.headers, "content-length")?.parse().ok()
    }

    /// The next piece of the body; an empty one is its end.
    pub fn next(&self, patience: &mut Patience) -> Fetched<Vec<u8>> {
        match self.body.recv_timeout(patience.left()) {
            Ok(Ok(chunk)) => {
                patience.received(chunk.len());
                Ok(chunk)
            }
            Ok(Err(error)) => Err(Fault::Network(error.to_string())),
            Err(RecvTimeoutError::Timeout) => Err(Fault::Late),
            Err(RecvTimeoutError::Disconnected) => Err(Fault::Network("the transfer was given up".into())),
        }
    }
}
