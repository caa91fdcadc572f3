//! From a [`Kernel`] to WGSL: the file, its imports, its constants and conditions, linked by WESL.
//! Nothing outside this file knows how shaders are composed.

use crate::error::{Error, Result};
use super::kernel::Kernel;
use std::borrow::Cow;
use std::path::PathBuf;
use wesl::{CompileOptions, Feature, ModulePath, VirtualResolver, Wesl};

/// Every file under `shaders/`: (path without ending, text).
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// Folder whose files take the place of embedded shaders of the same name; for kernel development.
pub const OVERRIDE_VARIABLE: &str = "SMOLTER_SHADERS";

/// The linked WGSL of one kernel: plain text that any WGSL tool reads.
pub fn link(kernel: &Kernel) -> Result<String> {
    let fail = |what: String| Error::failure(format!("shader {}: {what}", kernel.label()));
    let mut resolver = VirtualResolver::new();
    for (name, embedded) in EMBEDDED {
        let text = overridden(name)?.map_or(Cow::Borrowed(*embedded), Cow::Owned);
        resolver.add_module(module(name), text);
    }
    let constants: String =
        kernel.constants.iter().map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).collect();
    resolver.add_module(module("constants"), constants.into());

    let mut options = CompileOptions { strip: true, keep: Some(vec![kernel.entry.into()]), ..Default::default() };
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
    let fail = |what: String| Error::failure(format!("shader {}: {what}", kernel.label()));
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
    fn a_broken_shader_is_named() {
        let kernel = Kernel::new("add", "missing").constant("EG", 64);
        let error = link(&kernel).and_then(|wgsl| validate(&kernel, &wgsl)).unwrap_err();
        assert!(error.to_string().contains("add.missing"), "{error}");
    }
}
