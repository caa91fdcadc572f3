//! How an op asks for GPU work: plain data that can be listed, validated and tested without a device.

/// Two ways of writing a kernel, chosen by what the adapter is (DESIGN section 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// Workgroup memory and barriers: hardware GPUs.
    Tiled,
    /// One small workgroup per vector register, no barriers: software adapters.
    Lanes,
}

/// What the device offers to kernels. Everything beyond [`Caps::baseline`] is optional.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Caps {
    /// Kernel family.
    pub family: Family,
    /// Subgroup size, if subgroup operations exist and the size is fixed.
    pub subgroup: Option<u32>,
    /// Whether vector inputs are better read as textures: on software adapters a storage load costs ten times a
    /// texel fetch, so inputs are copied to textures first.
    pub texels: bool,
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Cooperative matrices (tensor cores).
    pub coop: bool,
}

impl Caps {
    /// WebGPU's default limits and no feature: what every adapter has.
    pub const fn baseline() -> Self {
        Caps { family: Family::Tiled, subgroup: None, texels: false, f16: false, coop: false }
    }

    /// A software adapter with subgroups of `size`.
    pub const fn lanes(size: Option<u32>) -> Self {
        Caps { family: Family::Lanes, subgroup: size, texels: true, f16: false, coop: false }
    }

    /// Every combination that has kernels of its own; for tests that need no device.
    pub fn every() -> Vec<Caps> {
        vec![
            Caps::baseline(),
            Caps::lanes(None),
            Caps { texels: false, ..Caps::lanes(None) },
            Caps { texels: false, ..Caps::lanes(Some(8)) },
            Caps::lanes(Some(4)),
            Caps::lanes(Some(8)),
            Caps::lanes(Some(16)),
        ]
    }

    /// Width of a `lanes` workgroup, in invocations.
    pub fn lane_count(&self) -> u32 {
        self.subgroup.unwrap_or(8)
    }

    /// Name of the kernel family.
    pub fn family(&self) -> &'static str {
        match self.family {
            Family::Tiled => "tiled",
            Family::Lanes => "lanes",
        }
    }

    /// Optional features in use, in words.
    pub fn features(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.f16.then(|| "f16".to_string()));
        all.extend(self.coop.then(|| "cooperative matrix".to_string()));
        all.extend(self.texels.then(|| "inputs as textures".to_string()));
        all.extend(self.subgroup.map(|size| format!("subgroups of {size}")));
        all
    }

    /// Whether this is the `lanes` family.
    pub fn is_lanes(&self) -> bool {
        self.family == Family::Lanes
    }
}

/// A tensor of the node that a kernel binds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// Input `i`, bound read-only.
    In(usize),
    /// Output `i`, bound for reading and writing.
    Out(usize),
    /// Working memory `i`; bound as the shader declares it.
    Scratch(usize),
}

/// A tensor, or a window of it, bound to a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Which tensor.
    pub slot: Slot,
    /// Start of the window in bytes; a multiple of 256.
    pub offset: u64,
    /// Length of the window in bytes; `None` means to the end.
    pub bytes: Option<u64>,
    /// Whether a kernel with the flag `texels` reads it as a texture: the shader declares a read-only array of
    /// `vec4f`.
    pub texels: bool,
}

impl Binding {
    /// The same, read as a texture where the kernel reads textures.
    pub fn texels(self) -> Self {
        Binding { texels: true, ..self }
    }
}

impl From<Slot> for Binding {
    fn from(slot: Slot) -> Self {
        Binding { slot, offset: 0, bytes: None, texels: false }
    }
}

impl Slot {
    /// Rows `start..start + count` of a tensor whose rows are `row_bytes` long.
    pub fn rows(self, start: usize, count: usize, row_bytes: u64) -> Binding {
        let (offset, bytes) = (start as u64 * row_bytes, Some(count as u64 * row_bytes));
        Binding { offset, bytes, ..self.into() }
    }

    /// The whole tensor, read as a texture where the kernel reads textures; see [`Binding::texels`].
    pub fn texels(self) -> Binding {
        Binding::from(self).texels()
    }
}

/// One shader entry point, specialised: also the key of the pipeline cache.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    /// File stem under `shaders/`.
    pub shader: &'static str,
    /// Entry point in that file.
    pub entry: &'static str,
    /// Values of the constants that the file imports from `package::constants`.
    pub constants: Vec<(&'static str, u32)>,
    /// `@if` conditions that hold.
    pub flags: Vec<&'static str>,
    /// Bindings that are read as textures, at most [`MAX_TEXTURES`]; [`Dispatch::command`] fills it in.
    pub texels: Vec<usize>,
}

/// Storage textures per stage that WebGPU guarantees.
pub const MAX_TEXTURES: usize = 4;

impl Kernel {
    /// Entry `entry` of `shaders/<shader>.wgsl`.
    pub fn new(shader: &'static str, entry: &'static str) -> Self {
        Kernel { shader, entry, constants: Vec::new(), flags: Vec::new(), texels: Vec::new() }
    }

    /// Sets a constant.
    pub fn constant(mut self, name: &'static str, value: u32) -> Self {
        self.constants.push((name, value));
        self
    }

    /// Sets a condition.
    pub fn flag(mut self, name: &'static str, holds: bool) -> Self {
        if holds {
            self.flags.push(name);
        }
        self
    }

    /// Which of the kernel's textures a binding is, if it is one.
    pub fn texture(&self, binding: usize) -> Option<usize> {
        self.texels.iter().position(|&texels| texels == binding)
    }

    /// `shader.entry[flags,NAME=value]`: pipeline key, profile row and error text.
    pub fn label(&self) -> String {
        let mut parts: Vec<String> = self.flags.iter().map(|f| f.to_string()).collect();
        parts.extend(self.constants.iter().map(|(name, value)| format!("{name}={value}")));
        format!("{}.{}[{}]", self.shader, self.entry, parts.join(","))
    }
}

/// One kernel launch.
#[derive(Clone, PartialEq, Debug)]
pub struct Dispatch {
    /// What runs.
    pub kernel: Kernel,
    /// Storage bindings 0, 1, 2, ... in order.
    pub bindings: Vec<Binding>,
    /// Bytes of the uniform struct bound after the last storage binding; at most 256.
    pub params: Vec<u8>,
    /// Workgroups per dimension; each at most 65,535.
    pub grid: [u32; 3],
}

/// One step of a node's work on the device.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Runs a kernel.
    Dispatch(Dispatch),
    /// Fills a tensor with zeros.
    Clear(Slot),
}

impl Dispatch {
    /// A launch of `kernel` over `grid` workgroups. If the kernel has the flag `texels`, the first bindings that
    /// may be textures are.
    pub fn command<P: bytemuck::NoUninit>(
        mut kernel: Kernel,
        bindings: impl IntoIterator<Item = Binding>,
        params: &P,
        grid: [u32; 3],
    ) -> Command {
        debug_assert!(grid.iter().all(|&g| g <= MAX_GROUPS), "{}: grid {grid:?}", kernel.label());
        let bindings: Vec<Binding> = bindings.into_iter().collect();
        if kernel.flags.contains(&"texels") {
            kernel.texels = (0..bindings.len()).filter(|&i| bindings[i].texels).take(MAX_TEXTURES).collect();
        }
        Command::Dispatch(Dispatch { kernel, bindings, params: bytemuck::bytes_of(params).to_vec(), grid })
    }
}

/// Most workgroups per dimension that WebGPU guarantees.
pub const MAX_GROUPS: u32 = 65_535;

/// Folds `groups` workgroups into two dimensions; the shader recovers `x + y * num_workgroups.x`.
pub fn fold(groups: usize) -> [u32; 3] {
    let groups = groups.max(1) as u32;
    let y = groups.div_ceil(MAX_GROUPS);
    [groups.div_ceil(y), y, 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_four_declared_bindings_are_textures_if_the_kernel_reads_any() {
        let texels = |flag: bool| {
            let bindings = (0..7).map(|i| if i == 1 { Slot::In(i).into() } else { Slot::In(i).texels() });
            let kernel = Kernel::new("shader", "entry").flag("texels", flag);
            match Dispatch::command(kernel, bindings, &0u32, [1, 1, 1]) {
                Command::Dispatch(dispatch) => dispatch.kernel.texels,
                Command::Clear(_) => unreachable!("it is a launch"),
            }
        };
        assert_eq!(texels(true), [0, 2, 3, 4]);
        assert!(texels(false).is_empty());
    }
}
