//! Bytes of the fuzzer as numbers and choices. Behind their end everything is 0, so every input means something.

pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Up to `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// From 0 to `bound - 1`; bounds are small.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// Mostly small, sometimes at the edges of what a number can be, sometimes any.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=223 => u64::from(small % 14),
            near_end @ 224..=231 => u64::MAX - u64::from(near_end & 3),
            near_bound @ 232..=239 => (1 << 62) - 2 + u64::from(near_bound & 3),
            power @ 240..=247 => 1 << (8 * (power & 7)),
            248.. => self.take(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        }
    }
}
