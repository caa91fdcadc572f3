//! A checkpoint: a Hugging Face model folder with a `trainer/` folder in it, written so that no crash loses one.
//!
//! ```text
//! RUN/checkpoints/step-000120/model.safetensors           weights, f32
//!                            /config.json, tokenizer.json, trainer/recipe.toml and others given by the caller
//!                            /adapter/                    of a stage with LoRA, where the weights are those that the
//!                                                         adapters are for; given by the caller, as PEFT has it
//!                            /trainer/NAME.safetensors    one per state of the optimizer, f32: AdamW's are
//!                                                         exp_avg and exp_avg_sq
//!                            /trainer/state.json          step, data position, recipe hash
//!                            /trainer/manifest.json       size and XXH3 of every file above
//! ```
//! A save goes to `.tmp-step-000120`, is flushed, and becomes `step-000120` by a rename; only then are older
//! checkpoints removed, except those that the caller names. A checkpoint of the same step steps aside as
//! `.old-step-000120` for that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{Disk, RealDisk};
use super::dtype::Dtype;
use super::manifest::{self, Hashing, Manifest, verify};
use super::safetensors::{TensorFile, write_to};
use crate::error::{Error, Result};
use crate::files;

/// Layout version of `trainer/state.json`.
const STATE_VERSION: u32 = 1;

/// What the name of a checkpoint that is being written or removed begins with.
const TEMPORARY: &str = ".tmp-";

/// What the name of a checkpoint begins with while another of its step takes its place.
const ASIDE: &str = ".old-";

/// What a trainer needs to go on, besides tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Layout version; [`TrainerState::new`] sets it.
    pub version: u32,
    /// Optimizer updates done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Data position: sequences taken from the data order.
    pub sequences: u64,
    /// Hash of the recipe that the run follows.
    pub recipe_hash: String,
    /// Name of the current stage.
    pub stage: String,
    /// Anything else, such as the loss scale.
    #[serde(default)]
    pub extra: serde_json::Value,
}

impl TrainerState {
    /// The state before the first step.
    pub fn new(recipe_hash: impl Into<String>, stage: impl Into<String>) -> Self {
        TrainerState {
            version: STATE_VERSION,
            step: 0,
            tokens: 0,
            sequences: 0,
            recipe_hash: recipe_hash.into(),
            stage: stage.into(),
            extra: serde_json::Value::Null,
        }
    }
}

/// A kind of tensor of a checkpoint: a file with one tensor per parameter, of the parameter's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The parameters.
    Weights,
    /// A state of the optimizer by its name, such as `exp_avg`; only trained parameters have it.
    State(&'a str),
}

impl Part<'_> {
    /// The file inside the checkpoint.
    fn path(self) -> String {
        match self {
            Part::Weights => "model.safetensors".into(),
            Part::State(name) => format!("trainer/{name}.safetensors"),
        }
    }
}

/// What goes into a checkpoint.
pub struct Contents<'a> {
    /// Small files as (path inside the checkpoint, bytes): `config.json`, `trainer/recipe.toml` and the like.
    pub files: &'a [(String, Vec<u8>)],
    /// Name and shape of every parameter, in the order of writing.
    pub parameters: &'a [(String, Vec<usize>)],
    /// Those of them that are trained.
    pub trained: &'a [(String, Vec<usize>)],
    /// Names of the optimizer's states, which become names of files.
    pub states: &'a [&'a str],
    /// Gives the values of one tensor, row-major; called once for the weights of each parameter, and for each state
    /// of each trained one.
    pub read: &'a mut dyn FnMut(Part, &str) -> Result<Vec<f32>>,
    /// The trainer's state.
    pub state: &'a TrainerState,
}

/// A checkpoint on disk whose checksums have been verified.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// The trainer's state.
    pub state: TrainerState,
}

impl Checkpoint {
    /// Opens the checkpoint folder `path`, reading all of it once to verify the checksums.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the first file that is not what was written, [`Error::Input`] if it is not a
    /// checkpoint or a newer smolter wrote it.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.join("trainer").is_dir() {
            let why = "not a checkpoint: it has no trainer folder";
            return Err(Error::input(format!("{}: {why}", path.display())));
        }
        verify(path)?;
        let file = path.join("trainer/state.json");
        let text = files::read_text(&file, files::SETTINGS)?;
        let refuse = |why: String| Error::input(format!("{}: {why}", file.display()));
        let state: TrainerState =
            serde_json::from_str(&text).map_err(|e| refuse(format!("not a trainer's state: {e}")))?;
        if state.version != STATE_VERSION {
            let why = format!("has version {}, but this smolter reads {STATE_VERSION}", state.version);
            return Err(refuse(why));
        }
        Ok(Checkpoint { path: path.into(), state })
    }

    /// Opens the tensors of one part.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub fn tensors(&self, part: Part) -> Result<TensorFile> {
        TensorFile::open(&self.path.join(part.path()))
    }
}

/// Writes a checkpoint of `contents.state.step` into the run folder, then removes all but the newest `keep`.
/// Checkpoints of the steps `kept`, such as ends of stages, stay and do not count towards `keep`.
///
/// Returns its folder, and warnings about older checkpoints that could not be removed. Checkpoints of later
/// steps, left by a run that went further, are not touched.
///
/// # Errors
/// [`Error::Io`] naming the file that could not be written, or what `contents.read` returns. The checkpoints that
/// were there before are then still there, and the temporary folder is not.
pub fn save(run: &Path, contents: Contents, keep: usize, kept: &[u64]) -> Result<(PathBuf, Vec<String>)> {
    save_on(&RealDisk, run, contents, keep, kept)
}

fn save_on<D: Disk>(
    disk: &D,
    run: &Path,
    contents: Contents,
    keep: usize,
    kept: &[u64],
) -> Result<(PathBuf, Vec<String>)> {
    let folder = run.join("checkpoints");
    let step = contents.state.step;
    let name = name_of(step);
    let (target, temporary) = (folder.join(&name), folder.join(format!("{TEMPORARY}{name}")));
    let aside = folder.join(format!("{ASIDE}{name}"));

    remove(disk, &temporary)?;
    if let Err(error) = fill(disk, &temporary, contents).and_then(|()| {
        if target.exists() {
            remove(disk, &aside)?;
            disk.rename(&target, &aside).map_err(Error::io(&target))?;
        }
        disk.rename(&temporary, &target).map_err(Error::io(&target))
    }) {
        // The first error is the one to report: what cannot be tidied now, `clean` will.
        if !target.exists() {
            let _ = disk.rename(&aside, &target);
        }
        let _ = remove(disk, &temporary);
        return Err(error);
    }
    disk.sync_dir(&folder).map_err(Error::io(&folder))?;
    disk.sync_dir(run).map_err(Error::io(run))?;

    let mut warnings = Vec::new();
    if let Err(error) = remove(disk, &aside) {
        warnings.push(error.to_string());
    }
    warnings.extend(prune_on(disk, run, step, keep, kept)?);
    Ok((target, warnings))
}

/// Removes the checkpoints that [`save`] of the step `step` removes: a run may have been cut off before it did. Returns
/// warnings about those that could not be removed.
///
/// # Errors
/// As [`list`].
pub fn prune(run: &Path, step: u64, keep: usize, kept: &[u64]) -> Result<Vec<String>> {
    prune_on(&RealDisk, run, step, keep, kept)
}

fn prune_on<D: Disk>(disk: &D, run: &Path, step: u64, keep: usize, kept: &[u64]) -> Result<Vec<String>> {
    let mut stale = list(run)?;
    stale.retain(|(other, _)| *other <= step && !kept.contains(other));
    stale.truncate(stale.len().saturating_sub(keep.max(1)));
    let discarded = stale.into_iter().filter_map(|(_, path)| discard(disk, &path).err());
    Ok(discarded.map(|error| error.to_string()).collect())
}

/// Removes the checkpoints of `step` and later ones, newest first.
///
/// # Errors
/// [`Error::Io`] naming what cannot be removed.
pub fn discard_from(run: &Path, step: u64) -> Result<()> {
    let later = list(run)?.into_iter().rev().take_while(|(other, _)| *other >= step);
    later.map(|(_, path)| path).try_for_each(|path| discard(&RealDisk, &path))
}

/// Writes all files of a checkpoint into the new folder `path`, flushed.
fn fill<D: Disk>(disk: &D, path: &Path, contents: Contents) -> Result<()> {
    let folders = contents.files.iter().filter_map(|(name, _)| Path::new(name).parent());
    let folders: BTreeSet<PathBuf> =
        folders.chain([Path::new(""), Path::new("trainer")]).map(|folder| path.join(folder)).collect();
    for folder in &folders {
        disk.create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let mut manifest = Manifest { version: 1, files: BTreeMap::new() };
    let Contents { files, parameters, trained, states, read, state } = contents;
    let states = states.iter().map(|name| (Part::State(name), trained));
    for (part, tensors) in std::iter::once((Part::Weights, parameters)).chain(states) {
        let entry = write_file(disk, &path.join(part.path()), |file, path| {
            write_to(file, path, Dtype::F32, tensors, |name| read(part, name))
        })?;
        manifest.files.insert(part.path(), entry);
    }
    let mut small = |name: &str, bytes: &[u8]| {
        let entry =
            write_file(disk, &path.join(name), |file, path| file.write_all(bytes).map_err(Error::io(path)))?;
        manifest.files.insert(name.into(), entry);
        Ok(())
    };
    for (name, bytes) in files {
        small(name, bytes)?;
    }
    small("trainer/state.json", &to_json(state)?)?;
    let bytes = to_json(&manifest)?;
    write_file(disk, &path.join(manifest::PATH), |file, path| {
        file.write_all(&bytes).map_err(Error::io(path))
    })?;
    // Those within come after it in this order.
    folders.iter().rev().try_for_each(|folder| disk.sync_dir(folder).map_err(Error::io(folder)))
}

fn write_file<D: Disk>(
    disk: &D,
    path: &Path,
    write: impl FnOnce(&mut Hashing<D::File>, &Path) -> Result<()>,
) -> Result<manifest::Entry> {
    let mut file = Hashing::new(disk.create(path).map_err(Error::io(path))?);
    write(&mut file, path)?;
    disk.sync(&mut file.inner).map_err(Error::io(path))?;
    Ok(file.entry())
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|e| Error::failure(format!("checkpoint: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Removes a folder, or what stands in its place, if it is there.
fn remove<D: Disk>(disk: &D, path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => disk.remove_dir_all(path).map_err(Error::io(path)),
        Ok(_) => disk.remove_file(path).map_err(Error::io(path)),
    }
}

/// Removes a checkpoint under another name, so that a crash leaves no half of it.
fn discard<D: Disk>(disk: &D, path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let doomed = path.with_file_name(format!("{TEMPORARY}{name}"));
    remove(disk, &doomed)?;
    disk.rename(path, &doomed).map_err(Error::io(path))?;
    remove(disk, &doomed)
}

fn name_of(step: u64) -> String {
    format!("step-{step:06}")
}

/// The run's checkpoints as (step, folder), oldest first, whole or not.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be listed; a run without checkpoints has an empty list.
pub fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    Ok(entries(run)?.into_iter().filter_map(|(name, path)| Some((step_of(&name)?, path))).collect())
}

fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    digits.parse().ok().filter(|&step| name_of(step) == name)
}

/// Everything in the checkpoint folder as (name, path), by step and then by name.
fn entries(run: &Path) -> Result<Vec<(String, PathBuf)>> {
    let folder = run.join("checkpoints");
    let mut all = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let entry = entry.map_err(Error::io(&folder))?;
            all.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    all.sort_by_key(|(name, _)| (step_in(name), name.clone()));
    Ok(all)
}

/// The step of a checkpoint, also of one that stepped aside.
fn step_in(name: &str) -> Option<u64> {
    step_of(name.strip_prefix(ASIDE).unwrap_or(name))
}

/// The newest checkpoint of the run that is whole, and a warning for each newer one that is not.
///
/// # Errors
/// [`Error::Damaged`] if there are checkpoints but none is whole.
pub fn newest_whole(run: &Path) -> Result<Option<(Checkpoint, Vec<String>)>> {
    let mut warnings = Vec::new();
    // `.old-` sorts before `step-` of the same step: it is the last resort of a save that was cut short.
    for (name, path) in entries(run)?.into_iter().rev() {
        if step_in(&name).is_none() {
            continue;
        }
        match Checkpoint::open(&path) {
            Ok(checkpoint) => return Ok(Some((checkpoint, warnings))),
            Err(error) => warnings.push(format!("skipped a checkpoint: {error}")),
        }
    }
    if warnings.is_empty() {
        return Ok(None);
    }
    let (count, which) = (warnings.len(), warnings.join("; "));
    let what =
        format!("none of its {count} checkpoints is whole: {which}; remove it to begin again from step 0");
    Err(Error::damaged(run.join("checkpoints"), what))
}

/// Tidies up after saves that were cut short, and leaves alone whatever a save did not make; for the one process that trains in this run folder.
///
/// # Errors
/// [`Error::Io`] naming the folder that could not be removed or renamed.
pub fn clean(run: &Path) -> Result<()> {
    let after = |prefix: &str, name: &str| {
        name.strip_prefix(prefix).filter(|rest| step_of(rest).is_some()).map(String::from)
    };
    for (name, path) in entries(run)? {
        if after(TEMPORARY, &name).is_some() {
            remove(&RealDisk, &path)?;
        } else if let Some(original) = after(ASIDE, &name) {
            let original = path.with_file_name(original);
            if original.exists() {
                remove(&RealDisk, &path)?;
            } else {
                std::fs::rename(&path, &original).map_err(Error::io(&path))?;
            }
        }
    }
    Ok(())
}

/// Removes all checkpoints of the run, and what was to become one.
///
/// # Errors
/// [`Error::Io`] naming what could not be removed.
pub fn remove_all(run: &Path) -> Result<()> {
    let is_ours = |name: &str| {
        let name = name.strip_prefix(TEMPORARY).or(name.strip_prefix(ASIDE)).unwrap_or(name);
        step_of(name).is_some()
    };
    let ours = entries(run)?.into_iter().filter(|(name, _)| is_ours(name));
    ours.map(|(_, path)| path).try_for_each(|path| remove(&RealDisk, &path))
}

#[cfg(test)]
mod tests;
