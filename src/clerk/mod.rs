//! The client: the same calls for an application that embeds a node and for one that talks to a cluster from outside.
//!
//! [`Clerk`] is cheap to clone; all clones share one session and one connection to each server. Its thinking is in
//! `machine.rs`; `driver.rs` lends it a clock, connections and callers. Here is what a caller sees.

pub(crate) mod door;
mod driver;
pub mod machine;
pub mod servers;
pub mod session;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftmap_net::{ClientEndpoint, Identity, IdentityError, Role, TlsError, is_loopback};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::door::{Door, Doors};
pub(crate) use self::driver::LinkEvents;
use self::driver::Shared;
use self::machine::{CallId, Ending, Machine, ServerAddress};
use crate::error::{Error, Result, chain};
use crate::kv::{Command, KEY_BYTES_MAX, Limits, Page, Reply, Scan, VALUE_BYTES_MAX, Versioned, WINDOW_MIN};
use crate::wire::client::{Answer, Query};

/// How long a call may take where nothing else is said.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// What no cluster takes is refused here: a frame that nobody may send would be tried until the deadline.
const WIDEST: Limits = Limits {
    key_bytes: KEY_BYTES_MAX,
    value_bytes: VALUE_BYTES_MAX,
    sessions: 1,
    session_ttl_ms: 1,
    window: 1,
};

/// Writes of one clerk that may be unresolved at once; more wait for their turn. The map's own window is at least as
/// large.
const WINDOW: u64 = WINDOW_MIN as u64;

/// Calls on the replicated map.
///
/// Every call has a deadline and ends in one of three ways: with its result; with an error that means it was
/// definitely not done and never will be; or, writes only, with [`Error::Unknown`], whose [`Pending`] asks again under
/// the same number and so counts once. Calling the method again instead is a new request.
#[derive(Clone)]
pub struct Clerk {
    shared: Arc<Shared>,
    deadline: Duration,
}

/// How a clerk shows who it is.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Directory with `ca.pem`, `cert.pem`, `key.pem`; `None` uses the development identity, on loopback addresses
    /// only.
    pub identity: Option<PathBuf>,
}

/// Why a clerk could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No servers were named.
    #[error("no servers: name at least one address")]
    NoServers,
    /// There is no identity, or it cannot be used.
    #[error("identity: {}", chain(.0))]
    Identity(#[from] IdentityError),
    /// The identity's parts do not fit together.
    #[error("identity: {}", chain(.0))]
    Tls(#[from] TlsError),
}

impl ConnectOptions {
    pub(crate) fn endpoint(&self, servers: &[SocketAddr]) -> Result<ClientEndpoint, ConnectError> {
        // One server beyond this machine is enough to ask for a real identity.
        let beyond = servers.iter().find(|server| !is_loopback(**server));
        let address = *beyond.or(servers.first()).ok_or(ConnectError::NoServers)?;
        let role = Role::Client(format!("user-{}", std::process::id()));
        let identity = Identity::resolve(self.identity.as_deref(), address, &role)?;
        Ok(ClientEndpoint::new(identity, raftmap_net::Limits::default(), &Handle::current())?)
    }
}

/// What came of [`Clerk::compare_and_put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The version matched; the value is stored.
    Swapped {
        /// The key's new version.
        version: u64,
    },
    /// The version did not match; nothing changed.
    Mismatch {
        /// The key's version; 0 where it is absent.
        current: u64,
    },
}

impl Clerk {
    /// A clerk of the cluster that these servers belong to; one of them is enough, all of them is better. The first
    /// call connects. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`ConnectError`]: nothing was sent.
    pub fn connect(servers: &[SocketAddr], options: &ConnectOptions) -> Result<Self, ConnectError> {
        let endpoint = options.endpoint(servers)?;
        let servers = servers.iter().copied().map(ServerAddress::Remote).collect();
        Ok(Self::new(servers, Doors::new(endpoint)))
    }

    /// A clerk of these servers. The first call connects; `door` says with whose certificate.
    pub(crate) fn new(servers: Vec<ServerAddress>, doors: Doors) -> Self {
        let shared = Shared::start(Machine::new(servers, WINDOW), doors);
        Self { shared, deadline: DEFAULT_DEADLINE }
    }

    /// Lends the clerk a node in this process, as its first server.
    pub(crate) fn attach(&self, door: impl FnOnce(LinkEvents) -> Arc<dyn Door>) {
        self.shared.attach(door);
    }

    /// The same clerk with another deadline for its calls.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Stores `value` under `key` and returns its version once a majority of the cluster has it on disk.
    ///
    /// # Errors
    /// [`Error::Unknown`] when the deadline passed first: the write may still happen. Its [`Pending`] asks again under
    /// the same number and so counts once; a second `put` would be a new request. Any other error: not done.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64> {
        self.write(Command::Put { key: copy(key), value: copy(value) }).await?.put()
    }

    /// Appends `value` to what `key` holds, creating it where it is absent; returns the new version.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::TooLarge`] also where the result would be over the limit of a value.
    pub async fn append(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64> {
        self.write(Command::Append { key: copy(key), value: copy(value) }).await?.append()
    }

    /// Removes `key`; returns whether it was there.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.write(Command::Delete { key: copy(key) }).await?.delete()
    }

    /// Stores `value` if `key` is at `version`; 0 means absent. Versions are log indices: they rise, with gaps.
    ///
    /// # Errors
    /// As [`put`](Self::put). A version that does not match is no error but [`Compared::Mismatch`].
    pub async fn compare_and_put(
        &self,
        key: impl AsRef<[u8]>,
        version: u64,
        value: impl AsRef<[u8]>,
    ) -> Result<Compared> {
        self.write(Command::CompareAndPut { key: copy(key), version, value: copy(value) }).await?.compared()
    }

    /// The value of `key` and its version, `None` where it is absent. Linearizable: a majority has confirmed the
    /// leader after this call began.
    ///
    /// # Errors
    /// No server answered before the deadline, or all of them refused.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Versioned>> {
        Ok(self.get_with_index(key).await?.1)
    }

    /// As [`get`](Self::get), with the log index of the state that was read: everything up to there is in it. A key that
    /// is found has a version at or below it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_with_index(&self, key: impl AsRef<[u8]>) -> Result<(u64, Option<Versioned>)> {
        match self.read(Query::Get { key: copy(key) }, false).await? {
            Answer::Got { index, found } => Ok((index.0, found)),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`get`](Self::get), but from whatever the nearest node has applied: possibly old, never torn.
    ///
    /// # Errors
    /// No server answered before the deadline.
    pub async fn get_stale(&self, key: impl AsRef<[u8]>) -> Result<Option<Versioned>> {
        self.read(Query::Get { key: copy(key) }, true).await.and_then(got)
    }

    /// A page of pairs in key order. Each page is linearizable by itself; go on with [`Scan::after`] the last key.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn scan(&self, scan: Scan) -> Result<Page> {
        match self.read(Query::Scan(scan), false).await? {
            Answer::Page { page, .. } => Ok(page),
            other => Err(unexpected(&other)),
        }
    }

    /// The number of pairs.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn len(&self) -> Result<u64> {
        match self.read(Query::Len, false).await? {
            Answer::Len { pairs, .. } => Ok(pairs),
            other => Err(unexpected(&other)),
        }
    }

    /// An index up to which everything that was acknowledged before this call has been committed.
    pub(crate) async fn read_index(&self) -> Result<u64> {
        match self.read(Query::Len, false).await? {
            Answer::Len { index, .. } => Ok(index.0),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives this clerk's session back to the cluster, if it has one. Later writes open a new one; a [`Pending`] of
    /// this one can then no longer be resolved.
    ///
    /// # Errors
    /// No server did it before the deadline: the session then goes when it expires.
    pub async fn close(&self) -> Result<()> {
        let ending = self.call(|machine, now, deadline| machine.close_session(now, deadline)).await;
        match ending {
            Ending::Done(_) => Ok(()),
            Ending::NotDone(refusal) => Err(Error::from(refusal)),
            Ending::Unreached(why) => Err(Error::NotConnected { deadline: self.deadline, why }),
            Ending::NoAnswer | Ending::WindowFull | Ending::Unknown | Ending::Expired => {
                Err(Error::NoAnswer { deadline: self.deadline })
            }
        }
    }

    /// A write in its general form.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn write(&self, command: Command) -> Result<Written> {
        command.check(&WIDEST).map_err(|error| Error::TooLarge(error.to_string()))?;
        let id = self.begin(|machine, now, deadline| machine.write(now, deadline, command));
        self.finish_write(id).await
    }

    async fn finish_write(&self, (id, ending): (CallId, oneshot::Receiver<Ending>)) -> Result<Written> {
        let guard = Forget { shared: &self.shared, id: Some(id) };
        match ending.await {
            Ok(Ending::Done(Answer::Written { reply: Reply::OutsideLimits(limit), .. })) => {
                Err(Error::TooLarge(limit.to_string()))
            }
            Ok(Ending::Done(Answer::Written { index, reply })) => Ok(Written { index: index.0, reply }),
            Ok(Ending::Done(other)) => Err(unexpected(&other)),
            Ok(Ending::NotDone(refusal)) => Err(Error::from(refusal)),
            Ok(Ending::NoAnswer) => Err(Error::NoAnswer { deadline: self.deadline }),
            Ok(Ending::Unreached(why)) => Err(Error::NotConnected { deadline: self.deadline, why }),
            Ok(Ending::WindowFull) => Err(window_full()),
            Ok(Ending::Expired) => Err(Error::SessionExpired),
            Ok(Ending::Unknown) => {
                guard.keep();
                Err(Error::Unknown(Pending { clerk: self.clone(), id: Some(id) }))
            }
            Err(_) => Err(Error::Stopped),
        }
    }

    async fn read(&self, query: Query, stale: bool) -> Result<Answer> {
        let longest = query.longest_key();
        if longest > KEY_BYTES_MAX as usize {
            return Err(Error::TooLarge(format!("a key of {longest} bytes, {KEY_BYTES_MAX} allowed")));
        }
        match self.call(|machine, now, deadline| machine.read(now, deadline, query, stale)).await {
            Ending::Done(answer) => Ok(answer),
            Ending::NotDone(refusal) => Err(Error::from(refusal)),
            Ending::Unreached(why) => Err(Error::NotConnected { deadline: self.deadline, why }),
            Ending::NoAnswer | Ending::WindowFull | Ending::Unknown | Ending::Expired => {
                Err(Error::NoAnswer { deadline: self.deadline })
            }
        }
    }

    async fn call(&self, begin: impl FnOnce(&mut Machine, Duration, Duration) -> CallId) -> Ending {
        let (id, ending) = self.begin(begin);
        let _guard = Forget { shared: &self.shared, id: Some(id) };
        ending.await.unwrap_or(Ending::NoAnswer)
    }

    fn begin(
        &self,
        begin: impl FnOnce(&mut Machine, Duration, Duration) -> CallId,
    ) -> (CallId, oneshot::Receiver<Ending>) {
        let (sender, receiver) = oneshot::channel();
        let id = self.shared.act(|state, now| {
            let id = begin(&mut state.machine, now, now.saturating_add(self.deadline));
            state.callers.insert(id, sender);
            id
        });
        (id, receiver)
    }
}

impl std::fmt::Debug for Clerk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clerk").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// A write that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its place in the log.
    pub index: u64,
    /// What came of it.
    pub reply: Reply,
}

impl Written {
    /// The version that the key has by this write: of a put, an append, and a compare-and-put that matched. `None`
    /// where nothing was stored: a version that did not match, a removal.
    pub fn version(&self) -> Option<u64> {
        match self.reply {
            Reply::Put { version } | Reply::Append { version, .. } | Reply::Swapped { version } => {
                Some(version)
            }
            Reply::Delete { .. } | Reply::Mismatch { .. } | Reply::OutsideLimits(_) => None,
        }
    }

    fn put(self) -> Result<u64> {
        match self.reply {
            Reply::Put { version } => Ok(version),
            other => Err(another(&other)),
        }
    }

    fn append(self) -> Result<u64> {
        match self.reply {
            Reply::Append { version, .. } => Ok(version),
            other => Err(another(&other)),
        }
    }

    fn delete(self) -> Result<bool> {
        match self.reply {
            Reply::Delete { existed } => Ok(existed),
            other => Err(another(&other)),
        }
    }

    fn compared(self) -> Result<Compared> {
        match self.reply {
            Reply::Swapped { version } => Ok(Compared::Swapped { version }),
            Reply::Mismatch { current } => Ok(Compared::Mismatch { current }),
            other => Err(another(&other)),
        }
    }
}

fn another(reply: &Reply) -> Error {
    Error::Protocol(format!("the server answered another question: {reply:?}"))
}

fn window_full() -> Error {
    Error::Busy("unresolved writes fill the session's window; resolve or drop their Pending")
}

fn unexpected(answer: &Answer) -> Error {
    Error::Protocol(format!("the server answered another question: {answer:?}"))
}

fn got(answer: Answer) -> Result<Option<Versioned>> {
    match answer {
        Answer::Got { found, .. } => Ok(found),
        other => Err(unexpected(&other)),
    }
}

fn copy(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

/// A write whose outcome is unknown. It keeps its number: asking again can never execute it twice. Dropping it gives
/// the number up: the write has then been executed once or never.
///
/// A session has room for 1,024 numbers from its lowest unresolved one on. A `Pending` that is held while that many
/// later writes go through makes further ones wait for it; at their deadline they end as [`Error::Busy`].
#[derive(Debug)]
pub struct Pending {
    clerk: Clerk,
    id: Option<CallId>,
}

impl Pending {
    /// Asks again under the same number, for at most `deadline`; executes the write if it had not been.
    ///
    /// # Errors
    /// [`Error::Unknown`] again when that deadline passes too; [`Error::SessionExpired`] when the cluster has forgotten
    /// the session, so that nobody can say any more.
    pub async fn resolve(mut self, deadline: Duration) -> Result<Written> {
        let Some(id) = self.id.take() else { return Err(Error::Stopped) };
        let (sender, receiver) = oneshot::channel();
        self.clerk.shared.act(|state, now| {
            state.callers.insert(id, sender);
            state.machine.resume(now, id, now.saturating_add(deadline));
        });
        self.clerk.with_deadline(deadline).finish_write((id, receiver)).await
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.clerk.shared.forget(id);
        }
    }
}

/// Forgets a call whose future is dropped before its end.
struct Forget<'a> {
    shared: &'a Arc<Shared>,
    id: Option<CallId>,
}

impl Forget<'_> {
    fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.forget(id);
        }
    }
}
