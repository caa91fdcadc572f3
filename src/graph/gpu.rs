//! Executor on the device: allocates the plan, records every program once, replays.

use super::executor::{Executor, Ticket};
use super::layout::STAGING;
use super::plan::{Plan, deferrable};
use super::store::{Memory, Store, read_window};
use super::{Graph, Node, ProgramId};
use crate::error::Result;
use crate::gpu::kernel::{Binding, Command};
use crate::gpu::recording::{Operand, Recording};
use crate::gpu::{Device, Window};
use crate::ops::{ElementType, HostTensor, Io, ValueId};
use std::collections::HashMap;
use std::sync::Arc;

/// A graph on a device.
pub struct GpuExecutor {
    device: Arc<Device>,
    plan: Plan,
    elements: Vec<ElementType>,
    buffers: Vec<wgpu::Buffer>,
    /// Textures that launches fill in turn, on software adapters.
    texels: Vec<wgpu::Texture>,
    /// Keeps the weights for as long as there are launches that bind them.
    store: Arc<Store>,
    programs: Vec<Recording>,
    /// Whether each program changes the store.
    changes_store: Vec<bool>,
    staging: wgpu::Buffer,
    /// Per value that is read without waiting.
    deferred: HashMap<ValueId, Deferred>,
}

/// Two staging buffers that are used in turn.
struct Deferred {
    staging: [wgpu::Buffer; 2],
    /// The submission that fills each.
    copied: [Option<wgpu::SubmissionIndex>; 2],
    /// Which one is next.
    next: usize,
}

impl GpuExecutor {
    /// Allocates and records `graph` as `plan` says, with weights in `store`.
    pub fn new(device: Arc<Device>, graph: &Graph, plan: Plan, store: Arc<Store>) -> Result<Self> {
        let device = Arc::new(device.with_own_count());
        let buffers = plan
            .buffers
            .iter()
            .map(|b| device.tensor_buffer(&b.name, b.bytes))
            .collect::<Result<Vec<_>>>()?;
        let texels = plan.texel_rows.iter().map(|&rows| device.texel_texture(rows)).collect::<Result<_>>()?;
        let staging = device.staging_buffer("staging", STAGING)?;
        let mut deferred = HashMap::new();
        for id in deferrable(graph) {
            let bytes = graph.value(id).ty.bytes();
            let staging = [
                device.staging_buffer("deferred read", bytes)?,
                device.staging_buffer("deferred read", bytes)?,
            ];
            deferred.insert(id, Deferred { staging, copied: [None, None], next: 0 });
        }
        let elements = graph.values().iter().map(|value| value.ty.element).collect();
        let changes_store = graph.programs().map(|program| graph.changes_store(program)).collect();
        let programs = Vec::new();
        let mut executor = GpuExecutor {
            device,
            plan,
            elements,
            buffers,
            texels,
            store,
            programs,
            changes_store,
            staging,
            deferred,
        };
        for program in graph.programs() {
            executor.record(graph, program)?;
        }
        Ok(executor)
    }

    fn record(&mut self, graph: &Graph, program: ProgramId) -> Result<()> {
        let nodes: Vec<(&Node, Vec<Command>)> = graph
            .nodes()
            .iter()
            .filter(|node| node.program == program)
            .map(|node| {
                let (inputs, signature) = graph.types(node);
                let io = Io { inputs: &inputs, signature: &signature };
                (node, node.op.def().lower(&io, &self.device.caps))
            })
            .collect();
        let launches = nodes
            .iter()
            .flat_map(|(_, commands)| commands)
            .filter(|command| matches!(command, Command::Dispatch(_)))
            .count();
        let mut recording = Recording::new(self.device.clone(), launches, self.texels.clone())?;
        for (node, commands) in nodes {
            recording.span(node.op.def().name().into());
            for command in commands {
                match command {
                    Command::Clear(slot) => match self.operand(graph, node, slot.into()) {
                        Operand::Window(window) => recording.clear(window),
                        Operand::Texture(_) => unreachable!("a weight that is written has a buffer"),
                    },
                    Command::Dispatch(dispatch) => {
                        let operand = |&binding: &Binding| self.operand(graph, node, binding);
                        let operands: Vec<Operand> = dispatch.bindings.iter().map(operand).collect();
                        recording.launch(&dispatch, &operands)?;
                    }
                }
            }
        }
        self.programs.push(recording);
        Ok(())
    }

    /// What a launch binds: a window of the graph's own memory or of the store's, or a weight's texture.
    fn operand(&self, graph: &Graph, node: &Node, binding: Binding) -> Operand {
        let root = graph.root(node.operand(binding.slot));
        let whole = match (root.kind.is_stored(), self.store.memory()) {
            (false, _) => Operand::Window(self.whole(root.root)),
            (true, Memory::Device(memory)) => self.store.operand(memory, &root.name),
            (true, _) => panic!("the store of '{}' is on the host", root.name),
        };
        let Operand::Window(mut window) = whole else { return whole };
        window.offset += binding.offset;
        window.bytes = binding.bytes.unwrap_or(window.bytes - binding.offset);
        Operand::Window(window)
    }

    fn whole(&self, id: ValueId) -> Window {
        let place = self.plan.place(id);
        Window { buffer: self.buffers[place.buffer].clone(), offset: place.offset, bytes: place.bytes }
    }

    fn element(&self, id: ValueId) -> ElementType {
        self.elements[id.0 as usize]
    }
}

impl Executor for GpuExecutor {
    fn description(&self) -> String {
        self.device.description.clone()
    }

    fn write(&mut self, value: ValueId, data: HostTensor) {
        let place = self.plan.place(value);
        assert_eq!(data.element(), self.element(value), "a write must have the value's type");
        assert_eq!(data.bytes().len() as u64, place.bytes, "a write must fill the value");
        self.device.write(&self.buffers[place.buffer], place.offset, data.bytes());
    }

    fn run(&mut self, program: ProgramId) -> Result<()> {
        if self.changes_store[program.0 as usize] {
            self.store.changed();
        }
        self.programs[program.0 as usize].replay()
    }

    fn read(&mut self, value: ValueId) -> Result<HostTensor<'static>> {
        let bytes = read_window(&self.device, &self.whole(value), &self.staging)?;
        Ok(HostTensor::from_bytes(self.element(value), &bytes))
    }

    fn read_later(&mut self, value: ValueId) -> Result<Ticket> {
        let window = self.whole(value);
        let deferred = self.deferred.get_mut(&value).expect("only small kept values are read later");
        let slot = deferred.next;
        assert!(deferred.copied[slot].is_none(), "a third read of one value is open at a time");
        deferred.next = 1 - slot;
        deferred.copied[slot] = Some(self.device.copy_to_staging(&window, &deferred.staging[slot]));
        Ok(Ticket { value, slot, ready: None })
    }

    fn fetch(&mut self, ticket: Ticket) -> Result<HostTensor<'static>> {
        let bytes = self.plan.place(ticket.value).bytes;
        let deferred =
            self.deferred.get_mut(&ticket.value).expect("the ticket names a value that is read later");
        let copied = deferred.copied[ticket.slot].take();
        let read = self.device.read_mapped(&deferred.staging[ticket.slot], bytes, copied)?;
        Ok(HostTensor::from_bytes(self.element(ticket.value), &read))
    }

    fn is_done(&self, _ticket: &Ticket) -> bool {
        self.device.is_idle()
    }

    fn allocated(&self) -> u64 {
        self.device.allocated()
    }

    fn profile(&self, program: ProgramId) -> Vec<(String, f64)> {
        self.programs[program.0 as usize]
            .times()
            .map(|(label, time)| (label.into(), time.as_secs_f64()))
            .collect()
    }
}
