//! Faults on order: which call fails, and how.

use std::io;

/// The kinds of calls that reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Op {
    Len,
    ReadAt,
    WriteAt,
    SyncData,
    Map,
    CreateDirAll,
    List,
    Open,
    Temp,
    Persist,
    Remove,
    SyncDir,
    Lock,
    AvailableSpace,
    Entropy,
}

impl Op {
    /// Whether the call changes what a power cut would leave.
    pub fn changes(self) -> bool {
        match self {
            Self::WriteAt | Self::SyncData | Self::Temp | Self::Persist | Self::Remove | Self::SyncDir => {
                true
            }
            Self::CreateDirAll | Self::Lock => true,
            Self::Len | Self::ReadAt | Self::Map | Self::List | Self::Open => false,
            Self::AvailableSpace | Self::Entropy => false,
        }
    }
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An input/output error. A write may have got through in part; a sync has dropped everything, as
    /// [`Effect::SyncDropped`]; a rename may have happened.
    Eio,
    /// No space left; otherwise the same.
    Enospc,
    /// A read or write does only a part, and says so. Other calls do not notice.
    Short,
    /// A sync fails, its pages are marked clean without being written: readers see the new bytes, the disk keeps the
    /// old ones, later syncs succeed. Other calls do not notice.
    SyncDropped,
    /// The same, but by this seed some of it reached the disk.
    SyncDroppedSome(u64),
    /// A sync fails although everything reached the disk. Other calls do not notice.
    SyncKept,
    /// A sync says that all went well, and by this seed some sectors never reach the disk: they are lost as after
    /// [`Effect::SyncDropped`], and nobody is told. Other calls do not notice.
    SyncLied(u64),
    /// A sync says that all went well, and one sector landed elsewhere, in this file or another, by this seed: its own
    /// place keeps the old bytes. The cache still shows what was written. Other calls do not notice.
    SyncStrayed(u64),
    /// What a map shows has one wrong bit, by this seed; the disk is sound. Other calls do not notice.
    Misread(u64),
}

impl Effect {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Enospc => io::Error::new(io::ErrorKind::StorageFull, "no space left on the model disk"),
            Self::Eio | Self::Short | Self::SyncDropped | Self::SyncDroppedSome(_) | Self::SyncKept => {
                io::Error::other("input/output error of the model disk")
            }
            Self::SyncLied(_) | Self::SyncStrayed(_) | Self::Misread(_) => {
                io::Error::other("nobody is told of this")
            }
        }
    }
}

/// One fault on order.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Only calls of this kind count; `None` counts all.
    pub on: Option<Op>,
    /// Calls that go well before it strikes.
    pub after: u64,
    /// What happens then.
    pub effect: Effect,
    /// Whether it goes on striking from then on.
    pub lasting: bool,
}

/// The faults on order, counted down as calls come in.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan(Vec<Fault>);

impl Plan {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Counts one call, and says what befalls it.
    pub(super) fn strike(&mut self, op: Op) -> Option<Effect> {
        let mut struck = None;
        self.0.retain_mut(|fault| {
            if fault.on.is_some_and(|on| on != op) {
                return true;
            }
            if let Some(left) = fault.after.checked_sub(1) {
                fault.after = left;
                return true;
            }
            struck = Some(fault.effect);
            fault.lasting
        });
        struck
    }
}
