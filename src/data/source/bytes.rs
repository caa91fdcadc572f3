//! Raw records of a possibly compressed file: its lines, the elements of its JSON array, or all of it.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::files::{Compression, classify};
use super::{Entries, Entry};
use crate::error::{Error, Result};
use crate::files::{self, Line};

const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// What text in UTF-16 begins with, of either byte order.
const UTF16_BOMS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// A decompressed stream that knows its file.
struct Stream {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    compression: Compression,
    /// Bytes before the text: a byte order mark.
    skipped: usize,
}

impl Stream {
    fn open(path: &Path) -> Result<Self> {
        let compression = classify(path).map_or(Compression::None, |(_, compression)| compression);
        let file = files::open(path)?;
        let reader: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(BufReader::with_capacity(1 << 18, file)),
            Compression::Gzip => {
                Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))))
            }
            Compression::Zstd => {
                Box::new(BufReader::new(zstd::stream::read::Decoder::new(file).map_err(Error::io(path))?))
            }
        };
        let mut stream = Self { path: path.to_path_buf(), reader, compression, skipped: 0 };
        let starts_with_bom = stream.filled()?.starts_with(UTF8_BOM);
        if starts_with_bom {
            stream.reader.consume(UTF8_BOM.len());
            stream.skipped = UTF8_BOM.len();
        }
        Ok(stream)
    }

    /// A file in UTF-16 is one broken record, whatever would be in it.
    fn other_encoding<T: Send + 'static>(&mut self) -> Result<Option<Entries<T>>> {
        let start = self.filled()?;
        let other = UTF16_BOMS.iter().any(|bom| start.starts_with(bom));
        let broken = || -> Entries<T> { Box::new(std::iter::once(Ok((1, Err("UTF-16, not UTF-8".into()))))) };
        Ok(other.then(broken))
    }

    fn filled(&mut self) -> Result<&[u8]> {
        let Self { path, reader, compression, .. } = self;
        reader.fill_buf().map_err(|e| damage(path, *compression, e))
    }

    fn damage(&self, e: io::Error) -> Error {
        damage(&self.path, self.compression, e)
    }
}

/// The system's own errors stay; any other comes from a decompressor.
fn damage(path: &Path, compression: Compression, e: io::Error) -> Error {
    if compression == Compression::None || e.raw_os_error().is_some() {
        return Error::io(path)(e);
    }
    Error::input(format!("{}: truncated or damaged ({e}): fetch or make it again", path.display()))
}

/// What is broken about a record of more than `most` bytes.
pub(super) fn too_long(most: usize) -> String {
    let size =
        if most.is_multiple_of(1 << 20) { format!("{} MiB", most >> 20) } else { format!("{most} bytes") };
    format!("longer than max_record_bytes ({size})")
}

/// The lines of `path` that are not blank, without their ends, of at most `most` bytes.
pub(super) fn lines(path: &Path, most: usize) -> Result<Entries<Vec<u8>>> {
    let mut stream = Stream::open(path)?;
    if let Some(broken) = stream.other_encoding()? {
        return Ok(broken);
    }
    let mut number = 0;
    Ok(Box::new(std::iter::from_fn(move || {
        loop {
            number += 1;
            match files::line(&mut stream.reader, most) {
                Ok(Line::End) => return None,
                Ok(Line::Whole(mut line)) if !line.trim_ascii().is_empty() => {
                    line.truncate(line.trim_ascii_end().len());
                    return Some(Ok((number, Ok(line))));
                }
                Ok(Line::Whole(_)) => {}
                Ok(Line::TooLong) => {
                    let rest = stream.reader.skip_until(b'\n');
                    return Some(rest.map(|_| (number, Err(too_long(most)))).map_err(|e| stream.damage(e)));
                }
                Err(e) => return Some(Err(stream.damage(e))),
            }
        }
    })))
}

/// The text that begins at byte `start` of its file, from 0, or what is broken about it.
fn text_at(start: u64, bytes: Vec<u8>) -> std::result::Result<String, String> {
    let broken = |at: usize| format!("not UTF-8 at byte {}", start + at as u64);
    String::from_utf8(bytes).map_err(|e| broken(e.utf8_error().valid_up_to()))
}

/// All of `path`, as one text of at most `most` bytes.
pub(super) fn whole_text(path: &Path, most: usize) -> Result<Entries<String>> {
    let mut stream = Stream::open(path)?;
    if let Some(broken) = stream.other_encoding()? {
        return Ok(broken);
    }
    let mut bytes = Vec::new();
    let limit = most as u64 + 1;
    (&mut stream.reader).take(limit).read_to_end(&mut bytes).map_err(|e| stream.damage(e))?;
    let text = if bytes.len() > most {
        Err(format!("{}: split it, or make it a .jsonl of documents", too_long(most)))
    } else {
        text_at(stream.skipped as u64, bytes)
    };
    Ok(Box::new(std::iter::once(Ok((1, text)))))
}

/// `path` as a text that is cut into pieces of at most `most` bytes: behind a paragraph if there is an end of one in
/// the second half of the piece, else behind a line, a word or a character. The pieces together are the text.
pub(super) fn pieces(path: &Path, most: usize) -> Result<Entries<String>> {
    let mut stream = Stream::open(path)?;
    if let Some(broken) = stream.other_encoding()? {
        return Ok(broken);
    }
    let (mut kept, mut number, mut start) = (Vec::new(), 0, stream.skipped as u64);
    Ok(Box::new(std::iter::from_fn(move || {
        let wanted = (most - kept.len()) as u64;
        if let Err(e) = (&mut stream.reader).take(wanted).read_to_end(&mut kept) {
            return Some(Err(stream.damage(e)));
        }
        if kept.is_empty() {
            return None;
        }
        let rest = kept.split_off(if kept.len() < most { kept.len() } else { cut(&kept) });
        number += 1;
        let piece = std::mem::replace(&mut kept, rest);
        let place = start;
        start += piece.len() as u64;
        Some(Ok((number, text_at(place, piece))))
    })))
}

/// Where to cut a piece that is full.
fn cut(piece: &[u8]) -> usize {
    let half = piece.len() / 2;
    let last = |end: &[u8]| piece.windows(end.len()).rposition(|it| it == end).map(|at| at + end.len());
    let ends = [&b"\n\n"[..], b"\n", b" "];
    if let Some(at) = ends.into_iter().filter_map(last).find(|&at| at > half) {
        return at;
    }
    // The last character may be cut off in the middle; in what is no UTF-8 it does not matter.
    let start = piece.iter().rposition(|byte| byte & 0b1100_0000 != 0b1000_0000).unwrap_or(0);
    let whole = std::str::from_utf8(&piece[start..]).is_ok();
    if whole || start == 0 { piece.len() } else { start }
}

/// The elements of the JSON array that `path` is, unparsed, of at most `most` bytes.
pub(super) fn elements(path: &Path, most: usize) -> Result<Entries<Vec<u8>>> {
    let mut stream = Stream::open(path)?;
    if let Some(broken) = stream.other_encoding()? {
        return Ok(broken);
    }
    let mut elements = Elements { stream, most, number: 0, ended: false };
    match elements.next_byte()? {
        Some(b'[') => Ok(Box::new(elements)),
        _ => Err(Error::input(format!(
            "{}: not a JSON array: a file of one object per line must be named .jsonl",
            path.display()
        ))),
    }
}

struct Elements {
    stream: Stream,
    /// Longest element, in bytes.
    most: usize,
    number: u64,
    ended: bool,
}

impl Elements {
    /// The next byte that is not white space.
    fn next_byte(&mut self) -> Result<Option<u8>> {
        loop {
            let Some(&byte) = self.stream.filled()?.first() else { return Ok(None) };
            self.stream.reader.consume(1);
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
        }
    }

    /// Collects bytes up to the comma or bracket that ends the element.
    fn element(&mut self) -> Result<Option<std::result::Result<Vec<u8>, String>>> {
        let mut element = Vec::new();
        let (mut depth, mut in_string, mut escaped, mut long) = (0u64, false, false, false);
        loop {
            let buffer = self.stream.filled()?;
            if buffer.is_empty() {
                return Err(Error::input(format!(
                    "{}: ends inside the array, at element {}: truncated; fetch or make it again",
                    self.stream.path.display(),
                    self.number
                )));
            }
            let end = buffer.iter().position(|&byte| {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if in_string => escaped = true,
                    b'"' => in_string = !in_string,
                    _ if in_string => {}
                    b'[' | b'{' => depth += 1,
                    b',' if depth == 0 => return true,
                    b']' | b'}' if depth == 0 => return true,
                    b']' | b'}' => depth -= 1,
                    _ => {}
                }
                false
            });
            long |= element.len() + end.unwrap_or(buffer.len()) > self.most;
            if long {
                element = Vec::new();
            } else {
                element.extend_from_slice(&buffer[..end.unwrap_or(buffer.len())]);
            }
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.ended = end.is_some_and(|end| buffer[end] != b',');
            self.stream.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        let blank = element.trim_ascii().is_empty() && !long;
        Ok(match blank && self.ended {
            true => None,
            false => Some(if long { Err(too_long(self.most)) } else { Ok(element) }),
        })
    }
}

impl Iterator for Elements {
    type Item = Entry<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        self.number += 1;
        self.element().transpose().map(|element| element.map(|element| (self.number, element)))
    }
}
