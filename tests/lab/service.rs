//! 3A and 3B: the runs of the one workload.

use crate::seeds::each_seed;
use crate::workload::{CALM, Workload};

/// The course's bound, and our least one.
const BOUND: Option<u64> = Some(1_000);

#[test]
fn basic_3a() {
    each_seed("basic_3a", |seed| Workload { clients: 1, ..CALM }.run(seed));
}

#[test]
fn concurrent_3a() {
    each_seed("concurrent_3a", |seed| CALM.run(seed));
}

#[test]
fn unreliable_3a() {
    each_seed("unreliable_3a", |seed| Workload { unreliable: true, ..CALM }.run(seed));
}

#[test]
fn many_partitions_one_client_3a() {
    let workload = Workload { clients: 1, partitions: true, ..CALM };
    each_seed("many_partitions_one_client_3a", |seed| workload.run(seed));
}

#[test]
fn many_partitions_many_clients_3a() {
    let workload = Workload { partitions: true, ..CALM };
    each_seed("many_partitions_many_clients_3a", |seed| workload.run(seed));
}

#[test]
fn persist_one_client_3a() {
    let workload = Workload { clients: 1, crash: true, ..CALM };
    each_seed("persist_one_client_3a", |seed| workload.run(seed));
}

#[test]
fn persist_concurrent_3a() {
    let workload = Workload { crash: true, ..CALM };
    each_seed("persist_concurrent_3a", |seed| workload.run(seed));
}

#[test]
fn persist_concurrent_unreliable_3a() {
    let workload = Workload { unreliable: true, crash: true, ..CALM };
    each_seed("persist_concurrent_unreliable_3a", |seed| workload.run(seed));
}

#[test]
fn persist_partition_3a() {
    let workload = Workload { crash: true, partitions: true, ..CALM };
    each_seed("persist_partition_3a", |seed| workload.run(seed));
}

#[test]
fn persist_partition_unreliable_3a() {
    let workload = Workload { unreliable: true, crash: true, partitions: true, ..CALM };
    each_seed("persist_partition_unreliable_3a", |seed| workload.run(seed));
}

#[test]
fn persist_partition_unreliable_linearizable_3a() {
    let workload = Workload {
        clients: 15,
        servers: 7,
        unreliable: true,
        crash: true,
        partitions: true,
        random_keys: true,
        ..CALM
    };
    each_seed("persist_partition_unreliable_linearizable_3a", |seed| workload.run(seed));
}

#[test]
fn snapshot_recover_3b() {
    let workload = Workload { clients: 1, crash: true, max_raft_state: BOUND, ..CALM };
    each_seed("snapshot_recover_3b", |seed| workload.run(seed));
}

#[test]
fn snapshot_recover_many_clients_3b() {
    let workload = Workload { clients: 20, crash: true, max_raft_state: BOUND, ..CALM };
    each_seed("snapshot_recover_many_clients_3b", |seed| workload.run(seed));
}

#[test]
fn snapshot_unreliable_3b() {
    let workload = Workload { unreliable: true, max_raft_state: BOUND, ..CALM };
    each_seed("snapshot_unreliable_3b", |seed| workload.run(seed));
}

#[test]
fn snapshot_unreliable_recover_3b() {
    let workload = Workload { unreliable: true, crash: true, max_raft_state: BOUND, ..CALM };
    each_seed("snapshot_unreliable_recover_3b", |seed| workload.run(seed));
}

#[test]
fn snapshot_unreliable_recover_concurrent_partition_3b() {
    let workload =
        Workload { unreliable: true, crash: true, partitions: true, max_raft_state: BOUND, ..CALM };
    each_seed("snapshot_unreliable_recover_concurrent_partition_3b", |seed| workload.run(seed));
}

#[test]
fn snapshot_unreliable_recover_concurrent_partition_linearizable_3b() {
    let workload = Workload {
        clients: 15,
        servers: 7,
        unreliable: true,
        crash: true,
        partitions: true,
        max_raft_state: BOUND,
        random_keys: true,
    };
    let name = "snapshot_unreliable_recover_concurrent_partition_linearizable_3b";
    each_seed(name, |seed| workload.run(seed));
}
