//! The operations of one key: checkers look at keys one by one.

use std::collections::BTreeMap;

use super::content::{Beginnings, Content};
use super::history::{Call, History, Last, Operation, Reply};

/// The operations of one key.
pub(super) struct Lane<'a> {
    /// Its name, for findings.
    pub(super) name: String,
    /// In the order of the history.
    pub(super) operations: Vec<&'a Operation>,
    /// Its last get.
    pub(super) last: Option<(&'a Operation, &'a Last)>,
}

/// All keys with their operations.
pub(super) fn lanes(history: &History) -> Vec<Lane<'_>> {
    let mut lanes: Vec<Lane<'_>> = history
        .keys()
        .map(|key| Lane {
            name: String::from_utf8_lossy(history.name(key)).into_owned(),
            operations: Vec::new(),
            last: history.last(key).and_then(|last| Some((history.operations().get(last.place)?, last))),
        })
        .collect();
    for operation in history.operations() {
        if let Some(lane) = lanes.get_mut(operation.key.0 as usize) {
            lane.operations.push(operation);
        }
    }
    lanes
}

impl Lane<'_> {
    /// Whether it was only appended to, and never with nothing.
    pub(super) fn is_log(&self) -> bool {
        self.operations.iter().all(|operation| match operation.call {
            Call::Append(token) => !token.is_empty(),
            Call::Get => true,
            Call::Put(_) | Call::Compare { .. } | Call::Delete => false,
        })
    }

    /// Of a log: what it can have been.
    pub(super) fn growth(&self) -> Option<Growth> {
        if !self.is_log() {
            return None;
        }
        let seen = self.operations.iter().filter_map(|operation| match operation.reply() {
            Some(Reply::Found { value, .. }) => Some((value.length(), value)),
            Some(Reply::Stored { .. } | Reply::Mismatch { .. } | Reply::Deleted { .. } | Reply::Absent)
            | None => None,
        });
        let beginnings = self.last.map(|(_, last)| Beginnings::of(&last.value));
        Some(Growth { seen: seen.collect(), beginnings })
    }
}

/// What a log can have been, by what was seen of it: it only grows, so it had one value of each length.
pub(super) struct Growth {
    seen: BTreeMap<u32, Content>,
    beginnings: Option<Beginnings>,
}

impl Growth {
    /// Whether nothing that was seen contradicts it.
    pub(super) fn allows(&self, value: Content) -> bool {
        let beginning = self.beginnings.as_ref().and_then(|beginnings| beginnings.to(value.length()));
        let seen = self.seen.get(&value.length());
        beginning.is_none_or(|beginning| beginning == value) && seen.is_none_or(|seen| *seen == value)
    }
}
