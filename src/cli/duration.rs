//! Durations on the command line: `500ms`, `2s`, `5m`, `1h`. A unit is asked for, because nobody agrees on a default.

use std::time::Duration;

/// The time that `text` stands for.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if digits > 0 => return Err(format!("`{text}` has no unit: write {text}ms, {text}s or {text}m")),
        _ => {
            return Err(format!(
                "`{text}` is no duration: write a whole number with ms, s, m or h behind it"
            ));
        }
    };
    if number.is_empty() {
        return Err(format!("`{text}` is no duration: the number is missing, write for example 5s"));
    }
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
    // A year is more than any deadline here means, and far below what an `Instant` can take.
    match total.filter(|total| *total <= MILLISECONDS_MAX) {
        Some(total) => Ok(Duration::from_millis(total)),
        None => Err(format!("`{text}` is longer than a year, {}h, the most that is taken", 365 * 24)),
    }
}

/// As [`parse`], but not zero.
pub(crate) fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err(format!("`{text}` is no time at all: at least 1ms is needed")),
        duration => Ok(duration),
    }
}

const MILLISECONDS_MAX: u64 = 365 * 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("500ms", 500),
            ("2s", 2_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("8760h", 31_536_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_in_words() {
        for (text, words) in [
            ("5", "no unit: write 5ms, 5s or 5m"),
            ("s", "number is missing"),
            ("", "no duration"),
            ("5 s", "whole number"),
            ("1.5s", "whole number"),
            ("-1s", "whole number"),
            ("8761h", "8760h"),
            ("99999999999999999999s", "8760h"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(words), "{text}: {message}");
        }
        assert_eq!(parse_positive("0ms"), Err("`0ms` is no time at all: at least 1ms is needed".into()));
        assert_eq!(parse_positive("1ms"), Ok(Duration::from_millis(1)));
    }
}
