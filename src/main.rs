//! The `smolter` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread exists yet. Vulkan drivers complain on stderr where a session has no such folder.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
    ExitCode::from(smolter::cli::run())
}
