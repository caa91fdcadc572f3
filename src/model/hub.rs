//! Model folders of the Hugging Face Hub, named `hf://owner/name` or `hf://owner/name@revision`.
//!
//! Files come through the `hf-hub` crate into the cache that all Hugging Face programs share. The environment is
//! theirs too: `HF_HOME` (the cache), `HF_ENDPOINT` (the server), `HF_TOKEN` (for private and gated models; or the
//! token that `hf auth login` saved), `HF_HUB_OFFLINE=1` (no network). A model whose files are all in the cache is
//! used as it is, without a look at the network: remove it from the cache, or name a revision, to get a newer one.
//!
//! `hf-hub` resumes a broken download but checks nothing, so this module compares each file, once it is complete,
//! with the checksum that the Hub gives as its ETag: SHA-256 for large files (Git LFS), Git's SHA-1 for others.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo, Metadata};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// What the name of a model of the Hub begins with.
pub const PREFIX: &str = "hf://";

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Files that a model may lack.
const OPTIONAL: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "chat_template.jinja"];

/// Files of at least so many bytes show their progress.
const LARGE: usize = 8 << 20;

/// The folder on disk of `name`: a path, which must exist, or a model of the Hub, which is fetched unless the cache
/// has it.
///
/// # Errors
/// [`Error::Input`] if there is no such folder or model, if the name is malformed, or if the model is private;
/// [`Error::Damaged`] if a file came with the wrong checksum (it is removed from the cache); [`Error::Failure`] if
/// the server cannot be reached or breaks off, where what was received is kept for the next call.
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
struct Hub {
    /// As the user named it.
    name: String,
    model: String,
    revision: String,
    cache: Cache,
    api: Api,
    endpoint: String,
    offline: bool,
}

impl Hub {
    fn open(name: &str, model: &str) -> Result<Self> {
        let (model, revision) = model.split_once('@').unwrap_or((model, "main"));
        let good_model = model.split('/').count() == 2 && model.split('/').all(is_plain);
        if !good_model || !revision.split('/').all(is_plain) {
            return Err(Error::input(format!(
                "{name}: not the name of a model: say {PREFIX}owner/name or {PREFIX}owner/name@revision"
            )));
        }
        let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or("https://huggingface.co".into());
        let endpoint = endpoint.trim().trim_end_matches('/').to_string();
        let mut builder = ApiBuilder::from_env().with_endpoint(endpoint.clone()).with_progress(false);
        if let Some(token) = variable("HF_TOKEN") {
            builder = builder.with_token(Some(token.trim().into()));
        }
        let api = builder.build().map_err(|error| Error::failure(format!("{name}: {error}")))?;
        Ok(Hub {
            name: name.into(),
            model: model.into(),
            revision: revision.into(),
            cache: Cache::from_env(),
            api,
            endpoint,
            offline: variable("HF_HUB_OFFLINE").is_some_and(|value| value != "0"),
        })
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.model.clone(), RepoType::Model, revision.into())
    }

    fn folder(&self) -> Result<PathBuf> {
        let cached = self.cached();
        if let Some(folder) = &cached
            && is_complete(folder)
        {
            return Ok(folder.clone());
        }
        if self.offline {
            return Err(Error::input(format!(
                "{}: not complete in the cache, and HF_HUB_OFFLINE forbids to fetch it",
                self.name
            )));
        }
        // All files are taken from one commit, even if the branch moves on in the middle of it.
        let commit = match cached.as_deref().and_then(Path::file_name) {
            Some(commit) => commit.to_string_lossy().into_owned(),
            None => {
                let newest = self.metadata(&self.api.repo(self.repo(&self.revision)), CONFIG)?;
                newest.ok_or_else(|| self.absent(CONFIG))?.commit_hash().to_string()
            }
        };
        let folder = self.cache.repo(self.repo(&self.revision)).pointer_path(&commit);
        let repo = self.api.repo(self.repo(&commit));
        let fetch = |file: &str| self.fetch(&repo, &folder, file);
        let require = |file: &str| if fetch(file)? { Ok(()) } else { Err(self.absent(file)) };
        // The weights come last, so that their presence tells that everything was asked for.
        require(CONFIG)?;
        for file in OPTIONAL {
            fetch(file)?;
        }
        require(TOKENIZER)?;
        if !fetch(WEIGHTS)? {
            require(INDEX)?;
            for shard in shards(&folder)? {
                require(&shard)?;
            }
        }
        self.cache.repo(self.repo(&self.revision)).create_ref(&commit).map_err(Error::io(&folder))?;
        Ok(folder)
    }

    /// The folder of this revision in the cache, with at least config.json in it.
    fn cached(&self) -> Option<PathBuf> {
        let repo = self.cache.repo(self.repo(&self.revision));
        let by_commit = repo.pointer_path(&self.revision).join(CONFIG);
        let file = repo.get(CONFIG).or(by_commit.exists().then_some(by_commit))?;
        file.parent().map(Path::to_path_buf)
    }

    /// What the server says of a file; `None` if it has no such file.
    fn metadata(&self, repo: &ApiRepo, file: &str) -> Result<Option<Metadata>> {
        let found = match self.api.metadata(&repo.url(file)) {
            Err(ApiError::RequestError(error)) if matches!(*error, ureq::Error::StatusCode(404)) => {
                return Ok(None);
            }
            found => found.map_err(|error| self.describe(file, error))?,
        };
        // Both become names of files in the cache.
        if !is_plain(found.commit_hash()) || !found.etag().trim_start_matches("W/").split('/').all(is_plain) {
            return Err(self.problem(format!("{file}: {} sent an unusable ETag or commit", self.endpoint)));
        }
        Ok(Some(found))
    }

    /// Brings one file into `folder` of the cache, unless it is there. `false` if the server has no such file.
    fn fetch(&self, repo: &ApiRepo, folder: &Path, file: &str) -> Result<bool> {
        let pointer = folder.join(file);
        if pointer.exists() {
            return Ok(true);
        }
        let Some(expected) = self.metadata(repo, file)? else { return Ok(false) };
        let blob = self.cache.repo(self.repo(&self.revision)).blob_path(expected.etag());
        let part = blob.with_extension("part");
        // A link to a file that somebody removed from the cache would stand in the way.
        let _ = std::fs::remove_file(&pointer);
        let mut received = received_bytes(&part, expected.size())?;
        // Goes on where the transfer broke off, as long as each attempt brings something.
        while let Err(error) = repo.download_with_progress(file, Bar::default()) {
            let now = received_bytes(&part, expected.size())?;
            if now <= received {
                return Err(self.describe(file, error));
            }
            received = now;
        }
        let checked = verify(&pointer, expected.etag(), expected.size());
        if checked.is_err() {
            // On systems without symbolic links the pointer is the file itself.
            let _ = std::fs::remove_file(&pointer);
            let _ = std::fs::remove_file(&blob);
        }
        checked.map(|()| true)
    }

    fn absent(&self, file: &str) -> Error {
        let (name, endpoint) = (&self.name, &self.endpoint);
        Error::input(format!(
            "{name}: {endpoint} has no such model, revision or file ({file}): check the name"
        ))
    }

    fn problem(&self, what: impl std::fmt::Display) -> Error {
        Error::failure(format!("{}: {what}", self.name))
    }

    fn describe(&self, file: &str, error: ApiError) -> Error {
        let (name, endpoint) = (&self.name, &self.endpoint);
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(404) => self.absent(file),
                ureq::Error::StatusCode(status @ (401 | 403)) => Error::input(format!(
                    "{name}: {endpoint} refuses {file} ({status}): the model is private or gated, or does not exist: \
                     check the name, accept the model's terms on its page, and set HF_TOKEN to a token that may read it"
                )),
                ureq::Error::StatusCode(status) => {
                    self.problem(format!("{endpoint} answers {status} for {file}: try again later"))
                }
                error => self.problem(format!(
                    "{file} cannot be fetched from {endpoint} ({error}): check the network, the proxy settings and \
                     HF_ENDPOINT; a model that is in the cache needs no network"
                )),
            },
            ApiError::LockAcquisition(_) => {
                self.problem(format!("another process is fetching {file}: wait for it, then run again"))
            }
            ApiError::IoError(error) => self.problem(format!(
                "{file}: the download broke off ({error}): run again to go on from there"
            )),
            error => self.problem(format!("{file}: {endpoint} answers as no Hub does ({error}): check HF_ENDPOINT")),
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

/// Bytes of an unfinished download. One that has all bytes or more, which `hf-hub` could never end, loses some: the
/// checksum tells whether the rest was right.
fn received_bytes(part: &Path, size: usize) -> Result<u64> {
    let Ok(metadata) = part.metadata() else { return Ok(0) };
    let last = (size as u64).saturating_sub(1);
    if metadata.len() > last {
        let file = File::options().write(true).open(part).map_err(Error::io(part))?;
        file.set_len(last).map_err(Error::io(part))?;
    }
    Ok(metadata.len().min(last))
}

/// Compares a file with the length and the ETag that the server gave.
fn verify(file: &Path, etag: &str, size: usize) -> Result<()> {
    let actual = match etag.trim_start_matches("W/").len() {
        64 => digest(file, Sha256::new()),
        // Git hashes its own header with the contents (git hash-object).
        40 => digest(file, Sha1::new().chain_update(format!("blob {size}\0"))),
        // Not from Hugging Face: there is no checksum, but a length.
        _ => Ok(etag.to_string()),
    };
    let actual = actual.map_err(Error::io(file))?;
    let length = file.metadata().map_err(Error::io(file))?.len();
    if length == size as u64 && actual == etag.trim_start_matches("W/") {
        return Ok(());
    }
    Err(Error::damaged(
        file,
        format!(
            "{length} bytes with checksum {actual} came instead of {size} with {etag}; removed: run again to fetch it anew"
        ),
    ))
}

fn digest<D: Digest>(file: &Path, mut digest: D) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => digest.update(&buffer[..n]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Progress of one large file: a bar in a terminal, one line elsewhere.
#[derive(Default)]
struct Bar(Option<ProgressBar>);

impl hf_hub::api::Progress for Bar {
    fn init(&mut self, size: usize, file: &str) {
        if size < LARGE || self.0.is_some() {
            return; // `hf-hub` announces a file twice
        }
        let bar = ProgressBar::new(size as u64);
        let style = ProgressStyle::with_template(
            "{prefix} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}",
        );
        bar.set_style(style.expect("the template is well-formed"));
        bar.set_prefix(file.to_string());
        if !std::io::stderr().is_terminal() {
            crate::report::out::note(format_args!("fetching {file}, {}", HumanBytes(size as u64)));
        }
        self.0 = Some(bar);
    }

    fn update(&mut self, bytes: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes as u64);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
