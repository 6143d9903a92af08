//! The pairs themselves: an ordered map in which a copy of the whole is one pointer, so that a snapshot starts at once
//! and writes go on beside it.

use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::command::{Command, Reply};
use super::limits::Limits;
use crate::codec::octets;

/// A value and the log index of the entry that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// The value, byte for byte.
    #[serde(with = "octets")]
    pub value: Bytes,
    /// Log index of the last change, at least 1.
    pub version: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    pub(super) map: OrdMap<Bytes, Versioned>,
    /// Bytes of all keys and values.
    bytes: u64,
}

impl Pairs {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Versioned> {
        self.map.get(key)
    }

    /// Carries out one command for the entry at `version`. The only place where the map changes.
    pub(super) fn execute(&mut self, command: &Command, version: u64, limits: &Limits) -> Reply {
        if let Err(error) = command.check(limits) {
            return Reply::OutsideLimits(error);
        }
        match command {
            Command::Put { key, value } => {
                self.put(key, own(value), version);
                Reply::Put { version }
            }
            Command::Append { key, value } => self.append(key, value, version, limits),
            Command::Delete { key } => Reply::Delete { existed: self.delete(key) },
            Command::CompareAndPut { key, version: expected, value } => {
                let current = self.get(key).map_or(0, |found| found.version);
                if current != *expected {
                    return Reply::Mismatch { current };
                }
                self.put(key, own(value), version);
                Reply::Swapped { version }
            }
        }
    }

    /// Stores a value that shares no memory with anything else.
    pub(super) fn put(&mut self, key: &[u8], value: Bytes, version: u64) {
        self.bytes += value.len() as u64;
        match self.map.get_mut(key) {
            Some(found) => {
                self.bytes -= found.value.len() as u64;
                *found = Versioned { value, version };
            }
            None => {
                self.bytes += key.len() as u64;
                self.map.insert(Bytes::copy_from_slice(key), Versioned { value, version });
            }
        }
    }

    fn append(&mut self, key: &[u8], tail: &[u8], version: u64, limits: &Limits) -> Reply {
        let head = self.get(key).map_or(&[][..], |found| &found.value);
        let length = head.len() as u64 + tail.len() as u64;
        if let Err(error) = limits.check_value(length) {
            return Reply::OutsideLimits(error);
        }
        let value = Bytes::from([head, tail].concat());
        self.put(key, value, version);
        Reply::Append { version, length }
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        let Some(found) = self.map.remove(key) else { return false };
        self.bytes -= key.len() as u64 + found.value.len() as u64;
        true
    }
}

/// A copy of its own: a slice would keep the whole log entry, or the whole frame, in memory with it.
fn own(value: &[u8]) -> Bytes {
    Bytes::copy_from_slice(value)
}
