//! The catalogue of faults: their kinds, as they can be asked for, and the sorts of each.

use std::collections::BTreeSet;
use std::fmt;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL and restart
    Kill,
    /// SIGSTOP and SIGCONT
    Stop,
    /// Links cut, slow, lossy, doubling and reordering
    Partition,
    /// A full disk, by a quota
    Disk,
}

impl Kind {
    /// In the order of the table in the README.
    pub(crate) const ALL: [Self; 4] = [Self::Kill, Self::Stop, Self::Partition, Self::Disk];
}

/// As on the command line.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Partition => "partition",
            Self::Disk => "disk",
        })
    }
}

/// All faults of a kind, told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    KillOne,
    KillLeader,
    KillMajority,
    KillAll,
    KillInRecovery,
    StopOne,
    StopLeader,
    StopMajority,
    Isolate,
    IsolateLeader,
    Halves,
    Bridge,
    Ring,
    Mute,
    Deaf,
    Slow,
    Lossy,
    Doubling,
    Reordering,
    Storm,
    FullOne,
    FullLeader,
    FullMajority,
}

impl Sort {
    pub(crate) const ALL: [Self; 23] = [
        Self::KillOne,
        Self::KillLeader,
        Self::KillMajority,
        Self::KillAll,
        Self::KillInRecovery,
        Self::StopOne,
        Self::StopLeader,
        Self::StopMajority,
        Self::Isolate,
        Self::IsolateLeader,
        Self::Halves,
        Self::Bridge,
        Self::Ring,
        Self::Mute,
        Self::Deaf,
        Self::Slow,
        Self::Lossy,
        Self::Doubling,
        Self::Reordering,
        Self::Storm,
        Self::FullOne,
        Self::FullLeader,
        Self::FullMajority,
    ];

    /// Its kind, and its name among that kind.
    pub(crate) fn name(self) -> (Kind, &'static str) {
        match self {
            Self::KillOne => (Kind::Kill, "one"),
            Self::KillLeader => (Kind::Kill, "leader"),
            Self::KillMajority => (Kind::Kill, "majority"),
            Self::KillAll => (Kind::Kill, "all"),
            Self::KillInRecovery => (Kind::Kill, "in_recovery"),
            Self::StopOne => (Kind::Stop, "one"),
            Self::StopLeader => (Kind::Stop, "leader"),
            Self::StopMajority => (Kind::Stop, "majority"),
            Self::Isolate => (Kind::Partition, "isolate"),
            Self::IsolateLeader => (Kind::Partition, "isolate_leader"),
            Self::Halves => (Kind::Partition, "halves"),
            Self::Bridge => (Kind::Partition, "bridge"),
            Self::Ring => (Kind::Partition, "ring"),
            Self::Mute => (Kind::Partition, "mute_leader"),
            Self::Deaf => (Kind::Partition, "deaf_leader"),
            Self::Slow => (Kind::Partition, "slow"),
            Self::Lossy => (Kind::Partition, "lossy"),
            Self::Doubling => (Kind::Partition, "doubling"),
            Self::Reordering => (Kind::Partition, "reordering"),
            Self::Storm => (Kind::Partition, "storm"),
            Self::FullOne => (Kind::Disk, "one"),
            Self::FullLeader => (Kind::Disk, "leader"),
            Self::FullMajority => (Kind::Disk, "majority"),
        }
    }

    /// Of its kind.
    pub(crate) fn kind(self) -> Kind {
        self.name().0
    }

    /// All of these kinds that so many nodes can meet: a ring of three has everybody next to everybody.
    pub(crate) fn of(kinds: &BTreeSet<Kind>, nodes: u64) -> Vec<Self> {
        let can_be = |sort: &Self| kinds.contains(&sort.kind()) && (*sort != Self::Ring || nodes > 3);
        Self::ALL.into_iter().filter(can_be).collect()
    }

    /// Whether it is for whoever leads.
    pub(crate) fn is_for_leader(self) -> bool {
        matches!(
            self,
            Self::KillLeader
                | Self::StopLeader
                | Self::FullLeader
                | Self::IsolateLeader
                | Self::Mute
                | Self::Deaf
        )
    }

    /// Whether it hits what its name says where `leader` leads.
    pub(crate) fn hits(self, leader: Option<u64>) -> bool {
        leader.is_some() || !self.is_for_leader()
    }
}

/// Its kind and its name, as words.
impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.name();
        write!(f, "{kind} {}", name.replace('_', " "))
    }
}
