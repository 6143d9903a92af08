//! Hostile peers against whole nodes: strangers who should not come in, and a member whose certificate is sound but who
//! says what no member would. During each attack no thread and no task panics, the heap grows by less than 64 MiB
//! (the attackers' included: they are in this process), nobody is elected, writes go on, and every node hears of them
//! within the time after which a follower would ask for votes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod arena;
#[path = "../../net/tests/wire/bare.rs"]
#[allow(dead_code, reason = "the transport's own tests use the rest")]
mod bare;
mod member;
mod strangers;
