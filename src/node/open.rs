//! From a directory to a replica: opens the log, makes the cluster's first entry where there is none, checks that this
//! node belongs here, and puts core and map together where they stopped.

use std::collections::BTreeSet;

use raftmap_storage::fs::Fs;
use raftmap_storage::types::{
    Batch, ClusterId, Entry, EntryMeta, Index, Membership, NodeId, Position, SnapshotId,
};
use raftmap_storage::{Identity, Options, Recovered, StoreError, Wal, boots};

use super::StartError;
use super::jobs;
use super::replica::{BOOTSTRAP_HARD_STATE, Replica, ReplicaConfig};
use crate::config::NodeConfig;
use crate::kv::{Limits, StateMachine};
use crate::raft::entry::{Bootstrap, LIMITS_BYTES_MAX, VOTERS_MAX};
use crate::raft::{Config, Raft, Restored};
use crate::wire::hello::{Hello, PROTOCOL};
use crate::wire::peer::ENTRIES_MAX;

/// Sizes that are not settings: what suits every node in production. A simulated world draws smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The log's segments, spares and writes.
    pub log: Options,
    /// Payload bytes of the log's end that stay on the heap, at most, beyond what is not sealed yet.
    pub tail_bytes: usize,
    /// Payload bytes in one append.
    pub append_bytes: usize,
    /// Entries in one append.
    pub append_entries: usize,
    /// Appends on their way to one follower.
    pub inflight_appends: usize,
    /// Payload bytes on their way to one follower.
    pub inflight_bytes: usize,
    /// Payload bytes proposed and not committed.
    pub uncommitted_bytes: u64,
    /// Requests of clients that wait for the log at once.
    pub waiting: usize,
}

impl Sizes {
    /// What production uses for a log bounded at `max_raft_state` bytes with payloads of at most `payload_max`.
    pub fn new(max_raft_state: Option<u64>, payload_max: u32) -> Self {
        Self {
            log: Options::new(max_raft_state, payload_max),
            // Whoever is further behind gets a snapshot: at most this many times what its own log takes at once.
            tail_bytes: max_raft_state
                .map_or(TAIL_BYTES, |bound| bound.saturating_mul(64).min(TAIL_BYTES as u64) as usize),
            append_bytes: 1 << 20,
            append_entries: ENTRIES_MAX,
            inflight_appends: 64,
            inflight_bytes: 8 << 20,
            uncommitted_bytes: 64 << 20,
            waiting: 65_536,
        }
    }
}

/// The most of [`Sizes::tail_bytes`].
const TAIL_BYTES: usize = 8 << 20;

/// Room for a bootstrap entry of as many members as there may be.
const BOOTSTRAP_BYTES: usize = 8 * VOTERS_MAX + LIMITS_BYTES_MAX + 64;

/// Segments that the frames on disk may fill beyond twice the log's bound before a snapshot is due for their sake: what a
/// purge leaves because only whole segments go.
const SLACK_SEGMENTS: u64 = 4;

/// A node's parts, ready to run.
pub struct Opened<F: Fs> {
    /// The log, locked.
    pub wal: Wal<F>,
    /// Core and map.
    pub replica: Replica,
    /// What this node says first to others.
    pub hello: Hello,
}

/// Opens or makes the directory of `config` for a node of `cluster`. Blocks on the disk.
///
/// # Errors
/// See [`StartError`]. Nothing acknowledged is touched.
pub fn open<F: Fs>(fs: &F, config: &NodeConfig, cluster: ClusterId) -> Result<Opened<F>, StartError> {
    let payload_max = u32::try_from(payload_max(config)).unwrap_or(u32::MAX);
    open_sized(fs, config, cluster, &Sizes::new(config.max_raft_state, payload_max))
}

/// As [`open`], with other sizes than production's.
///
/// # Errors
/// As [`open`].
pub fn open_sized<F: Fs>(
    fs: &F,
    config: &NodeConfig,
    cluster: ClusterId,
    sizes: &Sizes,
) -> Result<Opened<F>, StartError> {
    let io = |source| StartError::Io { path: config.dir.clone(), source };
    let bootstrap = bootstrap(config, cluster)?;
    let identity = Identity { cluster, node: NodeId(config.id) };
    let (mut wal, mut recovered) = raftmap_storage::open(fs.clone(), &config.dir, identity, sizes.log)?;
    let boot = boots::count(fs, &config.dir).map_err(io)?;
    if recovered.last == Position::ZERO && recovered.snapshot.is_none() {
        write_bootstrap(&mut wal, &mut recovered, bootstrap.clone())?;
    }
    let (membership, map) = restore(fs, config, cluster, &recovered)?;
    belongs(config, &membership, map.limits())?;
    let hello = hello(config, cluster, &wal, boot, &bootstrap, &membership, map.limits());
    let seed = seed(fs.entropy().map_err(io)?, config.id);
    let bound = config.max_raft_state.unwrap_or(0);
    let replica_config = ReplicaConfig {
        max_raft_state: config.max_raft_state,
        log_bytes_max: bound.saturating_mul(2).saturating_add(SLACK_SEGMENTS * sizes.log.segment_bytes),
        addresses: config.members(),
        waiting_max: sizes.waiting,
        membership,
    };
    let replica = replica(config, sizes, recovered, map, seed, replica_config)?;
    Ok(Opened { wal, replica, hello })
}

/// Bytes of the largest entry: its kind and a proposal, or the bootstrap entry.
fn payload_max(config: &NodeConfig) -> usize {
    config.limits.proposal_bytes().max(BOOTSTRAP_BYTES) + 1
}

/// The first entry of the log, equal on every member.
fn bootstrap(config: &NodeConfig, cluster: ClusterId) -> Result<Entry, StartError> {
    let voters: BTreeSet<NodeId> = config.members().into_keys().collect();
    let limits = config.limits.encode().map_err(|error| StartError::Bootstrap(error.to_string()))?;
    Bootstrap { cluster, voters, limits: limits.into() }
        .entry()
        .map_err(|error| StartError::Bootstrap(error.to_string()))
}

/// Makes the bootstrap entry durable before the node speaks to anybody.
fn write_bootstrap<F: Fs>(
    wal: &mut Wal<F>,
    recovered: &mut Recovered,
    entry: Entry,
) -> Result<(), StoreError> {
    let hard_state = BOOTSTRAP_HARD_STATE;
    let (hard_state, new) = match recovered.hard_state.term < hard_state.term {
        true => (hard_state, Some(hard_state)),
        false => (recovered.hard_state, None),
    };
    wal.push(0, Batch { hard_state: new, entries: vec![entry.clone()], ..Batch::default() })?;
    while wal.queued() {
        if wal.sync()?.waiting_for_spare
            && let Some(chore) = wal.next_chore()
        {
            wal.chore_done(chore.run()?)?;
        }
    }
    recovered.hard_state = hard_state;
    recovered.last = entry.position;
    let payload_len = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX);
    recovered.log.push(EntryMeta { term: entry.position.term, payload_len });
    recovered.tail.push(entry);
    Ok(())
}

/// The map and the membership at the log's beginning: from the snapshot, or from the bootstrap entry.
fn restore<F: Fs>(
    fs: &F,
    config: &NodeConfig,
    cluster: ClusterId,
    recovered: &Recovered,
) -> Result<(Membership, StateMachine), StartError> {
    if let Some(snapshot) = &recovered.snapshot {
        let (header, map) = jobs::load(fs, &config.dir, snapshot, cluster).map_err(StartError::Snapshot)?;
        return Ok((header.membership, map));
    }
    let bootstrap = first_entry(recovered)
        .and_then(|entry| Bootstrap::decode(&entry.payload).map_err(|error| error.to_string()))
        .map_err(StartError::Bootstrap)?;
    let limits =
        Limits::decode(&bootstrap.limits).map_err(|error| StartError::Bootstrap(error.to_string()))?;
    Ok((bootstrap.membership(), StateMachine::new(limits)))
}

fn first_entry(recovered: &Recovered) -> Result<Entry, String> {
    let first = Index(1);
    if let Some(entry) = recovered.tail.first().filter(|entry| entry.position.index == first) {
        return Ok(entry.clone());
    }
    let segment = recovered.sealed.iter().rev().find(|segment| segment.holds(first));
    let segment = segment.ok_or("the log has neither its first entry nor a snapshot")?;
    segment.entry(first).map_err(|error| error.to_string())
}

/// Ids and limits come from the log once there is one; a node told otherwise is told so.
fn belongs(config: &NodeConfig, membership: &Membership, limits: &Limits) -> Result<(), StartError> {
    let asked: BTreeSet<NodeId> = config.members().into_keys().collect();
    if asked != membership.voters || config.limits != *limits {
        return Err(StartError::OtherTerms {
            ours: terms(&membership.voters, limits),
            asked: terms(&asked, &config.limits),
        });
    }
    Ok(())
}

fn terms(voters: &BTreeSet<NodeId>, limits: &Limits) -> String {
    let ids: Vec<String> = voters.iter().map(ToString::to_string).collect();
    format!(
        "nodes {}, keys to {} bytes, values to {} bytes, {} sessions for {} ms, window {}",
        ids.join(" "),
        limits.key_bytes,
        limits.value_bytes,
        limits.sessions,
        limits.session_ttl_ms,
        limits.window
    )
}

fn hello<F: Fs>(
    config: &NodeConfig,
    cluster: ClusterId,
    wal: &Wal<F>,
    boot: u64,
    bootstrap: &Entry,
    membership: &Membership,
    limits: &Limits,
) -> Hello {
    Hello {
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        features: 0,
        cluster,
        node: NodeId(config.id),
        disk: wal.disk_id(),
        boot,
        group: 0,
        bootstrap: *blake3::hash(&bootstrap.payload).as_bytes(),
        terms: terms(&membership.voters, limits),
    }
}

fn replica(
    config: &NodeConfig,
    sizes: &Sizes,
    recovered: Recovered,
    map: StateMachine,
    seed: u64,
    replica_config: ReplicaConfig,
) -> Result<Replica, StartError> {
    let (heartbeat_ticks, election_min, election_max) = config.timing.ticks();
    let raft_config = Config {
        id: NodeId(config.id),
        election_ticks: (election_min, election_max),
        heartbeat_ticks,
        append_bytes_max: sizes.append_bytes,
        append_entries_max: sizes.append_entries,
        inflight_appends_max: sizes.inflight_appends,
        inflight_bytes_max: sizes.inflight_bytes,
        uncommitted_bytes_max: sizes.uncommitted_bytes,
        log_bytes_max: config.max_raft_state.map(|bound| bound.saturating_mul(2)),
        payload_max: payload_max(config),
        tail_bytes: sizes.tail_bytes,
        seed,
    };
    let sealed_through = sealed_through(&recovered);
    let snapshot: Option<SnapshotId> = recovered.snapshot;
    let restored = Restored {
        hard_state: recovered.hard_state,
        snapshot,
        membership: replica_config.membership.clone(),
        log: recovered.log,
        tail: recovered.tail,
        sealed_through,
    };
    let raft = Raft::new(raft_config, restored).map_err(|error| StartError::Core(error.to_string()))?;
    Ok(Replica::new(raft, map, recovered.sealed, snapshot, replica_config))
}

/// Everything before the heap's first entry is in sealed segments.
fn sealed_through(recovered: &Recovered) -> Index {
    recovered.tail.first().map_or(recovered.last.index, |entry| entry.position.index.prev())
}

fn seed(entropy: [u8; 16], id: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entropy).update(&id.to_le_bytes());
    let digest: [u8; 32] = *hasher.finalize().as_bytes();
    digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}
