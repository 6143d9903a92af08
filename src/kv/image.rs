//! A state held still, and its way out as bytes while the map goes on.

use std::sync::Arc;

use bytes::Bytes;
use imbl::ordmap;
use imbl::shared_ptr::DefaultSharedPtr;
use raftmap_storage::types::Position;

use super::command::SessionId;
use super::content::{Head, VERSION, put_pair, put_session};
use super::machine::StateMachine;
use super::pairs::Versioned;
use super::session::Session;

/// A chunk ends with the record that fills it to this many bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// The state at one place in the log. Cheap to take and to clone, may be read in another thread; memory is shared with
/// the map until the map changes it.
#[derive(Clone, Debug)]
pub struct Image {
    machine: StateMachine,
}

impl Image {
    pub(super) fn new(machine: StateMachine) -> Self {
        #[cfg(raftmap_bugs)]
        let machine = if bug!(23) { without_the_last_reply(machine) } else { machine };
        Self { machine }
    }

    /// The last entry whose effect it contains.
    pub fn applied(&self) -> Position {
        self.machine.applied()
    }

    /// The content of a snapshot, for [`Restore`](super::Restore): never empty, in chunks of at most 64 KiB and one
    /// record, each made when it is asked for. The same state gives the same chunks.
    pub fn chunks(&self) -> Chunks<'_> {
        let mut start = vec![VERSION];
        Head::of(&self.machine).put(&mut start);
        Chunks { start, pairs: self.machine.pairs.map.iter(), sessions: self.machine.sessions.table.iter() }
    }

    /// BLAKE3 of the content.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let (mut chunks, mut chunk) = (self.chunks(), Vec::new());
        while chunks.fill(&mut chunk) {
            hasher.update(&chunk);
        }
        *hasher.finalize().as_bytes()
    }
}

/// For bug 23: the pairs as the last entry left them, the sessions as it found them.
#[cfg(raftmap_bugs)]
fn without_the_last_reply(mut machine: StateMachine) -> StateMachine {
    let (last, ids) = (machine.applied.index, machine.sessions.table.keys().copied().collect::<Vec<_>>());
    for id in ids {
        if let Some(session) = machine.sessions.table.get_mut(&id) {
            Arc::make_mut(session).replies.retain(|reply| reply.at != last);
        }
    }
    machine
}

/// The content of an [`Image`], piece by piece.
pub struct Chunks<'a> {
    /// Version and head, until they have left.
    start: Vec<u8>,
    pairs: ordmap::Iter<'a, Bytes, Versioned, DefaultSharedPtr>,
    sessions: ordmap::Iter<'a, SessionId, Arc<Session>, DefaultSharedPtr>,
}

impl Chunks<'_> {
    /// Appends the next record; `false` where there is none.
    fn put_next(&mut self, chunk: &mut Vec<u8>) -> bool {
        if let Some((key, found)) = self.pairs.next() {
            put_pair(chunk, key, found);
        } else if let Some((id, session)) = self.sessions.next() {
            put_session(chunk, *id, session);
        } else {
            return false;
        }
        true
    }

    /// Puts the next chunk in the place of what is there; `false` where there is none.
    fn fill(&mut self, chunk: &mut Vec<u8>) -> bool {
        chunk.clear();
        chunk.append(&mut self.start);
        while chunk.len() < CHUNK_BYTES && self.put_next(chunk) {}
        !chunk.is_empty()
    }
}

impl Iterator for Chunks<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::new();
        self.fill(&mut chunk).then_some(chunk)
    }
}
