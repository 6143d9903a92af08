//! Sizes on the command line: `4096`, `64KiB`, `1MiB`, `2GiB`.

/// Bytes that `text` stands for.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => {
            return Err(format!(
                "`{text}` is no size: write a number, alone or with KiB, MiB or GiB behind it"
            ));
        }
    };
    if number.is_empty() {
        return Err(format!("`{text}` is no size: the number is missing, write for example 64MiB"));
    }
    let number: u64 = number.parse().map_err(|_| too_large(text))?;
    number.checked_mul(factor).ok_or_else(|| too_large(text))
}

/// As [`parse`], with `never` for no bound.
pub(crate) fn parse_or_never(text: &str) -> Result<Bound, String> {
    if text == "never" { Ok(Bound(None)) } else { parse(text).map(|bytes| Bound(Some(bytes))) }
}

/// A size that may be missing. A type of its own because clap reads an `Option` as an optional argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound(pub(crate) Option<u64>);

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(bytes) => f.write_str(&show(bytes)),
            None => f.write_str("never"),
        }
    }
}

fn too_large(text: &str) -> String {
    format!("`{text}` is more than {} bytes, the largest size there is", u64::MAX)
}

/// Bytes for people, in the largest unit that leaves a number of at least 1. A whole number of units is exact.
pub(crate) fn show(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((name, unit)) = units.into_iter().find(|(_, unit)| bytes >= *unit) else {
        return format!("{bytes}B");
    };
    let (whole, tenths) = (bytes / unit, bytes % unit * 10 / unit);
    if bytes.is_multiple_of(unit) { format!("{whole}{name}") } else { format!("{whole}.{tenths}{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: u64) {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }

    #[track_caller]
    fn refuse(text: &str, words: &str) {
        let message = parse(text).expect_err(text);
        assert!(message.contains(words) && message.contains(text), "{message}");
    }

    #[test]
    fn sizes_are_read() {
        check("0", 0);
        check("1000", 1_000);
        check("7B", 7);
        check("1KiB", 1_024);
        check("64MiB", 64 << 20);
        check("3GiB", 3 << 30);
        check("17179869183GiB", 17_179_869_183 << 30);
    }

    #[test]
    fn what_is_no_size_is_refused_in_words() {
        refuse("", "number is missing");
        refuse("MiB", "number is missing");
        refuse("64MB", "KiB, MiB or GiB");
        refuse("64 MiB", "KiB, MiB or GiB");
        refuse("-1", "KiB, MiB or GiB");
        refuse("1.5GiB", "KiB, MiB or GiB");
        refuse("17179869184GiB", "18446744073709551615");
        refuse("18446744073709551616", "18446744073709551615");
    }

    #[test]
    fn never_is_no_bound() {
        assert_eq!(parse_or_never("never"), Ok(Bound(None)));
        assert_eq!(parse_or_never("1KiB"), Ok(Bound(Some(1_024))));
        assert!(parse_or_never("Never").is_err());
    }

    #[test]
    fn sizes_are_shown_as_they_would_be_typed() {
        for (bytes, text) in
            [(0, "0B"), (1_023, "1023B"), (1_024, "1KiB"), (1_536, "1.5KiB"), (64 << 20, "64MiB")]
        {
            assert_eq!(show(bytes), text);
        }
    }
}
