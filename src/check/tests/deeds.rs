//! Operations with their values as text, which can be tampered with; and the histories that clients would have written
//! of them.

use crate::check::{Call, Content, History, Operation, Outcome, Reply};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    Put(String),
    Append(String),
    Compare(u64, String),
    Delete,
    Get,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Unknown,
    Refused,
    Stored(u64),
    Mismatch(u64),
    Deleted(bool),
    Absent,
    Found(u64, String),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Deed {
    pub(super) client: u32,
    pub(super) number: u32,
    pub(super) key: &'static str,
    pub(super) ask: Ask,
    pub(super) invoked: u64,
    pub(super) returned: u64,
    /// Of the state or the write; nobody is told where the outcome is unknown.
    pub(super) index: u64,
    pub(super) told: Told,
    /// The last get of its key.
    pub(super) is_last: bool,
}

impl Deed {
    pub(super) fn is_acked_write(&self) -> bool {
        self.ask != Ask::Get && !matches!(self.told, Told::Unknown | Told::Refused)
    }

    /// What it was to write.
    pub(super) fn token(&self) -> Option<&str> {
        match &self.ask {
            Ask::Put(token) | Ask::Append(token) | Ask::Compare(_, token) => Some(token),
            Ask::Delete | Ask::Get => None,
        }
    }

    pub(super) fn stored(&self) -> Option<u64> {
        if let Told::Stored(version) = self.told { Some(version) } else { None }
    }

    pub(super) fn found(&self) -> Option<(u64, &str)> {
        if let Told::Found(version, value) = &self.told { Some((*version, value)) } else { None }
    }

    fn operation(&self, history: &mut History) -> Operation {
        let of = |text: &str| Content::of(text.as_bytes());
        let call = match &self.ask {
            Ask::Put(value) => Call::Put(of(value)),
            Ask::Append(value) => Call::Append(of(value)),
            Ask::Compare(version, value) => Call::Compare { version: *version, value: of(value) },
            Ask::Delete => Call::Delete,
            Ask::Get => Call::Get,
        };
        let done = |reply| Outcome::Done { returned_ns: self.returned, index: self.index, reply };
        let outcome = match &self.told {
            Told::Unknown => Outcome::Unknown,
            Told::Refused => Outcome::Refused { returned_ns: self.returned },
            Told::Stored(version) => done(Reply::Stored { version: *version }),
            Told::Mismatch(current) => done(Reply::Mismatch { current: *current }),
            Told::Deleted(existed) => done(Reply::Deleted { existed: *existed }),
            Told::Absent => done(Reply::Absent),
            Told::Found(version, value) => done(Reply::Found { version: *version, value: of(value) }),
        };
        let (client, number, key) = (self.client, self.number, history.key(self.key.as_bytes()));
        Operation { client, number, key, call, invoked_ns: self.invoked, outcome }
    }
}

pub(super) fn history(deeds: &[Deed]) -> History {
    let mut history = History::default();
    for deed in deeds {
        let operation = deed.operation(&mut history);
        let place = history.push(operation);
        if deed.is_last {
            history.set_last(place, deed.found().map_or(Vec::new(), |(_, value)| value.into()));
        }
    }
    history
}
