//! What clients did and what they were told.

use std::time::Duration;

/// A call of a client.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) key: String,
    pub(crate) what: What,
    pub(crate) invoked: Duration,
    /// When its end was told; `None`: never.
    pub(crate) returned: Option<Duration>,
    pub(crate) end: End,
}

/// What was asked. Tokens are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Append { token: String },
    Put { value: String },
    Compare { version: u64, value: String },
    Delete,
    Read,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
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
    pub(crate) fn is_write(&self) -> bool {
        self.what != What::Read
    }

    /// Its place in the log, where it has one.
    pub(crate) fn index(&self) -> Option<u64> {
        match self.end {
            End::Unknown | End::NotDone => None,
            End::Written { index } | End::Mismatch { index, .. } | End::Read { index, .. } => Some(index),
        }
    }
}

/// The highest number among calls that had returned at a time.
pub(crate) struct Floor(Vec<(Duration, u64)>);

impl Floor {
    pub(crate) fn new(mut steps: Vec<(Duration, u64)>) -> Self {
        steps.sort_unstable();
        let mut highest = 0;
        for (_, number) in &mut steps {
            highest = highest.max(*number);
            *number = highest;
        }
        Self(steps)
    }

    /// 0 where nothing had returned.
    pub(crate) fn before(&self, invoked: Duration) -> u64 {
        let count = self.0.partition_point(|(returned, _)| *returned < invoked);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}
