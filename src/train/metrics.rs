//! `metrics.jsonl`: one line per step. Everything in it but the `timing` object repeats bit for bit.

use super::comparison::HeldOutPairs;
use crate::checkpoint::write_file;
use crate::error::{Error, Result};
use crate::files::{self, Line};
use crate::report::curve::Curve;
use crate::report::out;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

/// File of the metrics in a run folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Optimizer updates done, this one included.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Mean negative log-likelihood in nats per token, or the mean loss of preference pairs.
    pub loss: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// By name, those with sequences in this step.
    pub datasets: BTreeMap<String, DatasetMetrics>,
    /// Mean loss on held-out text, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_loss: Option<f64>,
    /// The same of each dataset, by name; older runs did not tell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held_out_datasets: BTreeMap<String, f64>,
    /// Of a stage on preference pairs: what they earned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
    /// The same of held-out pairs, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_preference: Option<Preference>,
    /// Of held-out pairs: how often the chosen answer is the likelier one, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_pairs: Option<HeldOutPairs>,
    /// What differs from run to run.
    pub timing: Timing,
}

/// What preference pairs earned, on average over the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preference {
    /// Reward of the chosen answer.
    pub chosen_reward: f64,
    /// Reward of the rejected answer.
    pub rejected_reward: f64,
    /// How much more the chosen answer earned.
    pub margin: f64,
    /// Share of the pairs whose chosen answer earned more.
    pub accuracy: f64,
}

/// Sums of what pairs earned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rewards {
    pairs: u64,
    chosen: f64,
    rejected: f64,
    preferred: u64,
}

impl Rewards {
    /// Adds a pair.
    pub fn add(&mut self, chosen: f64, rejected: f64) {
        self.pairs += 1;
        self.chosen += chosen;
        self.rejected += rejected;
        self.preferred += u64::from(chosen > rejected);
    }

    /// The means; none without pairs.
    pub fn mean(&self) -> Option<Preference> {
        let pairs = self.pairs as f64;
        (self.pairs > 0).then(|| Preference {
            chosen_reward: self.chosen / pairs,
            rejected_reward: self.rejected / pairs,
            margin: (self.chosen - self.rejected) / pairs,
            accuracy: self.preferred as f64 / pairs,
        })
    }
}

impl Metrics {
    /// Adds the step to a curve.
    pub fn draw_on(&self, curve: &mut Curve) {
        curve.push(self.step, self.loss);
        if let Some(loss) = self.held_out_loss {
            curve.push_held_out(self.step, loss);
        }
    }
}

/// A dataset's part of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatasetMetrics {
    /// Tokens of this step.
    pub tokens: u64,
    /// Mean loss on them; none if there are none.
    pub loss: Option<f64>,
}

/// Speed and memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Spent on steps since the run began, whatever interrupted it: without evaluation, saving and making ready.
    pub seconds: f64,
    /// Of this step.
    pub tokens_per_second: f64,
    /// Floating-point operations per second of this step, in billions.
    pub gflops: f64,
    /// Bytes allocated for the graph.
    pub memory: u64,
}

/// The file, open for appending.
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    /// `timing.seconds` of the last line that was there when it was opened.
    pub seconds: f64,
}

impl MetricsFile {
    /// Opens `path` at the end of step `step`: lines of later steps, from a run that was cut off after its last
    /// checkpoint, are dropped, because those steps will come again. Says on stderr which lines up to `step` are
    /// missing or damaged. What is no file steps aside.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file that cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        if path.symlink_metadata().is_ok() && !path.is_file() {
            let aside = files::set_aside(path)?;
            out::warn(format_args!("{}: not a regular file; it is now {}", path.display(), aside.display()));
        }
        let CutBack { lost, dropped, seconds } = match path.exists() {
            true => cut_back(path, step)?,
            false => CutBack { lost: vec![(1, step)], dropped: None, seconds: 0.0 },
        };
        let steps = |(first, last): (u64, u64)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        if let Some(dropped) = dropped {
            let (place, dropped) = (path.display(), steps(dropped));
            out::say(format_args!("{place}: lines of steps {dropped} dropped: these steps come again"));
        }
        let lost = lost.into_iter().filter(|(first, last)| first <= last);
        let lost: Vec<String> = lost.map(steps).collect();
        if !lost.is_empty() {
            let (place, lost) = (path.display(), lost.join(", "));
            out::warn(format_args!("{place}: no sound lines of steps {lost}; the run goes on without them"));
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path))?;
        Ok(MetricsFile { path: path.into(), file, seconds })
    }

    /// Appends a step.
    pub fn append(&mut self, metrics: &Metrics) -> Result<()> {
        let line = serde_json::to_string(metrics).expect("metrics are plain data") + "\n";
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path))
    }

    /// Forces what was appended to the medium.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }
}

/// What became of a file when it was cut back.
struct CutBack {
    /// Steps that it lacks as ranges (first, last), which may be empty.
    lost: Vec<(u64, u64)>,
    /// First and last of the later steps whose lines are gone now.
    dropped: Option<(u64, u64)>,
    /// Seconds that the last line tells.
    seconds: f64,
}

/// Keeps the lines of steps 1 to `step` that are sound and in order.
fn cut_back(path: &Path, step: u64) -> Result<CutBack> {
    let temporary = path.with_extension("jsonl.tmp");
    let (mut lost, mut next, mut seconds) = (Vec::new(), 1, 0.0);
    let mut dropped: Option<(u64, u64)> = None;
    write_file(&temporary, |kept| {
        for line in lines(path)? {
            let line = line?;
            let Ok(found) = serde_json::from_slice::<Metrics>(&line) else { continue };
            if found.step > step {
                let (first, last) = dropped.unwrap_or((found.step, found.step));
                dropped = Some((first.min(found.step), last.max(found.step)));
            } else if found.step >= next {
                lost.push((next, found.step - 1));
                (next, seconds) = (found.step + 1, found.timing.seconds);
                kept.write_all(&line).and_then(|()| kept.write_all(b"\n")).map_err(Error::io(&temporary))?;
            }
        }
        Ok(())
    })?;
    lost.push((next, step));
    std::fs::rename(&temporary, path).map_err(Error::io(path))?;
    Ok(CutBack { lost, dropped, seconds })
}

/// Longest line, in bytes.
const LONGEST_LINE: usize = 16 << 20;

/// The lines of the file, one at a time; empty ones in place of what is too long.
fn lines(path: &Path) -> Result<impl Iterator<Item = Result<Vec<u8>>> + use<>> {
    let (mut file, path) = (BufReader::new(files::open(path)?), path.to_path_buf());
    Ok(std::iter::from_fn(move || match files::line(&mut file, LONGEST_LINE) {
        Ok(Line::End) => None,
        Ok(Line::TooLong) => Some(Ok(Vec::new())),
        Ok(Line::Whole(line)) => Some(Ok(line)),
        Err(error) => Some(Err(Error::io(&path)(error))),
    }))
}

/// The file's sound lines; the others are left out. A line that cannot be read is the last one.
///
/// # Errors
/// [`Error::Io`] or [`Error::Input`] if there is no such file.
pub fn read(path: &Path) -> Result<impl Iterator<Item = Metrics> + use<>> {
    let lines = lines(path)?.map_while(Result::ok);
    Ok(lines.filter_map(|line| serde_json::from_slice(&line).ok()))
}

/// The file's lines without what differs from run to run, for comparison.
pub fn repeatable(path: &Path) -> Result<Vec<String>> {
    let strip = |line: Result<Vec<u8>>| {
        let mut value: serde_json::Value = serde_json::from_slice(&line?)
            .map_err(|e| Error::damaged(path, format!("a line is not JSON ({e})")))?;
        if let Some(object) = value.as_object_mut() {
            object.remove("timing");
        }
        Ok(value.to_string())
    };
    lines(path)?.map(strip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> String {
        let timing = Timing { seconds: 0.5 * step as f64, tokens_per_second: 2.0, gflops: 3.0, memory: 4 };
        let datasets = BTreeMap::from([("a".into(), DatasetMetrics { tokens: 5, loss: Some(0.1) })]);
        let metrics = Metrics {
            step,
            tokens: 8 * step,
            loss: 0.1 + step as f64,
            lr: 1e-3,
            grad_norm: 1.0 / 3.0,
            datasets,
            held_out_loss: None,
            held_out_datasets: BTreeMap::new(),
            preference: None,
            held_out_preference: None,
            held_out_pairs: None,
            timing,
        };
        serde_json::to_string(&metrics).unwrap() + "\n"
    }

    fn lines_of(steps: impl IntoIterator<Item = u64>) -> String {
        steps.into_iter().map(line).collect()
    }

    /// What is left of `text` at the end of step `step`, and which steps it lacks.
    fn cut(text: &[u8], step: u64) -> (String, Vec<(u64, u64)>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, text).unwrap();
        let read_before: Vec<u64> = read(&path).unwrap().map(|line| line.step).collect();
        let CutBack { mut lost, dropped, seconds } = cut_back(&path, step).unwrap();
        let later = read_before.iter().copied().filter(|&it| it > step);
        assert_eq!(dropped, later.clone().min().zip(later.max()));
        lost.retain(|(first, last)| first <= last);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(seconds, read(&path).unwrap().last().map_or(0.0, |last| last.timing.seconds));
        (std::fs::read_to_string(&path).unwrap(), lost)
    }

    #[test]
    fn a_whole_file_is_cut_back_without_a_word() {
        let ten = lines_of(1..=10);
        for step in [0, 1, 7, 10] {
            assert_eq!(cut(ten.as_bytes(), step), (lines_of(1..=step), vec![]));
        }
        // The last line was being written when the run was killed.
        assert_eq!(cut(&ten.as_bytes()[..ten.len() - 9], 9), (lines_of(1..=9), vec![]));
        assert_eq!(cut(b"", 0), (String::new(), vec![]));
    }

    #[test]
    fn a_line_without_end_is_read_in_bounded_pieces() {
        let endless = vec![b' '; LONGEST_LINE + 7];
        let text = [lines_of([1]).as_bytes(), &endless, b"\n", lines_of([3]).as_bytes()].concat();
        assert_eq!(cut(&text, 3), (lines_of([1, 3]), vec![(2, 2)]));
    }

    #[test]
    fn steps_without_a_sound_line_are_told() {
        let gap = lines_of((1..=10).filter(|step| ![3, 6, 7].contains(step)));
        let kept = lines_of([1, 2, 4, 5, 8]);
        assert_eq!(cut(gap.as_bytes(), 8), (kept, vec![(3, 3), (6, 7)]));
        let mut damaged = lines_of(1..=5).into_bytes();
        damaged[line(1).len() + 4] = 0xff;
        assert_eq!(cut(&damaged, 5), (lines_of([1, 3, 4, 5]), vec![(2, 2)]));
        assert_eq!(cut(lines_of(1..=3).as_bytes(), 6), (lines_of(1..=3), vec![(4, 6)]));
        assert_eq!(cut(b"\n{}\nnull\n", 2), (String::new(), vec![(1, 2)]));
        // A line that comes twice or too late is not taken.
        assert_eq!(cut(lines_of([1, 2, 2, 1, 4, 3]).as_bytes(), 4), (lines_of([1, 2, 4]), vec![(3, 3)]));
    }

    #[test]
    fn a_file_opened_again_goes_on_where_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, lines_of(1..=5)).unwrap();
        let mut file = MetricsFile::open(&path, 3).unwrap();
        file.append(&serde_json::from_str(&line(4)).unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lines_of(1..=4));
        assert!(repeatable(&path).unwrap().iter().all(|line| !line.contains("timing")));
    }
}
