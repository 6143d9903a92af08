//! A naive model of the map and its sessions: two `BTreeMap`s, written as plainly as the rules read. The fuzz target
//! `session_table` holds the map against it, too.

use std::collections::BTreeMap;

use super::*;

#[derive(Default)]
pub(super) struct Model {
    pub(super) time: u64,
    pub(super) index: u64,
    pub(super) pairs: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    pub(super) sessions: BTreeMap<u64, ModelSession>,
}

pub(super) struct ModelSession {
    pub(super) owner: Owner,
    pub(super) last_used: u64,
    pub(super) acked_below: u64,
    pub(super) replies: BTreeMap<u64, (u64, Reply)>,
}

impl Model {
    pub(super) fn apply(&mut self, limits: &Limits, proposal: &Proposal) -> Outcome {
        self.index += 1;
        self.time = self.time.max(proposal.at.0);
        let (now, ttl) = (self.time, limits.session_ttl_ms);
        self.sessions.retain(|_, session| now < session.last_used.saturating_add(ttl));
        match &proposal.request {
            Request::Tick => Outcome::Ticked,
            Request::Open { .. } if self.sessions.len() as u32 == limits.sessions => Outcome::TableFull,
            Request::Open { owner } => {
                let session =
                    ModelSession { owner: *owner, last_used: now, acked_below: 1, replies: BTreeMap::new() };
                self.sessions.insert(self.index, session);
                Outcome::Opened { session: SessionId(self.index) }
            }
            Request::Close { owner, session } => match self.sessions.get(&session.0) {
                None => refused(Refusal::SessionExpired),
                Some(found) if found.owner != *owner => refused(Refusal::NotOwner),
                Some(_) => {
                    self.sessions.remove(&session.0);
                    Outcome::Closed
                }
            },
            Request::Execute { owner, session, sequence, acked_below, command } => {
                self.execute(limits, *owner, session.0, *sequence, *acked_below, command)
            }
        }
    }

    fn execute(
        &mut self,
        limits: &Limits,
        owner: Owner,
        session: u64,
        sequence: u64,
        acked_below: u64,
        command: &Command,
    ) -> Outcome {
        let Some(found) = self.sessions.get_mut(&session) else {
            return refused(Refusal::SessionExpired);
        };
        if found.owner != owner {
            return refused(Refusal::NotOwner);
        }
        found.last_used = self.time;
        found.acked_below = found.acked_below.max(acked_below);
        let acked_below = found.acked_below;
        found.replies.retain(|kept, _| *kept >= acked_below);
        if sequence < acked_below {
            return refused(Refusal::BelowAcknowledged { acked_below });
        }
        if sequence - acked_below >= u64::from(limits.window) {
            let below = acked_below.saturating_add(u64::from(limits.window));
            return refused(Refusal::WindowExceeded { below });
        }
        if let Some((at, reply)) = found.replies.get(&sequence) {
            return duplicate(*at, *reply);
        }
        let reply = Self::command(&mut self.pairs, limits, self.index, command);
        found.replies.insert(sequence, (self.index, reply));
        executed(self.index, reply)
    }

    fn command(
        pairs: &mut BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
        limits: &Limits,
        version: u64,
        command: &Command,
    ) -> Reply {
        if let Some(error) = outside(limits, command) {
            return Reply::OutsideLimits(error);
        }
        let key = command.key().to_vec();
        let old = pairs.get(&key).cloned();
        match command {
            Command::Put { value, .. } => {
                pairs.insert(key, (value.to_vec(), version));
                Reply::Put { version }
            }
            Command::Append { value, .. } => {
                let whole = [old.map_or(Vec::new(), |(value, _)| value), value.to_vec()].concat();
                let length = whole.len() as u64;
                if length > u64::from(limits.value_bytes) {
                    let limit = limits.value_bytes;
                    return Reply::OutsideLimits(LimitError::ValueTooLong { length, limit });
                }
                pairs.insert(key, (whole, version));
                Reply::Append { version, length }
            }
            Command::Delete { .. } => Reply::Delete { existed: pairs.remove(&key).is_some() },
            Command::CompareAndPut { value, version: expected, .. } => {
                let current = old.map_or(0, |(_, version)| version);
                if current != *expected {
                    return Reply::Mismatch { current };
                }
                pairs.insert(key, (value.to_vec(), version));
                Reply::Swapped { version }
            }
        }
    }

    pub(super) fn check(&self, map: &StateMachine) {
        assert_eq!(map.applied().index.0, self.index);
        assert_eq!(map.log_time().0, self.time);
        assert_eq!(map.len(), self.pairs.len());
        let data: usize = self.pairs.iter().map(|(key, (value, _))| key.len() + value.len()).sum();
        assert_eq!(map.data_bytes(), data as u64);
        let page = map.scan(&Scan { keys: Keys::Prefix(Bytes::new()), after: None, limit: PAGE_PAIRS });
        let found = page.pairs.iter().map(|pair| (pair.key.to_vec(), (pair.value.to_vec(), pair.version)));
        assert!(found.eq(self.pairs.clone()), "pairs differ");
        assert_eq!(map.sessions_len(), self.sessions.len());
        let replies: usize = self.sessions.values().map(|session| session.replies.len()).sum();
        assert_eq!(map.replies_len(), replies);
    }
}

/// What can be said against a command without the map.
fn outside(limits: &Limits, command: &Command) -> Option<LimitError> {
    let value = match command {
        Command::Put { value, .. } | Command::Append { value, .. } | Command::CompareAndPut { value, .. } => {
            value.len() as u64
        }
        Command::Delete { .. } => 0,
    };
    let key = command.key().len() as u64;
    if key == 0 {
        Some(LimitError::KeyEmpty)
    } else if key > u64::from(limits.key_bytes) {
        Some(LimitError::KeyTooLong { length: key, limit: limits.key_bytes })
    } else if value > u64::from(limits.value_bytes) {
        Some(LimitError::ValueTooLong { length: value, limit: limits.value_bytes })
    } else {
        None
    }
}
