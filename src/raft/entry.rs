//! The kinds of entries: the first byte of a payload says what the rest is.
//!
//! | byte | kind      | rest                                                                         |
//! |------|-----------|------------------------------------------------------------------------------|
//! | 0    | no-op     | nothing                                                                      |
//! | 1    | command   | opaque to Raft                                                               |
//! | 2    | bootstrap | [`Bootstrap`]; at index 1 and nowhere else                                   |
//! | 3..  | reserved  | for changes of membership; refused, so that no member acts on what it cannot read |

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use raftmap_storage::types::{ClusterId, Entry, Membership, NodeId, Position};

/// Voters that a bootstrap entry may name.
pub const VOTERS_MAX: usize = 64;
/// Bytes of replicated limits in a bootstrap entry.
pub const LIMITS_BYTES_MAX: usize = 4096;

const NO_OP: u8 = 0;
const COMMAND: u8 = 1;
const BOOTSTRAP: u8 = 2;
const BOOTSTRAP_VERSION: u8 = 1;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A new leader's first entry (thesis 3.6.2, 6.4): changes nothing.
    NoOp,
    /// For the map.
    Command,
    /// How the cluster began.
    Bootstrap,
}

/// Why a payload is not an entry of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// Not even a kind.
    #[error("empty entry: a payload begins with its kind")]
    Empty,
    /// A kind of a later version.
    #[error("entry kind {0} is reserved: a newer version wrote it, upgrade this node")]
    Reserved(u8),
    /// A no-op with something in it.
    #[error("no-op entry of {0} bytes: it is one byte")]
    NoOpTooLong(usize),
}

/// The kind of a payload.
///
/// # Errors
/// When the payload is empty, or of a kind that this version does not know.
pub fn kind(payload: &[u8]) -> Result<Kind, KindError> {
    match payload {
        [] => Err(KindError::Empty),
        [NO_OP] => Ok(Kind::NoOp),
        [NO_OP, ..] => Err(KindError::NoOpTooLong(payload.len())),
        [COMMAND, ..] => Ok(Kind::Command),
        [BOOTSTRAP, ..] => Ok(Kind::Bootstrap),
        [reserved, ..] => Err(KindError::Reserved(*reserved)),
    }
}

/// The payload of a no-op.
pub fn no_op() -> Bytes {
    Bytes::from_static(&[NO_OP])
}

/// The payload of a command: its kind, then `body`.
pub fn command(body: &[u8]) -> Bytes {
    let mut payload = BytesMut::with_capacity(1 + body.len());
    payload.put_u8(COMMAND);
    payload.put_slice(body);
    payload.freeze()
}

/// The body of a command, not copied; `None` for other kinds.
pub fn command_body(payload: &Bytes) -> Option<Bytes> {
    match kind(payload) {
        Ok(Kind::Command) => Some(payload.slice(1..)),
        Ok(Kind::NoOp | Kind::Bootstrap) | Err(_) => None,
    }
}

/// How a cluster began, as its entry at index 1, term 1. Every member writes it itself at its first start, so all that
/// it holds must be equal everywhere; addresses are not in it.
///
/// Bytes, little-endian: kind 2 · version 1 · cluster id (16) · number of voters (u16) · voter ids, rising (u64 each) ·
/// length of the limits (u32) · the limits. Nothing follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Who votes: 1 to [`VOTERS_MAX`] ids, none of them 0.
    pub voters: BTreeSet<NodeId>,
    /// The replicated limits as the map encodes them; at most [`LIMITS_BYTES_MAX`].
    pub limits: Bytes,
}

/// Why bytes are not a bootstrap entry, or values cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// The bytes end before the content does.
    #[error("bootstrap entry ends early")]
    Short,
    /// Bytes behind the content.
    #[error("{0} bytes behind the bootstrap entry")]
    Trailing(usize),
    /// Another kind of entry.
    #[error("not a bootstrap entry")]
    OtherKind,
    /// A version this one cannot read.
    #[error("bootstrap entry of version {0}: this version reads {BOOTSTRAP_VERSION}")]
    Version(u8),
    /// None, or more than [`VOTERS_MAX`].
    #[error("{0} voters: 1 to {VOTERS_MAX} are supported")]
    Voters(usize),
    /// Ids must rise and begin above 0.
    #[error("voter id {} is 0 or out of order", .0)]
    VoterOrder(NodeId),
    /// Longer than [`LIMITS_BYTES_MAX`].
    #[error("limits of {0} bytes: at most {LIMITS_BYTES_MAX} are supported")]
    Limits(usize),
}

impl Bootstrap {
    /// The entry that every member writes first.
    ///
    /// # Errors
    /// When voters or limits are out of range.
    pub fn entry(&self) -> Result<Entry, BootstrapError> {
        Ok(Entry::new(Position::new(1, 1), self.encode()?))
    }

    /// Who counts from the first entry on.
    pub fn membership(&self) -> Membership {
        Membership { voters: self.voters.clone() }
    }

    /// The payload; equal values give equal bytes.
    ///
    /// # Errors
    /// When voters or limits are out of range.
    pub fn encode(&self) -> Result<Bytes, BootstrapError> {
        check_voter_count(self.voters.len())?;
        if self.voters.contains(&NodeId(0)) {
            return Err(BootstrapError::VoterOrder(NodeId(0)));
        }
        if self.limits.len() > LIMITS_BYTES_MAX {
            return Err(BootstrapError::Limits(self.limits.len()));
        }
        let mut bytes = BytesMut::with_capacity(24 + 8 * self.voters.len() + self.limits.len());
        bytes.put_u8(BOOTSTRAP);
        bytes.put_u8(BOOTSTRAP_VERSION);
        bytes.put_slice(&self.cluster.0);
        bytes.put_u16_le(self.voters.len() as u16); // at most VOTERS_MAX
        self.voters.iter().for_each(|voter| bytes.put_u64_le(voter.0));
        bytes.put_u32_le(self.limits.len() as u32); // at most LIMITS_BYTES_MAX
        bytes.put_slice(&self.limits);
        Ok(bytes.freeze())
    }

    /// Reads a payload back.
    ///
    /// # Errors
    /// When the bytes are not exactly what [`Self::encode`] writes.
    pub fn decode(payload: &[u8]) -> Result<Self, BootstrapError> {
        let mut input = Input(payload);
        if input.array::<1>()? != [BOOTSTRAP] {
            return Err(BootstrapError::OtherKind);
        }
        let [version] = input.array()?;
        if version != BOOTSTRAP_VERSION {
            return Err(BootstrapError::Version(version));
        }
        let cluster = ClusterId(input.array()?);
        let count = usize::from(u16::from_le_bytes(input.array()?));
        check_voter_count(count)?;
        let mut voters = BTreeSet::new();
        for _ in 0..count {
            let voter = NodeId(u64::from_le_bytes(input.array()?));
            if voter <= voters.last().copied().unwrap_or(NodeId(0)) {
                return Err(BootstrapError::VoterOrder(voter));
            }
            voters.insert(voter);
        }
        let length = u32::from_le_bytes(input.array()?) as usize;
        if length > LIMITS_BYTES_MAX {
            return Err(BootstrapError::Limits(length));
        }
        let limits = Bytes::copy_from_slice(input.take(length)?);
        match input.0.len() {
            0 => Ok(Self { cluster, voters, limits }),
            trailing => Err(BootstrapError::Trailing(trailing)),
        }
    }
}

fn check_voter_count(count: usize) -> Result<(), BootstrapError> {
    if (1..=VOTERS_MAX).contains(&count) { Ok(()) } else { Err(BootstrapError::Voters(count)) }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BootstrapError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BootstrapError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BootstrapError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BootstrapError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap() -> Bootstrap {
        Bootstrap {
            cluster: ClusterId([7; 16]),
            voters: [NodeId(3), NodeId(1), NodeId(2)].into(),
            limits: Bytes::from_static(b"limits"),
        }
    }

    #[test]
    fn kinds_are_told_by_the_first_byte() {
        let check = |payload: &[u8], expected: Result<Kind, KindError>| assert_eq!(kind(payload), expected);
        check(&[], Err(KindError::Empty));
        check(&[0], Ok(Kind::NoOp));
        check(&[0, 0], Err(KindError::NoOpTooLong(2)));
        check(&[1], Ok(Kind::Command));
        check(&[1, 9, 9], Ok(Kind::Command));
        check(&[2], Ok(Kind::Bootstrap));
        check(&[3], Err(KindError::Reserved(3)));
        check(&[255, 1], Err(KindError::Reserved(255)));
    }

    #[test]
    fn a_command_keeps_its_body() {
        assert_eq!(command_body(&command(b"put")), Some(Bytes::from_static(b"put")));
        assert_eq!(command_body(&no_op()), None);
    }

    #[test]
    fn bootstrap_bytes_are_fixed_for_ever() {
        let bytes = bootstrap().encode().unwrap();
        let mut golden = vec![2, 1];
        golden.extend([7; 16]);
        golden.extend([3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([6, 0, 0, 0]);
        golden.extend(b"limits");
        assert_eq!(bytes, golden);
        assert_eq!(Bootstrap::decode(&bytes), Ok(bootstrap()));
    }

    #[test]
    fn bootstrap_refuses_every_cut_and_every_addition() {
        let bytes = bootstrap().encode().unwrap();
        for length in 0..bytes.len() {
            assert_eq!(Bootstrap::decode(&bytes[..length]), Err(BootstrapError::Short), "cut to {length}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Bootstrap::decode(&longer), Err(BootstrapError::Trailing(1)));
    }

    #[test]
    fn bootstrap_refuses_what_is_out_of_range() {
        let none = Bootstrap { voters: BTreeSet::new(), ..bootstrap() };
        assert_eq!(none.encode(), Err(BootstrapError::Voters(0)));
        let many = Bootstrap { voters: (1..=65).map(NodeId).collect(), ..bootstrap() };
        assert_eq!(many.encode(), Err(BootstrapError::Voters(65)));
        let zero = Bootstrap { voters: [NodeId(0)].into(), ..bootstrap() };
        assert_eq!(zero.encode(), Err(BootstrapError::VoterOrder(NodeId(0))));
        let long = Bootstrap { limits: Bytes::from(vec![0; LIMITS_BYTES_MAX + 1]), ..bootstrap() };
        assert_eq!(long.encode(), Err(BootstrapError::Limits(LIMITS_BYTES_MAX + 1)));
        let mut swapped = bootstrap().encode().unwrap().to_vec();
        swapped[20] = 5; // the first id, now above the second
        assert_eq!(Bootstrap::decode(&swapped), Err(BootstrapError::VoterOrder(NodeId(2))));
        let decoded = |at: usize, value: u8| {
            let mut bytes = bootstrap().encode().unwrap().to_vec();
            bytes[at] = value;
            Bootstrap::decode(&bytes)
        };
        assert_eq!(decoded(0, 1), Err(BootstrapError::OtherKind));
        assert_eq!(decoded(1, 2), Err(BootstrapError::Version(2)));
        assert_eq!(decoded(47, 1), Err(BootstrapError::Limits((1 << 24) + 6)));
        swapped[18] = 255; // the number of voters
        assert_eq!(Bootstrap::decode(&swapped), Err(BootstrapError::Voters(255)));
    }
}
