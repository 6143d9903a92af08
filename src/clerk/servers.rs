//! The servers that a clerk knows: which of them are connected, which were silent, and which one is asked now.

use std::net::SocketAddr;
use std::time::Duration;

/// How long a connection attempt may stay alone before the next server is tried beside it.
const STAGGER: Duration = Duration::from_millis(100);
/// How long a server with a request may say nothing at all before another one is asked.
pub(super) const SILENCE: Duration = Duration::from_millis(300);
/// How long a request may stay without an answer at a server that answers others.
const ATTEMPT: Duration = Duration::from_millis(1_000);
/// How long nobody's word that it leads brings a silent server back, unless it speaks.
const SUSPICION: Duration = Duration::from_millis(1_000);
/// Pause before asking again where nobody knows a leader.
const NO_LEADER_PAUSE: Duration = Duration::from_millis(25);
/// Pause before a server that could not be reached is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Servers in the list, those that redirects named included. A redirect to one more is not followed.
const SERVERS_MAX: usize = 64;

/// A server, by its place in the clerk's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerId(pub usize);

/// Where a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// In this process, connected from the start and never again once it is gone.
    Local {
        /// What the others call it: a redirect there means this one.
        alias: Option<SocketAddr>,
    },
    /// On the network.
    Remote(SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down {
        retry_at: Duration,
    },
    Connecting {
        since: Duration,
    },
    Up,
    /// The node in this process has stopped: it does not come back.
    Gone,
}

#[derive(Debug)]
struct Server {
    address: ServerAddress,
    link: Link,
    /// When it last answered anything.
    heard: Duration,
    /// When the oldest request was sent that it has said nothing since.
    asked: Option<Duration>,
    /// It was silent; until then it is not believed to lead.
    suspect_until: Duration,
}

impl Server {
    fn new(address: ServerAddress) -> Self {
        let link = match address {
            ServerAddress::Remote(_) => Link::Down { retry_at: Duration::ZERO },
            ServerAddress::Local { .. } => Link::Up,
        };
        Self { address, link, heard: Duration::ZERO, asked: None, suspect_until: Duration::ZERO }
    }

    fn is_at(&self, address: SocketAddr) -> bool {
        match self.address {
            ServerAddress::Local { alias } => alias == Some(address),
            ServerAddress::Remote(own) => own == address,
        }
    }

    fn is_suspect(&self, now: Duration) -> bool {
        self.suspect_until > now
    }

    /// A leader that cannot be reached right now is not asked in a circle.
    fn waits_to_retry(&self) -> bool {
        matches!(self.link, Link::Down { retry_at } if retry_at > Duration::ZERO)
    }
}

/// See the module's description. Never empty.
#[derive(Debug)]
pub struct Servers {
    list: Vec<Server>,
    current: usize,
}

impl Servers {
    /// The first one is asked first.
    pub fn new(addresses: Vec<ServerAddress>) -> Self {
        Self { list: addresses.into_iter().map(Server::new).collect(), current: 0 }
    }

    /// The one that is asked now.
    pub fn current(&self) -> ServerId {
        ServerId(self.current)
    }

    /// Whether the one that is asked now is connected.
    pub fn current_is_up(&self) -> bool {
        self.list.get(self.current).is_some_and(|server| server.link == Link::Up)
    }

    /// Whether any is connected.
    pub fn any_is_up(&self) -> bool {
        self.list.iter().any(|server| server.link == Link::Up)
    }

    /// Whether none will ever be connected again.
    pub fn all_gone(&self) -> bool {
        self.list.iter().all(|server| server.link == Link::Gone)
    }

    /// The node in this process, if it can be asked.
    pub fn local(&self, now: Duration) -> Option<ServerId> {
        let usable = |server: &Server| {
            matches!(server.address, ServerAddress::Local { .. })
                && server.link == Link::Up
                && !server.is_suspect(now)
        };
        self.list.iter().position(usable).map(ServerId)
    }

    /// Where to connect to.
    pub fn address(&self, server: ServerId) -> Option<SocketAddr> {
        match self.list.get(server.0)?.address {
            ServerAddress::Local { .. } => None,
            ServerAddress::Remote(address) => Some(address),
        }
    }

    /// It answered something.
    pub fn heard(&mut self, now: Duration, server: ServerId) {
        if let Some(found) = self.list.get_mut(server.0) {
            found.heard = now;
            found.asked = None;
            found.suspect_until = Duration::ZERO;
        }
    }

    /// A request is sent to it.
    pub fn asked(&mut self, now: Duration, server: ServerId) {
        if let Some(found) = self.list.get_mut(server.0) {
            found.asked.get_or_insert(now);
        }
    }

    /// A request to it was given up. Calls with short deadlines may each end before a server's silence is long enough
    /// to speak against it; all of them together are not.
    pub fn gave_up(&mut self, now: Duration, server: ServerId) {
        let Some(found) = self.list.get_mut(server.0) else { return };
        if found.asked.is_some_and(|asked| asked + SILENCE <= now) {
            sometimes!("a clerk left a server that was silent to all its calls");
            found.suspect_until = now + SUSPICION;
            found.asked = None;
            self.leave(now, server);
        }
    }

    /// When to look again after a request that was sent at `at` and has no answer. A server that answers others is
    /// given time, one that says nothing is suspected; `None`: the request belongs elsewhere.
    pub fn patience(&mut self, now: Duration, server: ServerId, at: Duration) -> Option<Duration> {
        let found = self.list.get_mut(server.0)?;
        let silent_at = found.heard.max(at) + SILENCE;
        if silent_at <= now {
            sometimes!("a clerk left a silent server");
            found.suspect_until = now + SUSPICION;
            return None;
        }
        (now < at + ATTEMPT).then(|| silent_at.min(at + ATTEMPT))
    }

    /// Turns to the next server, if this one is the current one; to one that was not silent, if there is one.
    pub fn leave(&mut self, now: Duration, server: ServerId) {
        if self.current == server.0 {
            let count = self.list.len().max(1);
            let mut others = (1..=count).map(|step| (server.0 + step) % count);
            let trusted = |other: &usize| self.list.get(*other).is_some_and(|other| !other.is_suspect(now));
            self.current = others.find(trusted).unwrap_or((server.0 + 1) % count);
        }
    }

    /// Turns to where a refusal points. `None`: ask there at once; otherwise after a pause.
    pub fn redirect(
        &mut self,
        now: Duration,
        from: ServerId,
        leader: Option<SocketAddr>,
    ) -> Option<Duration> {
        if let Some(at) = leader.and_then(|address| self.find_or_add(address))
            && at != from.0
            && let Some(found) = self.list.get(at)
            && !found.is_suspect(now)
            && found.link != Link::Gone
        {
            self.current = at;
            return found.waits_to_retry().then_some(NO_LEADER_PAUSE);
        }
        self.leave(now, from);
        Some(NO_LEADER_PAUSE)
    }

    fn find_or_add(&mut self, address: SocketAddr) -> Option<usize> {
        let known = self.list.iter().position(|server| server.is_at(address));
        known.or_else(|| {
            let room = self.list.len() < SERVERS_MAX;
            room.then(|| self.list.push(Server::new(ServerAddress::Remote(address))))?;
            Some(self.list.len() - 1)
        })
    }

    // ---- Links ----

    /// A connection stands.
    pub fn link_up(&mut self, server: ServerId) {
        let Some(found) = self.list.get_mut(server.0) else { return };
        found.link = Link::Up;
        if !self.current_is_up() {
            self.current = server.0;
        }
    }

    /// A connection ended, or could not be made.
    pub fn link_down(&mut self, now: Duration, server: ServerId) {
        let Some(found) = self.list.get_mut(server.0) else { return };
        // It owes nothing on the next connection.
        found.asked = None;
        found.link = match found.address {
            ServerAddress::Remote(_) => Link::Down { retry_at: now + RECONNECT_PAUSE },
            ServerAddress::Local { .. } => Link::Gone,
        };
        self.leave(now, server);
    }

    /// Turns to a server that is connected; else names one to connect to: the current one, then the ones after it as
    /// long as none before them has answered.
    pub fn connect(&mut self, now: Duration) -> Option<ServerId> {
        for step in 0..self.list.len() {
            let at = (self.current + step) % self.list.len();
            let server = self.list.get_mut(at)?;
            match server.link {
                Link::Up => {
                    self.current = at;
                    return None;
                }
                Link::Connecting { since } if now < since + STAGGER => return None,
                Link::Connecting { .. } | Link::Gone => {}
                Link::Down { retry_at } if now < retry_at => {}
                Link::Down { .. } => {
                    server.link = Link::Connecting { since: now };
                    return Some(ServerId(at));
                }
            }
        }
        None
    }

    /// When `connect` may have more to do. What could be done by now has been done: only times to come count.
    pub fn connect_at(&self, now: Duration) -> Option<Duration> {
        let times = self.list.iter().filter_map(|server| match server.link {
            Link::Connecting { since } => Some(since + STAGGER),
            Link::Down { retry_at } => Some(retry_at),
            Link::Up | Link::Gone => None,
        });
        times.filter(|at| *at > now).min()
    }
}
