//! Durations and sizes as people write them: one whole number and one unit, nothing else.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// `250ms`, `30s`, `10m`, `24h`, `7d`. None: anything else.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    amount(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// `512B`, `64KiB`, `8MiB`, `1GiB`, in bytes. None: anything else.
pub(crate) fn size(text: &str) -> Option<u64> {
    amount(text, &SIZE_UNITS)
}

fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let canonical = number == "0" || !number.starts_with('0');
    let (_, factor) = units.iter().find(|(known, _)| *known == unit)?;
    number
        .parse::<u64>()
        .ok()
        .filter(|_| canonical)?
        .checked_mul(*factor)
}

/// As it would be written, in the largest unit that divides it.
pub(crate) fn show_duration(duration: Duration) -> String {
    show(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        &DURATION_UNITS,
    )
}

pub(crate) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE_UNITS)
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let divides = |(_, factor): &&(&str, u64)| amount > 0 && amount.is_multiple_of(*factor);
    match units.iter().rev().find(divides) {
        Some((unit, factor)) => format!("{}{unit}", amount / factor),
        None => format!("{amount}{}", units[0].0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0s", Some(0)),
            ("250ms", Some(250)),
            ("10m", Some(600_000)),
            ("24h", Some(86_400_000)),
            ("7d", Some(604_800_000)),
            ("10", None),
            ("", None),
            ("m", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5s", None),
            ("1 s", None),
            (" 1s", None),
            ("1s ", None),
            ("01s", None),
            ("1S", None),
            ("1min", None),
            ("1h30m", None),
            ("١s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("8MiB", Some(8_388_608)),
            ("1GiB", Some(1 << 30)),
            ("8MB", None),
            ("8M", None),
            ("8mib", None),
            ("8", None),
            ("17179869184GiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn shown_as_written() {
        for text in ["250ms", "90s", "10m", "7d", "0ms"] {
            assert_eq!(duration(text).map(show_duration).as_deref(), Some(text));
        }
        for text in ["1000B", "8MiB", "0B"] {
            assert_eq!(size(text).map(show_size).as_deref(), Some(text));
        }
    }
}
