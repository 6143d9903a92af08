//! A small UDP relay that stands in for a bad network, so that no privileges are needed to have one: it cuts, loses,
//! delays, doubles and reorders, in each direction for itself. For tests, of this project and of applications.
//!
//! ```text
//! source ──> [listen | one socket for each source] ──> target
//!              there: its weather, seed and counts
//!        <──   back:  its weather, seed and counts   <──
//! ```
//!
//! Whoever is given the relay's address instead of the target's speaks to the target through it. The target sees each
//! source under one address of the relay's, which stays the same for as long as the source is heard of, as QUIC wants
//! it. Which datagram meets which fate depends on the seed and on the order in which they come.

mod queue;
mod way;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, JoinSet};

use queue::Queue;
use way::Way;

pub use way::{Counts, Weather};

/// Sources known at a time, each with a socket; one more takes the place of the one that was silent longest.
pub const SOURCES_MAX: usize = 512;
/// Larger than any datagram.
const DATAGRAM_MAX: usize = 64 * 1024;
/// Wanted size of each socket buffer: less loses bursts, which is weather nobody asked for.
const SOCKET_BUFFER: usize = 1 << 20;

/// A running relay. It ends when dropped, and with it what is under way.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    target: SocketAddr,
    there: Arc<Way>,
    back: Arc<Way>,
    task: JoinHandle<()>,
}

impl Relay {
    /// A relay at `listen` (port 0: any free one) to `target`, in good weather both ways. Runs on the tokio runtime that
    /// it is called in.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(listen: SocketAddr, target: SocketAddr, seed: u64) -> io::Result<Self> {
        let front = Arc::new(socket(listen).await?);
        let address = front.local_addr()?;
        // Different dice for the two directions of one seed.
        let (there, back) = (Arc::new(Way::new(seed)), Arc::new(Way::new(!seed)));
        let crossing = Crossing {
            front,
            target,
            there: there.clone(),
            back: back.clone(),
            queue: Queue::new(),
            sources: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        let task = tokio::spawn(crossing.run());
        Ok(Self { address, target, there, back, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it leads.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Changes the weather on the way to the target. What is under way still arrives.
    pub fn set_there(&self, weather: Weather) {
        self.there.set(weather);
    }

    /// Changes the weather on the way back.
    pub fn set_back(&self, weather: Weather) {
        self.back.set(weather);
    }

    /// The weather on the way to the target, and on the way back.
    pub fn weather(&self) -> (Weather, Weather) {
        (self.there.weather(), self.back.weather())
    }

    /// What happened on the way to the target, and on the way back.
    pub fn counts(&self) -> (Counts, Counts) {
        (self.there.counts(), self.back.counts())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    let buffers = socket2::SockRef::from(&socket);
    // Less than wanted is what the system allows, and works.
    let _smaller = buffers.set_recv_buffer_size(SOCKET_BUFFER);
    let _smaller = buffers.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    // Only then does it take a datagram without being waited for.
    socket.writable().await?;
    Ok(socket)
}

/// What the relay's task owns.
struct Crossing {
    front: Arc<UdpSocket>,
    target: SocketAddr,
    there: Arc<Way>,
    back: Arc<Way>,
    queue: Queue,
    sources: BTreeMap<SocketAddr, Source>,
    /// The ways back and the queue's; they end with this.
    tasks: JoinSet<()>,
}

struct Source {
    /// What the target knows this source as.
    behind: Arc<UdpSocket>,
    heard: Instant,
    returning: tokio::task::AbortHandle,
}

impl Crossing {
    async fn run(mut self) {
        self.tasks.spawn(self.queue.clone().run());
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            // An error here is some earlier datagram's, which is lost like others are.
            let Ok((length, from)) = self.front.recv_from(&mut buffer).await else { continue };
            let Some(datagram) = buffer.get(..length) else { continue };
            let Ok(behind) = self.behind(from).await else { continue };
            pass(&self.there, &self.queue, &behind, self.target, datagram);
        }
    }

    /// The socket that stands for a source, made where it is new.
    async fn behind(&mut self, from: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        if let Some(source) = self.sources.get_mut(&from) {
            source.heard = Instant::now();
            return Ok(source.behind.clone());
        }
        self.make_room();
        let any = match self.target.ip() {
            IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            IpAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
        };
        let behind = Arc::new(socket(any).await?);
        let back = Returning {
            behind: behind.clone(),
            front: self.front.clone(),
            target: self.target,
            source: from,
            way: self.back.clone(),
            queue: self.queue.clone(),
        };
        let returning = self.tasks.spawn(back.run());
        self.sources.insert(from, Source { behind: behind.clone(), heard: Instant::now(), returning });
        Ok(behind)
    }

    fn make_room(&mut self) {
        // Those that ended are taken out of the set.
        while self.tasks.try_join_next().is_some() {}
        if self.sources.len() < SOURCES_MAX {
            return;
        }
        let silent = self.sources.iter().min_by_key(|(_, source)| source.heard).map(|(from, _)| *from);
        if let Some(source) = silent.and_then(|from| self.sources.remove(&from)) {
            source.returning.abort();
        }
    }
}

/// The way back to one source.
struct Returning {
    behind: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    target: SocketAddr,
    source: SocketAddr,
    way: Arc<Way>,
    queue: Queue,
}

impl Returning {
    async fn run(self) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            let Ok((length, from)) = self.behind.recv_from(&mut buffer).await else { continue };
            if from == self.target
                && let Some(datagram) = buffer.get(..length)
            {
                pass(&self.way, &self.queue, &self.front, self.source, datagram);
            }
        }
    }
}

/// Lets a datagram meet its fate.
fn pass(way: &Arc<Way>, queue: &Queue, through: &Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) {
    let fate = way.fate();
    for after in [fate.first, fate.copy].into_iter().flatten() {
        if after.is_zero() {
            way.sent(through.try_send_to(datagram, to).is_ok());
        } else if !queue.push(after, way, through, to, datagram) {
            way.sent(false);
        }
    }
}
