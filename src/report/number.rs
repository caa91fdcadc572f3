//! Numbers for people.

/// Three significant digits.
pub fn digits(x: f64) -> String {
    match x.abs() {
        size if size >= 100.0 => format!("{x:.0}"),
        size if size >= 10.0 => format!("{x:.1}"),
        size if size >= 1.0 => format!("{x:.2}"),
        _ => format!("{x:.3}"),
    }
}

/// A share of 1 in hundredths: `12.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Three or four digits and a unit: 134.5M, 11.0T.
pub fn short(count: u64) -> String {
    let x = count as f64;
    match x {
        _ if x >= 1e12 => format!("{:.2}T", x / 1e12),
        _ if x >= 1e9 => format!("{:.2}B", x / 1e9),
        _ if x >= 1e6 => format!("{:.1}M", x / 1e6),
        _ if x >= 1e3 => format!("{:.1}K", x / 1e3),
        _ => format!("{count}"),
    }
}

/// Hours, minutes and seconds: `1:02:03`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
