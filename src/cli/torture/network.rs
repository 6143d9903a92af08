//! The links of a run: a relay for each way in which one node is told to reach another, and one for each node as
//! clients reach it. Addresses stay the same for the whole run, whatever the weather.
//!
//! They have a thread of their own: what clients and checkers compute must not delay a datagram.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use raftmap::net::relay::{Counts, Relay, Weather};
use tokio::runtime::{Builder, Runtime};

use super::sorts::Sort;
use crate::cli::cluster::nodes::Nodes;
use crate::cli::random::Random;

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// All relays of a run.
pub(crate) struct Network {
    /// By who is told to use it, and whom it leads to.
    between: BTreeMap<(u64, u64), Relay>,
    /// By whom it leads to.
    clients: BTreeMap<u64, Relay>,
    /// Theirs; gone only with the network.
    runtime: Option<Runtime>,
}

impl Network {
    /// Relays between all `nodes`, who are told to use them.
    pub(crate) async fn between(nodes: &mut Nodes, seed: u64) -> io::Result<Self> {
        let mut dice = Random::branch(seed, u64::MAX - 1);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("raftmap-relays")
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let mut network = Self { between: BTreeMap::new(), clients: BTreeMap::new(), runtime: Some(runtime) };
        let mut bind = async |target| {
            let bound = handle.spawn(Relay::bind(ANY, target, dice.next())).await;
            bound.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        for to in nodes.ids() {
            let Some(target) = nodes.address(to) else { continue };
            for from in nodes.ids().into_iter().filter(|from| *from != to) {
                let relay = bind(target).await?;
                nodes.place(from, to, relay.address());
                network.between.insert((from, to), relay);
            }
            network.clients.insert(to, bind(target).await?);
        }
        Ok(network)
    }

    /// The nodes' addresses as clients are told them.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.clients.values().map(Relay::address).collect()
    }

    /// Cuts these links, each from a node to another; all others are as they should be.
    pub(crate) fn cut(&self, cuts: &BTreeSet<(u64, u64)>) {
        let weather = |way: (u64, u64)| if cuts.contains(&way) { Weather::CUT } else { Weather::default() };
        for (&(from, to), relay) in &self.between {
            // A connection that somebody else began carries both directions too.
            relay.set_there(weather((from, to)));
            relay.set_back(weather((to, from)));
        }
    }

    /// Gives all links this weather, those of clients too.
    pub(crate) fn set(&self, weather: Weather) {
        for relay in self.between.values().chain(self.clients.values()) {
            relay.set_there(weather);
            relay.set_back(weather);
        }
    }

    /// Whether datagrams have met this fault since `before`.
    pub(crate) fn met(&self, sort: Sort, before: &Counts) -> bool {
        let now = self.counts();
        let cut = now.cut > before.cut;
        let lost = now.lost > before.lost;
        let (doubled, held) = (now.doubled > before.doubled, now.held > before.held);
        match sort {
            Sort::Slow => now.delayed > before.delayed,
            Sort::Lossy => lost,
            Sort::Doubling => doubled,
            Sort::Reordering => held,
            Sort::Storm => lost && doubled && held,
            _ => cut,
        }
    }

    /// What became of all datagrams together.
    pub(crate) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for relay in self.between.values().chain(self.clients.values()) {
            let (there, back) = relay.counts();
            for counts in [there, back] {
                sum.came += counts.came;
                sum.went += counts.went;
                sum.cut += counts.cut;
                sum.lost += counts.lost;
                sum.doubled += counts.doubled;
                sum.delayed += counts.delayed;
                sum.held += counts.held;
                sum.overflowed += counts.overflowed;
            }
        }
        sum
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A runtime may not be waited for where others run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    /// Whether some of many datagrams through one relay meet that fault.
    async fn meets(sort: Sort, weather: Weather) -> bool {
        const SENT: u64 = 200;
        let mut nodes = Nodes::new(Path::new("unused"), 3).expect("ports");
        let network = Network::between(&mut nodes, 1).await.expect("relays");
        let before = network.counts();
        network.set(weather);
        let socket = std::net::UdpSocket::bind(ANY).expect("a socket");
        for _ in 0..SENT {
            socket.send_to(b"x", network.addresses()[0]).expect("sent");
        }
        while network.counts().came < SENT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        network.met(sort, &before)
    }

    #[tokio::test]
    async fn a_fault_of_links_is_met_by_datagrams_or_not_at_all() {
        let calm = Weather::default();
        let (lossy, doubling) =
            (Weather { lost_per_mille: 300, ..calm }, Weather { doubled_per_mille: 300, ..calm });
        let (slow, held) =
            (Weather { delay: Duration::from_millis(1), ..calm }, Weather { held_per_mille: 300, ..calm });
        let storm = Weather { lost_per_mille: 300, doubled_per_mille: 300, held_per_mille: 300, ..calm };
        for (sort, weather) in [
            (Sort::Isolate, Weather::CUT),
            (Sort::Slow, slow),
            (Sort::Lossy, lossy),
            (Sort::Doubling, doubling),
            (Sort::Reordering, held),
            (Sort::Storm, storm),
        ] {
            assert!(meets(sort, weather).await, "{sort:?}");
            assert!(!meets(sort, calm).await, "{sort:?}");
        }
        assert!(!meets(Sort::Storm, lossy).await, "all of it");
    }

    #[tokio::test]
    async fn a_cut_way_is_cut_on_both_relays_that_carry_it() {
        let mut nodes = Nodes::new(Path::new("unused"), 3).expect("ports");
        let network = Network::between(&mut nodes, 1).await.expect("relays");
        assert_eq!((network.between.len(), network.addresses().len()), (6, 3));
        network.cut(&[(1, 2)].into());
        let (good, cut) = (Weather::default(), Weather::CUT);
        assert_eq!(network.between[&(1, 2)].weather(), (cut, good));
        assert_eq!(network.between[&(2, 1)].weather(), (good, cut));
        assert_eq!(network.between[&(1, 3)].weather(), (good, good));
        network.cut(&BTreeSet::new());
        assert!(network.between.values().all(|relay| relay.weather() == (good, good)));
    }
}
