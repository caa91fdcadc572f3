//! Files of the Hub's dataset repositories, named `hf://datasets/OWNER/NAME[@REVISION][/PATTERN]`: they are listed at
//! one commit, and fetched one by one to where the caller wants them. The shared cache is not used: these files are
//! large, and read once.

mod name;

pub use name::Name;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::client::{Client, Fault, Fetched};
use super::download::{Remote, download};
use super::{DATASETS, cache, describe, refuse_offline};
use crate::error::{Error, Result};

/// Most bytes of one answer of the Hub's API.
const PAGE_BYTES: usize = 64 << 20;

/// Most files of a dataset that are listed.
const MOST_FILES: usize = 1 << 20;

/// A file of a dataset, at one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// `OWNER/NAME`.
    pub repo: String,
    /// The commit.
    pub commit: String,
    /// Where it lies in the repository.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 or, of small files, Git's SHA-1, in hexadecimal.
    pub checksum: String,
}

impl RemoteFile {
    /// How the file is named.
    pub fn name(&self) -> String {
        format!("{DATASETS}{}@{}/{}", self.repo, self.commit, self.path)
    }
}

/// What the Hub says of a dataset.
#[derive(Deserialize)]
struct Info {
    sha: String,
}

/// One line of a listing.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Large>,
}

/// Of a file that lies in Git LFS.
#[derive(Deserialize)]
struct Large {
    oid: String,
    size: u64,
}

/// The Hub's datasets. Nothing is asked before it is needed.
pub struct Datasets {
    client: Client,
}

impl Datasets {
    /// Those of the Hub that the environment names.
    ///
    /// # Errors
    /// [`Error::Input`] for a variable that cannot be used, or if the network is forbidden.
    pub fn open() -> Result<Self> {
        refuse_offline(DATASETS)?;
        Ok(Datasets { client: Client::from_environment(&cache::home()?.join("token"))? })
    }

    /// The commit that a name's revision is at now.
    ///
    /// # Errors
    /// As [`folder`](super::folder).
    pub fn commit(&self, name: &Name) -> Result<String> {
        if name.is_pinned() {
            return Ok(name.revision.clone());
        }
        let path = format!("api/datasets/{}/revision/{}?expand=sha", name.repo, escaped_all(&name.revision));
        let found = self.json(&path).and_then(|(info, _): (Info, _)| match info.sha {
            sha if Name { revision: sha.clone(), ..name.clone() }.is_pinned() => Ok(sha),
            _ => Err(Fault::Wrong("no commit is named".into())),
        });
        found.map_err(|fault| self.describe(name, &name.revision, fault))
    }

    /// The files of `commit` that a name means, in order of their paths. `is_data` tells by a file's name whether it can
    /// be read.
    ///
    /// # Errors
    /// [`Error::Input`] if there are none, and as [`folder`](super::folder).
    pub fn list(&self, name: &Name, commit: &str, is_data: &dyn Fn(&str) -> bool) -> Result<Vec<RemoteFile>> {
        let (folder, is_deep) = name.folder(is_data);
        let found = self.entries(name, commit, &folder, is_deep);
        let found = found.map_err(|fault| self.describe(name, &format!("{folder}/"), fault))?;
        let is_wanted = |path: &str| is_data(path.rsplit('/').next().unwrap_or(path)) && name.matches(path);
        let file = |(path, (size, checksum)): (String, (u64, String))| RemoteFile {
            repo: name.repo.clone(),
            commit: commit.into(),
            path,
            size,
            checksum,
        };
        let files: Vec<_> = found.into_iter().filter(|(path, _)| is_wanted(path)).map(file).collect();
        if files.is_empty() {
            return Err(Error::input(format!(
                "{}: no .jsonl, .ndjson, .json, .txt or .parquet file there has such a name",
                name.at(&name.revision)
            )));
        }
        Ok(files)
    }

    /// All files below a folder: length and checksum by path.
    fn entries(
        &self,
        name: &Name,
        commit: &str,
        folder: &str,
        is_deep: bool,
    ) -> Fetched<BTreeMap<String, (u64, String)>> {
        let (recursive, joiner) = if is_deep { ("?recursive=true", '&') } else { ("", '?') };
        let folder = if folder.is_empty() { String::new() } else { format!("/{}", escaped(folder)) };
        let first = format!("api/datasets/{}/tree/{commit}{folder}{recursive}", name.repo);
        let (mut found, mut next) = (BTreeMap::new(), Some(first.clone()));
        let mut seen = 0;
        while let Some(path) = next {
            let (entries, page): (Vec<Entry>, _) = self.json(&path)?;
            seen += entries.len();
            for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
                let (size, oid) = entry.lfs.map_or((entry.size, entry.oid), |large| (large.size, large.oid));
                let Some(checksum) = Checksum::from_etag(&oid) else {
                    return Err(Fault::Wrong(format!("{} has no checksum", entry.path)));
                };
                found.insert(entry.path, (size, checksum.hex().to_string()));
            }
            if seen > MOST_FILES {
                return Err(Fault::Wrong(format!("more than {MOST_FILES} files are listed")));
            }
            // The address of the next page is built here: nobody is sent elsewhere, or with the token.
            next = page.map(|cursor| format!("{first}{joiner}cursor={cursor}"));
            if next.as_ref() == Some(&path) {
                return Err(Fault::Wrong("a page of a list is followed by itself".into()));
            }
        }
        Ok(found)
    }

    /// An answer of the API, and the cursor of its next page.
    fn json<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Fetched<(T, Option<String>)> {
        let mut patience = self.client.patience();
        let answer = self.client.get(path, None, &patience)?;
        let mut bytes = Vec::new();
        loop {
            let chunk = answer.next(&mut patience)?;
            if chunk.is_empty() {
                break;
            }
            bytes.extend(chunk);
            if bytes.len() > PAGE_BYTES {
                return Err(Fault::Wrong(format!("more than {PAGE_BYTES} bytes come")));
            }
        }
        let value = serde_json::from_slice(&bytes).map_err(|error| Fault::Wrong(error.to_string()))?;
        let query = answer.next_page().and_then(|address| address.split_once('?')).map(|(_, query)| query);
        let cursor = query.and_then(|query| query.split('&').find_map(|part| part.strip_prefix("cursor=")));
        Ok((value, cursor.map(String::from)))
    }

    /// Fetches a file to `to`. What an earlier call received of it, there or in `NAME.part` beside it, is used.
    ///
    /// # Errors
    /// As [`folder`](super::folder).
    pub fn fetch(&self, file: &RemoteFile, to: &Path) -> Result<()> {
        let checksum = Checksum::from_etag(&file.checksum);
        if Checksum::of(to, checksum.as_ref()).is_ok_and(|found| Some(found) == checksum) {
            return Ok(());
        }
        let mut part = to.as_os_str().to_owned();
        part.push(".part");
        let part = Path::new(&part);
        let remote = Remote {
            path: format!("datasets/{}/resolve/{}/{}", file.repo, file.commit, escaped(&file.path)),
            name: file.path.rsplit('/').next().unwrap_or_default().into(),
            size: Some(file.size),
            checksum,
        };
        let fetched = download(&self.client, &remote, part, file.size, &mut self.client.patience());
        let name = format!("{DATASETS}{}@{}", file.repo, file.commit);
        fetched.map_err(|fault| describe::describe(&self.client, &name, &file.path, fault))?;
        std::fs::rename(part, to).map_err(Error::io(to))
    }

    fn describe(&self, name: &Name, what: &str, fault: Fault) -> Error {
        describe::describe(&self.client, &name.at(&name.revision), what, fault)
    }
}

/// A path as it stands in an address.
fn escaped(path: &str) -> String {
    path.split('/').map(escaped_all).collect::<Vec<_>>().join("/")
}

/// A text as one part of an address.
fn escaped_all(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let letter = |byte: u8| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_cannot_hold_is_escaped() {
        assert_eq!(escaped("c++/a b%.json"), "c%2B%2B/a%20b%25.json");
    }
}
