//! The `smolter` binary: everything is in the library.

use std::process::ExitCode;

/// Looks at standard output before Rust's runtime puts `/dev/null` in the place of a closed one: what a command is for
/// would vanish there, and the command would end as if all were well.
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod before_main {
    #[used]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
    #[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
    static LOOK: extern "C" fn() = look;

    extern "C" fn look() {
        // SAFETY: the descriptor is only asked for its flags; a closed one is what is looked for.
        let stdout = unsafe { std::os::fd::BorrowedFd::borrow_raw(1) };
        if rustix::io::fcntl_getfd(stdout).is_err() {
            smolter::report::out::closed_at_start();
        }
    }
}

fn main() -> ExitCode {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread exists yet. Vulkan drivers complain on stderr where a session has no such folder.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
    ExitCode::from(smolter::cli::run())
}
