//! The command as people use it: real processes, real disks, real QUIC. What is asked of it here: its words and exit
//! codes, and that nothing acknowledged is lost whatever is done to its processes and files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod check;
mod cluster;
mod commands;
mod crash;
mod damage;
mod demo;
mod descriptors;
mod failing;
mod lab;
mod load;
mod offline;
mod torture;
