//! From a [`Kernel`] to WGSL: the file, its imports, its constants and conditions, linked by WESL.
//! Nothing outside this file knows how shaders are composed.

use super::kernel::Kernel;
use super::syntax::for_each_expression;
use super::texels::TEXELS_PER_ROW;
use crate::error::{Error, Result};
use crate::files;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use wesl::syntax::{
    AccessMode, AddressSpace, Attribute, Declaration, DeclarationKind, Expression, ExpressionNode,
    FunctionCall, GlobalDeclaration, Ident, TemplateArg, TranslationUnit, TypeExpression,
};
use wesl::{CompileOptions, Feature, ModulePath, VirtualResolver, Wesl};

/// Every file under `shaders/`: (path without ending, text).
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// Folder whose files take the place of embedded shaders of the same name; for kernel development.
pub const OVERRIDE_VARIABLE: &str = "SMOLTER_SHADERS";

/// A kernel as one piece of WGSL: plain text that any WGSL tool reads. Results are kept.
pub fn link(kernel: &Kernel) -> Result<Arc<str>> {
    static KEPT: LazyLock<Mutex<HashMap<Kernel, Arc<str>>>> = LazyLock::new(Mutex::default);
    if let Some(linked) = KEPT.lock().ok().and_then(|kept| kept.get(kernel).cloned()) {
        return Ok(linked);
    }
    let mut unit = compose(kernel)?;
    read_as_texels(&mut unit, &kernel.texels).map_err(|what| failure(kernel, &what))?;
    let linked: Arc<str> = unit.to_string().into();
    if let Ok(mut kept) = KEPT.lock() {
        kept.insert(kernel.clone(), linked.clone());
    }
    Ok(linked)
}

/// Turns buffers of vectors, given by binding, into textures: `x[i]` becomes `textureLoad(x, texel(i))`. One rewrite
/// here instead of a second declaration and a load function for every input of every kernel.
fn read_as_texels(unit: &mut TranslationUnit, bindings: &[usize]) -> std::result::Result<(), String> {
    let textures: Vec<Ident> = bindings
        .iter()
        .map(|&binding| declare_texture(unit, binding))
        .collect::<std::result::Result<_, _>>()?;
    if textures.is_empty() {
        return Ok(());
    }
    // Identifiers are equal if they mean the same declaration, so a local variable may have a texture's name.
    for_each_expression(unit, &mut |expression| {
        if let Expression::Indexing(access) = expression
            && let Expression::TypeOrIdentifier(base) = access.base.node()
            && textures.contains(&base.ident)
        {
            let texel = call("texel", [access.index.clone()]);
            *expression = call("textureLoad", [access.base.clone(), texel.into()]);
        }
    });
    let row = TEXELS_PER_ROW;
    let texel = format!("fn texel(i: u32) -> vec2u {{ return vec2u(i % {row}u, i / {row}u); }}");
    unit.global_declarations.push(texel.parse::<GlobalDeclaration>().expect("it is WGSL").into());
    Ok(())
}

/// Declares the buffer at `binding` as a texture, and returns its name.
fn declare_texture(unit: &mut TranslationUnit, binding: usize) -> std::result::Result<Ident, String> {
    let is_vec4f = |ty: &TypeExpression| matches!(ty.to_string().as_str(), "vec4f" | "vec4<f32>");
    let mut aliases = Vec::new();
    let mut found = None;
    for declaration in &mut unit.global_declarations {
        match declaration.node_mut() {
            GlobalDeclaration::TypeAlias(alias) if is_vec4f(&alias.ty) => aliases.push(alias.ident.clone()),
            GlobalDeclaration::Declaration(variable) if binding_of(variable) == Some(binding) => {
                found = Some(variable);
            }
            _ => {}
        }
    }
    let Some(variable) = found else {
        return Err(format!("binding {binding} is to be read as a texture, but the kernel has none"));
    };
    let read_only = matches!(
        variable.kind,
        DeclarationKind::Var(Some((AddressSpace::Storage, None | Some(AccessMode::Read))))
    );
    let of_vectors =
        variable.ty.as_ref().and_then(element).is_some_and(|ty| is_vec4f(ty) || aliases.contains(&ty.ident));
    if !read_only || !of_vectors {
        return Err(format!(
            "binding {binding} ('{}') is to be read as a texture, but is no read-only array of vec4f",
            variable.ident.name()
        ));
    }
    let arguments = ["rgba32float", "read"].map(|name| TemplateArg { expression: identifier(name).into() });
    variable.kind = DeclarationKind::Var(None);
    variable.ty = Some(TypeExpression {
        template_args: Some(arguments.to_vec()),
        ..TypeExpression::new(Ident::new("texture_storage_2d".into()))
    });
    Ok(variable.ident.clone())
}

/// The `@binding` of a variable.
fn binding_of(variable: &Declaration) -> Option<usize> {
    variable.attributes.iter().find_map(|attribute| match attribute.node() {
        Attribute::Binding(number) => number.to_string().parse().ok(),
        _ => None,
    })
}

/// The element type of an array type.
fn element(array: &TypeExpression) -> Option<&TypeExpression> {
    match array.template_args.as_ref()?.first()?.expression.node() {
        Expression::TypeOrIdentifier(element) if *array.ident.name() == "array" => Some(element),
        _ => None,
    }
}

fn identifier(name: &str) -> Expression {
    TypeExpression::new(Ident::new(name.into())).into()
}

fn call<const N: usize>(function: &str, arguments: [ExpressionNode; N]) -> Expression {
    FunctionCall { ty: TypeExpression::new(Ident::new(function.into())), arguments: arguments.into() }.into()
}

/// The kernel's file with its imports, constants and conditions resolved.
fn compose(kernel: &Kernel) -> Result<TranslationUnit> {
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
    let linked = linker.compile(&module(kernel.shader)).map_err(|e| failure(kernel, &e.to_string()))?;
    Ok(linked.syntax)
}

/// Bytes of workgroup memory of every WebGPU device.
const WORKGROUP_BYTES: u32 = 16 << 10;

/// Checks linked WGSL without a device: that it is sound, has the entry point, and keeps to the workgroup memory that
/// WebGPU guarantees.
pub fn validate(kernel: &Kernel, wgsl: &str) -> Result<()> {
    let fail = |what: &str| failure(kernel, what);
    let parsed = naga::front::wgsl::parse_str(wgsl).map_err(|e| fail(&e.emit_to_string(wgsl)))?;
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    validator.validate(&parsed).map_err(|e| fail(&e.emit_to_string(wgsl)))?;
    if !parsed.entry_points.iter().any(|entry| entry.name == kernel.entry) {
        return Err(fail(&format!("no entry point '{}'", kernel.entry)));
    }
    // Linking strips what the entry point does not use.
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(parsed.to_ctx()).map_err(|e| fail(&e.to_string()))?;
    let shared = parsed.global_variables.iter().filter(|(_, it)| it.space == naga::AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, variable)| layouter[variable.ty].size).sum();
    if bytes > WORKGROUP_BYTES {
        return Err(fail(&format!("{bytes} bytes of workgroup memory, more than {WORKGROUP_BYTES}")));
    }
    Ok(())
}

fn failure(kernel: &Kernel, what: &str) -> Error {
    Error::failure(format!("shader {}: {}", kernel.label(), one_line(what)))
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
    files::read_text(&path, files::SETTINGS).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wesl::SyntaxUtil;

    /// `add` with `texels` as textures.
    fn add(texels: &[usize]) -> Kernel {
        let kernel = Kernel::new("add", "forward").constant("EG", 64).flag("vec4", true);
        Kernel { texels: texels.to_vec(), ..kernel }
    }

    #[test]
    fn declared_bindings_become_textures() {
        let linked = link(&add(&[1])).unwrap();
        assert!(linked.contains("a[i]") && linked.contains("textureLoad(b, texel(i))"), "{linked}");
        validate(&add(&[1]), &linked).unwrap();
    }

    #[test]
    fn every_access_is_rewritten_and_nothing_else() {
        let mut unit: TranslationUnit = "
            @group(0) @binding(3) var<storage, read> a: array<vec4<f32>>;
            @group(0) @binding(4) var<storage, read_write> ba: array<vec4f>;
            @compute @workgroup_size(1)
            fn main() {
                for (var i = u32(a[0].x); a[i].x < 1.0; i += u32(a[1][2])) {
                    if (all(a[2] == vec4f())) { ba[u32(a[u32(a[3].x)].y)] = -(a[4] + ba[u32(a[5].z)]); }
                    else { while (a[6].x > 0.0) { ba[u32(a[7].x)].x += 1.0; } }
                    loop { switch u32(a[8].x) { default: { ba[0] = max(a[9], ba[1]); } } continuing { break if a[10].x > 0.0; } }
                }
                { var a = array<f32, 4>(); a[0] = 1.0; ba[2].x = a[1]; }
            }"
        .parse()
        .unwrap();
        unit.retarget_idents();
        read_as_texels(&mut unit, &[3]).unwrap();
        let text = unit.to_string();
        for i in 0..=10 {
            assert!(i == 3 || text.contains(&format!("textureLoad(a, texel({i}))")), "{i}: {text}");
        }
        assert!(text.contains("textureLoad(a, texel(u32(textureLoad(a, texel(3)).x))).y"), "{text}");
        assert!(text.contains("a[0] = 1") && text.contains("ba[2].x = a[1]"), "{text}");
        let kernel = Kernel::new("test", "main");
        validate(&kernel, &text).unwrap();
    }

    #[test]
    fn what_is_no_buffer_of_vectors_is_named() {
        let scalars = Kernel { texels: vec![0], ..Kernel::new("add", "forward").constant("EG", 64) };
        for (kernel, words) in [
            (add(&[0, 2]), "binding 2 ('y') is to be read as a texture, but is no read-only array of vec4f"),
            (add(&[3]), "binding 3 ('p') is to be read as a texture, but is no read-only array of vec4f"),
            (add(&[4]), "binding 4 is to be read as a texture, but the kernel has none"),
            (scalars, "binding 0 ('a') is to be read as a texture, but is no read-only array of vec4f"),
        ] {
            let error = link(&kernel).unwrap_err().to_string();
            assert!(error.contains("add.forward[") && error.contains(words), "{error}");
        }
    }

    #[test]
    fn too_much_workgroup_memory_is_refused() {
        let kernel = |keys| {
            let kernel = Kernel::new("attention_forward", "forward").flag("vec4", true);
            kernel.constant("HEAD_DIM", 160).constant("QUERIES", 64).constant("KEYS", keys)
        };
        let check = |kernel: Kernel| validate(&kernel, &link(&kernel).unwrap());
        check(kernel(12)).unwrap();
        let error = check(kernel(16)).unwrap_err().to_string();
        assert!(error.contains("20480 bytes of workgroup memory"), "{error}");
    }

    #[test]
    fn a_broken_shader_is_named() {
        let kernel = Kernel::new("add", "missing").constant("EG", 64);
        let error = link(&kernel).and_then(|linked| validate(&kernel, &linked)).unwrap_err();
        assert!(error.to_string().contains("add.missing"), "{error}");
    }
}
