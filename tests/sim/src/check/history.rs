//! What clients did and what they were told.

use std::time::Duration;

/// A call of a client.
#[derive(Clone, Debug)]
pub struct Call {
    pub key: String,
    pub what: What,
    pub invoked: Duration,
    /// When its end was told; `None`: never.
    pub returned: Option<Duration>,
    pub end: End,
}

/// What was asked. Tokens are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Append { token: String },
    Put { value: String },
    Compare { version: u64, value: String },
    Delete,
    Read,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nobody knows.
    Unknown,
    /// Definitely nothing, ever.
    NotDone,
    /// It took effect here.
    Written { index: u64 },
    /// It was compared here with this version, and changed nothing.
    Mismatch { index: u64, current: u64 },
    /// The state here had this value and version; `None`: absent.
    Read { index: u64, found: Option<(u64, String)> },
}

impl Call {
    pub fn is_write(&self) -> bool {
        self.what != What::Read
    }

    /// Its place in the log, where it has one.
    pub fn index(&self) -> Option<u64> {
        match self.end {
            End::Unknown | End::NotDone => None,
            End::Written { index } | End::Mismatch { index, .. } | End::Read { index, .. } => Some(index),
        }
    }
}

/// The highest number among calls that had returned at a time.
pub struct Floor(Vec<(Duration, u64)>);

impl Floor {
    pub fn new(mut steps: Vec<(Duration, u64)>) -> Self {
        steps.sort_unstable();
        let mut highest = 0;
        for (_, number) in &mut steps {
            highest = highest.max(*number);
            *number = highest;
        }
        Self(steps)
    }

    /// 0 where nothing had returned.
    pub fn before(&self, invoked: Duration) -> u64 {
        let count = self.0.partition_point(|(returned, _)| *returned < invoked);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}
