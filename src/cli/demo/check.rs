//! Whether what the clients saw can be true of a map that keeps every acknowledged write exactly once, in an order that
//! respects real time.
//!
//! Of a log its last value is the order of all appends. Of a register the versions are: each write and each read
//! carries one. Both turn an operation into a *place*, and real time asks one thing of places: an operation that began
//! after another one had returned does not stand before it. See `Floor`.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Fingerprint, History, Key, Moment, Outcome, Read, Token, Write};

/// Findings described in words, at most.
const EXAMPLES_MAX: usize = 20;

/// A key's value after the run; [`None`]: absent.
pub(crate) type Last = Option<(u64, Vec<u8>)>;

/// What is wrong, counted by kind. All zero: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Acknowledged writes that are not there.
    pub(crate) lost: u64,
    /// Writes that count twice.
    pub(crate) doubled: u64,
    /// Acknowledged writes in an order that contradicts real time.
    pub(crate) reordered: u64,
    /// Values that nobody sent, or that were refused, or seen before they were sent.
    pub(crate) never_sent: u64,
    /// Reads that miss what had been acknowledged, or what another read had seen, before they began.
    pub(crate) stale_reads: u64,
    /// Reads of a value that the key never had.
    pub(crate) torn_reads: u64,
    /// The first of them in words.
    pub(crate) examples: Vec<String>,
}

impl Findings {
    /// Whether nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        let counts =
            [self.lost, self.doubled, self.reordered, self.never_sent, self.stale_reads, self.torn_reads];
        counts == [0; 6]
    }

    fn note(&mut self, kind: Kind, words: impl FnOnce() -> String) {
        let (count, name) = match kind {
            Kind::Lost => (&mut self.lost, "lost"),
            Kind::Doubled => (&mut self.doubled, "doubled"),
            Kind::Reordered => (&mut self.reordered, "reordered"),
            Kind::NeverSent => (&mut self.never_sent, "never sent"),
            Kind::StaleRead => (&mut self.stale_reads, "stale read"),
            Kind::TornRead => (&mut self.torn_reads, "torn read"),
        };
        *count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{name}: {}", words()));
        }
    }
}

enum Kind {
    Lost,
    Doubled,
    Reordered,
    NeverSent,
    StaleRead,
    TornRead,
}

/// Checks a history against the values that its keys have after it. Keys that are not in `last` were not read, and what
/// was done to them is not checked.
pub(crate) fn check(history: &History, last: &BTreeMap<Key, Last>) -> Findings {
    let mut by_key: BTreeMap<Key, (Vec<&Write>, Vec<&Read>)> = BTreeMap::new();
    for write in &history.writes {
        by_key.entry(write.key).or_default().0.push(write);
    }
    for read in &history.reads {
        by_key.entry(read.key).or_default().1.push(read);
    }
    let mut findings = Findings::default();
    for (key, value) in last {
        let (writes, reads) = by_key.remove(key).unwrap_or_default();
        match key {
            Key::Log { .. } => check_log(*key, &writes, &reads, value, &mut findings),
            Key::Register { .. } => check_register(*key, &writes, &reads, value, &mut findings),
        }
    }
    findings
}

/// The least place that an operation may have: the highest one among those that had returned when it began.
struct Floor {
    /// By time; the place is the highest so far.
    steps: Vec<(Moment, u64)>,
}

impl Floor {
    /// From (returned, place) of operations, in any order.
    fn new(mut steps: Vec<(Moment, u64)>) -> Self {
        steps.sort_unstable();
        let mut highest = 0;
        for (_, place) in &mut steps {
            highest = highest.max(*place);
            *place = highest;
        }
        Self { steps }
    }

    fn at(&self, invoked: Moment) -> u64 {
        let before = self.steps.partition_point(|(returned, _)| *returned < invoked);
        before.checked_sub(1).and_then(|step| self.steps.get(step)).map_or(0, |(_, place)| *place)
    }
}

/// A log's value, taken apart.
#[derive(Default)]
struct Parts {
    /// Where each token stands for the first time, counted from 1.
    places: BTreeMap<Token, u64>,
    /// At each place: the token, and the fingerprint of everything up to it.
    order: Vec<(Token, Fingerprint)>,
    /// By the number of bytes up to and including it: the place.
    ends: BTreeMap<u32, u64>,
}

impl Parts {
    fn of(key: Key, value: &[u8], findings: &mut Findings) -> Self {
        let mut parts = Self::default();
        let (mut rest, mut end, mut fingerprint) = (value, 0u32, Fingerprint::EMPTY);
        while !rest.is_empty() {
            let Some((token, length)) = Token::parse(rest) else {
                findings.note(Kind::NeverSent, || format!("{key} holds no token at byte {end}"));
                break;
            };
            let (bytes, behind) = rest.split_at(length);
            fingerprint = fingerprint.then(bytes);
            rest = behind;
            end += length as u32;
            parts.order.push((token, fingerprint));
            let place = parts.order.len() as u64;
            parts.ends.insert(end, place);
            if *parts.places.entry(token).or_insert(place) != place {
                findings.note(Kind::Doubled, || format!("{token} stands in {key} twice"));
            }
        }
        parts
    }

    /// The place up to which a read saw the log; `None` where the log never was like that.
    fn place_of(&self, read: &Read) -> Option<u64> {
        if read.seen.length == 0 {
            return Some(0);
        }
        let place = *self.ends.get(&read.seen.length)?;
        let (_, fingerprint) = self.order.get(place as usize - 1)?;
        (*fingerprint == read.seen.fingerprint).then_some(place)
    }
}

fn check_log(key: Key, writes: &[&Write], reads: &[&Read], last: &Last, findings: &mut Findings) {
    let value = last.as_ref().map_or(&[][..], |(_, value)| value);
    let parts = Parts::of(key, value, findings);
    let sent: BTreeMap<Token, &Write> = writes.iter().map(|write| (write.token, *write)).collect();
    check_tokens(key, &parts, &sent, findings);
    check_log_order(key, &parts, &sent, findings);
    check_log_reads(key, &parts, &sent, reads, findings);
}

/// Every acknowledged token is there, no other one that was not sent.
fn check_tokens(key: Key, parts: &Parts, sent: &BTreeMap<Token, &Write>, findings: &mut Findings) {
    for token in parts.places.keys() {
        match sent.get(token).map(|write| write.outcome) {
            Some(Outcome::Acked { .. } | Outcome::Unknown) => {}
            Some(Outcome::NotDone) => {
                findings.note(Kind::NeverSent, || format!("{token} stands in {key} though it was refused"));
            }
            None => findings.note(Kind::NeverSent, || format!("{token} stands in {key}")),
        }
    }
    for (token, write) in sent {
        if matches!(write.outcome, Outcome::Acked { .. }) && !parts.places.contains_key(token) {
            findings.note(Kind::Lost, || format!("{token} is not in {key}"));
        }
    }
}

/// No token stands behind one that was sent after it had been acknowledged, and versions rise with places.
fn check_log_order(key: Key, parts: &Parts, sent: &BTreeMap<Token, &Write>, findings: &mut Findings) {
    let (mut latest_invoked, mut highest_version) = (0, 0);
    for (place, token) in (1..).zip(parts.order.iter().map(|(token, _)| token)) {
        let Some(write) = sent.get(token).filter(|_| parts.places.get(token) == Some(&place)) else {
            continue;
        };
        if let Outcome::Acked { version } = write.outcome {
            if write.returned < latest_invoked || version <= highest_version {
                findings.note(Kind::Reordered, || format!("{token} at place {place} of {key}"));
            }
            highest_version = highest_version.max(version);
        }
        latest_invoked = latest_invoked.max(write.invoked);
    }
}

fn check_log_reads(
    key: Key,
    parts: &Parts,
    sent: &BTreeMap<Token, &Write>,
    reads: &[&Read],
    findings: &mut Findings,
) {
    let mut steps = Vec::with_capacity(sent.len() + reads.len());
    for write in sent.values().filter(|write| matches!(write.outcome, Outcome::Acked { .. })) {
        steps.extend(parts.places.get(&write.token).map(|place| (write.returned, *place)));
    }
    let mut placed = Vec::with_capacity(reads.len());
    for read in reads {
        match parts.place_of(read) {
            Some(place) => placed.push((*read, place)),
            None => findings.note(Kind::TornRead, || {
                format!("{} bytes of {key}, no beginning of what it holds now", read.seen.length)
            }),
        }
    }
    steps.extend(placed.iter().map(|(read, place)| (read.returned, *place)));
    let floor = Floor::new(steps);
    let ceiling = Ceiling::new(parts, sent);
    for (read, place) in placed {
        let least = floor.at(read.invoked);
        if place < least {
            findings.note(Kind::StaleRead, || format!("{place} tokens of {key}, {least} were known before"));
        }
        if ceiling.invoked_up_to(place) > read.returned {
            findings
                .note(Kind::NeverSent, || format!("{place} tokens of {key}, read before the last was sent"));
        }
        check_log_version(key, parts, sent, read, place, findings);
    }
}

/// A log that was read up to an acknowledged token has the version that the acknowledgement named.
fn check_log_version(
    key: Key,
    parts: &Parts,
    sent: &BTreeMap<Token, &Write>,
    read: &Read,
    place: u64,
    findings: &mut Findings,
) {
    let token =
        place.checked_sub(1).and_then(|before| parts.order.get(before as usize)).map(|(token, _)| token);
    if let Some(Outcome::Acked { version }) =
        token.and_then(|token| sent.get(token)).map(|write| write.outcome)
        && version != read.seen.version
    {
        let found = read.seen.version;
        findings.note(Kind::TornRead, || format!("{key} at version {found}, acknowledged as {version}"));
    }
}

/// When the latest of the first tokens of a log was sent.
struct Ceiling(Vec<Moment>);

impl Ceiling {
    fn new(parts: &Parts, sent: &BTreeMap<Token, &Write>) -> Self {
        let mut latest = 0;
        Self(
            parts
                .order
                .iter()
                .map(|(token, _)| {
                    latest = sent.get(token).map_or(latest, |write| latest.max(write.invoked));
                    latest
                })
                .collect(),
        )
    }

    fn invoked_up_to(&self, place: u64) -> Moment {
        place.checked_sub(1).and_then(|before| self.0.get(before as usize)).copied().unwrap_or(0)
    }
}

fn check_register(key: Key, writes: &[&Write], reads: &[&Read], last: &Last, findings: &mut Findings) {
    let final_read = final_read(key, last);
    let sent: BTreeMap<Fingerprint, &Write> =
        writes.iter().map(|write| (Fingerprint::of(write.token.to_string().as_bytes()), *write)).collect();
    let acked = || {
        writes.iter().filter_map(|write| match write.outcome {
            Outcome::Acked { version } => Some((*write, version)),
            Outcome::Unknown | Outcome::NotDone => None,
        })
    };
    let mut versions = Versions::default();
    for (write, version) in acked() {
        versions.learn(key, write.token, version, findings);
    }
    let steps = acked().map(|(write, version)| (write.returned, version));
    let floor =
        Floor::new(steps.chain(reads.iter().map(|read| (read.returned, read.seen.version))).collect());
    for read in reads.iter().copied().chain([&final_read]) {
        check_register_value(key, &sent, read, &mut versions, findings);
        let least = floor.at(read.invoked);
        if read.seen.version < least {
            let kind = if read.invoked == Moment::MAX { Kind::Lost } else { Kind::StaleRead };
            findings
                .note(kind, || format!("{key} at version {}, {least} was known before", read.seen.version));
        }
    }
    for (write, version) in acked() {
        if version <= floor.at(write.invoked) {
            findings.note(Kind::Reordered, || format!("{} as version {version} of {key}", write.token));
        }
    }
}

/// The value after the run is one more read, after everything else.
fn final_read(key: Key, last: &Last) -> Read {
    let seen = last
        .as_ref()
        .map_or(super::history::Seen::ABSENT, |(version, value)| super::history::Seen::of(*version, value));
    Read { key, invoked: Moment::MAX, returned: Moment::MAX, seen }
}

fn check_register_value(
    key: Key,
    sent: &BTreeMap<Fingerprint, &Write>,
    read: &Read,
    versions: &mut Versions,
    findings: &mut Findings,
) {
    if read.seen.version == 0 {
        return; // absent: the floor says whether it may be
    }
    match sent.get(&read.seen.fingerprint) {
        None => findings.note(Kind::NeverSent, || format!("a value of {} bytes in {key}", read.seen.length)),
        Some(write) if write.outcome == Outcome::NotDone || write.invoked > read.returned => {
            findings.note(Kind::NeverSent, || format!("{} in {key}, refused or not sent yet", write.token));
        }
        Some(write) => versions.learn(key, write.token, read.seen.version, findings),
    }
}

/// A token is put once, so it has one version, and a version has one token.
#[derive(Default)]
struct Versions {
    of: BTreeMap<Token, u64>,
    owner: BTreeMap<u64, Token>,
    told: BTreeSet<Token>,
}

impl Versions {
    fn learn(&mut self, key: Key, token: Token, version: u64, findings: &mut Findings) {
        let known = *self.of.entry(token).or_insert(version);
        if known != version {
            // Many reads may see the same second version: it is one fault.
            if self.told.insert(token) {
                let words = || format!("{token} in {key} at version {version} and at version {known}");
                findings.note(Kind::Doubled, words);
            }
            return;
        }
        let owner = *self.owner.entry(version).or_insert(token);
        if owner != token {
            findings.note(Kind::TornRead, || format!("{key} at version {version} is {token} and {owner}"));
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
