//! What the adapter itself can do: reading memory, copying it, and multiply-adds.
//!
//! Each peak is the best of a few ways to write its kernel, since compilers and memory paths differ. Every way is
//! made long enough to drown the cost of a launch, and timed by timestamps where the adapter has them.

use super::spread::{Spread, repeat};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Dispatch, Kernel};
use crate::gpu::recording::{Operand, Recording};
use crate::gpu::texels::texel_rows;
use crate::gpu::{Device, Window};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Measurements of each way.
const REPEATS: usize = 7;

/// Shortest measurement in seconds.
const LONG_ENOUGH: f64 = 0.03;

/// Most rounds of a kernel's inner loop.
const MAX_ROUNDS: u32 = 1 << 20;

/// Buffers that the read kernel binds.
const WINDOWS: u64 = 4;

/// What was measured of an adapter.
#[derive(Clone, Debug, Serialize)]
pub struct Peaks {
    /// Kernels that read memory, in bytes per second.
    pub read: Peak,
    /// Copies from buffer to buffer, in bytes per second read and written.
    pub copy: Peak,
    /// f32 multiply-adds in registers, in operations per second, two for each.
    pub f32: Peak,
    /// The same in f16; `None` where shaders cannot.
    pub f16: Option<Peak>,
}

/// The ways in which something was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Peak {
    /// Median of the fastest way.
    pub best: f64,
    /// All of them.
    pub ways: Vec<Way>,
}

/// One way to do it.
#[derive(Clone, Debug, Serialize)]
pub struct Way {
    /// What it is.
    pub name: String,
    /// Work per second.
    pub rate: Spread,
}

impl Peak {
    fn of(ways: Vec<Way>) -> Self {
        Peak { best: ways.iter().map(|way| way.rate.median).fold(0.0, f64::max), ways }
    }

    /// The fastest way.
    pub fn fastest(&self) -> &Way {
        self.ways.iter().find(|way| way.rate.median == self.best).expect("the best is one of them")
    }
}

/// Measures all peaks; `window` bytes, a power of two up to 128 MiB, are what each of four bindings reads.
///
/// # Errors
/// [`Error::Device`] if memory runs out or the device is lost.
pub fn measure(device: &Arc<Device>, window: u64) -> Result<Peaks> {
    let memory = Memory::new(device, window)?;
    Ok(Peaks {
        read: memory.read()?,
        copy: memory.copy()?,
        f32: multiply_add(device, false)?,
        f16: if device.caps.f16 { Some(multiply_add(device, true)?) } else { None },
    })
}

/// Measures the f32 multiply-add peak alone, in a second or two.
///
/// # Errors
/// As [`measure`].
pub fn multiply_add_f32(device: &Arc<Device>) -> Result<Peak> {
    multiply_add(device, false)
}

/// One kernel launch that can be repeated.
struct Launch(Recording);

impl Launch {
    fn new(
        device: &Arc<Device>,
        dispatch: &Dispatch,
        windows: &[Window],
        texels: &[wgpu::Texture],
    ) -> Result<Self> {
        let mut recording = Recording::new(device.clone(), 1, Vec::new())?;
        recording.span(dispatch.kernel.shader.into());
        // What is measured is the kernel: its textures are filled already.
        let operand = |(binding, window): (usize, &Window)| match dispatch.kernel.texture(binding) {
            Some(texture) => Operand::Texture(texels[texture].clone()),
            None => Operand::Window(window.clone()),
        };
        let operands: Vec<Operand> = windows.iter().enumerate().map(operand).collect();
        recording.launch(dispatch, &operands)?;
        Ok(Launch(recording))
    }

    fn seconds(&mut self) -> Result<f64> {
        self.0.replay_measured()?;
        Ok(self.0.times().map(|(_, time)| time.as_secs_f64()).sum())
    }
}

/// Seconds of one round, with as many rounds in a measurement as make it long enough. `seconds` takes their number.
fn per_round(mut seconds: impl FnMut(u32) -> Result<f64>) -> Result<Spread> {
    let mut rounds = 1;
    loop {
        // The first launch compiles on software adapters.
        let time = seconds(rounds)?.min(seconds(rounds)?);
        if time >= LONG_ENOUGH / 2.0 {
            break;
        }
        if rounds == MAX_ROUNDS {
            return Err(Error::Device(format!(
                "{rounds} rounds of a kernel took {time} s by this driver's timestamps; try SMOLTER_DISABLE=timestamps"
            )));
        }
        let more = (LONG_ENOUGH / time.max(1e-9)).clamp(2.0, 64.0);
        rounds = (rounds as f64 * more).min(MAX_ROUNDS as f64) as u32;
    }
    repeat(REPEATS, Duration::from_secs(2), || Ok(seconds(rounds)? / rounds as f64))
}

/// A kernel's work per second. `dispatch` takes a number of rounds, each of `work` units.
fn rate(
    device: &Arc<Device>,
    work: f64,
    windows: &[Window],
    texels: &[wgpu::Texture],
    dispatch: impl Fn(u32) -> Dispatch,
) -> Result<Spread> {
    let mut launch: Option<(u32, Launch)> = None;
    let seconds = per_round(|rounds| {
        if launch.as_ref().is_none_or(|(of, _)| *of != rounds) {
            launch = Some((rounds, Launch::new(device, &dispatch(rounds), windows, texels)?));
        }
        launch.as_mut().expect("it was just made").1.seconds()
    })?;
    Ok(seconds.rate(work))
}

/// Two buffers of random contents, each of two windows.
struct Memory<'a> {
    device: &'a Arc<Device>,
    window: u64,
    buffers: [wgpu::Buffer; 2],
    /// What is in every window.
    contents: Vec<f32>,
}

impl<'a> Memory<'a> {
    fn new(device: &'a Arc<Device>, window: u64) -> Result<Self> {
        let buffer = || device.tensor_buffer("peak", 2 * window);
        let buffers = [buffer()?, buffer()?];
        // Memory that was never written may be one page of zeros that stays in the cache. Small whole numbers have
        // exact sums.
        let contents: Vec<f32> =
            (0..window / 4).map(|i| ((i as u32).wrapping_mul(2_654_435_769) >> 29) as f32).collect();
        for buffer in &buffers {
            for half in 0..2 {
                device.write(buffer, half * window, bytemuck::cast_slice(&contents));
            }
            device.wait()?;
        }
        Ok(Memory { device, window, buffers, contents })
    }

    fn windows(&self) -> Vec<Window> {
        let window = |i: u64| Window {
            buffer: self.buffers[(i / 2) as usize].clone(),
            offset: i % 2 * self.window,
            bytes: self.window,
        };
        (0..WINDOWS).map(window).collect()
    }

    fn read(&self) -> Result<Peak> {
        let caps = self.device.caps;
        // Invocations of a workgroup, and elements of a buffer that each of them reads.
        let (group, each) = if caps.is_lanes() { (caps.lane_count(), 256) } else { (256, 16) };
        let mut ways = Vec::new();
        for (name, vec4, texels) in READ_WAYS {
            if texels && !caps.texels {
                continue;
            }
            let elements = self.window / if vec4 { 16 } else { 4 };
            let groups = (elements / (group as u64 * each)) as u32;
            let kernel = read_kernel(group, vec4, texels);
            let sums = self.device.tensor_buffer("sums", 4 * (groups * group) as u64)?;
            let count = if texels { WINDOWS } else { 0 };
            let textures: Vec<wgpu::Texture> = (0..count)
                .map(|_| {
                    let texture = self.device.texel_texture(texel_rows(self.window))?;
                    self.device.write_texels(&texture, bytemuck::cast_slice(&self.contents));
                    self.device.wait()?;
                    Ok(texture)
                })
                .collect::<Result<_>>()?;
            let mut windows = self.windows();
            windows.push(whole(&sums));
            let bytes = (WINDOWS * self.window) as f64;
            let dispatch = |rounds: u32| Dispatch {
                kernel: kernel.clone(),
                bindings: Vec::new(),
                params: bytemuck::cast_slice(&[each as u32, rounds]).to_vec(),
                grid: [groups, 1, 1],
            };
            let rate = rate(self.device, bytes, &windows, &textures, dispatch)?;
            Launch::new(self.device, &dispatch(1), &windows, &textures)?.seconds()?;
            self.check(name, &sums)?;
            ways.push(Way { name: name.into(), rate });
        }
        Ok(Peak::of(ways))
    }

    /// Whether one round has read everything, once.
    fn check(&self, way: &str, sums: &wgpu::Buffer) -> Result<()> {
        let staging = self.device.staging_buffer("sums", sums.size())?;
        let copied = self.device.copy_to_staging(&whole(sums), &staging);
        let bytes = self.device.read_mapped(&staging, sums.size(), Some(copied))?;
        let sums: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        let total = |values: &[f32]| values.iter().map(|&x| x as f64).sum::<f64>();
        let (found, wanted) = (total(&sums), WINDOWS as f64 * total(&self.contents));
        if found == wanted {
            return Ok(());
        }
        Err(Error::failure(format!("reading {way} gave a sum of {found}, not {wanted}: run smolter doctor")))
    }

    fn copy(&self) -> Result<Peak> {
        let [from, to] = &self.buffers;
        let seconds = per_round(|rounds| {
            let begun = Instant::now();
            (0..rounds).for_each(|_| _ = self.device.copy_to_staging(&whole(from), to));
            self.device.wait()?;
            Ok(begun.elapsed().as_secs_f64())
        })?;
        let rate = seconds.rate(2.0 * from.size() as f64);
        Ok(Peak::of(vec![Way { name: "buffer to buffer".into(), rate }]))
    }
}

/// Names of the ways to read, whether four floats at a time, and whether from textures.
const READ_WAYS: [(&str, bool, bool); 3] =
    [("texels", true, true), ("vec4 loads", true, false), ("f32 loads", false, false)];

fn read_kernel(group: u32, vec4: bool, texels: bool) -> Kernel {
    let kernel =
        Kernel::new("bench_read", "stream").constant("WG", group).flag("vec4", vec4).flag("texels", texels);
    Kernel { texels: (0..if texels { WINDOWS as usize } else { 0 }).collect(), ..kernel }
}

/// Independent chains of an invocation, and whether it is written as `fma`.
const FMA_WAYS: [(u32, bool); 6] = [(2, false), (2, true), (3, false), (3, true), (4, false), (4, true)];

fn fma_kernel(group: u32, chains: u32, fused: bool, f16: bool) -> Kernel {
    Kernel::new("bench_fma", "multiply_add")
        .constant("WG", group)
        .constant("CHAINS", chains)
        .flag("f16", f16)
        .flag("fused", fused)
}

fn whole(buffer: &wgpu::Buffer) -> Window {
    Window { buffer: buffer.clone(), offset: 0, bytes: buffer.size() }
}

/// Steps of each chain per round, as in the shader.
const STEPS: u32 = 16;

fn multiply_add(device: &Arc<Device>, f16: bool) -> Result<Peak> {
    let caps = device.caps;
    let (group, groups) = if caps.is_lanes() { (caps.lane_count(), 256) } else { (256, 4096) };
    let sums = device.tensor_buffer("sums", 4 * (groups * group) as u64)?;
    let mut ways = Vec::new();
    for (chains, fused) in FMA_WAYS {
        let kernel = fma_kernel(group, chains, fused, f16);
        let flops = 2.0 * 4.0 * (chains * STEPS) as f64 * (groups * group) as f64;
        let rate = rate(device, flops, &[whole(&sums)], &[], |rounds| Dispatch {
            kernel: kernel.clone(),
            bindings: Vec::new(),
            params: bytemuck::cast_slice(&[rounds, 0.875f32.to_bits(), 0.125f32.to_bits()]).to_vec(),
            grid: [groups, 1, 1],
        })?;
        let spelling = if fused { "fma(x, a, b)" } else { "x * a + b" };
        ways.push(Way { name: format!("{spelling}, {chains} vec4 chains"), rate });
    }
    Ok(Peak::of(ways))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::shader::{link, validate};

    #[test]
    fn every_kernel_is_valid_without_a_device() {
        let reads = READ_WAYS.map(|(_, vec4, texels)| read_kernel(8, vec4, texels));
        let adds =
            FMA_WAYS.map(|(chains, fused)| [false, true].map(|f16| fma_kernel(256, chains, fused, f16)));
        for kernel in reads.iter().chain(adds.as_flattened()) {
            validate(kernel, &link(kernel).unwrap()).unwrap();
        }
    }
}
