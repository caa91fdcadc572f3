//! Model folders of the Hugging Face Hub, named `hf://owner/name` or `hf://owner/name@revision`, and files of its
//! [datasets].
//!
//! Files come into the cache that all Hugging Face programs share. The environment is theirs too: `HF_HOME` and
//! `HF_HUB_CACHE` (the cache), `HF_ENDPOINT` (the server), `HF_TOKEN` (for private and gated models; or the token that
//! `hf auth login` saved), `HF_HUB_OFFLINE=1` (no network); and `SMOLTER_HUB_TIMEOUT`, the seconds that a transfer may
//! stand still. A model whose files are all in the cache is used as it is, without a look at the network: remove it
//! from the cache, or name a revision, to get a newer one.
//!
//! The token goes to the endpoint's own server and nowhere else. No answer is trusted to be timely, short or right: a
//! file enters the cache under its own checksum, once that is the one which the Hub gives as the file's ETag, SHA-256
//! for large files (Git LFS) and Git's SHA-1 for others.

mod address;
mod cache;
mod checksum;
mod client;
pub mod datasets;
mod describe;
mod download;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;

use crate::error::{Error, Result};
use crate::files;
use cache::Cache;
use checksum::Checksum;
use client::{Client, Fault, Fetched, Patience, variable};
use download::Remote;

/// What the name of a model of the Hub begins with.
pub const PREFIX: &str = "hf://";

/// What the name of a dataset of the Hub begins with.
pub const DATASETS: &str = "hf://datasets/";

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Files that a model may lack.
const OPTIONAL: [&str; 4] =
    [TOKENIZER_CONFIG, "special_tokens_map.json", "generation_config.json", "chat_template.jinja"];

/// The folder on disk of `name`: a path, which must exist, or a model of the Hub, which is fetched unless the cache
/// has it.
///
/// # Errors
/// [`Error::Input`] if there is no such folder or model, if the name or a variable of the environment is malformed,
/// or if the model is private; [`Error::Damaged`] if a file came with the wrong checksum (it does not enter the
/// cache); [`Error::Failure`] if the server cannot be reached, breaks off, stalls or sends what no Hub does, where
/// what was received well is kept for the next call.
pub fn folder(name: &str) -> Result<PathBuf> {
    match name.strip_prefix(PREFIX) {
        Some(model) => Hub::open(name, model)?.folder(),
        None if Path::new(name).exists() => Ok(name.into()),
        None => Err(Error::input(format!(
            "{name}: no such folder; a model of the Hugging Face Hub is named {PREFIX}owner/name"
        ))),
    }
}

/// Whether `path` is none, but the name of something on the Hub.
pub fn is_remote(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

/// The folder on disk with the tokenizer of the model `name` of the Hub; nothing else of it is fetched.
///
/// # Errors
/// As [`folder`].
pub fn tokenizer_folder(name: &str) -> Result<PathBuf> {
    let hub = Hub::open(name, name.strip_prefix(PREFIX).unwrap_or(name))?;
    if let Some(commit) = hub.cached(TOKENIZER) {
        return Ok(hub.cache.snapshot(&commit));
    }
    hub.fetch()?.tokenizer()
}

fn refuse_offline(name: &str) -> Result<()> {
    let offline = variable("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_uppercase();
    if ["1", "ON", "YES", "TRUE"].contains(&offline.as_str()) {
        return Err(Error::input(format!(
            "{name}: not complete in the cache, and HF_HUB_OFFLINE forbids to fetch it"
        )));
    }
    Ok(())
}

/// One model at one revision.
struct Hub<'a> {
    /// As the user named it.
    name: &'a str,
    model: &'a str,
    revision: &'a str,
    cache: Cache,
}

impl<'a> Hub<'a> {
    fn open(name: &'a str, model: &'a str) -> Result<Self> {
        let (model, revision) = model.split_once('@').unwrap_or((model, "main"));
        let good_model = model.split('/').count() == 2 && model.split('/').all(is_plain);
        if !good_model || !revision.split('/').all(is_plain) {
            return Err(Error::input(format!(
                "{name}: not the name of a model: say {PREFIX}owner/name or {PREFIX}owner/name@revision"
            )));
        }
        Ok(Hub { name, model, revision, cache: Cache::new(&cache::home()?, model) })
    }

    fn folder(&self) -> Result<PathBuf> {
        let commit = self.cached(CONFIG);
        if let Some(folder) = commit.as_deref().map(|commit| self.cache.snapshot(commit))
            && is_complete(&folder)
        {
            return Ok(folder);
        }
        self.fetch()?.folder(commit)
    }

    fn fetch(&self) -> Result<Fetch<'_>> {
        refuse_offline(self.name)?;
        Ok(Fetch { hub: self, client: Client::from_environment(&cache::home()?.join("token"))? })
    }

    /// The commit of this revision in the cache, with at least this file.
    fn cached(&self, file: &str) -> Option<String> {
        let commit = self.cache.commit(self.revision).unwrap_or(self.revision.into());
        self.cache.snapshot(&commit).join(file).exists().then_some(commit)
    }
}

/// The fetching of one model.
struct Fetch<'a> {
    hub: &'a Hub<'a>,
    client: Client,
}

impl Fetch<'_> {
    /// Completes the folder of `commit`, or of the newest one.
    fn folder(&self, commit: Option<String>) -> Result<PathBuf> {
        // All files are taken from one commit, even if the branch moves on in the middle of it.
        let commit = commit.map_or_else(|| self.newest(CONFIG), Ok)?;
        let folder = self.hub.cache.snapshot(&commit);
        let fetch = |file: &str, limit: u64| self.file(&commit, file, limit);
        let require = |file: &str, limit| if fetch(file, limit)? { Ok(()) } else { Err(self.absent(file)) };
        // The weights come last, so that their presence tells that everything was asked for.
        require(CONFIG, files::SETTINGS)?;
        for file in OPTIONAL {
            fetch(file, files::SETTINGS)?;
        }
        require(TOKENIZER, files::LISTS)?;
        if !fetch(WEIGHTS, u64::MAX)? {
            require(INDEX, files::LISTS)?;
            for shard in shards(&folder)? {
                require(&shard, u64::MAX)?;
            }
        }
        if self.hub.revision != commit {
            self.hub.cache.set_commit(self.hub.revision, &commit)?;
        }
        Ok(folder)
    }

    /// The folder with the tokenizer alone, as it is now.
    fn tokenizer(&self) -> Result<PathBuf> {
        let commit = self.newest(TOKENIZER)?;
        self.file(&commit, TOKENIZER_CONFIG, files::SETTINGS)?;
        if !self.file(&commit, TOKENIZER, files::LISTS)? {
            return Err(self.absent(TOKENIZER));
        }
        if self.hub.revision != commit {
            self.hub.cache.set_commit(self.hub.revision, &commit)?;
        }
        Ok(self.hub.cache.snapshot(&commit))
    }

    /// The commit that the revision, which has `file`, is at now.
    fn newest(&self, file: &str) -> Result<String> {
        let path = self.path(self.hub.revision, file);
        let answer = self.client.get(&path, Some("0-0"), &self.client.patience());
        let answer = answer.map_err(|fault| self.describe(file, fault))?;
        let commit = answer.commit().filter(|commit| is_plain(commit));
        commit
            .map(str::to_string)
            .ok_or_else(|| self.describe(file, Fault::Wrong("no commit is named (X-Repo-Commit)".into())))
    }

    /// The path of a file below the endpoint.
    fn path(&self, revision: &str, file: &str) -> String {
        format!("{}/resolve/{}/{file}", self.hub.model, revision.replace('/', "%2F"))
    }

    /// Brings one file of at most `limit` bytes into the folder of the commit, unless it is there. `false` if the
    /// server has no such file.
    fn file(&self, commit: &str, file: &str, limit: u64) -> Result<bool> {
        let pointer = self.hub.cache.snapshot(commit).join(file);
        if pointer.exists() {
            return Ok(true);
        }
        let mut patience = self.client.patience();
        let remote = match self.look(commit, file, &patience) {
            Err(Fault::Status(origin, status)) if status == 404 && origin == *self.client.endpoint() => {
                return Ok(false);
            }
            remote => remote.map_err(|fault| self.describe(file, fault))?,
        };
        self.bring(&remote, &pointer, limit, &mut patience).map_err(|fault| self.describe(file, fault))?;
        Ok(true)
    }

    /// What the server says of a file.
    fn look(&self, commit: &str, file: &str, patience: &Patience) -> Fetched<Remote> {
        let path = self.path(commit, file);
        let answer = self.client.get(&path, Some("0-0"), patience)?;
        let checksum = answer.etag().and_then(Checksum::from_etag);
        Ok(Remote { size: answer.size()?, checksum, name: file.into(), path })
    }

    /// Makes `pointer` lead to the contents of a file, which are fetched unless the cache has them under another name.
    fn bring(&self, remote: &Remote, pointer: &Path, limit: u64, patience: &mut Patience) -> Fetched<()> {
        let cache = &self.hub.cache;
        // Without a checksum, what is received has the name of its place until it has one.
        let key = match &remote.checksum {
            Some(checksum) => checksum.hex().to_string(),
            None => Checksum::of_text(&remote.path),
        };
        let timeout = self.client.timeout;
        let Some(_lock) = patience.pausing(|| cache.lock(&key, timeout))? else {
            return Err(Fault::Busy);
        };
        if pointer.exists() {
            return Ok(()); // another process fetched it meanwhile
        }
        if let Some(checksum) = &remote.checksum {
            let blob = cache.blob(&key);
            let is_right = || Checksum::of(&blob, Some(checksum)).is_ok_and(|actual| actual == *checksum);
            if patience.pausing(is_right) {
                return Ok(cache.link(&key, pointer)?);
            }
        }
        let part = cache.part(&key);
        let checksum = download::download(&self.client, remote, &part, limit, patience)?;
        // What no checksum vouches for, such as the page of a portal, must not stay in the cache.
        if remote.checksum.is_none()
            && let Some(kind) = missed_kind(&remote.name, &part)
        {
            std::fs::remove_file(&part).map_err(Error::io(&part))?;
            return Err(Fault::Wrong(format!("what comes is no {kind}")));
        }
        let blob = cache.blob(checksum.hex());
        std::fs::rename(&part, &blob).map_err(Error::io(&blob))?;
        Ok(cache.link(checksum.hex(), pointer)?)
    }

    fn absent(&self, file: &str) -> Error {
        describe::absent(&self.client, self.hub.name, file)
    }

    fn describe(&self, file: &str, fault: Fault) -> Error {
        describe::describe(&self.client, self.hub.name, file, fault)
    }
}

/// What the contents of `path` should be by the file's `name`, and plainly are not.
fn missed_kind(name: &str, path: &Path) -> Option<&'static str> {
    let file = || File::open(path).map(BufReader::new).ok();
    let is_json = || serde_json::from_reader::<_, IgnoredAny>(file()?).ok();
    let is_safetensors = || {
        let (mut start, length) = ([0; 9], path.metadata().ok()?.len());
        file()?.read_exact(&mut start).ok()?;
        let header = u64::from_le_bytes(*start.first_chunk()?);
        (header < length && start[8] == b'{').then_some(())
    };
    match Path::new(name).extension()?.to_str()? {
        "json" if is_json().is_none() => Some("JSON"),
        "safetensors" if is_safetensors().is_none() => Some("safetensors file"),
        _ => None,
    }
}

/// Whether `name` can be a file's name and a part of an address as it stands.
fn is_plain(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=128).contains(&name.len())
        && name.chars().all(letters)
        && !name.starts_with('.')
        && !name.contains("..")
}

/// Whether nothing that a model must have is missing from the folder.
fn is_complete(folder: &Path) -> bool {
    let has = |file: &str| folder.join(file).exists();
    let weights = || has(WEIGHTS) || shards(folder).is_ok_and(|shards| shards.iter().all(|shard| has(shard)));
    has(CONFIG) && has(TOKENIZER) && weights()
}

/// The files that the index of the folder's weights names, in order.
fn shards(folder: &Path) -> Result<Vec<String>> {
    let index = folder.join(INDEX);
    let text = files::read(&index, files::LISTS)?;
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let names = json["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    let mut shards: Vec<String> = names.map(|name| name.as_str().unwrap_or_default().to_string()).collect();
    shards.sort();
    shards.dedup();
    if shards.is_empty() || !shards.iter().all(|shard| is_plain(shard)) {
        return Err(Error::input(format!(
            "{}: no 'weight_map' of tensors to files beside it: the model is published wrongly",
            index.display()
        )));
    }
    Ok(shards)
}
