//! The transport on real sockets: friends, strangers, restarts, bursts and hostile bytes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod bare;
mod clients;
mod hostile;
mod identity;
mod initials;
mod peers;
mod relay;
mod snapshots;
mod support;
