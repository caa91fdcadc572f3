//! Shared by the tests.

use smolter::gpu::Device;
use std::sync::{Arc, OnceLock};

/// The best adapter, opened once. `None` where there is none, which is a failure if `SMOLTER_REQUIRE_GPU=1`.
pub fn device() -> Option<Arc<Device>> {
    static DEVICE: OnceLock<Option<Arc<Device>>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| Device::open("auto").expect("an adapter that exists opens").map(Arc::new));
    if device.is_none() {
        let required = std::env::var("SMOLTER_REQUIRE_GPU").is_ok_and(|v| v == "1");
        assert!(!required, "SMOLTER_REQUIRE_GPU=1, but there is no adapter (apt-get install mesa-vulkan-drivers)");
        eprintln!("skipped: no adapter (apt-get install mesa-vulkan-drivers)");
    }
    device.clone()
}
