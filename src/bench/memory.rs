//! Whether something fits the adapter's memory.

use crate::gpu::Device;
use crate::graph::layout::MAX_BUFFER;

/// Share of the machine's free memory that a software adapter may take.
const SHARE: f64 = 0.9;

/// Bytes that a software adapter may take; `None` for hardware, whose free memory WebGPU does not tell, and where the
/// system does not say.
pub fn available(device: &Device) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok().filter(|_| !device.info.hardware)?;
    free_of(&text).map(|bytes| (bytes as f64 * SHARE) as u64)
}

fn free_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// Why `bytes` do not fit: more than `limit` allows, or than the device gives when it is asked.
pub fn misfit(device: &Device, bytes: u64, limit: Option<u64>) -> Option<String> {
    let needs = format!("needs {}", gib(bytes));
    match limit {
        Some(limit) if bytes > limit => Some(format!("{needs} of {}", gib(limit))),
        _ if device.info.hardware && !grants(device, bytes) => {
            Some(format!("{needs}, and the device refused it"))
        }
        _ => None,
    }
}

/// Whether the device allocates so many bytes; they are given back at once.
fn grants(device: &Device, bytes: u64) -> bool {
    let sizes = (0..bytes).step_by(MAX_BUFFER as usize).map(|start| MAX_BUFFER.min(bytes - start));
    let buffers: Vec<_> =
        sizes.map_while(|size| device.tensor_buffer("probe", size.next_multiple_of(4)).ok()).collect();
    buffers.iter().map(wgpu::Buffer::size).sum::<u64>() >= bytes
}

/// `6.42 GiB`.
pub fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read() {
        assert_eq!(free_of("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(free_of("MemTotal: 9 kB\n"), None);
    }
}
