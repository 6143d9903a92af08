//! A place in the log on disk: segment and offset, as one number that only grows.

use std::fmt;

/// Segment id in the upper 32 bits, offset in the file in the lower 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The place `offset` bytes into segment `id`. Both are below 2^32: [`crate::segment`] sees to it.
    pub(crate) const fn new(id: u64, offset: u64) -> Self {
        Self((id << 32) | (offset & 0xFFFF_FFFF))
    }

    /// The segment.
    pub const fn segment(self) -> u64 {
        self.0 >> 32
    }

    /// Bytes from the beginning of its file.
    pub const fn offset(self) -> u64 {
        self.0 & 0xFFFF_FFFF
    }
}

/// `segment:offset`.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}
