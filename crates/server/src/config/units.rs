//! Durations, sizes and shares of a processor as people write them.

use std::time::Duration;

/// Longest duration accepted: ten years. What is meant to be longer is `"none"`.
pub const MAX_DURATION: Duration = Duration::from_secs(3_660 * 24 * 3_600);

/// What a duration may look like, for errors.
pub(super) const DURATION_FORM: &str =
    "a duration such as \"30s\", \"5m\", \"1h30m\" or a number of seconds";
/// What a size may look like, for errors.
pub(super) const SIZE_FORM: &str = "a size such as \"512Mi\", \"512MB\" or a number of bytes";
/// What a share of a processor may look like, for errors.
pub(super) const CPU_FORM: &str = "a number of cores such as 2, 0.5 or \"500m\"";

/// Reads `"1h30m"`, `"250ms"`, `"30"`; units fall from left to right and none repeats.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(d) = seconds(text.parse().ok()) {
        return Some(d);
    }
    const UNITS: [(&str, f64); 5] = [
        ("d", 86_400_000.0),
        ("h", 3_600_000.0),
        ("m", 60_000.0),
        ("s", 1_000.0),
        ("ms", 1.0),
    ];
    let mut rest = text;
    let mut next_unit = 0;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let (unit, tail) = rest.split_at(letters);
        let place = UNITS.iter().position(|(u, _)| *u == unit)?;
        if place < next_unit {
            return None;
        }
        next_unit = place + 1;
        total += number * UNITS.get(place)?.1;
        rest = tail.trim_start();
    }
    if text.is_empty() {
        None
    } else {
        seconds(Some(total / 1_000.0))
    }
}

/// A number of seconds, to the millisecond; `None` when negative, not finite or above [`MAX_DURATION`].
pub(super) fn seconds(s: Option<f64>) -> Option<Duration> {
    let s = s.filter(|s| s.is_finite() && *s >= 0.0 && *s <= MAX_DURATION.as_secs_f64())?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be within 0 and ten years"
    )]
    let ms = (s * 1_000.0).round() as u64;
    Some(Duration::from_millis(ms))
}

/// Reads `"512Mi"`, `"512MB"`, `"1.5G"`, `"1048576"` as bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim();
    let unit = unit.strip_suffix('B').unwrap_or(unit);
    let factor = match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = (number * factor).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to fit"
    )]
    (bytes.is_finite() && (0.0..=9e18).contains(&bytes)).then_some(bytes as u64)
}

/// Reads `"500m"` or `"1.5"` as thousandths of a core.
pub(crate) fn cpu(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.strip_suffix('m') {
        Some(m) => m.parse().ok().filter(|m| *m <= MAX_CPU_MILLIS),
        None => cores(text.parse().ok()?),
    }
}

/// Cores as thousandths.
pub(super) fn cores(n: f64) -> Option<u32> {
    let millis = (n * 1_000.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to fit"
    )]
    (millis.is_finite() && (0.0..=f64::from(MAX_CPU_MILLIS)).contains(&millis))
        .then_some(millis as u32)
}

/// Most thousandths of a core: more cores than any machine has.
const MAX_CPU_MILLIS: u32 = 1_024_000;

/// A duration as this module reads it back: the shortest exact spelling.
#[must_use]
pub fn show_duration(d: Duration) -> String {
    let mut ms = d.as_millis();
    if ms == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (unit, size) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ] {
        if ms >= size {
            out.push_str(&format!("{}{unit}", ms / size));
            ms %= size;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1d", 86_400_000),
            ("250ms", 250),
            ("1.5s", 1_500),
            ("1m30s500ms", 90_500),
            ("30", 30_000),
            ("0.5", 500),
            ("0", 0),
            ("0s", 0),
            (" 5s ", 5_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for bad in [
            "", "s", "5x", "-1s", "-1", "1m1h", "1s1s", "1..5s", "5 s m", "inf", "nan", "1e400",
            "99999d", "5s!", "\u{665}s", ".",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_and_cpu() {
        for (text, bytes) in [
            ("512Mi", 536_870_912),
            ("512MiB", 536_870_912),
            ("512MB", 512_000_000),
            ("512M", 512_000_000),
            ("1.5G", 1_500_000_000),
            ("64k", 64_000),
            ("7", 7),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "Mi", "-1", "5Q", "1e99", "5 parsecs", "1..2M"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        for (text, millis) in [("500m", 500), ("0.5", 500), ("2", 2_000), ("1.25", 1_250)] {
            assert_eq!(cpu(text), Some(millis), "{text}");
        }
        for bad in ["", "m", "-1", "1e9", "half"] {
            assert_eq!(cpu(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(ms in 0u64..=MAX_DURATION.as_millis() as u64) {
            let d = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(d)), Some(d));
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = (parse_duration(&text), size(&text), cpu(&text));
        }

        #[test]
        fn nothing_near_the_form_panics(text in "[0-9.dhmsMiGB -]{0,24}") {
            let _ = (parse_duration(&text), size(&text), cpu(&text));
        }
    }
}
