//! What people see: progress while they wait, lines that stay, tables and curves in the end.

pub mod curve;
pub mod number;
pub mod out;
pub mod profile;
pub mod progress;
mod quote;
pub mod series;
mod table;

pub use quote::{quoted, shell_word};
pub use table::table;

/// A number of bytes in the unit that suits it: `1.0 KiB`, `800.0 MiB`, `6.42 GiB`.
pub fn size(bytes: u64) -> String {
    let bytes_in = |unit: u32| bytes as f64 / (1u64 << unit) as f64;
    match bytes {
        0..0x10_0000 => format!("{:.1} KiB", bytes_in(10)),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes_in(20)),
        _ => format!("{:.2} GiB", bytes_in(30)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_units_that_suit_them() {
        let sizes = [1024, (1 << 20) - 1, 1 << 20, 800 << 20, 1 << 30, u64::MAX].map(super::size);
        let expected = ["1.0 KiB", "1024.0 KiB", "1.0 MiB", "800.0 MiB", "1.00 GiB", "17179869184.00 GiB"];
        assert_eq!(sizes, expected);
    }
}
