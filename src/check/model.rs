//! One key of the map, as its operations leave it: what each may do, and what it may be told.

use super::content::Content;
use super::history::{Call, Operation, Reply};

/// A key at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Whatever it may be: before anything is known.
    Any,
    /// It is not there; its last change had at least this version.
    Absent(u64),
    /// It is there.
    Present {
        /// What it holds.
        value: Content,
        /// At which version.
        version: Version,
    },
}

/// What is known of a version. It rises with each change, and a write that nobody heard of has one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// This one.
    Known(u64),
    /// A higher one.
    Above(u64),
}

impl Version {
    fn least(self) -> u64 {
        match self {
            Self::Known(version) | Self::Above(version) => version,
        }
    }

    /// Whether it can be `told`; a version of 0 was not told.
    fn may_be(self, told: u64) -> bool {
        match self {
            _ if told == 0 => true,
            Self::Known(version) => version == told,
            Self::Above(version) => told > version,
        }
    }

    fn pinned(self, told: u64) -> Self {
        if told == 0 { self } else { Self::Known(told) }
    }
}

impl State {
    /// A key of which nothing is known to have happened.
    pub(super) const NEW: Self = Self::Absent(0);

    /// The state behind `operation`; `None` where it cannot have been told what it was. One without an answer happens
    /// here without anybody knowing, and `None` where that would change nothing.
    pub(super) fn step(self, operation: &Operation) -> Option<Self> {
        match operation.reply() {
            None => self.step_unseen(operation.call),
            Some(Reply::Stored { version }) => self.step_stored(operation.call, version),
            Some(Reply::Mismatch { current }) => match operation.call {
                Call::Compare { version, .. } if version != current => self.seen_at(current),
                Call::Compare { .. } | Call::Put(_) | Call::Append(_) | Call::Delete | Call::Get => None,
            },
            Some(Reply::Deleted { existed }) => match (operation.call, existed) {
                (Call::Delete, true) => self.removed(),
                (Call::Delete, false) => self.seen_at(0),
                (Call::Put(_) | Call::Append(_) | Call::Compare { .. } | Call::Get, _) => None,
            },
            Some(Reply::Absent) if operation.call == Call::Get => self.seen_at(0),
            Some(Reply::Found { version, value }) if operation.call == Call::Get => self.seen(version, value),
            Some(Reply::Absent | Reply::Found { .. }) => None,
        }
    }

    /// The highest version that it is known to have reached.
    pub(super) fn least_version(self) -> u64 {
        match self {
            Self::Any => 0,
            Self::Absent(version) => version,
            Self::Present { version, .. } => version.least(),
        }
    }

    /// The lowest state in order, from which up to this one all hold the same, and allow no less the less is known of
    /// their version.
    pub(super) fn freest(self) -> Self {
        match self {
            Self::Present { value, version: Version::Above(_) } => {
                Self::Present { value, version: Version::Above(0) }
            }
            Self::Absent(_) => Self::Absent(0),
            Self::Any | Self::Present { version: Version::Known(_), .. } => self,
        }
    }

    fn step_stored(self, call: Call, told: u64) -> Option<Self> {
        let before = match call {
            Call::Put(_) | Call::Append(_) => self,
            Call::Compare { version, .. } => self.seen_at(version)?,
            Call::Delete | Call::Get => return None,
        };
        let least = before.least_version();
        (told == 0 || told > least).then(|| before.holding(call, Version::Above(least).pinned(told)))
    }

    fn step_unseen(self, call: Call) -> Option<Self> {
        match call {
            Call::Put(_) | Call::Append(_) => Some(self.holding(call, Version::Above(self.least_version()))),
            Call::Compare { version, .. } => {
                let matched = self.seen_at(version)?;
                Some(matched.holding(call, Version::Above(matched.least_version())))
            }
            Call::Delete => self.removed(),
            Call::Get => None,
        }
    }

    /// What is there behind a write that stores something.
    fn holding(self, call: Call, version: Version) -> Self {
        let value = match (call, self) {
            (Call::Put(value) | Call::Compare { value, .. }, _) => value,
            (Call::Append(_), Self::Any) => return Self::Any,
            (Call::Append(more), Self::Absent(_)) => more,
            (Call::Append(more), Self::Present { value, .. }) => value.then(more),
            (Call::Delete | Call::Get, _) => return self,
        };
        Self::Present { value, version }
    }

    fn removed(self) -> Option<Self> {
        match self {
            Self::Any => Some(Self::Absent(0)),
            Self::Absent(_) => None,
            Self::Present { version, .. } => Some(Self::Absent(version.least())),
        }
    }

    /// The same, where its version may be this one; 0: it is absent.
    fn seen_at(self, told: u64) -> Option<Self> {
        match self {
            Self::Any if told == 0 => Some(Self::Absent(0)),
            Self::Any => Some(Self::Any),
            Self::Absent(_) => (told == 0).then_some(self),
            Self::Present { value, version } => (told != 0 && version.may_be(told))
                .then(|| Self::Present { value, version: version.pinned(told) }),
        }
    }

    /// The same, where it may be this; a version of 0 was not told.
    fn seen(self, told: u64, found: Content) -> Option<Self> {
        match self {
            Self::Any => Some(Self::Present { value: found, version: Version::Above(0).pinned(told) }),
            Self::Absent(_) => None,
            Self::Present { value, version } => (value == found && version.may_be(told))
                .then(|| Self::Present { value, version: version.pinned(told) }),
        }
    }
}
