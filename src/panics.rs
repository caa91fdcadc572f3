//! Calls into libraries that panic on damaged input where they should return an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Makes the call; a panic in it is an error, of which nothing is printed.
///
/// What the call was changing must not be used after an error.
///
/// # Errors
/// The panic's message.
pub fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !SILENT.get() {
                usual(panic);
            }
        }));
    });
    let before = SILENT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    SILENT.set(before);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given").to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(caught(|| 3), Ok(3));
        let inner = || caught(|| panic!("a {}", "b")).unwrap_err();
        assert_eq!(caught(|| inner().len()), Ok(3));
        assert_eq!(caught(|| panic!("c")).unwrap_err(), "c");
        assert!(!SILENT.get());
    }
}
