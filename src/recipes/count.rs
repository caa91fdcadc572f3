//! Whole numbers as people write them: `4096`, `1e9`, `"100M"`.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};

/// Letters that stand for a thousand times the one before.
const UNITS: [char; 4] = ['K', 'M', 'B', 'T'];

struct Count;

impl Visitor<'_> for Count {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a whole number from 0, such as 4096, 1e9 or \"100M\"")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number).map_err(|_| E::invalid_type(Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        whole(number).ok_or_else(|| E::invalid_type(Unexpected::Float(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse(text).ok_or_else(|| E::invalid_type(Unexpected::Str(text), &self))
    }
}

fn whole(number: f64) -> Option<u64> {
    (number >= 0.0 && number < 2f64.powi(63) && number.fract() == 0.0).then_some(number as u64)
}

/// Reads `4096`, `4_096`, `1e9`, `1.5M`, `100M`, `6T`.
fn parse(text: &str) -> Option<u64> {
    let text = text.trim().replace('_', "");
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let last = text.chars().last()?.to_ascii_uppercase();
    let unit = UNITS.iter().position(|&unit| unit == last);
    let digits = if unit.is_some() { &text[..text.len() - 1] } else { &text };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let scale = unit.map_or(0, |unit| 3 * (unit as i32 + 1));
    // 2.3 times a million is not whole in binary.
    let number = digits.trim_end().parse::<f64>().ok()? * 10f64.powi(scale);
    whole(if (number - number.round()).abs() < 1e-6 * number.abs().clamp(1.0, 1e6) {
        number.round()
    } else {
        number
    })
}

/// A count, for `deserialize_with`.
pub(super) fn count<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    let number = deserializer.deserialize_any(Count)?;
    T::try_from(number).map_err(|_| D::Error::invalid_type(Unexpected::Unsigned(number), &Count))
}

/// A count that may be left out, for `deserialize_with`.
pub(super) fn some_count<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    count(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_people_write_them() {
        for (text, number) in [
            ("0", 0),
            ("4_096", 4096),
            ("1e9", 1_000_000_000),
            ("100M", 100_000_000),
            ("2.3m", 2_300_000),
            ("1.1K", 1100),
            ("11T", 11_000_000_000_000),
            ("18446744073709551615", u64::MAX),
            ("1.7 B", 1_700_000_000),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in
            ["", "M", "-1", "1.5", "1.0005K5", "1KK", "nan", "inf", "1e30", "é", "1 é", "0x10", "infM"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
