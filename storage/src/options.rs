//! The log's few numbers, and how they stand to each other.

use crate::error::OpenError;
use crate::segment;

/// Smallest segment made for a bounded log.
const SEGMENT_MIN: u64 = 64 * 1024;
/// Largest segment made, unless one entry needs more.
const SEGMENT_MAX: u64 = 16 * 1024 * 1024;
/// Most spares kept ready.
const SPARES_MAX: usize = 8;
/// Largest payload that may be allowed.
const PAYLOAD_MAX: u32 = 256 * 1024 * 1024;

/// Bytes of a segment for a log bounded at `max_raft_state` bytes (`None`: unbounded): a quarter of the bound, between
/// 64 KiB and 16 MiB, and always enough for one entry of `payload_max` bytes.
pub fn segment_bytes(max_raft_state: Option<u64>, payload_max: u32) -> u64 {
    let share = max_raft_state.map_or(SEGMENT_MAX, |bound| (bound / 4).clamp(SEGMENT_MIN, SEGMENT_MAX));
    share.max(segment::capacity_for(payload_max)).next_multiple_of(segment::HEADER_LEN)
}

/// What may differ between members and between two lives of one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a new segment, from [`segment_bytes`]. Existing segments keep theirs.
    pub segment_bytes: u64,
    /// Bytes of the largest payload taken; at most 256 MiB.
    pub payload_max: u32,
    /// Empty segments kept ready, 1 to 8. Each takes `segment_bytes` of disk, and saves a wait when a burst fills
    /// segments faster than one is made.
    pub spares: usize,
    /// Bytes after which one write ends and what is still queued waits for the next; one frame always fits.
    pub batch_bytes: usize,
}

impl Options {
    /// The usual numbers for a log bounded at `max_raft_state` bytes with payloads of at most `payload_max`.
    pub fn new(max_raft_state: Option<u64>, payload_max: u32) -> Self {
        let segment_bytes = segment_bytes(max_raft_state, payload_max);
        Self { segment_bytes, payload_max, spares: 1, batch_bytes: 4 * 1024 * 1024 }
    }

    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        let refuse = |what: String| Err(OpenError::Options { what });
        if self.payload_max > PAYLOAD_MAX {
            return refuse(format!("payload_max is {}, at most {PAYLOAD_MAX} bytes fit", self.payload_max));
        }
        let (min, max) = (segment::capacity_for(self.payload_max), segment::CAPACITY_MAX);
        if !(min..=max).contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(segment::HEADER_LEN)
        {
            let given = self.segment_bytes;
            return refuse(format!("segment_bytes is {given}, take a multiple of 4096 from {min} to {max}"));
        }
        if self.spares == 0 || self.spares > SPARES_MAX {
            return refuse(format!("spares is {}, take 1 to {SPARES_MAX}", self.spares));
        }
        Ok(())
    }
}
