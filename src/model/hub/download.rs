//! One file of the Hub, on its way to the cache: no longer than announced, checked at the end, and continued where an
//! earlier transfer broke off.

use std::fs::File;
use std::io::{IsTerminal, Seek, SeekFrom, Write};
use std::path::Path;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::checksum::Checksum;
use super::client::{Client, Fault, Fetched, Patience};
use crate::error::Error;

/// Files of at least so many bytes show their progress.
const LARGE: u64 = 8 << 20;

/// What the server says of a file.
pub struct Remote {
    /// Below the endpoint.
    pub path: String,
    /// Without folders.
    pub name: String,
    /// Bytes, if they are announced.
    pub size: Option<u64>,
    /// Of the contents, if the ETag is one.
    pub checksum: Option<Checksum>,
}

/// Fetches the file to `part`, which may hold its beginning; no more than `limit` bytes. Gives its checksum.
///
/// # Errors
/// What the server did wrong; `part` then keeps what may be continued, and nothing else.
pub fn download(
    client: &Client,
    remote: &Remote,
    part: &Path,
    limit: u64,
    patience: &mut Patience,
) -> Fetched<Checksum> {
    // Pieces are only put together where the checksum will tell whether they belong together.
    let resumable = remote.checksum.is_some() && remote.size.is_some();
    let received = || part.metadata().map_or(0, |metadata| metadata.len());
    if !resumable || received() > remote.size.unwrap_or(0) {
        remove(part)?;
    }
    let mut inherited = received() > 0;
    loop {
        let before = received();
        match receive(client, remote, part, before, limit, patience) {
            Ok(()) => {}
            Err(Fault::Network(_)) if resumable && received() > before => continue,
            // The next run goes on from there.
            Err(fault) if resumable => return Err(fault),
            Err(fault) => {
                remove(part)?;
                return Err(fault);
            }
        }
        let actual =
            patience.pausing(|| Checksum::of(part, remote.checksum.as_ref())).map_err(Error::io(part))?;
        let expected = remote.checksum.as_ref().unwrap_or(&actual);
        if actual == *expected {
            return Ok(actual);
        }
        let length = received();
        remove(part)?;
        // What an earlier process left may not have been of this file.
        if !std::mem::take(&mut inherited) {
            return Err(Fault::Damaged(format!(
                "{length} bytes with checksum {} came instead of {}",
                actual.hex(),
                expected.hex()
            )));
        }
    }
}

/// Receives what `part` lacks after its first `have` bytes.
fn receive(
    client: &Client,
    remote: &Remote,
    part: &Path,
    have: u64,
    limit: u64,
    patience: &mut Patience,
) -> Fetched<()> {
    let mut file =
        File::options().create(true).truncate(false).write(true).open(part).map_err(Error::io(part))?;
    if remote.size == Some(have) {
        return Ok(());
    }
    let range = (have > 0).then(|| format!("{have}-"));
    let answer = client.get(&remote.path, range.as_deref(), patience)?;
    // A server that knows no ranges sends the file from its beginning.
    let mut position = match answer.start(have) {
        Ok(start) => start,
        Err(fault) => {
            file.set_len(0).map_err(Error::io(part))?;
            return Err(fault);
        }
    };
    let announced = answer.length().and_then(|length| length.checked_add(position));
    if let (Some(size), Some(announced)) = (remote.size, announced)
        && size != announced
    {
        return Err(Fault::Wrong(format!("a length of {size} bytes is announced, then one of {announced}")));
    }
    let size = remote.size.or(announced);
    let most = bounded(size, limit)?;
    file.set_len(position).map_err(Error::io(part))?;
    file.seek(SeekFrom::Start(position)).map_err(Error::io(part))?;
    let bar = Bar::new(&remote.name, size, position);
    loop {
        let chunk = answer.next(patience)?;
        if chunk.is_empty() {
            break;
        }
        position += chunk.len() as u64;
        if position > most {
            file.set_len(0).map_err(Error::io(part))?;
            return Err(Fault::Wrong(format!("more than {most} bytes come")));
        }
        file.write_all(&chunk).map_err(Error::io(part))?;
        bar.set(position);
    }
    if size.is_some_and(|size| position < size) {
        return Err(Fault::Network(format!("it ended after {position} of {most} bytes")));
    }
    // Before the cache says that it has the file.
    file.sync_all().map_err(|error| Error::io(part)(error).into())
}

/// The most bytes that a file may have, of which `size` are announced.
pub fn bounded(size: Option<u64>, limit: u64) -> Fetched<u64> {
    match size {
        Some(size) if size > limit => {
            Err(Fault::Wrong(format!("{size} bytes are announced, and such a file has no more than {limit}")))
        }
        None if limit == u64::MAX => Err(Fault::Wrong("no length is announced".into())),
        size => Ok(size.unwrap_or(limit)),
    }
}

fn remove(part: &Path) -> Result<(), Error> {
    match std::fs::remove_file(part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(part)(error)),
        _ => Ok(()),
    }
}

/// Progress of a large file: a bar in a terminal, one line elsewhere.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(name: &str, size: Option<u64>, position: u64) -> Self {
        let Some(size) = size.filter(|size| *size >= LARGE) else { return Bar(None) };
        if !std::io::stderr().is_terminal() {
            let _ = writeln!(std::io::stderr(), "fetching {name}, {}", HumanBytes(size));
            return Bar(None);
        }
        let bar = ProgressBar::new(size);
        let style = ProgressStyle::with_template(
            "{prefix} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}",
        );
        bar.set_style(style.expect("the template is well-formed"));
        bar.set_prefix(name.to_string());
        bar.set_position(position);
        bar.reset_eta();
        Bar(Some(bar))
    }

    fn set(&self, position: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(position);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
