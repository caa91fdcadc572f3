//! Event files for TensorBoard, beside `metrics.jsonl`: records framed as in TFRecord files, each a protobuf `Event`.

use super::metrics::Metrics;
use super::scores::TaskScore;
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Folder of the event files in a run folder.
pub const EVENTS_FOLDER: &str = "events";

/// The file of one sitting. TensorBoard reads all files of the folder in the order of their names.
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file in the run folder `run`, at the end of step `step`. TensorBoard forgets later steps of earlier files,
    /// which a run that was cut off has left: they will come again.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file or folder that cannot be made.
    pub fn create(run: &Path, step: u64) -> Result<Self> {
        let folder = run.join(EVENTS_FOLDER);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Fixed digits, so that names sort by time.
        let name = format!("events.out.tfevents.{:010}.{:09}.smolter", now.as_secs(), now.subsec_nanos());
        let path = folder.join(name);
        let file = OpenOptions::new().create_new(true).append(true).open(&path).map_err(Error::io(&path))?;
        let mut events = EventFile { path, file };
        let mut version = event(0);
        bytes_field(&mut version, 3, b"brain.Event:2");
        events.write(&version)?;
        let (mut start, mut session) = (event(step + 1), Vec::new());
        // SessionLog.status = START.
        varint_field(&mut session, 1, 1);
        bytes_field(&mut start, 7, &session);
        events.write(&start)?;
        Ok(events)
    }

    /// Adds a step.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn append(&mut self, metrics: &Metrics) -> Result<()> {
        let mut scalars = vec![
            ("loss", metrics.loss),
            ("lr", metrics.lr),
            ("grad_norm", metrics.grad_norm),
            ("tokens_per_second", metrics.timing.tokens_per_second),
        ];
        let datasets = metrics.held_out_datasets.iter();
        let datasets: Vec<(String, f64)> =
            datasets.map(|(name, &loss)| (format!("held_out_loss/{name}"), loss)).collect();
        scalars.extend(datasets.iter().map(|(tag, loss)| (tag.as_str(), *loss)));
        scalars.extend(metrics.held_out_loss.map(|loss| ("held_out_loss", loss)));
        if let Some(earned) = metrics.preference {
            scalars.extend([("margin", earned.margin), ("accuracy", earned.accuracy)]);
        }
        scalars.extend(metrics.held_out_preference.map(|earned| ("held_out_accuracy", earned.accuracy)));
        self.write_scalars(metrics.step, scalars)
    }

    /// Adds scores as `scores/TASK`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn append_scores(&mut self, scores: &[TaskScore]) -> Result<()> {
        for score in scores {
            self.write_scalars(score.step, [(format!("scores/{}", score.task), score.score)])?;
        }
        Ok(())
    }

    fn write_scalars<S: AsRef<str>>(
        &mut self,
        step: u64,
        scalars: impl IntoIterator<Item = (S, f64)>,
    ) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut scalar = Vec::new();
            bytes_field(&mut scalar, 1, tag.as_ref().as_bytes());
            scalar.push(2 << 3 | FIXED_32);
            scalar.extend((value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &scalar);
        }
        let mut event = event(step);
        bytes_field(&mut event, 5, &summary);
        self.write(&event)
    }

    /// One record: length, its checksum, the data, its checksum. In one write, so that readers see whole ones.
    fn write(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let checksum = |bytes: &[u8]| masked_crc(bytes).to_le_bytes();
        let record = [&length[..], &checksum(&length), data, &checksum(data)].concat();
        self.file.write_all(&record).map_err(Error::io(&self.path))
    }
}

/// Wire types of protobuf.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

/// An `Event` of now, with its step.
fn event(step: u64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut event = vec![1 << 3 | FIXED_64];
    event.extend(now.to_le_bytes());
    varint_field(&mut event, 2, step);
    event
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn varint_field(to: &mut Vec<u8>, field: u8, value: u64) {
    to.push(field << 3 | VARINT);
    varint(to, value);
}

fn bytes_field(to: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    to.push(field << 3 | BYTES);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

/// CRC-32C, masked as TFRecord wants it: a checksum of data with a checksum inside says little.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), bit))
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Timing;
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn records_follow_each_other_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), 7).unwrap();
        let timing = Timing { seconds: 1.0, tokens_per_second: 2.0, gflops: 3.0, memory: 4 };
        let step = |step, held_out_loss| Metrics {
            step,
            tokens: 1,
            loss: 1.5,
            lr: 1e-3,
            grad_norm: 0.5,
            datasets: Default::default(),
            held_out_loss,
            held_out_datasets: held_out_loss.map(|loss| ("facts".into(), loss)).into_iter().collect(),
            preference: None,
            held_out_preference: None,
            held_out_pairs: None,
            timing: timing.clone(),
        };
        file.append(&step(8, None)).unwrap();
        file.append(&step(300, Some(2.5))).unwrap();
        let mut bytes = &std::fs::read(&file.path).unwrap()[..];
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let crc = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(crc(8), masked_crc(&bytes[..8]));
            assert_eq!(crc(12 + length), masked_crc(&bytes[12..12 + length]));
            records.push(bytes[12..12 + length].to_vec());
            bytes = &bytes[16 + length..];
        }
        assert_eq!(records.len(), 4);
        let has = |record: &[u8], part: &[u8]| record.windows(part.len()).any(|window| window == part);
        assert!(has(&records[0], b"brain.Event:2"));
        assert_eq!(records[1][9..], [2 << 3, 8, 7 << 3 | 2, 2, 1 << 3, 1]);
        assert!(has(&records[2], b"\x04loss\x15\x00\x00\xc0\x3f") && !has(&records[2], b"held_out_loss"));
        assert!(has(&records[3], b"\x0dheld_out_loss\x15\x00\x00\x20\x40"));
        assert!(has(&records[3], b"\x13held_out_loss/facts\x15\x00\x00\x20\x40"));
        assert_eq!(records[3][9..12], [2 << 3, 0xac, 0x02]);
    }
}
