//! A value as its length and a fingerprint of its bytes. What an append makes of it can be computed from the two parts
//! alone, so that a history of millions of operations needs no bytes to be replayed.
//!
//! The fingerprint is the polynomial `sum((byte + 1) * BASE^(bytes behind it))` modulo the prime 2^61 - 1. Two values
//! of up to 1 MiB that differ have the same one with a chance of about 1 in 2^40; it is no proof against malice.

use std::fmt;

/// 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;
/// Any large number below [`PRIME`] will do.
const BASE: u64 = 0x0B7E_1516_28AE_D2A7;

/// The bytes of a value, or of a part of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content {
    /// Bytes.
    length: u32,
    /// The fingerprint's two halves: so that this takes twelve bytes, not sixteen.
    high: u32,
    low: u32,
}

impl Content {
    /// No bytes.
    pub const EMPTY: Self = Self { length: 0, high: 0, low: 0 };

    /// Of `bytes`; beyond 4 GiB the length stays at its most.
    pub fn of(bytes: &[u8]) -> Self {
        let fingerprint = bytes.iter().fold(0, |sum, byte| add(times(sum, BASE), u64::from(*byte) + 1));
        Self::new(u32::try_from(bytes.len()).unwrap_or(u32::MAX), fingerprint)
    }

    /// These bytes with `more` behind them.
    #[must_use]
    pub fn then(self, more: Self) -> Self {
        let shifted = times(self.fingerprint(), power(more.length));
        Self::new(self.length.saturating_add(more.length), add(shifted, more.fingerprint()))
    }

    /// What stands behind `front`, where this begins with it: `front.then(rest)` is this.
    pub fn behind(self, front: Self) -> Option<Self> {
        let length = self.length.checked_sub(front.length)?;
        let shifted = times(front.fingerprint(), power(length));
        Some(Self::new(length, add(self.fingerprint(), PRIME - shifted)))
    }

    /// How many bytes there are.
    pub fn length(self) -> u32 {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    /// Below 2^61.
    pub fn fingerprint(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    fn new(length: u32, fingerprint: u64) -> Self {
        Self { length, high: (fingerprint >> 32) as u32, low: fingerprint as u32 }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes {:016x}", self.length, self.fingerprint())
    }
}

/// The fingerprints of all beginnings of some bytes, so that those of any part are at hand.
pub struct Beginnings(Vec<Content>);

impl Beginnings {
    /// Of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut all = Vec::with_capacity(bytes.len() + 1);
        let mut so_far = Content::EMPTY;
        all.push(so_far);
        for byte in bytes {
            so_far = so_far.then(Content::of(&[*byte]));
            all.push(so_far);
        }
        Self(all)
    }

    /// The first `length` bytes, where there are so many.
    pub fn to(&self, length: u32) -> Option<Content> {
        self.0.get(length as usize).copied()
    }

    /// `length` bytes from `start` on, where there are so many.
    pub fn part(&self, start: u32, length: u32) -> Option<Content> {
        self.to(start.checked_add(length)?)?.behind(self.to(start)?)
    }
}

fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= PRIME { sum - PRIME } else { sum }
}

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    add((product as u64) & PRIME, (product >> 61) as u64)
}

fn power(mut exponent: u32) -> u64 {
    let (mut result, mut square) = (1, BASE);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_whole() {
        let text: Vec<u8> = (0..=255).cycle().take(3_000).collect();
        let whole = Content::of(&text);
        let beginnings = Beginnings::of(&text);
        for cut in [0, 1, 2, 63, 64, 1_000, 2_999, 3_000] {
            let (front, back) = (Content::of(&text[..cut]), Content::of(&text[cut..]));
            assert_eq!(front.then(back), whole, "cut at {cut}");
            assert_eq!(whole.behind(front), Some(back), "cut at {cut}");
            assert_eq!(beginnings.to(cut as u32), Some(front));
            assert_eq!(beginnings.part(cut as u32, 3_000 - cut as u32), Some(back));
        }
        assert_eq!(beginnings.to(3_001), None);
        assert_eq!(Content::EMPTY.behind(whole), None);
        assert_eq!(size_of::<Content>(), 12);
    }

    #[test]
    fn differences_show() {
        for (a, b) in
            [("ab", "ba"), ("a", ""), ("\0", ""), ("\0\0", "\0"), ("a;b;", "a;c;"), ("x\u{1}", "x\0")]
        {
            assert_ne!(Content::of(a.as_bytes()), Content::of(b.as_bytes()), "{a:?} {b:?}");
        }
        assert_eq!(Content::of(b""), Content::EMPTY);
        assert!(Content::EMPTY.is_empty());
    }

    #[test]
    fn sums_stay_below_the_prime() {
        assert_eq!(add(PRIME - 1, 1), 0);
        assert_eq!(times(PRIME - 1, PRIME - 1), 1, "minus one squared");
        assert_eq!(times(1 << 60, 2), 1, "2^61 is one more than the prime");
    }
}
