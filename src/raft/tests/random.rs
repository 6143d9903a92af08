//! A cluster under a storm: messages lost, doubled and late, links cut, nodes crashed with half a batch on disk, slow
//! syncs, tiny windows, logs and heaps, snapshots, proposals and reads. The cluster's checks watch; when the storm is over,
//! everything must come to rest, equal everywhere.
//!
//! `RAFTMAP_SEED=17 cargo test -p raftmap --lib raft::tests::random` runs one world again.

use raftmap_storage::types::{Index, NodeId, frame_len};

use super::cluster::{Cluster, config};
use super::dice::Dice;
use crate::raft::{RoleKind, entry};

const WORLDS: u64 = 200;
const STEPS: usize = 1_200;
/// Payload bytes of the largest command.
const LARGEST: u64 = 130;

/// Names the world that a panic came from.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "world {seed} broke: RAFTMAP_SEED={seed} cargo test -p raftmap --lib raft::tests::random"
            );
        }
    }
}

#[test]
fn a_cluster_in_a_storm_keeps_its_promises_and_recovers() {
    if let Ok(seed) = std::env::var("RAFTMAP_SEED") {
        return storm(seed.parse().unwrap());
    }
    let worlds = std::env::var("RAFTMAP_WORLDS").map_or(WORLDS, |worlds| worlds.parse().unwrap());
    (0..worlds).for_each(storm);
}

fn storm(seed: u64) {
    let _named = Named(seed);
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66);
    let mut cluster = build(&mut dice, seed);
    cluster.quiet = true;
    let lost = dice.below(150);
    let trouble = 1 + dice.below(4);
    for step in 0..STEPS {
        disturb(&mut cluster, &mut dice, trouble);
        live(&mut cluster, &mut dice, step, lost);
        if step % 50 == 0 {
            cluster.check_everything();
            check_bound(&cluster);
        }
    }
    calm(&mut cluster);
    cluster.check_everything();
}

fn build(dice: &mut Dice, seed: u64) -> Cluster {
    let size = [1, 2, 3, 3, 3, 3, 5, 5][dice.below(8)];
    let bounded = dice.per_mille(600);
    let (entries, window) = (1 + dice.below(8), 1 + dice.below(4));
    let tail_bytes = [0, 60, 500, 100_000][dice.below(4)];
    Cluster::new(size, |id| {
        let mut config = config(id);
        config.seed = seed;
        config.append_entries_max = entries;
        config.inflight_appends_max = window;
        config.append_bytes_max = 200;
        config.inflight_bytes_max = 400;
        config.tail_bytes = tail_bytes;
        config.log_bytes_max = bounded.then_some(1_000);
        config
    })
}

fn any_member(cluster: &Cluster, dice: &mut Dice) -> NodeId {
    NodeId(dice.below(cluster.members.len()) as u64 + 1)
}

/// What goes wrong, in some worlds more often than in others.
fn disturb(cluster: &mut Cluster, dice: &mut Dice, trouble: usize) {
    let id = any_member(cluster, dice);
    if dice.per_mille(4 * trouble) {
        let frames_kept = dice.below(6);
        cluster.crash(id, frames_kept);
    }
    if dice.per_mille(60) && cluster.members[&id].raft.is_none() {
        cluster.start(id);
    }
    if dice.per_mille(5 * trouble) {
        let other = any_member(cluster, dice);
        cluster.cut.insert((id, other));
        if dice.per_mille(700) {
            cluster.cut.insert((other, id));
        }
    }
    if dice.per_mille(15) {
        cluster.cut.clear();
    }
    if dice.per_mille(20) {
        cluster.member(id).held = true;
    }
    if dice.per_mille(150) {
        cluster.member(id).held = false;
        cluster.pump(id);
    }
}

/// The log stays below its bound and one largest entry; no-ops of new leaders are exempt.
fn check_bound(cluster: &Cluster) {
    for raft in cluster.members.values().filter_map(|member| member.raft.as_ref()) {
        let Some(max) = raft.core.config.log_bytes_max else { continue };
        let (status, log) = (raft.status(), &raft.core.log);
        let live = (status.snapshot.0 + 1..=status.last.index.0).map(Index);
        let no_ops = live.filter(|index| log.payload_bytes(*index, *index) == 1).count() as u64;
        let bytes = status.raft_state_bytes - no_ops * frame_len(1);
        assert!(bytes < max + frame_len(LARGEST), "{bytes} bytes at a bound of {max}: {status:?}");
    }
}

/// What members and their clients do.
fn live(cluster: &mut Cluster, dice: &mut Dice, step: usize, lost: usize) {
    let id = any_member(cluster, dice);
    if dice.per_mille(400) {
        cluster.tick(id);
    }
    let target = if dice.per_mille(800) { cluster.leader().unwrap_or(id) } else { id };
    if dice.per_mille(250) {
        propose(cluster, target, step, dice.below(120));
    }
    if dice.per_mille(80) {
        cluster.read(target);
        cluster.pump(target);
    }
    if dice.per_mille(100) {
        cluster.sync(id);
        cluster.pump(id);
    }
    if dice.per_mille(30) {
        cluster.snapshot(id);
    }
    seal(cluster, id);
    carry_snapshots(cluster, dice);
    for _ in 0..dice.below(4) {
        deliver_one(cluster, dice, lost);
    }
}

fn propose(cluster: &mut Cluster, id: NodeId, step: usize, size: usize) {
    let mut body = format!("{step} ").into_bytes();
    body.resize(body.len() + size, b'.');
    if let Some(raft) = cluster.raft(id) {
        let _busy_or_follower = raft.propose(entry::command(&body));
    }
    cluster.pump(id);
}

/// What is durable counts as sealed at once, so that the heap gives up what it can.
fn seal(cluster: &mut Cluster, id: NodeId) {
    let last = cluster.members[&id].disk.last().index;
    if let Some(raft) = cluster.raft(id) {
        raft.sealed(last);
        raft.check_invariants();
    }
}

/// The hosts' part of snapshots: whatever a leader asked for, some time after.
fn carry_snapshots(cluster: &mut Cluster, dice: &mut Dice) {
    let Some(from) = cluster.leader() else { return };
    let Some(raft) = cluster.raft(from) else { return };
    let status = raft.status();
    for peer in status.peers {
        if peer.state != crate::raft::PeerState::Snapshot || !dice.per_mille(100) {
            continue;
        }
        let snapshot = cluster.members[&from].disk.snapshot;
        let arrives = !cluster.is_cut(from, peer.id) && dice.per_mille(800);
        let result = if arrives { snapshot.ok_or(()) } else { Err(()) };
        if let Some(raft) = cluster.raft(from) {
            raft.snapshot_sent(peer.id, result);
        }
        cluster.pump(from);
        if let (Ok(snapshot), true) = (result, dice.per_mille(900)) {
            cluster.install(from, peer.id, status.term, snapshot);
        }
    }
}

/// Any message may come next, twice, or never.
fn deliver_one(cluster: &mut Cluster, dice: &mut Dice, lost: usize) {
    if cluster.network.is_empty() {
        return;
    }
    let near = cluster.network.len().min(1 + dice.below(6));
    let Some(envelope) = cluster.network.remove(dice.below(near)) else { return };
    if cluster.is_cut(envelope.from, envelope.to) || dice.per_mille(lost) {
        return;
    }
    if dice.per_mille(50) {
        cluster.network.push_back(envelope.clone());
    }
    cluster.deliver(envelope);
}

/// No more faults: a leader comes, takes a command, and everybody ends up with the same.
fn calm(cluster: &mut Cluster) {
    cluster.cut.clear();
    for id in cluster.ids() {
        cluster.member(id).held = false;
        if cluster.members[&id].raft.is_none() {
            cluster.start(id);
        }
        cluster.pump(id);
    }
    let mut dice = Dice(1);
    let mut proposed = false;
    for _ in 0..400 {
        for id in cluster.ids() {
            cluster.tick(id);
            cluster.snapshot(id);
            seal(cluster, id);
        }
        carry_snapshots(cluster, &mut dice);
        while let Some(envelope) = cluster.network.pop_front() {
            cluster.deliver(envelope);
        }
        if let Some(leader) = cluster.leader() {
            proposed |= cluster.raft(leader).is_some_and(|raft| raft.propose(entry::command(b"end")).is_ok());
            cluster.pump(leader);
        }
        if proposed && has_settled(cluster) {
            return;
        }
    }
    let states: Vec<_> =
        cluster.members.values().flat_map(|member| &member.raft).map(|raft| raft.status()).collect();
    panic!("no rest after the storm: {states:#?}");
}

fn has_settled(cluster: &Cluster) -> bool {
    let statuses: Vec<_> =
        cluster.members.values().flat_map(|member| &member.raft).map(|raft| raft.status()).collect();
    let leads = statuses.iter().filter(|status| status.role == RoleKind::Leader).count() == 1;
    let commits: Vec<_> = statuses.iter().map(|status| status.committed).collect();
    // Each round proposes once more, so a follower may be one behind; all must have passed the first proposal.
    let spread = commits.iter().max().map_or(0, |max| max.0) - commits.iter().min().map_or(0, |min| min.0);
    let reads = cluster.members.values().all(|member| member.reads.is_empty());
    leads && spread <= 1 && reads
}
