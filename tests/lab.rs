//! The tests of the well-known distributed systems course, by their names there: elections, logs, persistence and
//! compaction (2A to 2D), the key-value service without and with snapshots (3A, 3B), and the layer between the two (4A,
//! 4C). The numbers are the course's; the code is ours, and so is what runs: real replicas, logs on model disks, clerks,
//! in the world of `tests/sim`. A crash here is a kill or a power cut, and everything that the world checks after each
//! event is checked here too.
//!
//! Each test runs with four seeds, or as many as `LAB_SEEDS` says: a hundred at night (CONTRIBUTING.md). A failure prints
//! the one command that shows it again: `LAB_SEED=n cargo test --test lab NAME`.
//!
//! | file in `lab/` | tests                                                     |
//! |----------------|-----------------------------------------------------------|
//! | `election`     | 2A                                                        |
//! | `agreement`    | 2B                                                        |
//! | `persistence`  | 2C                                                        |
//! | `compaction`   | 2D                                                        |
//! | `service`      | 3A and 3B that are runs of the one workload in `workload` |
//! | `scripted`     | 3A and 3B that are stories of their own                   |
//! | `rsm`          | 4A and 4C                                                 |
//!
//! What differs, and why. A new leader writes a no-op, so commands are counted as writes of clients, not as log indexes.
//! The course counts calls: one is a message that asks and the message that answers it, so we count those that ask, hold
//! answers to no more than that, and count bytes beside. The course looks at the log's 2,000 bytes when a round ends. We do
//! too, an election timeout later at most, on every member that runs; and whenever a command was put in we look for what
//! may stand above them: less than a command, and new leaders' no-ops. The least bound of Raft state is 1,000 bytes,
//! which is the course's too. An answer is not "no leader": it is refused, lost (ask again), or done.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of this is a test, also what stands outside of #[test] functions"
)]

#[path = "lab/agreement.rs"]
mod agreement;
#[path = "lab/clerks.rs"]
mod clerks;
#[path = "lab/cluster.rs"]
mod cluster;
#[path = "lab/commands.rs"]
mod commands;
#[path = "lab/compaction.rs"]
mod compaction;
#[path = "lab/election.rs"]
mod election;
#[path = "lab/persistence.rs"]
mod persistence;
#[path = "lab/rsm.rs"]
mod rsm;
#[path = "lab/scripted.rs"]
mod scripted;
#[path = "lab/seeds.rs"]
mod seeds;
#[path = "lab/service.rs"]
mod service;
#[path = "lab/workload.rs"]
mod workload;
