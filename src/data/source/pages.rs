//! What the pages of a Parquet column take when they are unpacked, from their headers: a file of some KiB may claim
//! any size, and the decoder allocates what is claimed.
//!
//! A page header is a Thrift struct in the compact protocol; its fields are those of parquet-format's `PageHeader`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;

/// Largest page, unpacked, in bytes. Writers aim at 1 MiB, but may put a thousand rows into one.
const MAX_PAGE: u64 = 512 << 20;

/// Most entries of a list column in one row group: a row that repeats one value takes 40 bytes for each, and of the file
/// next to nothing.
const MAX_ENTRIES: i64 = 1 << 24;

/// The encoding of strings by what they share with the one before: a row of many takes any multiple of its page.
const DELTA_BYTE_ARRAY: i64 = 7;

/// Deepest nesting of a header; the format has three levels.
const MAX_DEPTH: usize = 8;

/// Checks all pages of a column of a row group before any is unpacked.
///
/// # Errors
/// Says which size is too large, or that a header is none.
pub(super) fn check(file: &File, column: &ColumnChunkMetaData) -> parquet::errors::Result<()> {
    let wrong = |what: String| ParquetError::General(what);
    let (start, length) = column.byte_range();
    let end = start.saturating_add(length).min(file.metadata()?.len());
    let mut reader = BufReader::new(file.try_clone()?);
    // As the decoder does: behind the last value there may be anything.
    let (mut at, mut values) = (start, 0i64);
    let is_list = column.column_descr().max_rep_level() > 0;
    while at < end && values < column.num_values() {
        reader.seek(SeekFrom::Start(at))?;
        let mut header = Header {
            reader: (&mut reader).take(end - at),
            page: Page { is_packed: true, ..Page::default() },
        };
        header.structure(0, Struct::Page)?;
        let left = header.reader.limit();
        let page = std::mem::take(&mut header.page);
        let (unpacked, packed) = (u64::try_from(page.unpacked), u64::try_from(page.packed));
        let (Ok(unpacked), Ok(packed)) = (unpacked, packed) else {
            return Err(wrong(format!("a page of {} bytes", page.unpacked.min(page.packed))));
        };
        if unpacked > MAX_PAGE || packed > MAX_PAGE {
            let most = MAX_PAGE >> 20;
            return Err(wrong(format!(
                "a page of {unpacked} bytes, more than {most} MiB: write smaller pages"
            )));
        }
        // Each entry has its length in four bytes.
        if u64::try_from(page.entries).map_or(true, |entries| entries > unpacked / 4) {
            return Err(wrong(format!("a dictionary of {} entries in {unpacked} bytes", page.entries)));
        }
        // The decoder of gzip heeds no size; the others do.
        if matches!(column.compression(), Compression::GZIP(_)) && page.is_packed {
            let levels = u64::try_from(page.levels).unwrap_or(0).min(packed);
            header.skip(levels)?;
            let packed = (&mut header.reader).take(packed - levels);
            let mut unpacker = flate2::read::MultiGzDecoder::new(packed).take(unpacked + 1);
            if io::copy(&mut unpacker, &mut io::sink())? > unpacked {
                return Err(wrong(format!("a page that unpacks to more than its {unpacked} bytes")));
            }
        }
        at = end - left + packed;
        values = values.saturating_add(page.values.max(0));
        if is_list && values > MAX_ENTRIES {
            let what = format!("a list column of more than {MAX_ENTRIES} entries in a row group");
            return Err(wrong(what + ": write smaller row groups"));
        }
        if is_list && page.encoding == DELTA_BYTE_ARRAY {
            return Err(wrong(
                "a list column encoded by DELTA_BYTE_ARRAY: write it with another encoding".into(),
            ));
        }
    }
    Ok(())
}

/// What matters of a page header.
#[derive(Default)]
struct Page {
    /// `uncompressed_page_size` and `compressed_page_size`.
    unpacked: i64,
    packed: i64,
    /// `num_values` of a dictionary, and of data.
    entries: i64,
    values: i64,
    /// `encoding` of data.
    encoding: i64,
    /// Bytes of levels that precede what is packed, and `is_compressed`, in data pages of the second version.
    levels: i64,
    is_packed: bool,
}

/// Which struct is being read.
#[derive(Clone, Copy, PartialEq)]
enum Struct {
    Page,
    Dictionary,
    Data,
    DataV2,
    Other,
}

struct Header<R> {
    reader: R,
    page: Page,
}

impl<R: BufRead> Header<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(io::Error::other("a number in a page header is too long"))
    }

    /// A signed number, which is stored in zigzag order.
    fn number(&mut self) -> io::Result<i64> {
        let stored = self.varint()?;
        Ok((stored >> 1) as i64 ^ -((stored & 1) as i64))
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        match io::copy(&mut (&mut self.reader).take(bytes), &mut io::sink())? {
            skipped if skipped == bytes => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn structure(&mut self, depth: usize, which: Struct) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("a page header is too deep"));
        }
        let mut id = 0;
        loop {
            let field = self.byte()?;
            let (delta, kind) = (field >> 4, field & 15);
            if kind == 0 {
                return Ok(());
            }
            id = if delta == 0 { self.number()? } else { id + i64::from(delta) };
            match (which, id, kind) {
                (Struct::Page, 2, 5) => self.page.unpacked = self.number()?,
                (Struct::Page, 3, 5) => self.page.packed = self.number()?,
                (Struct::Page, 5, 12) => self.structure(depth + 1, Struct::Data)?,
                (Struct::Page, 7, 12) => self.structure(depth + 1, Struct::Dictionary)?,
                (Struct::Page, 8, 12) => self.structure(depth + 1, Struct::DataV2)?,
                (Struct::Dictionary, 1, 5) => self.page.entries = self.number()?,
                (Struct::Data | Struct::DataV2, 1, 5) => self.page.values = self.number()?,
                (Struct::Data, 2, 5) | (Struct::DataV2, 4, 5) => self.page.encoding = self.number()?,
                (Struct::DataV2, 5 | 6, 5) => {
                    self.page.levels += self.number()?.clamp(0, i64::from(i32::MAX))
                }
                (Struct::DataV2, 7, 1 | 2) => self.page.is_packed = kind == 1,
                // A boolean is in the kind of its field.
                (_, _, 1 | 2) => {}
                (_, _, kind) => self.value(depth, kind)?,
            }
        }
    }

    /// Leaves out a value of a kind.
    fn value(&mut self, depth: usize, kind: u8) -> io::Result<()> {
        match kind {
            1..=3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            12 => self.structure(depth + 1, Struct::Other),
            _ => Err(io::Error::other("a page header holds what the format has not")),
        }
    }
}
