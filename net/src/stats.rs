//! What the transport counts, so that silence and loss can be told apart.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counted since the start; every field only grows.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats { $($(#[$doc])* pub $name: u64,)* }

        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)* }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections to peers that got as far as their hello.
    peer_connections,
    /// Of these, replaced by a newer one from the same node.
    peer_replaced,
    /// Attempts to reach a peer that failed.
    dials_failed,
    /// Connections refused for who they are or what their hello says.
    refused,
    /// Handshakes not begun because too many were under way.
    handshakes_turned_away,
    /// Frames for peers dropped because nothing was connected.
    dropped_unconnected,
    /// Frames for peers dropped because their queue was full.
    dropped_full,
    /// Connections closed for a malformed frame.
    malformed,
    /// Client connections that got as far as their hello.
    client_connections,
    /// Client connections refused because there were too many.
    clients_turned_away,
    /// Client connections closed because their replies were not read.
    slow_readers,
    /// Client connections closed because a request that had begun came too slowly.
    slow_senders,
    /// Snapshots whose receiver had all of it and said so.
    snapshots_sent,
    /// Snapshots that a peer offered and that were not taken, offers that broke off among them.
    snapshots_refused,
    /// Snapshots received whole and kept.
    snapshots_received,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts, and says whether it is worth a line in the log: the 1st, 2nd, 4th, 8th ... time it is, so that nobody
    /// can fill the log by doing it again and again.
    pub(crate) fn add_one_worth_a_line(&self) -> bool {
        (self.0.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doing_it_again_and_again_does_not_fill_a_log() {
        let counters = Counters::default();
        let lines = (1..=1_000).filter(|_| counters.snapshots_refused.add_one_worth_a_line());
        assert_eq!(lines.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(counters.read().snapshots_refused, 1_000);
    }
}
