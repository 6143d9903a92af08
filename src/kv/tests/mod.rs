//! Tests of the map: a log that is written by hand, and one story or one table a test.
#![allow(clippy::disallowed_methods, reason = "a seed may come from the environment")]

mod commands;
mod content;
mod expiry;
mod formats;
mod model;
mod naive;
mod scans;
mod sessions;

use bytes::Bytes;
use raftmap_storage::types::{Index, Position};

use super::*;

const ALICE: Owner = Owner([0xA1; 16]);
const BOB: Owner = Owner([0xB0; 16]);

/// Small enough that every boundary is near.
const SMALL: Limits = Limits { key_bytes: 8, value_bytes: 32, sessions: 4, session_ttl_ms: 1_000, window: 4 };

/// A log that is applied as it is written.
struct Log {
    map: StateMachine,
}

impl Log {
    fn new(limits: Limits) -> Self {
        Self { map: StateMachine::new(limits) }
    }

    fn next(&self) -> Position {
        Position::new(self.map.applied().index.0 + 1, 1)
    }

    fn apply(&mut self, at: u64, request: Request) -> Outcome {
        self.map.apply(self.next(), Proposal { at: LogTime(at), request })
    }

    fn open(&mut self, at: u64, owner: Owner) -> SessionId {
        match self.apply(at, Request::Open { owner }) {
            Outcome::Opened { session } => session,
            other => panic!("not opened: {other:?}"),
        }
    }

    fn close(&mut self, at: u64, owner: Owner, session: SessionId) -> Outcome {
        self.apply(at, Request::Close { owner, session })
    }

    /// Alice's request `sequence`, with all below `acked_below` acknowledged.
    fn run(
        &mut self,
        at: u64,
        session: SessionId,
        (sequence, acked_below): (u64, u64),
        command: Command,
    ) -> Outcome {
        self.apply(at, Request::Execute { owner: ALICE, session, sequence, acked_below, command })
    }

    /// One command in a session of its own.
    fn once(&mut self, command: Command) -> Reply {
        let session = self.open(0, ALICE);
        let outcome = self.run(0, session, (1, 1), command);
        self.close(0, ALICE, session);
        match outcome {
            Outcome::Executed { reply, .. } => reply,
            other => panic!("not executed: {other:?}"),
        }
    }

    fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.map.get(key.as_bytes()).map(|found| found.value.to_vec())
    }

    fn version(&self, key: &str) -> u64 {
        self.map.get(key.as_bytes()).map_or(0, |found| found.version)
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Command {
    Command::Put { key: bytes(key), value: bytes(value) }
}

fn append(key: &str, value: &str) -> Command {
    Command::Append { key: bytes(key), value: bytes(value) }
}

fn delete(key: &str) -> Command {
    Command::Delete { key: bytes(key) }
}

fn compare_and_put(key: &str, version: u64, value: &str) -> Command {
    Command::CompareAndPut { key: bytes(key), version, value: bytes(value) }
}

fn executed(at: u64, reply: Reply) -> Outcome {
    Outcome::Executed { at: Index(at), reply }
}

fn duplicate(at: u64, reply: Reply) -> Outcome {
    Outcome::Duplicate { at: Index(at), reply }
}

fn refused(reason: Refusal) -> Outcome {
    Outcome::Refused { reason }
}

fn whole(image: &Image) -> Vec<u8> {
    image.chunks().flatten().collect()
}

fn restore(content: &[u8], piece: usize) -> Result<StateMachine, RestoreError> {
    let mut restore = Restore::new();
    for bytes in content.chunks(piece) {
        restore.feed(bytes)?;
    }
    restore.finish()
}
