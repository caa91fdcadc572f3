//! Lists the files under `shaders/` so that `gpu::shader` embeds them: a new shader needs no further mention. And tells
//! `bench` what it is made of.

use std::{env, fs, path::Path, process::Command};

fn main() {
    let manifest = env::var("CARGO_MANIFEST_DIR").unwrap();
    embed_shaders(&Path::new(&manifest).join("shaders"));
    let lock = fs::read_to_string(Path::new(&manifest).join("Cargo.lock")).unwrap_or_default();
    for package in ["wgpu", "naga"] {
        println!("cargo::rustc-env=SMOLTER_{}={}", package.to_uppercase(), version(&lock, package));
    }
    println!("cargo::rustc-env=SMOLTER_COMMIT={}", commit());
}

/// Version of a package in the text of Cargo.lock.
fn version<'a>(lock: &'a str, package: &str) -> &'a str {
    let entry = format!("name = \"{package}\"\nversion = \"");
    lock.split_once(&entry).and_then(|(_, rest)| rest.split('"').next()).unwrap_or("unknown")
}

/// Commit of a release build, `-dirty` if there are changes. Other builds do without, since a new commit would build
/// everything again.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_string())
    };
    if env::var("PROFILE").unwrap() != "release" {
        return "unknown".into();
    }
    println!("cargo::rerun-if-changed=src");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]).unwrap_or("unknown".into())
}

fn embed_shaders(root: &Path) {
    let mut files = Vec::new();
    for folder in [root.to_path_buf(), root.join("shared")] {
        println!("cargo::rerun-if-changed={}", folder.display());
        files.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    }
    files.retain(|path| path.extension().is_some_and(|ext| ext == "wgsl"));
    files.sort();
    let entries: String = files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().with_extension("");
            format!("({:?}, include_str!({path:?})),\n", name.to_str().unwrap().replace('\\', "/"))
        })
        .collect();
    let out = Path::new(&env::var("OUT_DIR").unwrap()).join("shaders.rs");
    fs::write(out, format!("&[{entries}]")).unwrap();
}
