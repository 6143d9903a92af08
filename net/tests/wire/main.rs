//! The transport on real sockets: friends, strangers, restarts, bursts and hostile bytes.

mod clients;
mod hostile;
mod identity;
mod peers;
mod snapshots;
mod support;
