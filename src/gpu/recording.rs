//! A program recorded once as (pipeline, bind group, grid) and replayed: re-encoded each time, nothing rebuilt.
//!
//! Submissions are bounded: watchdogs kill a device whose work takes too long (2 s on Windows and amdgpu). The
//! first replays submit span by span and measure each one; later ones pack spans into submissions of at most
//! 100 ms (`SMOLTER_SUBMIT_MS`) of measured GPU time.

use super::device::Device;
use super::kernel::Dispatch;
use super::texels;
use super::window::{Window, in_words};
use crate::error::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Replays that measure. The first includes compilation at first dispatch on software adapters, so a second one
/// corrects it.
const MEASURED_REPLAYS: u32 = 2;

/// Bytes between params of consecutive dispatches: WebGPU's uniform offset alignment.
pub const PARAMS_STRIDE: u64 = 256;

enum Step {
    Launch {
        pipeline: wgpu::ComputePipeline,
        bind_group: wgpu::BindGroup,
        grid: [u32; 3],
    },
    Clear(Window),
    /// Copies a tensor to the texture in which the next launch reads it.
    ToTexture {
        window: Window,
        texture: wgpu::Texture,
    },
}

impl Step {
    fn is_launch(&self) -> bool {
        matches!(self, Step::Launch { .. })
    }
}

/// What a launch binds.
pub enum Operand {
    /// A window of a buffer; copied to a texture first where the kernel reads one.
    Window(Window),
    /// A texture that already holds the tensor; only for bindings that the kernel reads as one.
    Texture(wgpu::Texture),
}

/// Consecutive steps that belong to one graph node: the unit of measurement.
struct Span {
    label: String,
    steps: std::ops::Range<usize>,
    time: Duration,
}

/// A recorded program.
pub struct Recording {
    device: Arc<Device>,
    params: Option<wgpu::Buffer>,
    params_used: u64,
    /// Textures that launches fill in turn with what they read, on software adapters.
    texels: Vec<wgpu::Texture>,
    /// What each texture holds at this point of the recording, so that it is not copied there again.
    held: Vec<Option<Window>>,
    steps: Vec<Step>,
    spans: Vec<Span>,
    replays: u32,
}

impl Recording {
    /// An empty recording with room for the params of `dispatches` launches, which may use the textures `texels`.
    pub fn new(device: Arc<Device>, dispatches: usize, texels: Vec<wgpu::Texture>) -> Result<Self> {
        let bytes = dispatches as u64 * PARAMS_STRIDE;
        let params = if bytes > 0 { Some(device.uniform_buffer(bytes)?) } else { None };
        Ok(Recording {
            device,
            params,
            params_used: 0,
            held: vec![None; texels.len()],
            texels,
            steps: Vec::new(),
            spans: Vec::new(),
            replays: 0,
        })
    }

    /// Starts a span; launches recorded from now on are measured under `label`.
    pub fn span(&mut self, label: String) {
        self.spans.push(Span { label, steps: self.steps.len()..self.steps.len(), time: Duration::ZERO });
    }

    fn push(&mut self, step: Step) {
        self.steps.push(step);
        self.spans.last_mut().expect("a span was started").steps.end = self.steps.len();
    }

    /// Records a launch with its storage bindings in order.
    pub fn launch(&mut self, dispatch: &Dispatch, operands: &[Operand]) -> Result<()> {
        let pipeline = self.device.pipeline(&dispatch.kernel)?;
        let params = self.params.as_ref().expect("room for the params was reserved");
        self.device.write(params, self.params_used, &dispatch.params);
        // The texture that each binding is read from, if it is.
        let textures: Vec<Option<wgpu::TextureView>> = operands
            .iter()
            .enumerate()
            .map(|(binding, operand)| {
                let texture = match (operand, dispatch.kernel.texture(binding)) {
                    (Operand::Texture(texture), _) => texture,
                    (Operand::Window(_), Some(texel)) => &self.texels[texel],
                    (Operand::Window(_), None) => return None,
                };
                Some(texture.create_view(&Default::default()))
            })
            .collect();
        fn resource(buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> wgpu::BindingResource<'_> {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset,
                size: wgpu::BufferSize::new(in_words(bytes)),
            })
        }
        let mut entries: Vec<wgpu::BindGroupEntry> = operands
            .iter()
            .zip(&textures)
            .enumerate()
            .map(|(i, bound)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: match bound {
                    (_, Some(view)) => wgpu::BindingResource::TextureView(view),
                    (Operand::Window(w), None) => resource(&w.buffer, w.offset, w.bytes),
                    (Operand::Texture(_), None) => unreachable!("every texture has a view"),
                },
            })
            .collect();
        entries.push(wgpu::BindGroupEntry {
            binding: operands.len() as u32,
            resource: resource(params, self.params_used, dispatch.params.len().next_multiple_of(16) as u64),
        });
        let bind_group = self.device.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&dispatch.kernel.label()),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        for (binding, operand) in operands.iter().enumerate() {
            let (Operand::Window(window), Some(texel)) = (operand, dispatch.kernel.texture(binding)) else {
                continue;
            };
            if self.held[texel].as_ref() != Some(window) {
                self.held[texel] = Some(window.clone());
                self.push(Step::ToTexture { window: window.clone(), texture: self.texels[texel].clone() });
            }
        }
        for (binding, operand) in operands.iter().enumerate() {
            if let (Operand::Window(window), None) = (operand, dispatch.kernel.texture(binding)) {
                self.may_change(window);
            }
        }
        self.params_used += PARAMS_STRIDE;
        self.push(Step::Launch { pipeline, bind_group, grid: dispatch.grid });
        self.device.check()
    }

    /// Records the zeroing of a window.
    pub fn clear(&mut self, window: Window) {
        self.may_change(&window);
        self.push(Step::Clear(window));
    }

    /// Forgets textures whose source is written.
    fn may_change(&mut self, window: &Window) {
        for held in &mut self.held {
            held.take_if(|held| held.overlaps(window));
        }
    }

    /// Runs everything; returns when it is submitted, not when it is done.
    pub fn replay(&mut self) -> Result<()> {
        if self.replays < MEASURED_REPLAYS {
            self.replay_measured()?;
        } else {
            let budget = self.device.submit_time();
            let (mut first, mut time) = (0, Duration::ZERO);
            for i in 0..self.spans.len() {
                if time + self.spans[i].time > budget && i > first {
                    self.submit(first..i, None);
                    (first, time) = (i, Duration::ZERO);
                }
                time += self.spans[i].time;
            }
            self.submit(first..self.spans.len(), None);
        }
        self.replays += 1;
        self.device.check()
    }

    /// Submits each span alone and takes its GPU time, copies included: from timestamps where there are any, else by
    /// waiting.
    pub fn replay_measured(&mut self) -> Result<()> {
        let device = self.device.clone();
        let timer = match device.timestamp_period {
            Some(period) => Some(Timer::new(&device, period)?),
            None => None,
        };
        for i in 0..self.spans.len() {
            let begun = Instant::now();
            self.submit(i..i + 1, timer.as_ref());
            device.wait()?;
            let waited = begun.elapsed();
            let measured = timer.as_ref().map(|timer| timer.elapsed(&device)).transpose()?.flatten();
            self.spans[i].time = measured.unwrap_or(waited);
            device.note_time(waited);
        }
        Ok(())
    }

    fn submit(&self, spans: std::ops::Range<usize>, timer: Option<&Timer>) {
        if spans.is_empty() {
            return;
        }
        let steps = &self.steps[self.spans[spans.start].steps.start..self.spans[spans.end - 1].steps.end];
        let mut encoder = self.device.device.create_command_encoder(&Default::default());
        let begin_pass = |encoder: &mut wgpu::CommandEncoder, begins: bool, ends: bool| {
            let timestamp_writes = timer.and_then(|timer| timer.bounds(begins, ends));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        };
        // Only passes take timestamps: where a copy comes first or last, an empty pass stands before or after it.
        if timer.is_some() && !steps.first().is_some_and(Step::is_launch) {
            begin_pass(&mut encoder, true, false);
        }
        let mut pass: Option<wgpu::ComputePass<'static>> = None;
        for (i, step) in steps.iter().enumerate() {
            match step {
                Step::Launch { pipeline, bind_group, grid } => {
                    let pass = pass.get_or_insert_with(|| {
                        let ends = timer.is_some() && steps[i..].iter().all(Step::is_launch);
                        begin_pass(&mut encoder, i == 0, ends)
                    });
                    pass.set_pipeline(pipeline);
                    pass.set_bind_group(0, bind_group, &[]);
                    pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
                }
                Step::Clear(window) => {
                    pass = None; // ends the pass
                    encoder.clear_buffer(&window.buffer, window.offset, Some(in_words(window.bytes)));
                }
                Step::ToTexture { window, texture } => {
                    pass = None;
                    texels::copy(&mut encoder, window, texture);
                }
            }
        }
        drop(pass);
        if let Some(timer) = timer {
            if !steps.last().is_some_and(Step::is_launch) {
                begin_pass(&mut encoder, false, true);
            }
            timer.resolve(&mut encoder);
        }
        self.device.submit(encoder);
    }

    /// Measured GPU time per span, in order.
    pub fn times(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.spans.iter().map(|span| (span.label.as_str(), span.time))
    }
}

/// Timestamps at the beginning and the end of one submission.
struct Timer {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// Nanoseconds per tick.
    period: f32,
}

impl Timer {
    fn new(device: &Device, period: f32) -> Result<Self> {
        let buffer = |usage| {
            let descriptor = wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: 16,
                usage,
                mapped_at_creation: false,
            };
            device.device.create_buffer(&descriptor)
        };
        let set = device.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let staging = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        device.check()?;
        Ok(Timer { set, resolved, staging, period })
    }

    /// What a pass notes with which the submission begins or ends.
    fn bounds(&self, begins: bool, ends: bool) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        (begins || ends).then_some(wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: begins.then_some(0),
            end_of_pass_write_index: ends.then_some(1),
        })
    }

    fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.set, 0..2, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, 16);
    }

    /// `None` where the device left a timestamp out, as some do for passes without launches.
    fn elapsed(&self, device: &Device) -> Result<Option<Duration>> {
        let bytes = device.read_mapped(&self.staging, 16, None)?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        let span = if ticks[0] > 0 { ticks[1].checked_sub(ticks[0]) } else { None };
        Ok(span.map(|ticks| Duration::from_nanos((ticks as f64 * self.period as f64) as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_can_be_handed_to_a_thread() {
        fn is_send<T: Send>() {}
        is_send::<Device>();
        is_send::<Recording>();
    }
}
