//! The links of a run: a relay for each way in which one node is told to reach another, and one for each node as
//! clients reach it. Addresses stay the same for the whole run, whatever the weather.
//!
//! They have a thread of their own: what clients and checkers compute must not delay a datagram.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use raftmap::net::relay::{Counts, Relay, Weather};
use tokio::runtime::{Builder, Runtime};

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
