//! What went wrong with a file of the Hub, in one line with a remedy.

use super::DATASETS;
use super::client::{Client, Fault, SLOWEST, TIMEOUT};
use crate::error::Error;

/// What kind of thing a name names.
fn kind(name: &str) -> &'static str {
    if name.starts_with(DATASETS) { "dataset" } else { "model" }
}

/// The error of somebody who wanted `file` of what he called `name`, and found that there is none.
pub(super) fn absent(client: &Client, name: &str, file: &str) -> Error {
    let (kind, endpoint) = (kind(name), client.endpoint());
    Error::input(format!("{name}: {endpoint} has no such {kind}, revision or file ({file}): check the name"))
}

/// The error of somebody who wanted `file` of what he called `name`.
pub(super) fn describe(client: &Client, name: &str, file: &str, fault: Fault) -> Error {
    let (kind, endpoint) = (kind(name), client.endpoint());
    let problem = |what: String| Error::failure(format!("{name}: {what}"));
    match fault {
        Fault::Status(origin, status) if origin == *endpoint && status == 404 => absent(client, name, file),
        Fault::Status(origin, status) if origin == *endpoint && matches!(status.as_u16(), 401 | 403) => {
            let status = status.as_u16();
            Error::input(format!(
                "{name}: {endpoint} refuses {file} ({status}): the {kind} is private or gated, or does not exist: \
                 check the name, accept the {kind}'s terms on its page, and set HF_TOKEN to a token that may read it"
            ))
        }
        Fault::Status(origin, status) => {
            problem(format!("{origin} answers {} for {file}: try again later", status.as_u16()))
        }
        Fault::Late => problem(format!(
            "{file}: less than {} KiB/s came from {endpoint} in {} s: run again to go on from there; \
             {TIMEOUT} sets the seconds, for slow networks",
            SLOWEST >> 10,
            client.timeout.as_secs_f64()
        )),
        Fault::Network(error) => {
            let without = match kind {
                "dataset" => "a run that has all its tokens needs no network",
                _ => "a model that is in the cache needs no network",
            };
            problem(format!(
                "{file} cannot be fetched from {endpoint} ({error}): check the network, the proxy settings and \
                 HF_ENDPOINT, then run again to go on from there; {without}"
            ))
        }
        Fault::Wrong(what) => {
            problem(format!("{file}: {endpoint} answers as no Hub does ({what}): check HF_ENDPOINT"))
        }
        Fault::Damaged(what) => Error::damaged(
            format!("{name}/{file}"),
            format!("{what}, as {endpoint} says; removed: run again to fetch it anew"),
        ),
        Fault::Busy => problem(format!(
            "another process is fetching {file} and gets no further: wait for it or end it, then run again"
        )),
        Fault::Local(error) => error,
    }
}
