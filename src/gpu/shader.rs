//! From a [`Kernel`] to WGSL: the file, its imports, its constants and conditions, linked by WESL.
//! Nothing outside this file knows how shaders are composed.

use super::kernel::Kernel;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use wesl::{CompileOptions, Feature, ModulePath, VirtualResolver, Wesl};

/// Every file under `shaders/`: (path without ending, text).
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// Folder whose files take the place of embedded shaders of the same name; for kernel development.
pub const OVERRIDE_VARIABLE: &str = "SMOLTER_SHADERS";

/// Texels of 4 floats per row of a texture that stands in for a buffer.
pub const TEXELS_PER_ROW: u32 = 1024;

/// Bytes of such a row.
pub const TEXEL_ROW_BYTES: u64 = 16 * TEXELS_PER_ROW as u64;

/// Storage textures per stage that WebGPU guarantees.
const MAX_TEXTURES: usize = 4;

/// A kernel as one piece of WGSL.
#[derive(Clone, Debug)]
pub struct Linked {
    /// Plain text that any WGSL tool reads.
    pub wgsl: String,
    /// Bindings that are textures in place of read-only buffers of vectors, at most four.
    pub texels: Vec<usize>,
}

/// Links a kernel; results are kept, since plans and devices ask for the same ones.
pub fn link(kernel: &Kernel) -> Result<Arc<Linked>> {
    static KEPT: LazyLock<Mutex<HashMap<Kernel, Arc<Linked>>>> = LazyLock::new(Mutex::default);
    if let Some(linked) = KEPT.lock().ok().and_then(|kept| kept.get(kernel).cloned()) {
        return Ok(linked);
    }
    let wgsl = compose(kernel)?;
    let linked = Arc::new(if kernel.flags.contains(&"texels") {
        read_as_texels(&wgsl)
    } else {
        Linked { wgsl, texels: Vec::new() }
    });
    if let Ok(mut kept) = KEPT.lock() {
        kept.insert(kernel.clone(), linked.clone());
    }
    Ok(linked)
}

/// Turns read-only storage buffers of vectors into textures: `x[i]` becomes `textureLoad(x, texel(i))`. One rewrite
/// here instead of a second declaration and a load function for every input of every kernel.
fn read_as_texels(wgsl: &str) -> Linked {
    let mut text = wgsl.to_string();
    let mut texels = Vec::new();
    for declaration in wgsl.split("@binding(").skip(1) {
        let Some((binding, rest)) = declaration.split_once(')') else { continue };
        let Some(rest) = rest.trim_start().strip_prefix("var<storage, read> ") else { continue };
        let Some((name, rest)) = rest.split_once(':') else { continue };
        let vectors = ["array<Elem>;", "array<vec4f>;"].iter().any(|ty| rest.trim_start().starts_with(ty));
        if let (true, Ok(binding)) = (vectors && texels.len() < MAX_TEXTURES, binding.parse()) {
            texels.push(binding);
            let old = format!(
                "var<storage, read> {name}:{}",
                &rest[..=rest.find(';').expect("it ends a declaration")]
            );
            text = text.replace(&old, &format!("var {name}: texture_storage_2d<rgba32float, read>;"));
            text = index_by_texel(&text, name);
        }
    }
    let row = TEXELS_PER_ROW;
    text += &format!("\nfn texel(i: u32) -> vec2u {{ return vec2u(i % {row}u, i / {row}u); }}\n");
    Linked { wgsl: text, texels }
}

/// Replaces every `name[index]` by a texel fetch.
fn index_by_texel(text: &str, name: &str) -> String {
    let pattern = format!("{name}[");
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(&pattern) {
        let word = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
        let start = at + pattern.len();
        if word {
            out += &rest[..start];
            rest = &rest[start..];
            continue;
        }
        let mut depth = 1;
        let end = rest[start..]
            .find(|c| {
                depth += (c == '[') as i32 - (c == ']') as i32;
                depth == 0
            })
            .expect("WESL printed balanced brackets");
        let index = index_by_texel(&rest[start..start + end], name);
        out += &format!("{}textureLoad({name}, texel({index}))", &rest[..at]);
        rest = &rest[start + end + 1..];
    }
    out + rest
}

/// The kernel's file with its imports, constants and conditions resolved.
fn compose(kernel: &Kernel) -> Result<String> {
    let fail = |what: String| Error::failure(format!("shader {}: {}", kernel.label(), one_line(&what)));
    let mut resolver = VirtualResolver::new();
    for (name, embedded) in EMBEDDED {
        let text = overridden(name)?.map_or(Cow::Borrowed(*embedded), Cow::Owned);
        resolver.add_module(module(name), text);
    }
    let constants: String =
        kernel.constants.iter().map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).collect();
    resolver.add_module(module("constants"), constants.into());

    let mut options =
        CompileOptions { strip: true, keep: Some(vec![kernel.entry.into()]), ..Default::default() };
    options.features.default = Feature::Disable;
    for flag in &kernel.flags {
        options.features.flags.insert(flag.to_string(), Feature::Enable);
    }
    let mut linker = Wesl::new_barebones().set_custom_resolver(resolver);
    linker.set_options(options);
    let linked = linker.compile(&module(kernel.shader)).map_err(|e| fail(e.to_string()))?;
    Ok(linked.to_string())
}

/// Checks linked WGSL without a device.
pub fn validate(kernel: &Kernel, wgsl: &str) -> Result<()> {
    let fail = |what: String| Error::failure(format!("shader {}: {}", kernel.label(), one_line(&what)));
    let parsed = naga::front::wgsl::parse_str(wgsl).map_err(|e| fail(e.emit_to_string(wgsl)))?;
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    validator.validate(&parsed).map_err(|e| fail(e.emit_to_string(wgsl)))?;
    if parsed.entry_points.iter().any(|entry| entry.name == kernel.entry) {
        Ok(())
    } else {
        Err(fail(format!("no entry point '{}'", kernel.entry)))
    }
}

/// A compiler's message without colours and line breaks.
fn one_line(message: &str) -> String {
    let mut parts = message.split('\u{1b}');
    let mut plain = parts.next().unwrap_or("").to_string();
    parts.for_each(|part| plain += part.split_once('m').map_or("", |(_, text)| text));
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn module(name: &str) -> ModulePath {
    format!("package::{}", name.replace('/', "::")).parse().expect("file names are WGSL identifiers")
}

fn overridden(name: &str) -> Result<Option<String>> {
    let Some(folder) = std::env::var_os(OVERRIDE_VARIABLE) else { return Ok(None) };
    let path = PathBuf::from(folder).join(format!("{name}.wgsl"));
    if !path.exists() {
        return Ok(None);
    }
    std::fs::read_to_string(&path).map(Some).map_err(Error::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_inputs_become_textures() {
        let add = Kernel::new("add", "forward").constant("EG", 64).flag("vec4", true).flag("texels", true);
        let linked = link(&add).unwrap();
        assert_eq!(linked.texels, [0, 1]);
        assert!(linked.wgsl.contains("textureLoad(a, texel(i))"), "{}", linked.wgsl);
        validate(&add, &linked.wgsl).unwrap();
        assert_eq!(
            index_by_texel("xa[a[i] + a[0]] = ba[1];", "a"),
            "xa[textureLoad(a, texel(i)) + textureLoad(a, texel(0))] = ba[1];"
        );
    }

    #[test]
    fn a_broken_shader_is_named() {
        let kernel = Kernel::new("add", "missing").constant("EG", 64);
        let error = link(&kernel).and_then(|linked| validate(&kernel, &linked.wgsl)).unwrap_err();
        assert!(error.to_string().contains("add.missing"), "{error}");
    }
}
