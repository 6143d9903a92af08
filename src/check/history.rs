//! What clients did and were told: less than a hundred bytes an operation, for runs make millions of them.
//!
//! Each client has one operation under way at a time, or several: real time alone orders them. A scan is a get of each
//! of its pairs, all with the scan's times and index.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::content::Content;

/// A key of one history, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

/// One operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// Tells it from the client's other ones: their count from 1, or the line of the file it was read from.
    pub number: u32,
    /// About what.
    pub key: KeyId,
    /// What was asked.
    pub call: Call,
    /// It had not been sent before this.
    pub invoked_ns: u64,
    /// What came of it, and when that was known.
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Store this value.
    Put(Content),
    /// Put this behind what is there; an absent key counts as empty.
    Append(Content),
    /// Store this value if the key has this version; 0: only if it is absent.
    Compare {
        /// The version to replace.
        version: u64,
        /// The value.
        value: Content,
    },
    /// Remove the key.
    Delete,
    /// What is there, by a linearizable read?
    Get,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody knows: it took effect once, or may still, or never will.
    Unknown,
    /// It was definitely not done, and never will be.
    Refused {
        /// That was known then.
        returned_ns: u64,
    },
    /// It was done once.
    Done {
        /// The answer was there then.
        returned_ns: u64,
        /// The place in the log: of the write, or up to which the state read holds everything. 0: not told.
        index: u64,
        /// The answer.
        reply: Reply,
    },
}

/// The answer to an operation that was done. A version of 0 for what is there means that it was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a put, an append, and a compare whose version matched.
    Stored {
        /// The key's version from then on.
        version: u64,
    },
    /// To a compare whose version did not match: nothing changed.
    Mismatch {
        /// The key's version; 0: it is absent.
        current: u64,
    },
    /// To a delete.
    Deleted {
        /// Whether it was there.
        existed: bool,
    },
    /// To a get of a key that is not there.
    Absent,
    /// To a get.
    Found {
        /// The key's version.
        version: u64,
        /// What it holds.
        value: Content,
    },
}

impl Operation {
    /// Whether it could change something.
    pub fn is_write(&self) -> bool {
        match self.call {
            Call::Put(_) | Call::Append(_) | Call::Compare { .. } | Call::Delete => true,
            Call::Get => false,
        }
    }

    /// When its outcome was known, if that ever was.
    pub fn returned_ns(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Unknown => None,
            Outcome::Refused { returned_ns } | Outcome::Done { returned_ns, .. } => Some(returned_ns),
        }
    }

    /// Its place in the log, where that was told.
    pub fn index(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Done { index: 0, .. } | Outcome::Unknown | Outcome::Refused { .. } => None,
            Outcome::Done { index, .. } => Some(index),
        }
    }

    /// Its answer, where there was one.
    pub fn reply(&self) -> Option<Reply> {
        match self.outcome {
            Outcome::Unknown | Outcome::Refused { .. } => None,
            Outcome::Done { reply, .. } => Some(reply),
        }
    }

    /// What it was to write.
    pub fn written(&self) -> Option<Content> {
        match self.call {
            Call::Put(value) | Call::Append(value) | Call::Compare { value, .. } => Some(value),
            Call::Delete | Call::Get => None,
        }
    }
}

/// Its name: who asked, and which of its operations.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}-{:06}", self.client, self.number)
    }
}

/// The last get of a key with its answer byte by byte: the order of all appends that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// Where that get stands in the history.
    pub place: usize,
    /// Empty where the key is absent.
    pub value: Vec<u8>,
}

/// Everything that clients did.
#[derive(Clone, Debug, Default)]
pub struct History {
    names: Vec<Arc<[u8]>>,
    ids: BTreeMap<Arc<[u8]>, KeyId>,
    operations: Vec<Operation>,
    last: BTreeMap<KeyId, Last>,
}

impl History {
    /// The number of this key.
    pub fn key(&mut self, name: &[u8]) -> KeyId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let (id, name): (_, Arc<[u8]>) = (KeyId(self.names.len() as u32), name.into());
        self.names.push(name.clone());
        self.ids.insert(name, id);
        id
    }

    /// The key of this number; empty where this history has none.
    pub fn name(&self, key: KeyId) -> &[u8] {
        self.names.get(key.0 as usize).map_or(&[], |name| name)
    }

    /// All keys, in the order of their first use.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> + use<> {
        (0..self.names.len() as u32).map(KeyId)
    }

    /// Takes one operation down, in any order; says at which place it stands. The outcome may come later.
    pub fn push(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// What came of an operation.
    pub fn end(&mut self, place: usize, outcome: Outcome) {
        if let Some(operation) = self.operations.get_mut(place) {
            operation.outcome = outcome;
        }
    }

    /// All of them, in the order in which they were taken down.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The get at `place` is the last of its key, and this is what it found; no bytes where the key was absent.
    pub fn set_last(&mut self, place: usize, value: Vec<u8>) {
        if let Some(operation) = self.operations.get(place) {
            self.last.insert(operation.key, Last { place, value });
        }
    }

    /// The last get of a key, where there was one.
    pub fn last(&self, key: KeyId) -> Option<&Last> {
        self.last.get(&key)
    }

    /// Takes in what another client did, with keys of its own numbers.
    pub fn extend(&mut self, other: Self) {
        let keys: Vec<KeyId> = other.names.iter().map(|name| self.key(name)).collect();
        let here = |key: KeyId| keys.get(key.0 as usize).copied().unwrap_or(key);
        let behind = self.operations.len();
        self.operations.extend(
            other.operations.into_iter().map(|operation| Operation { key: here(operation.key), ..operation }),
        );
        let shifted = |last: Last| Last { place: last.place + behind, ..last };
        self.last.extend(other.last.into_iter().map(|(key, last)| (here(key), shifted(last))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(key: KeyId) -> Operation {
        Operation { client: 1, number: 7, key, call: Call::Get, invoked_ns: 3, outcome: Outcome::Unknown }
    }

    #[test]
    fn histories_with_numbers_of_their_own_are_joined() {
        let (mut one, mut other) = (History::default(), History::default());
        let (a, b) = (one.key(b"a"), one.key(b"b"));
        assert_eq!((a, one.key(b"a")), (KeyId(0), KeyId(0)));
        let there = other.key(b"b");
        assert_eq!(there, KeyId(0));
        one.push(get(a));
        let place = other.push(get(there));
        other.set_last(place, b"x".to_vec());
        one.extend(other);
        assert_eq!(one.operations().iter().map(|found| found.key).collect::<Vec<_>>(), [a, b]);
        assert_eq!(one.last(b), Some(&Last { place: 1, value: b"x".to_vec() }));
        assert_eq!(one.last(a), None);
        assert_eq!((one.name(b), one.len(), one.keys().count()), (&b"b"[..], 2, 2));
        assert_eq!(one.name(KeyId(9)), b"");
    }

    #[test]
    fn an_outcome_may_come_later() {
        let mut history = History::default();
        let key = history.key(b"a");
        let place = history.push(get(key));
        assert_eq!(history.operations()[place].returned_ns(), None);
        history.end(place, Outcome::Done { returned_ns: 5, index: 2, reply: Reply::Absent });
        let done = history.operations()[place];
        assert_eq!((done.returned_ns(), done.index(), done.reply()), (Some(5), Some(2), Some(Reply::Absent)));
        assert_eq!(done.to_string(), "c1-000007");
    }

    #[test]
    fn an_operation_is_small() {
        assert!(size_of::<Operation>() <= 88, "{} bytes", size_of::<Operation>());
    }
}
