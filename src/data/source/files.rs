//! Which files to read, and of which kind each is.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Endings of files that are surely no plain text.
const NO_TEXT: [&str; 16] = [
    ".gz",
    ".zst",
    ".zip",
    ".tar",
    ".xz",
    ".bz2",
    ".7z",
    ".pdf",
    ".docx",
    ".odt",
    ".epub",
    ".png",
    ".jpg",
    ".arrow",
    ".toml",
    ".safetensors",
];

/// What a file holds, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    JsonLines,
    JsonArray,
    Text,
    Parquet,
}

/// How a file is compressed, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Kind {
    /// That of a file that was named: text, if its name does not say.
    pub(super) fn of(path: &Path) -> Result<Self> {
        if let Some((kind, _)) = classify(path) {
            return Ok(kind);
        }
        let name = path.to_string_lossy().to_ascii_lowercase();
        match NO_TEXT.iter().any(|it| name.ends_with(it)) {
            false => Ok(Kind::Text),
            true => Err(Error::input(format!(
                "{}: not a kind of file that can be read: .jsonl, .ndjson, .json and .txt (each also .gz or .zst) \
                 and .parquet can, and other plain text",
                path.display()
            ))),
        }
    }

    /// What a record of this kind is called in messages.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Kind::JsonLines => "line",
            Kind::JsonArray => "element",
            Kind::Text => "piece",
            Kind::Parquet => "row",
        }
    }
}

/// Whether a file of this name is of a kind that can be read.
pub fn is_readable(name: &str) -> bool {
    classify(Path::new(name)).is_some()
}

pub(super) fn classify(path: &Path) -> Option<(Kind, Compression)> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let (stem, compression) = match name.rsplit_once('.')? {
        (stem, "gz") => (stem, Compression::Gzip),
        (stem, "zst") => (stem, Compression::Zstd),
        _ => (name.as_str(), Compression::None),
    };
    match (stem.rsplit_once('.')?.1, compression) {
        ("jsonl" | "ndjson", _) => Some((Kind::JsonLines, compression)),
        ("json", _) => Some((Kind::JsonArray, compression)),
        ("txt", _) => Some((Kind::Text, compression)),
        ("parquet", Compression::None) => Some((Kind::Parquet, compression)),
        _ => None,
    }
}

/// Replaces each folder of `paths` by the files of known kind in it, recursively and in order of path. Hidden
/// files are left out and linked folders are not entered.
pub(super) fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if std::fs::metadata(path).map_err(Error::io(path))?.is_dir() {
            let first = files.len();
            search(path, &mut files)?;
            if files.len() == first {
                return Err(Error::input(format!(
                    "{}: no .jsonl, .ndjson, .json, .txt or .parquet file in this folder",
                    path.display()
                )));
            }
            files[first..].sort();
        } else {
            Kind::of(path)?;
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn search(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(Error::io(&path))?.is_dir() {
            search(&path, files)?;
        } else if path.is_file() && classify(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_from_names() {
        let kind = |name: &str| classify(Path::new(name));
        assert_eq!(kind("a/b.jsonl"), Some((Kind::JsonLines, Compression::None)));
        assert_eq!(kind("b.v1.JSONL.GZ"), Some((Kind::JsonLines, Compression::Gzip)));
        assert_eq!(kind("b.txt.zst"), Some((Kind::Text, Compression::Zstd)));
        assert_eq!(kind("b.parquet"), Some((Kind::Parquet, Compression::None)));
        assert_eq!(
            (kind("b.parquet.gz"), kind("b.gz"), kind("jsonl"), kind("b.md")),
            (None, None, None, None)
        );
    }

    #[test]
    fn folders_are_searched_in_order_and_the_rest_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        for name in ["z.jsonl", "a/y.txt", "a/b/x.parquet", "README.md", ".hidden.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = expand(&[folder.path().to_path_buf()]).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(names, ["a/b/x.parquet", "a/y.txt", "z.jsonl"].map(Path::new));

        // Named itself, other text is read.
        let named = [folder.path().join("README.md")];
        assert_eq!((expand(&named).unwrap(), Kind::of(&named[0]).unwrap()), (named.to_vec(), Kind::Text));
        let refused = |name: &str| expand(&[folder.path().join(name)]).unwrap_err().to_string();
        for name in ["a.zip", "a.md.gz", "recipe.TOML"] {
            std::fs::write(folder.path().join(name), "").unwrap();
            assert!(refused(name).contains("not a kind of file"), "{name}");
        }
        assert!(refused("missing.jsonl").contains("missing.jsonl"));
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        assert!(refused("empty").contains("empty: no .jsonl"));
    }
}
