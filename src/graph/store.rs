//! Weights and optimizer state of one model on one backend: allocated once, bound by any number of graphs.
//!
//! Graphs name what they bind: values of kind `Weight` and `OptimizerState` are the store's tensors of the same name. On
//! software adapters, where weights that nobody changes are better read as textures, such a weight has a texture of
//! its own and no buffer, unless there is optimizer state: what is trained is also saved, frozen parameters included. So
//! a store is planned for the graphs that will bind it.

use super::Graph;
use super::Kind;
use super::layout::{BufferPlan, Life, Place, STAGING, lay_out, slabs};
use super::reads::Reads;
use crate::error::Result;
use crate::gpu::recording::Operand;
use crate::gpu::texels::{TEXEL_ROW_BYTES, texel_rows};
use crate::gpu::{Caps, Device, Window};
use crate::ops::reference::Real;
use crate::ops::{Data, HostTensor, TensorType, ValueId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What a store will hold, and where. Plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorePlan {
    /// Buffers to allocate.
    pub buffers: Vec<BufferPlan>,
    tensors: BTreeMap<String, Stored>,
    /// Shards of each parameter.
    parameters: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    ty: TensorType,
    kind: Kind,
    /// None for one that has a texture of its own.
    place: Option<Place>,
}

/// The store's name of the optimizer state `state` of a parameter or a shard.
pub fn state_name(state: &str, of: &str) -> String {
    format!("{state} {of}")
}

impl StorePlan {
    /// A store for everything that `graphs` bind, with kernels chosen by `caps`.
    pub fn new(graphs: &[&Graph], caps: &Caps) -> StorePlan {
        let mut plan = StorePlan::default();
        let (mut as_texture, mut as_buffer) = (BTreeSet::new(), BTreeSet::new());
        for graph in graphs {
            for value in graph.values().iter().filter(|value| value.kind.is_stored()) {
                if graph.value(value.root).name == value.name {
                    let stored = Stored { ty: value.ty.clone(), kind: value.kind, place: None };
                    let before = plan.tensors.insert(value.name.clone(), stored.clone());
                    assert!(before.is_none_or(|before| before == stored), "two tensors named {}", value.name);
                }
            }
            for parameter in graph.parameters() {
                let shards = parameter.shards.iter().map(|&shard| graph.value(shard).name.clone());
                plan.parameters.insert(parameter.spec.name.clone(), shards.collect());
            }
            let reads = Reads::of(graph, caps);
            let name = |id: ValueId| graph.root(id).name.clone();
            as_texture.extend(reads.textures.iter().map(|&(_, id, _)| name(id)));
            as_buffer.extend(reads.buffers.iter().map(|&id| name(id)));
        }
        if plan.tensors.values().any(|stored| stored.kind == Kind::OptimizerState) {
            as_texture.clear();
        }
        for (kind, slab) in [(Kind::Weight, "weights"), (Kind::OptimizerState, "moments")] {
            let in_slab = |(name, stored): &(&String, &mut Stored)| {
                stored.kind == kind && (as_buffer.contains(*name) || !as_texture.contains(*name))
            };
            let mut stored: Vec<&mut Stored> =
                plan.tensors.iter_mut().filter(in_slab).map(|(_, stored)| stored).collect();
            let sizes: Vec<_> = stored.iter().map(|stored| (stored.ty.bytes(), Life::ALWAYS)).collect();
            let places = lay_out(&mut plan.buffers, slab, &sizes);
            stored.iter_mut().zip(places).for_each(|(stored, place)| stored.place = Some(place));
        }
        plan
    }

    /// Whether a weight has a texture of its own.
    pub fn is_texture(&self, tensor: &str) -> bool {
        self.tensors.get(tensor).is_some_and(|stored| stored.place.is_none())
    }

    /// Where a tensor lies in the buffers, if it does.
    pub fn place(&self, tensor: &str) -> Option<Place> {
        self.tensors.get(tensor)?.place
    }

    /// Everything that will be allocated, in bytes.
    pub fn total(&self) -> u64 {
        self.slabs().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes per slab.
    pub fn slabs(&self) -> Vec<(String, u64)> {
        let mut all = slabs(&self.buffers);
        let textures = self.tensors.values().filter(|stored| stored.place.is_none());
        let textures: u64 = textures.map(|stored| texture_rows(&stored.ty) as u64 * TEXEL_ROW_BYTES).sum();
        if textures > 0 {
            all.push(("weights as textures".into(), textures));
        }
        all.push(("staging for weights".into(), STAGING));
        all
    }

    fn shards(&self, parameter: &str) -> &[String] {
        let shards = self.parameters.get(parameter);
        shards.unwrap_or_else(|| panic!("the model has no parameter {parameter}"))
    }

    fn stored(&self, tensor: &str) -> &Stored {
        self.tensors.get(tensor).unwrap_or_else(|| panic!("the store has no tensor {tensor}"))
    }
}

fn texture_rows(ty: &TensorType) -> u32 {
    texel_rows(ty.bytes())
}

/// Weights and optimizer state in memory. They start at zero.
pub struct Store {
    plan: StorePlan,
    memory: Memory,
    /// Counts the changes of its tensors.
    version: AtomicU64,
}

/// A store's memory, by backend.
pub(super) enum Memory {
    Device(Box<DeviceMemory>),
    F32(HostMemory<f32>),
    F64(HostMemory<f64>),
}

/// Buffers and textures.
pub(super) struct DeviceMemory {
    /// Counts what the store allocates.
    device: Device,
    buffers: Vec<wgpu::Buffer>,
    textures: HashMap<String, wgpu::Texture>,
    staging: Mutex<wgpu::Buffer>,
}

/// Tensors by name; an executor takes those that it binds for the time of a run.
pub(super) type HostMemory<T> = Arc<Mutex<HashMap<String, Data<T>>>>;

fn host_memory<T: Real>(plan: &StorePlan) -> HostMemory<T> {
    let zeros = plan.tensors.iter().map(|(name, stored)| (name.clone(), Data::zeros(&stored.ty)));
    Arc::new(Mutex::new(zeros.collect()))
}

impl Store {
    /// Allocates `plan` on a device.
    pub(super) fn on_device(device: &Device, plan: StorePlan) -> Result<Store> {
        let device = device.with_own_count();
        let buffers =
            plan.buffers.iter().map(|b| device.tensor_buffer(&b.name, b.bytes)).collect::<Result<_>>()?;
        let textures = plan.tensors.iter().filter(|(_, stored)| stored.place.is_none());
        let texture = |(name, stored): (&String, &Stored)| {
            Ok((name.clone(), device.texel_texture(texture_rows(&stored.ty))?))
        };
        let textures = textures.map(texture).collect::<Result<_>>()?;
        let staging = Mutex::new(device.staging_buffer("staging for weights", STAGING)?);
        Ok(Store::new(plan, Memory::Device(Box::new(DeviceMemory { device, buffers, textures, staging }))))
    }

    /// Allocates `plan` on the host, in f32.
    pub(super) fn in_f32(plan: StorePlan) -> Store {
        let memory = Memory::F32(host_memory(&plan));
        Store::new(plan, memory)
    }

    /// Allocates `plan` on the host, in f64.
    pub(super) fn in_f64(plan: StorePlan) -> Store {
        let memory = Memory::F64(host_memory(&plan));
        Store::new(plan, memory)
    }

    fn new(plan: StorePlan, memory: Memory) -> Store {
        Store { plan, memory, version: AtomicU64::new(0) }
    }

    /// Another number whenever a tensor may have changed: what was computed before is then out of date.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Says that a tensor may have changed.
    pub(super) fn changed(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What it holds.
    pub fn plan(&self) -> &StorePlan {
        &self.plan
    }

    /// Bytes allocated.
    pub fn allocated(&self) -> u64 {
        match &self.memory {
            Memory::Device(memory) => memory.device.allocated(),
            Memory::F32(memory) => host_bytes(memory),
            Memory::F64(memory) => host_bytes(memory),
        }
    }

    /// Writes a whole parameter.
    pub fn write(&self, parameter: &str, values: &[f32]) {
        self.write_shards(self.plan.shards(parameter).iter().cloned(), values);
    }

    /// Writes the optimizer state `state` of a parameter.
    pub fn write_state(&self, state: &str, parameter: &str, values: &[f32]) {
        self.write_shards(self.plan.shards(parameter).iter().map(|shard| state_name(state, shard)), values);
    }

    /// Reads a whole parameter.
    pub fn read(&self, parameter: &str) -> Result<Vec<f32>> {
        self.read_shards(self.plan.shards(parameter).iter().cloned())
    }

    /// Reads the optimizer state `state` of a parameter.
    pub fn read_state(&self, state: &str, parameter: &str) -> Result<Vec<f32>> {
        self.read_shards(self.plan.shards(parameter).iter().map(|shard| state_name(state, shard)))
    }

    fn write_shards(&self, shards: impl Iterator<Item = String>, values: &[f32]) {
        let mut rest = values;
        for shard in shards {
            let (now, later) = rest.split_at(self.plan.stored(&shard).ty.elements());
            self.write_tensor(&shard, now.into());
            rest = later;
        }
        assert!(rest.is_empty(), "{} values too many", rest.len());
    }

    fn read_shards(&self, shards: impl Iterator<Item = String>) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for shard in shards {
            values.extend(self.read_tensor(&shard)?.into_f32());
        }
        Ok(values)
    }

    fn write_tensor(&self, tensor: &str, data: HostTensor) {
        let ty = &self.plan.stored(tensor).ty;
        assert_eq!(data.element(), ty.element, "a write must have the tensor's type");
        assert_eq!(data.bytes().len() as u64, ty.bytes(), "a write must fill the tensor");
        self.changed();
        match &self.memory {
            Memory::Device(memory) => match self.operand(memory, tensor) {
                Operand::Texture(texture) => memory.device.write_texels(&texture, data.bytes()),
                Operand::Window(window) => {
                    memory.device.write(&window.buffer, window.offset, data.bytes());
                }
            },
            Memory::F32(memory) => host_write(memory, tensor, &data),
            Memory::F64(memory) => host_write(memory, tensor, &data),
        }
    }

    fn read_tensor(&self, tensor: &str) -> Result<HostTensor<'static>> {
        match &self.memory {
            Memory::Device(memory) => {
                let Operand::Window(window) = self.operand(memory, tensor) else {
                    panic!("{tensor} is in a texture: what nobody changes need not be read back");
                };
                let staging = memory.staging.lock().expect("no thread panics while it reads");
                let bytes = read_window(&memory.device, &window, &staging)?;
                Ok(HostTensor::from_bytes(self.plan.stored(tensor).ty.element, &bytes))
            }
            Memory::F32(memory) => Ok(host_read(memory, tensor)),
            Memory::F64(memory) => Ok(host_read(memory, tensor)),
        }
    }

    /// What launches bind for a tensor.
    pub(super) fn operand(&self, memory: &DeviceMemory, tensor: &str) -> Operand {
        match self.plan.stored(tensor).place {
            None => Operand::Texture(memory.textures[tensor].clone()),
            Some(Place { buffer, offset, bytes }) => {
                Operand::Window(Window { buffer: memory.buffers[buffer].clone(), offset, bytes })
            }
        }
    }
}

/// Bytes of a window of a buffer, through a staging buffer of [`STAGING`] bytes.
pub(super) fn read_window(device: &Device, window: &Window, staging: &wgpu::Buffer) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(window.bytes as usize);
    for start in (0..window.bytes).step_by(STAGING as usize) {
        let bytes = STAGING.min(window.bytes - start);
        let part = Window { offset: window.offset + start, bytes, buffer: window.buffer.clone() };
        let copied = device.copy_to_staging(&part, staging);
        data.extend_from_slice(&device.read_mapped(staging, bytes, Some(copied))?);
    }
    Ok(data)
}

fn host_bytes<T: Real>(memory: &HostMemory<T>) -> u64 {
    memory.lock().expect("no thread panics in a run").values().map(Data::bytes).sum()
}

fn host_write<T: Real>(memory: &HostMemory<T>, tensor: &str, data: &HostTensor) {
    let mut tensors = memory.lock().expect("no thread panics in a run");
    *tensors.get_mut(tensor).expect("a tensor of the plan") = Data::of(data);
}

fn host_read<T: Real>(memory: &HostMemory<T>, tensor: &str) -> HostTensor<'static> {
    memory.lock().expect("no thread panics in a run")[tensor].to_host()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Initial, ParameterSpec, Plan};
    use crate::ops::add::Add;
    use crate::ops::matmul::Matmul;
    use crate::ops::zero::Zero;

    /// `y = x w^T` with 128 rows of x, and a program that zeroes w if it is `changed`.
    fn product(changed: bool) -> Graph {
        let mut graph = Graph::new();
        let x = graph.input("x", TensorType::f32(&[128, 256]));
        let spec = ParameterSpec {
            name: "w".into(),
            shape: vec![64, 256],
            initial: Initial::Ones,
            trained: false,
            decayed: false,
        };
        let w = graph.parameter(spec).whole();
        graph.program("product");
        let y = graph.push(Matmul::linear(), &[x, w])[0];
        graph.keep(y);
        if changed {
            graph.program("change");
            graph.push(Zero, &[w]);
        }
        graph
    }

    #[test]
    fn a_weight_is_a_texture_where_no_graph_needs_its_buffer() {
        let (read, changed, lanes) = (product(false), product(true), Caps::lanes(Some(8)));
        let frozen = StorePlan::new(&[&read], &lanes);
        assert!(frozen.is_texture("w") && frozen.buffers.is_empty());
        let both = StorePlan::new(&[&read, &changed], &lanes);
        assert!(!both.is_texture("w") && both.place("w").is_some());
        assert!(!StorePlan::new(&[&read], &Caps::baseline()).is_texture("w"));
        // A launch fills a texture of the graph's own where the store has none.
        let rows = |store: &StorePlan| Plan::new(&read, &lanes, store).texel_rows.iter().sum::<u32>();
        assert!(rows(&both) > rows(&frozen));
    }

    #[test]
    #[should_panic(expected = "planned without this graph")]
    fn a_graph_that_the_store_does_not_suit_is_seen() {
        let lanes = Caps::lanes(Some(8));
        Plan::new(&product(true), &lanes, &StorePlan::new(&[&product(false)], &lanes));
    }

    #[test]
    fn changes_are_counted() {
        let graph = product(true);
        let store = Arc::new(Store::in_f32(StorePlan::new(&[&graph], &Caps::baseline())));
        let before = store.version();
        store.write("w", &[1.0; 64 * 256]);
        assert!(store.version() != before);
        let changes: Vec<bool> = graph.programs().map(|program| graph.changes_store(program)).collect();
        assert_eq!(changes, [false, true]);
        let mut other = Graph::new();
        let x = other.input("x", TensorType::f32(&[4]));
        let program = other.program("add");
        other.push(Add, &[x, x]);
        assert!(!other.changes_store(program));
    }
}
