//! Adapter choice and the open device: buffers, pipelines, and errors that say what to do.

use super::kernel::{Caps, Family, Kernel};
use super::patience::{Next, PATIENCE_VARIABLE, Patience, SUBMIT_VARIABLE};
use super::window::{Window, in_words};
use super::{shader, texels};
use crate::error::{Error, Result};
use crate::report::out;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Comma-separated features to do without: `f16,subgroups,coop,timestamps,lanes,texels`.
pub const DISABLE_VARIABLE: &str = "SMOLTER_DISABLE";

/// Most bytes that are written without a submission.
const MAX_PENDING: u64 = 64 << 20;

/// Uses of every tensor buffer.
const TENSOR_USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// An open device.
#[derive(Clone)]
pub struct Device {
    /// Adapter name, type and driver.
    pub description: String,
    /// The same in parts.
    pub info: AdapterInfo,
    /// What kernels may use.
    pub caps: Caps,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    /// Nanoseconds per timestamp tick, if the device has timestamps.
    pub(super) timestamp_period: Option<f32>,
    pipelines: Arc<Mutex<HashMap<Kernel, wgpu::ComputePipeline>>>,
    allocated: Arc<AtomicU64>,
    /// Bytes written since the host last submitted because of them.
    pending: Arc<AtomicU64>,
    patience: Arc<Patience>,
    /// Why the device is lost; once it is, it stays so.
    lost: Arc<Mutex<Option<String>>>,
    /// The first error since the last [`Device::check`], which takes it.
    error: Arc<Mutex<Option<String>>>,
}

/// Features that the user switched off.
fn disabled() -> Result<Vec<String>> {
    const KNOWN: [&str; 6] = ["f16", "subgroups", "coop", "timestamps", "lanes", "texels"];
    let text = std::env::var(DISABLE_VARIABLE).unwrap_or_default();
    let names: Vec<String> =
        text.split(',').map(|s| s.trim().to_string()).filter(|s| !s.is_empty()).collect();
    match names.iter().find(|name| !KNOWN.contains(&name.as_str())) {
        None => Ok(names),
        Some(name) => Err(Error::input(format!(
            "{DISABLE_VARIABLE}={text}: unknown feature '{name}'; known are {}",
            KNOWN.join(", ")
        ))),
    }
}

/// One adapter of this machine, for listings.
#[derive(Debug, Clone)]
pub struct AdapterInfo {
    /// Name as `--device` matches it.
    pub name: String,
    /// Type, backend and driver.
    pub detail: String,
    /// Graphics interface: `Vulkan`, `Metal` or `Dx12`.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Whether it is hardware.
    pub hardware: bool,
}

fn describe(info: &wgpu::AdapterInfo) -> AdapterInfo {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "of unknown type",
    };
    let backend = format!("{:?}", info.backend);
    let driver = format!("{} {}", info.driver, info.driver_info).trim().to_string();
    // Names of software adapters say much of it already.
    let untold = driver.split_whitespace().filter(|word| !info.name.contains(word.trim_matches(['(', ')'])));
    AdapterInfo {
        name: info.name.clone(),
        detail: format!("{kind}, {backend}, {}", untold.collect::<Vec<_>>().join(" ")),
        backend,
        driver,
        hardware: info.device_type != wgpu::DeviceType::Cpu,
    }
}

fn adapters() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    descriptor.backends &= wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(descriptor);
    let mut found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let rank = |kind| match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    found.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    found.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    found
}

/// All usable adapters, best first.
pub fn list() -> Vec<AdapterInfo> {
    adapters().iter().map(|adapter| describe(&adapter.get_info())).collect()
}

impl Device {
    /// Opens the adapter whose name contains `choice` (any case), or the best one for `auto`. `Ok(None)` where
    /// `auto` finds no adapter at all.
    pub fn open(choice: &str) -> Result<Option<Device>> {
        let (disabled, patience) = (disabled()?, Patience::from_env()?);
        let all = adapters();
        let wanted = choice.to_lowercase();
        let fits =
            |a: &&wgpu::Adapter| wanted == "auto" || a.get_info().name.to_lowercase().contains(&wanted);
        match all.iter().find(fits) {
            Some(adapter) => Self::request(adapter, &disabled, patience).map(Some),
            None if wanted == "auto" => Ok(None),
            None => {
                let names: Vec<String> = all.iter().map(|a| format!("'{}'", a.get_info().name)).collect();
                let names = if names.is_empty() { "none".into() } else { names.join(", ") };
                Err(Error::input(format!(
                    "--device {choice}: no adapter of that name; there are {names}, and 'reference' needs none"
                )))
            }
        }
    }

    fn request(adapter: &wgpu::Adapter, disabled: &[String], patience: Patience) -> Result<Device> {
        let info = adapter.get_info();
        let allowed = |name: &str| !disabled.iter().any(|d| d == name);
        let mut features = wgpu::Features::empty();
        for (name, feature) in [
            ("subgroups", wgpu::Features::SUBGROUP),
            ("f16", wgpu::Features::SHADER_F16),
            ("coop", wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
            ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
        ] {
            if allowed(name) {
                features |= adapter.features() & feature;
            }
        }
        // WebGPU's default limits are all that plans and kernels need; asking for no more means that a plan
        // which works here works everywhere.
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("smolter"),
            required_features: features,
            required_limits: wgpu::Limits::default(),
            // SAFETY: cooperative matrices are used only by kernels that check them against f64 first.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| {
            Error::Device(format!("{}: cannot be opened ({e}); choose another one with --device", info.name))
        })?;

        let (lost, error) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let (note_lost, note_error) = (lost.clone(), error.clone());
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                note(&note_lost, message);
            }
        });
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&note_error, error.to_string())));

        let subgroup = features.contains(wgpu::Features::SUBGROUP)
            && info.subgroup_min_size == info.subgroup_max_size
            && [4, 8, 16].contains(&info.subgroup_min_size);
        let lanes = info.device_type == wgpu::DeviceType::Cpu && allowed("lanes");
        let caps = Caps {
            family: if lanes { Family::Lanes } else { Family::Tiled },
            subgroup: (subgroup && lanes).then_some(info.subgroup_min_size),
            texels: lanes && allowed("texels"),
            f16: features.contains(wgpu::Features::SHADER_F16),
            coop: features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        };
        let described = describe(&info);
        Ok(Device {
            description: format!("{} ({})", described.name, described.detail),
            info: described,
            caps,
            timestamp_period: features
                .contains(wgpu::Features::TIMESTAMP_QUERY)
                .then(|| queue.get_timestamp_period()),
            device,
            queue,
            pipelines: Arc::default(),
            allocated: Arc::default(),
            pending: Arc::default(),
            patience: Arc::new(patience),
            lost,
            error,
        })
    }

    /// The same device, with kernels restricted to what `caps` allow.
    pub fn with_caps(&self, caps: Caps) -> Device {
        Device { caps, ..self.clone() }
    }

    /// The same, counting from zero what is allocated through it.
    pub fn with_own_count(&self) -> Device {
        Device { allocated: Arc::default(), ..self.clone() }
    }

    /// Whether device times are measured by the device itself.
    pub fn has_timestamps(&self) -> bool {
        self.timestamp_period.is_some()
    }

    /// Bytes of all buffers and textures made through this device.
    pub fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// A zeroed tensor buffer.
    pub fn tensor_buffer(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        self.buffer(label, bytes, TENSOR_USAGE)
    }

    /// A buffer that the host maps to read results.
    pub fn staging_buffer(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        self.buffer(label, bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)
    }

    pub(super) fn uniform_buffer(&self, bytes: u64) -> Result<wgpu::Buffer> {
        self.buffer("params", bytes, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)
    }

    /// A texture that holds `rows` rows of texels for kernels to read; see [`Kernel::texels`].
    pub fn texel_texture(&self, rows: u32) -> Result<wgpu::Texture> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let texture = self.device.create_texture(&texels::descriptor(rows));
        if let Some(error) = pollster::block_on(memory.pop()) {
            return Err(Error::Device(format!(
                "{}: out of memory for textures ({error}); {LESS_MEMORY}",
                self.description
            )));
        }
        self.allocated.fetch_add(rows as u64 * texels::TEXEL_ROW_BYTES, Ordering::Relaxed);
        self.check()?;
        Ok(texture)
    }

    fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let size = in_words(bytes);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let buffer = self.device.create_buffer(&descriptor);
        if let Some(error) = pollster::block_on(memory.pop()) {
            return Err(Error::Device(format!(
                "{}: out of memory for '{label}' ({:.1} MiB: {error}); {LESS_MEMORY}",
                self.description,
                size as f64 / (1 << 20) as f64
            )));
        }
        self.allocated.fetch_add(size, Ordering::Relaxed);
        self.check()?;
        Ok(buffer)
    }

    /// The pipeline of a kernel, linked and compiled on first use.
    pub fn pipeline(&self, kernel: &Kernel) -> Result<wgpu::ComputePipeline> {
        let mut pipelines = self.pipelines.lock().expect("no thread panics while it holds the pipelines");
        if let Some(pipeline) = pipelines.get(kernel) {
            return Ok(pipeline.clone());
        }
        let label = kernel.label();
        let linked = shader::link(kernel)?;
        if std::env::var_os("SMOLTER_DEBUG").is_some_and(|level| level == "3") {
            out::note(format_args!("// {label}\n{linked}"));
        }
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let source = wgpu::ShaderSource::Wgsl((&*linked).into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(&label), source };
        let module = if std::env::var_os("SMOLTER_CHECKED").is_some() {
            self.device.create_shader_module(descriptor)
        } else {
            // SAFETY: our kernels guard every access and bound every loop; tests run them with checks on as well.
            unsafe {
                self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
            }
        };
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: None,
            module: &module,
            entry_point: Some(kernel.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        if let Some(error) = pollster::block_on(validation.pop()) {
            return Err(Error::Device(format!(
                "{}: kernel {label} does not compile ({error}); {DIAGNOSE}",
                self.description
            )));
        }
        pipelines.insert(kernel.clone(), pipeline.clone());
        Ok(pipeline)
    }

    /// Writes to a buffer before the next submission.
    pub fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        // Whole words; see `in_words`.
        let (words, rest) = bytes.as_chunks::<4>();
        self.queue.write_buffer(buffer, offset, words.as_flattened());
        if !rest.is_empty() {
            let mut word = [0; 4];
            word[..rest.len()].copy_from_slice(rest);
            self.queue.write_buffer(buffer, offset + 4 * words.len() as u64, &word);
        }
        self.bound_pending(bytes);
    }

    /// Writes to a texture of texels before the next submission.
    pub fn write_texels(&self, texture: &wgpu::Texture, bytes: &[u8]) {
        texels::write(&self.queue, texture, bytes);
        self.bound_pending(bytes);
    }

    /// What is written waits in memory until something is submitted: loading a model would hold it twice.
    fn bound_pending(&self, written: &[u8]) {
        let pending = self.pending.fetch_add(written.len() as u64, Ordering::Relaxed) + written.len() as u64;
        if pending > MAX_PENDING {
            self.pending.store(0, Ordering::Relaxed);
            self.queue.submit([]);
        }
    }

    /// Submits work; its completion is counted.
    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        let submission = self.queue.submit([encoder.finish()]);
        let patience = self.patience.clone();
        self.queue.on_submitted_work_done(move || patience.note_completed());
        submission
    }

    /// Target GPU time of one submission.
    pub(super) fn submit_time(&self) -> Duration {
        self.patience.submit
    }

    /// A submission took this long: waits for others are measured by it.
    pub(super) fn note_time(&self, time: Duration) {
        self.patience.note_time(time);
    }

    /// Copies a window into a staging buffer, after what is submitted so far.
    pub fn copy_to_staging(&self, window: &Window, staging: &wgpu::Buffer) -> wgpu::SubmissionIndex {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&window.buffer, window.offset, staging, 0, in_words(window.bytes));
        self.submit(encoder)
    }

    /// Maps a staging buffer, waiting for the submission that copied into it (for all of them where none is named)
    /// but for nothing after it, and returns its first `bytes` bytes.
    pub fn read_mapped(
        &self,
        staging: &wgpu::Buffer,
        bytes: u64,
        copied: Option<wgpu::SubmissionIndex>,
    ) -> Result<Vec<u8>> {
        staging.map_async(wgpu::MapMode::Read, 0..in_words(bytes), |_| {});
        self.wait_for(copied)?;
        let range = staging.get_mapped_range(0..in_words(bytes)).map_err(|e| self.failed(&e.to_string()))?;
        let data = range[..bytes as usize].to_vec();
        drop(range);
        staging.unmap();
        Ok(data)
    }

    /// Waits for everything submitted so far.
    pub fn wait(&self) -> Result<()> {
        self.wait_for(None)
    }

    /// Whether everything submitted so far is done; does not wait.
    pub fn is_idle(&self) -> bool {
        self.device.poll(wgpu::PollType::Poll).is_ok_and(|status| status.is_queue_empty())
    }

    /// Waits for one submission, and for those before it, for as long as submissions complete.
    pub(super) fn wait_for(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let mut wait = self.patience.wait();
        loop {
            let (submission_index, timeout) = (submission.clone(), Some(self.patience.slice()));
            let polled = self.device.poll(wgpu::PollType::Wait { submission_index, timeout });
            self.check()?;
            match polled {
                Ok(_) => return Ok(()),
                Err(wgpu::PollError::Timeout) => {}
                Err(error) => return Err(self.failed(&error.to_string())),
            }
            let limit = self.patience.limit();
            match wait.next(Instant::now()) {
                Next::Wait => {}
                Next::Tell => {
                    out::note(format_args!(
                        "{}: still computing; it is given up after {limit:?} in which nothing completes \
                         ({PATIENCE_VARIABLE})",
                        self.description
                    ));
                }
                Next::GiveUp => {
                    note(&self.lost, format!("nothing completed within {limit:?} ({PATIENCE_VARIABLE})"));
                    // Dropped handles would wait for the device, for ever.
                    std::mem::forget((self.device.clone(), self.queue.clone()));
                    self.check()?;
                }
            }
        }
    }

    /// Reports a lost device, or what went wrong since the last call, if anything did.
    pub fn check(&self) -> Result<()> {
        let read = "no thread panics while it holds the note";
        if let Some(why) = &*self.lost.lock().expect(read) {
            return Err(Error::Device(format!(
                "{}: device lost: {}; try again with shorter submissions: {SUBMIT_VARIABLE}=20",
                self.description,
                one_line(why)
            )));
        }
        match self.error.lock().expect(read).take() {
            None => Ok(()),
            Some(message) => Err(self.failed(&message)),
        }
    }

    fn failed(&self, message: &str) -> Error {
        Error::Device(format!("{}: {}; {DIAGNOSE}", self.description, one_line(message)))
    }
}

/// What helps where a buffer does not fit.
const LESS_MEMORY: &str = "train and bench keep to --memory, chat to --context, generate to --max-tokens";

/// What helps where a driver refuses what it should take.
const DIAGNOSE: &str = "run smolter doctor, and try another driver or --device";

/// A driver's message without its line breaks and indents.
fn one_line(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    if words.is_empty() { "no reason given".into() } else { words.join(" ") }
}

fn note(place: &Mutex<Option<String>>, message: String) {
    if let Ok(mut place) = place.lock() {
        place.get_or_insert(message);
    }
}
