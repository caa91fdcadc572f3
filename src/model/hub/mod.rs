//! Model folders of the Hugging Face Hub, named `hf://owner/name` or `hf://owner/name@revision`.
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
mod download;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;
use cache::Cache;
use checksum::Checksum;
use client::{Client, Fault, Fetched, Patience, SLOWEST, TIMEOUT, variable};
use download::Remote;

/// What the name of a model of the Hub begins with.
pub const PREFIX: &str = "hf://";

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Files that a model may lack.
const OPTIONAL: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "chat_template.jinja"];

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
        let commit = self.cached();
        if let Some(folder) = commit.as_deref().map(|commit| self.cache.snapshot(commit))
            && is_complete(&folder)
        {
            return Ok(folder);
        }
        let offline = variable("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_uppercase();
        if ["1", "ON", "YES", "TRUE"].contains(&offline.as_str()) {
            return Err(Error::input(format!(
                "{}: not complete in the cache, and HF_HUB_OFFLINE forbids to fetch it",
                self.name
            )));
        }
        let client = Client::from_environment(&cache::home()?.join("token"))?;
        Fetch { hub: self, client }.folder(commit)
    }

    /// The commit of this revision in the cache, with at least config.json.
    fn cached(&self) -> Option<String> {
        let commit = self.cache.commit(self.revision).unwrap_or(self.revision.into());
        self.cache.snapshot(&commit).join(CONFIG).exists().then_some(commit)
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
        let commit = commit.map_or_else(|| self.newest(), Ok)?;
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

    /// The commit that the revision is at now.
    fn newest(&self) -> Result<String> {
        let path = self.path(self.hub.revision, CONFIG);
        let answer = self.client.get(&path, Some("0-0"), &self.client.patience());
        let answer = answer.map_err(|fault| self.describe(CONFIG, fault))?;
        let commit = answer.commit().filter(|commit| is_plain(commit));
        commit
            .map(str::to_string)
            .ok_or_else(|| self.describe(CONFIG, Fault::Wrong("no commit is named (X-Repo-Commit)".into())))
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
        let blob = cache.blob(checksum.hex());
        std::fs::rename(&part, &blob).map_err(Error::io(&blob))?;
        Ok(cache.link(checksum.hex(), pointer)?)
    }

    fn absent(&self, file: &str) -> Error {
        let (name, endpoint) = (self.hub.name, self.client.endpoint());
        Error::input(format!(
            "{name}: {endpoint} has no such model, revision or file ({file}): check the name"
        ))
    }

    fn describe(&self, file: &str, fault: Fault) -> Error {
        let (name, endpoint) = (self.hub.name, self.client.endpoint());
        let problem = |what: String| Error::failure(format!("{name}: {what}"));
        match fault {
            Fault::Status(origin, status) if origin == *endpoint && status == 404 => self.absent(file),
            Fault::Status(origin, status) if origin == *endpoint && matches!(status.as_u16(), 401 | 403) => {
                let status = status.as_u16();
                Error::input(format!(
                    "{name}: {endpoint} refuses {file} ({status}): the model is private or gated, or does not exist: \
                     check the name, accept the model's terms on its page, and set HF_TOKEN to a token that may read it"
                ))
            }
            Fault::Status(origin, status) => {
                problem(format!("{origin} answers {} for {file}: try again later", status.as_u16()))
            }
            Fault::Late => problem(format!(
                "{file}: less than {} KiB/s came from {endpoint} in {} s: run again to go on from there; \
                 {TIMEOUT} sets the seconds, for slow networks",
                SLOWEST >> 10,
                self.client.timeout.as_secs_f64()
            )),
            Fault::Network(error) => problem(format!(
                "{file} cannot be fetched from {endpoint} ({error}): check the network, the proxy settings and \
                 HF_ENDPOINT, then run again to go on from there; a model that is in the cache needs no network"
            )),
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
    let text = std::fs::read(&index).map_err(Error::io(&index))?;
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
