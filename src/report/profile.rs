//! Where the device's time goes: measured time per op, and its share.

use comfy_table::Table;
use std::collections::BTreeMap;

/// A table of the times of `profile` ((op, seconds) per node), the slowest op first.
pub fn table(profile: &[(String, f64)]) -> Table {
    let mut sums: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for (name, seconds) in profile {
        let sum = sums.entry(name).or_default();
        *sum = (sum.0 + 1, sum.1 + seconds);
    }
    let total: f64 = sums.values().map(|(_, seconds)| seconds).sum();
    let mut rows: Vec<_> = sums.into_iter().collect();
    rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    let mut table = super::table(&["op", "nodes", "ms", "share"]);
    for (name, (nodes, seconds)) in rows {
        let share = format!("{:.1} %", 100.0 * seconds / total);
        table.add_row([name.to_string(), nodes.to_string(), format!("{:.2}", 1e3 * seconds), share]);
    }
    table
}
