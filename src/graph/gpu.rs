//! Executor on the device: allocates the plan, records every program once, replays.

use super::executor::{Executor, Ticket};
use super::plan::{Plan, STAGING, deferrable};
use super::{Graph, Node, ProgramId};
use crate::error::Result;
use crate::gpu::kernel::{Binding, Command};
use crate::gpu::recording::{Operand, Recording};
use crate::gpu::texels::texel_rows;
use crate::gpu::{Device, Window};
use crate::ops::{Io, ValueId};
use std::collections::HashMap;
use std::sync::Arc;

/// A graph on a device.
pub struct GpuExecutor {
    device: Arc<Device>,
    plan: Plan,
    buffers: Vec<wgpu::Buffer>,
    /// Textures that launches fill in turn, on software adapters.
    texels: Vec<wgpu::Texture>,
    /// Weights that are in textures of their own, and not in buffers.
    weights: HashMap<ValueId, wgpu::Texture>,
    programs: Vec<Recording>,
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
    /// Allocates and records `graph` as `plan` says.
    pub fn new(device: Arc<Device>, graph: &Graph, plan: Plan) -> Result<Self> {
        let device = Arc::new(device.with_own_count());
        let buffers = plan
            .buffers
            .iter()
            .map(|b| device.tensor_buffer(&b.name, b.bytes))
            .collect::<Result<Vec<_>>>()?;
        let texels =
            plan.texels.shared_rows.iter().map(|&rows| device.texel_texture(rows)).collect::<Result<_>>()?;
        let own = |&id| Ok((id, device.texel_texture(texel_rows(plan.place(id).bytes))?));
        let weights = plan.texels.weights.iter().map(own).collect::<Result<_>>()?;
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
        let mut executor =
            GpuExecutor { device, plan, buffers, texels, weights, programs: Vec::new(), staging, deferred };
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
                    Command::Clear(slot) => recording.clear(self.window(node, slot.into())),
                    Command::Dispatch(dispatch) => {
                        let operand = |&binding: &Binding| match self.weights.get(&node.operand(binding.slot))
                        {
                            Some(texture) => Operand::Texture(texture.clone()),
                            None => Operand::Window(self.window(node, binding)),
                        };
                        let operands: Vec<Operand> = dispatch.bindings.iter().map(operand).collect();
                        recording.launch(&dispatch, &operands)?;
                    }
                }
            }
        }
        self.programs.push(recording);
        Ok(())
    }

    fn window(&self, node: &Node, binding: Binding) -> Window {
        let mut window = self.whole(node.operand(binding.slot));
        window.offset += binding.offset;
        window.bytes = binding.bytes.unwrap_or(window.bytes - binding.offset);
        window
    }

    fn whole(&self, id: ValueId) -> Window {
        let place = self.plan.place(id);
        Window { buffer: self.buffers[place.buffer].clone(), offset: place.offset, bytes: place.bytes }
    }

    fn read_all<T: bytemuck::Pod>(&mut self, value: ValueId) -> Result<Vec<T>> {
        let whole = self.whole(value);
        let mut data = Vec::with_capacity((whole.bytes / 4) as usize);
        for start in (0..whole.bytes).step_by(STAGING as usize) {
            let bytes = STAGING.min(whole.bytes - start);
            let window = Window { offset: whole.offset + start, bytes, buffer: whole.buffer.clone() };
            let copied = self.device.copy_to_staging(&window, &self.staging);
            let read = self.device.read_mapped(&self.staging, bytes, Some(copied))?;
            data.extend(bytemuck::pod_collect_to_vec::<u8, T>(&read));
        }
        Ok(data)
    }

    fn write(&mut self, value: ValueId, bytes: &[u8]) {
        let place = self.plan.place(value);
        assert_eq!(bytes.len() as u64, place.bytes, "a write must fill the value");
        match self.weights.get(&value) {
            Some(texture) => self.device.write_texels(texture, bytes),
            None => self.device.write(&self.buffers[place.buffer], place.offset, bytes),
        }
    }
}

impl Executor for GpuExecutor {
    fn description(&self) -> String {
        self.device.description.clone()
    }

    fn write_f32(&mut self, value: ValueId, data: &[f32]) {
        self.write(value, bytemuck::cast_slice(data));
    }

    fn write_u32(&mut self, value: ValueId, data: &[u32]) {
        self.write(value, bytemuck::cast_slice(data));
    }

    fn run(&mut self, program: ProgramId) -> Result<()> {
        self.programs[program.0 as usize].replay()
    }

    fn read(&mut self, value: ValueId) -> Result<Vec<f32>> {
        self.read_all(value)
    }

    fn read_u32(&mut self, value: ValueId) -> Result<Vec<u32>> {
        self.read_all(value)
    }

    fn read_later(&mut self, value: ValueId) -> Result<Ticket> {
        let window = self.whole(value);
        let deferred = self.deferred.get_mut(&value).expect("only small kept values are read later");
        let slot = deferred.next;
        deferred.next = 1 - slot;
        deferred.copied[slot] = Some(self.device.copy_to_staging(&window, &deferred.staging[slot]));
        Ok(Ticket { value, slot, ready: None })
    }

    fn fetch(&mut self, ticket: Ticket) -> Result<Vec<f32>> {
        let bytes = self.plan.place(ticket.value).bytes;
        let deferred =
            self.deferred.get_mut(&ticket.value).expect("the ticket names a value that is read later");
        let copied = deferred.copied[ticket.slot].take();
        let read = self.device.read_mapped(&deferred.staging[ticket.slot], bytes, copied)?;
        Ok(bytemuck::pod_collect_to_vec(&read))
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
