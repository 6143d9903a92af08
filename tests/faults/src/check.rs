//! What is on the disk after a cut, read with the log's own recovery, against what was promised before it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use raftmap::kv::StateMachine;
use raftmap::net::{Identity as Certificate, Role};
use raftmap::node::jobs;
use raftmap::storage::os::OsFs;
use raftmap::storage::types::{ClusterId, HardState, Index, NodeId, Position};
use raftmap::storage::{self, Identity, OpenError, Options, Recovered};

use crate::cluster::{LOG_BYTES, NODES, VALUE_BYTES};
use crate::ledger::{Acked, Elected, Ledger, Moment};

/// Violations reported of one cut, at most.
const REPORTED_MAX: usize = 8;

/// A promise that was broken.
#[derive(Clone, Debug)]
pub(crate) enum Violation {
    /// A directory does not open, or opening and looking disagree.
    Refused(String),
    /// Something acknowledged is gone: a write or an election from the majority, a member's own word from its disk.
    Lost(String),
    /// The cluster that was started again does not do as it should.
    Restart(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(what) | Self::Restart(what) => f.write_str(what),
            Self::Lost(what) => write!(f, "LOST: {what}"),
        }
    }
}

/// One directory as recovery found it.
struct Found {
    node: u64,
    recovered: Recovered,
    /// The map of the snapshot in force.
    map: Option<StateMachine>,
}

/// Every promise made up to `at`, held against the directories below `dir`. Empty is green.
pub(crate) fn promises(dir: &Path, ledger: &Ledger, at: Moment) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut nodes = Vec::new();
    for node in 1..=NODES {
        match recover(dir, node) {
            Ok(found) => nodes.push(found),
            Err(why) => broken.push(Violation::Refused(format!("node {node}: {why}"))),
        }
    }
    let acked = ledger.acked.iter().filter(|acked| acked.at <= at);
    broken.extend(acked.filter_map(|acked| lost(&nodes, acked)).take(REPORTED_MAX).map(Violation::Lost));
    let elected = ledger.elected.iter().filter(|elected| elected.at <= at);
    broken.extend(elected.filter_map(|elected| forgotten(&nodes, elected)).map(Violation::Lost));
    broken.extend(nodes.iter().flat_map(|found| regressed(found, ledger, at)).map(Violation::Lost));
    broken
}

/// Opens a directory as a node does, looking at it before and after: what looking says, opening must do.
fn recover(dir: &Path, node: u64) -> Result<Found, String> {
    let dir = dir.join(node.to_string());
    let words = |error: OpenError| error.to_string();
    let before = match storage::verify(OsFs, &dir, |_| {}) {
        Ok(summary) => Some((summary.last, summary.hard_state)),
        Err(OpenError::Empty { .. }) => None,
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(words(error)),
    };
    let identity = Identity { cluster: cluster()?, node: NodeId(node) };
    let options = Options::new(Some(LOG_BYTES), 2 * VALUE_BYTES);
    let (wal, recovered) = storage::open(OsFs, &dir, identity, options).map_err(words)?;
    drop(wal);
    let opened = (recovered.last, recovered.hard_state);
    if before.is_some_and(|before| before != opened) {
        return Err(format!("verify saw {before:?}, opening found {opened:?}"));
    }
    let after = storage::verify(OsFs, &dir, |_| {}).map_err(words)?;
    if (after.last, after.hard_state) != opened || after.tail_bytes != 0 {
        return Err(format!("opened as {opened:?}, and then verify sees {after:?}"));
    }
    let snapshot = recovered.snapshot.as_ref();
    let map = snapshot.map(|snapshot| jobs::load(&OsFs, &dir, snapshot, identity.cluster)).transpose()?;
    Ok(Found { node, recovered, map: map.map(|(_, map)| map) })
}

/// The development identity's cluster, which nodes on loopback addresses belong to.
fn cluster() -> Result<ClusterId, String> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 1));
    let certificate =
        Certificate::resolve(None, loopback, &Role::Node(1)).map_err(|error| error.to_string())?;
    Ok(ClusterId(certificate.cluster().0))
}

fn lost(nodes: &[Found], acked: &Acked) -> Option<String> {
    let holders: Vec<u64> = nodes.iter().filter(|found| found.holds(acked)).map(|found| found.node).collect();
    (holders.len() as u64 <= NODES / 2).then(|| {
        let Acked { at, index, key, token, .. } = acked;
        format!("{token} of {key}, acknowledged at {at} as entry {index}, is on nodes {holders:?} alone")
    })
}

/// Who led a term had the votes of a majority, and they last until a later term.
fn forgotten(nodes: &[Found], elected: &Elected) -> Option<String> {
    let Elected { at, term, node } = *elected;
    let keeps =
        |state: HardState| state.term.0 > term || state.term.0 == term && state.vote == Some(NodeId(node));
    let keepers = nodes.iter().filter(|found| keeps(found.recovered.hard_state)).count() as u64;
    (keepers <= NODES / 2)
        .then(|| format!("{keepers} members remember that node {node} was elected in term {term}, at {at}"))
}

impl Found {
    fn holds(&self, acked: &Acked) -> bool {
        let index = Index(acked.index);
        match &self.map {
            Some(map) if index <= map.applied_index() => in_map(map, acked),
            Some(_) | None => self.payload(index).is_some_and(|bytes| contains(&bytes, &acked.token)),
        }
    }

    fn payload(&self, index: Index) -> Option<bytes::Bytes> {
        if index > self.recovered.last.index {
            return None;
        }
        let tail = &self.recovered.tail;
        let nth = tail.first().and_then(|first| index.0.checked_sub(first.position.index.0));
        if let Some(nth) = nth {
            return tail.get(usize::try_from(nth).ok()?).map(|entry| entry.payload.clone());
        }
        let segment = storage::find(&self.recovered.sealed, index)?;
        segment.entry(index).ok().map(|entry| entry.payload)
    }
}

fn in_map(map: &StateMachine, acked: &Acked) -> bool {
    map.get(acked.key.as_bytes()).is_some_and(|pair| match acked.replaced {
        true => pair.version >= acked.index,
        false => contains(&pair.value, &acked.token),
    })
}

pub(crate) fn contains(bytes: &[u8], token: &str) -> bool {
    bytes.windows(token.len()).any(|window| window == token.as_bytes())
}

/// What this member said of its own disk, and what is there.
fn regressed(found: &Found, ledger: &Ledger, at: Moment) -> Vec<String> {
    let due = ledger.shown.iter().filter(|shown| shown.at <= at && shown.node == found.node);
    let (safe, snapshot) =
        due.fold((0, 0), |(safe, snapshot), shown| (safe.max(shown.safe), snapshot.max(shown.snapshot)));
    let last = found.recovered.last.index.0;
    let kept = found.recovered.snapshot.map_or(Position::ZERO, |kept| kept.position).index.0;
    let mut broken = Vec::new();
    if last < safe {
        broken.push(format!("node {} said that entry {safe} was safe, and ends at {last}", found.node));
    }
    if kept < snapshot {
        broken.push(format!("node {} said that snapshot {snapshot} was safe, and has {kept}", found.node));
    }
    broken
}
