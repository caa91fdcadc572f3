//! Names of files of a dataset, with wildcards.

use super::super::{DATASETS, is_plain};

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
        let Some(rest) = text.strip_prefix(DATASETS) else {
            return wrong("which names no dataset of the Hub");
        };
        let mut parts = rest.split('/');
        let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let mut revision = revision.replace("%2F", "/");
        if revision == "refs" {
            // Pull requests and converted files are the only branches with slashes that the Hub itself makes.
            revision =
                format!("refs/{}/{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
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

    /// Whether a file of this path is meant.
    pub(super) fn matches(&self, path: &str) -> bool {
        // A folder stands for all that is in it.
        let pattern: Vec<&str> = self.parts().chain([ANY_FOLDERS]).collect();
        let path: Vec<&str> = path.split('/').collect();
        fits(&pattern, &path, |part| *part == ANY_FOLDERS, |part, name| fits_part(part, name))
    }

    fn parts(&self) -> impl Iterator<Item = &str> {
        self.pattern.split('/').filter(|part| !part.is_empty())
    }

    /// The folder below which all matching files lie, and whether some may lie deeper than in it itself.
    pub(super) fn folder(&self, is_data: &dyn Fn(&str) -> bool) -> (String, bool) {
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
    }
}
