//! Files of the Hub's dataset repositories, named `hf://datasets/OWNER/NAME[@REVISION][/PATTERN]`: they are listed at
//! one commit, and fetched one by one to where the caller wants them. The shared cache is not used: these files are
//! large, and read once.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::client::{Client, Fault, Fetched};
use super::download::{Remote, download};
use super::{DATASETS, cache, describe, is_plain, refuse_offline};
use crate::error::{Error, Result};

/// Most bytes of one answer of the Hub's API.
const PAGE_BYTES: usize = 64 << 20;

/// Most files of a dataset that are listed.
const MOST_FILES: usize = 1 << 20;

/// Longest pattern, in bytes.
const LONGEST_PATTERN: usize = 1024;

/// The part of a pattern that stands for any folders.
const ANY_FOLDERS: &str = "**";

/// What a name of files of a dataset says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `OWNER/NAME`.
    pub repo: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// Folders and files with wildcards; all files if empty.
    pub pattern: String,
}

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it; the message goes on after the name's place.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let wrong = |why: &str| {
            Err(format!(
                "is '{text}', {why}: write {DATASETS}OWNER/NAME/PATTERN, with @REVISION behind NAME if it is not main"
            ))
        };
        let Some(rest) = text.strip_prefix(DATASETS) else { return wrong("which names no dataset of the Hub") };
        let mut parts = rest.split('/');
        let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let mut revision = revision.replace("%2F", "/");
        if revision == "refs" {
            // Pull requests and converted files are the only branches with slashes that the Hub itself makes.
            revision = format!(
                "refs/{}/{}",
                parts.next().unwrap_or_default(),
                parts.next().unwrap_or_default()
            );
        }
        let pattern: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        if !is_plain(owner) || !is_plain(name) {
            return wrong("which names no dataset of the Hub");
        }
        if !revision.split('/').all(is_plain) {
            return wrong("whose revision cannot be one");
        }
        let climbs = pattern.iter().any(|part| [".", ".."].contains(part));
        let pattern = pattern.join("/");
        if climbs || pattern.len() > LONGEST_PATTERN || pattern.contains(char::is_control) {
            return wrong("whose pattern can match no file");
        }
        Ok(Name { repo: format!("{owner}/{name}"), revision, pattern })
    }

    /// Whether the revision is a commit, which never changes.
    pub fn is_pinned(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// How the same files of another revision are named.
    pub fn at(&self, revision: &str) -> String {
        let slash = if self.pattern.is_empty() { "" } else { "/" };
        format!("{DATASETS}{}@{}{slash}{}", self.repo, revision.replace('/', "%2F"), self.pattern)
    }

    fn matches(&self, path: &str) -> bool {
        // A folder stands for all that is in it.
        let pattern: Vec<&str> = self.parts().chain([ANY_FOLDERS]).collect();
        let path: Vec<&str> = path.split('/').collect();
        fits(&pattern, &path, |part| *part == ANY_FOLDERS, |part, name| fits_part(part, name))
    }

    fn parts(&self) -> impl Iterator<Item = &str> {
        self.pattern.split('/').filter(|part| !part.is_empty())
    }

    /// The folder below which all matching files lie, and whether some may lie deeper than in it itself.
    fn folder(&self, is_data: &dyn Fn(&str) -> bool) -> (String, bool) {
        let parts: Vec<&str> = self.parts().collect();
        let fixed = parts.iter().take_while(|part| !part.contains('*')).count();
        let names_file = parts.last().is_some_and(|last| is_data(last));
        let folders = if names_file { fixed.min(parts.len() - 1) } else { fixed };
        let is_deep = !names_file || folders + 1 < parts.len() || parts.last() == Some(&ANY_FOLDERS);
        (parts[..folders].join("/"), is_deep)
    }
}

/// Whether `pattern` covers all of `items`, where what `is_any` says stands for any number of them.
fn fits<P, I>(
    pattern: &[P],
    items: &[I],
    is_any: impl Fn(&P) -> bool,
    is_same: impl Fn(&P, &I) -> bool,
) -> bool {
    let (mut p, mut i) = (0, 0);
    // Where to go on when a wildcard takes one more than was tried last.
    let mut again: Option<(usize, usize)> = None;
    while i < items.len() {
        match pattern.get(p) {
            Some(part) if is_any(part) => {
                again = Some((p, i));
                p += 1;
            }
            Some(part) if is_same(part, &items[i]) => (p, i) = (p + 1, i + 1),
            _ => {
                let Some((wildcard, taken)) = again else { return false };
                again = Some((wildcard, taken + 1));
                (p, i) = (wildcard + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(is_any)
}

/// Whether the name of a file or folder is what this part of a pattern says.
fn fits_part(part: &str, name: &str) -> bool {
    fits(part.as_bytes(), name.as_bytes(), |byte| *byte == b'*', |a, b| a == b)
}

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
        let recursive = if is_deep { "?recursive=true" } else { "?recursive=false" };
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
            next = page.map(|cursor| format!("{first}&cursor={cursor}"));
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

    fn parse(text: &str) -> Name {
        Name::parse(text).expect(text)
    }

    #[test]
    fn names_have_a_repository_a_revision_and_a_pattern() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        for (text, repo, revision, pattern) in [
            ("hf://datasets/a/b", "a/b", "main", ""),
            ("hf://datasets/a/b/", "a/b", "main", ""),
            ("hf://datasets/a/b.c/data//x/*.parquet", "a/b.c", "main", "data/x/*.parquet"),
            ("hf://datasets/a/b@v1.0/data", "a/b", "v1.0", "data"),
            ("hf://datasets/a/b@refs/convert/parquet/c/train", "a/b", "refs/convert/parquet", "c/train"),
            ("hf://datasets/a/b@refs%2Fpr%2F3/c", "a/b", "refs/pr/3", "c"),
            (&format!("hf://datasets/a/b@{sha}/c++/**"), "a/b", sha, "c++/**"),
        ] {
            let name = parse(text);
            assert_eq!((&*name.repo, &*name.revision, &*name.pattern), (repo, revision, pattern), "{text}");
            assert_eq!(name.is_pinned(), revision == sha);
            let pinned = parse(&name.at(sha));
            assert_eq!(pinned, Name { revision: sha.into(), ..name });
        }
        for text in [
            "hf://a/b",
            "hf://datasets/",
            "hf://datasets/a",
            "hf://datasets/a/",
            "hf://datasets/../b",
            "hf://datasets/a/b@",
            "hf://datasets/a/b@../c",
            "hf://datasets/a/b/../../c",
            "hf://datasets/a/b/x\ny",
            &format!("hf://datasets/a/b/{}", "x".repeat(2000)),
        ] {
            let why = Name::parse(text).expect_err(text);
            assert!(why.contains("hf://datasets/OWNER/NAME/PATTERN"), "{why}");
        }
    }

    #[test]
    fn patterns_match_files_and_all_that_is_in_folders() {
        for (pattern, matching, others) in [
            ("", &["a.json", "x/y/a.json"][..], &[][..]),
            ("x", &["x/a.json", "x/y/a.json", "x"], &["xy/a.json", "y/x/a.json"]),
            ("x/*.json", &["x/a.json", "x/.json"], &["x/y/a.json", "x/a.jsonl", "a.json"]),
            ("x/*", &["x/a.json", "x/y/a.json"], &["y/a.json"]),
            ("**/b*c.json", &["bc.json", "x/y/bxc.json"], &["x/b.json", "x/xbc.json"]),
            ("x/**/y/*-0*.json", &["x/y/a-01.json", "x/a/b/y/-0.json"], &["x/a.json", "y/a-0.json"]),
            ("*a*a*a*b", &["aaab", "xaxaxab"], &["aab", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
            ("**/**/**/x", &["x", "a/b/c/d/x/y"], &["a/b/c/d/e/f/g"]),
        ] {
            let name = parse(&format!("hf://datasets/o/n/{pattern}"));
            matching.iter().for_each(|path| assert!(name.matches(path), "{pattern} {path}"));
            others.iter().for_each(|path| assert!(!name.matches(path), "{pattern} {path}"));
        }
    }

    #[test]
    fn no_more_is_listed_than_is_needed() {
        let is_data = |name: &str| name.ends_with(".json");
        for (pattern, folder, is_deep) in [
            ("", "", true),
            ("x/y", "x/y", true),
            ("x/y.json", "x", false),
            ("y.json", "", false),
            ("x/*.json", "x", false),
            ("x/*/a.json", "x", true),
            ("x/*", "x", true),
            ("**", "", true),
            ("x/y*/z", "x", true),
        ] {
            let name = parse(&format!("hf://datasets/o/n/{pattern}"));
            assert_eq!(name.folder(&is_data), (folder.to_string(), is_deep), "{pattern}");
        }
        assert_eq!(escaped("c++/a b%.json"), "c%2B%2B/a%20b%25.json");
    }
}
