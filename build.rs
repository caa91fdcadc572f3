//! Lists the files under `shaders/` so that `gpu::shader` embeds them: a new shader needs no further mention.

use std::{env, fs, path::Path};

fn main() {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("shaders");
    let mut files = Vec::new();
    for folder in [root.clone(), root.join("shared")] {
        println!("cargo::rerun-if-changed={}", folder.display());
        files.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    }
    files.retain(|path| path.extension().is_some_and(|ext| ext == "wgsl"));
    files.sort();
    let entries: String = files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().with_extension("");
            format!("({:?}, include_str!({path:?})),\n", name.to_str().unwrap().replace('\\', "/"))
        })
        .collect();
    let out = Path::new(&env::var("OUT_DIR").unwrap()).join("shaders.rs");
    fs::write(out, format!("&[{entries}]")).unwrap();
}
