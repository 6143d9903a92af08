//! By the order that values show: of a log, to which tokens are appended, its last value is the order of all appends;
//! of a register the versions are. It trusts no place in the log.
//!
//! Both turn an operation into a *place*, and real time asks one thing of places: an operation that began after another
//! one had returned does not stand before it. See [`Floor`].
//!
//! A key that got both appends and puts, or a token twice, shows no order: it is left to the other checkers.

use std::collections::{BTreeMap, BTreeSet};

use super::content::{Beginnings, Content};
use super::findings::{Findings, Kind};
use super::floor::Floor;
use super::history::{Call, Operation, Outcome, Reply};
use super::lane::Lane;

/// Checks one key; `false` where it shows no order.
pub(super) fn check(lane: &Lane<'_>, findings: &mut Findings) -> bool {
    let writes = || lane.operations.iter().filter(|operation| operation.is_write());
    let tokens: BTreeMap<Content, &Operation> =
        writes().filter_map(|write| Some((write.written()?, *write))).collect();
    let is_log = writes().all(|write| matches!(write.call, Call::Append(_)));
    let has_append = writes().any(|write| matches!(write.call, Call::Append(_)));
    let unique = tokens.len() == writes().filter(|write| write.written().is_some()).count();
    if !unique || tokens.contains_key(&Content::EMPTY) || has_append && !is_log {
        return false;
    }
    match has_append {
        true => Log::check(lane, &tokens, findings),
        false => {
            check_register(lane, &tokens, findings);
            true
        }
    }
}

/// A log's last value, taken apart.
struct Log<'a> {
    lane: &'a Lane<'a>,
    last: &'a Operation,
    /// Where each token stands for the first time, counted from 1.
    places: BTreeMap<Content, u64>,
    /// At each place: the append, and everything up to its end.
    order: Vec<(&'a Operation, Content)>,
    /// By what stands up to it: the place.
    ends: BTreeMap<Content, u64>,
    /// By place: when the latest of the tokens up to it was sent.
    sent: Vec<u64>,
}

impl<'a> Log<'a> {
    fn check(lane: &'a Lane<'a>, tokens: &BTreeMap<Content, &'a Operation>, findings: &mut Findings) -> bool {
        let Some((operation, last)) = lane.last else { return false };
        let mut log = Self {
            lane,
            last: operation,
            places: BTreeMap::new(),
            order: Vec::new(),
            ends: BTreeMap::from([(Content::EMPTY, 0)]),
            sent: vec![0],
        };
        if !log.take_apart(&last.value, tokens, findings) {
            return false;
        }
        log.check_tokens(tokens, findings);
        log.check_order(findings);
        log.check_reads(tokens, findings);
        true
    }

    /// `false` where the bytes can be read as tokens in two ways.
    fn take_apart(
        &mut self,
        value: &[u8],
        tokens: &BTreeMap<Content, &'a Operation>,
        findings: &mut Findings,
    ) -> bool {
        let beginnings = Beginnings::of(value);
        let lengths: BTreeSet<u32> = tokens.keys().map(|token| token.length()).collect();
        let (mut start, mut strange) = (0, false);
        while (start as usize) < value.len() {
            let parts = lengths.iter().filter_map(|length| beginnings.part(start, *length));
            let mut found = parts.filter_map(|part| Some((part, *tokens.get(&part)?)));
            let Some((token, append)) = found.next() else {
                if !strange {
                    let name = &self.lane.name;
                    findings
                        .note(Kind::NeverSent, || format!("{name} holds at byte {start} what nobody sent"));
                }
                (start, strange) = (start + 1, true);
                continue;
            };
            if found.next().is_some() {
                return false;
            }
            (start, strange) = (start + token.length(), false);
            self.stand(token, append, beginnings.to(start).unwrap_or(Content::EMPTY), findings);
        }
        true
    }

    fn stand(&mut self, token: Content, append: &'a Operation, end: Content, findings: &mut Findings) {
        self.order.push((append, end));
        let place = self.order.len() as u64;
        self.ends.insert(end, place);
        let latest = self.sent.last().copied().unwrap_or(0);
        self.sent.push(latest.max(append.invoked_ns));
        if *self.places.entry(token).or_insert(place) != place {
            findings.note(Kind::Doubled, || format!("{append} stands in {} twice", self.lane.name));
        }
    }

    /// Every acknowledged token is there, no other one that was not sent.
    fn check_tokens(&self, tokens: &BTreeMap<Content, &'a Operation>, findings: &mut Findings) {
        let name = &self.lane.name;
        for (token, append) in tokens {
            let is_there = self.places.contains_key(token);
            match append.outcome {
                Outcome::Refused { .. } if is_there => {
                    findings
                        .note(Kind::NeverSent, || format!("{append} stands in {name} though it was refused"));
                }
                Outcome::Done { returned_ns, .. } if !is_there && returned_ns < self.last.invoked_ns => {
                    findings.note(Kind::Lost, || format!("{append} is not in {name}"));
                }
                Outcome::Unknown | Outcome::Refused { .. } | Outcome::Done { .. } => {}
            }
        }
    }

    /// No token stands behind one that was sent after it had been acknowledged, and versions rise with places.
    fn check_order(&self, findings: &mut Findings) {
        let (mut latest_invoked, mut highest_version) = (0, 0);
        for (place, (append, _)) in (1..).zip(&self.order) {
            if self.place_of(append) != Some(place) {
                continue;
            }
            if let Outcome::Done { returned_ns, reply: Reply::Stored { version }, .. } = append.outcome {
                if returned_ns < latest_invoked || version != 0 && version <= highest_version {
                    let name = &self.lane.name;
                    findings.note(Kind::Reordered, || format!("{append} at place {place} of {name}"));
                }
                highest_version = highest_version.max(version);
            }
            latest_invoked = latest_invoked.max(append.invoked_ns);
        }
    }

    fn place_of(&self, append: &Operation) -> Option<u64> {
        self.places.get(&append.written()?).copied()
    }

    fn check_reads(&self, tokens: &BTreeMap<Content, &'a Operation>, findings: &mut Findings) {
        let acknowledged = tokens.values().filter(|append| append.reply().is_some());
        let mut steps: Vec<(u64, u64)> =
            acknowledged.filter_map(|append| Some((append.returned_ns()?, self.place_of(append)?))).collect();
        let mut placed = Vec::new();
        for read in &self.lane.operations {
            let Outcome::Done { returned_ns, .. } = read.outcome else { continue };
            let Some((version, value)) = read.reply().and_then(found) else { continue };
            match self.ends.get(&value) {
                Some(place) => placed.push((*read, returned_ns, version, *place)),
                // It may have seen more than the last get did, where that had begun by then.
                None if returned_ns >= self.last.invoked_ns => {}
                None => findings.note(Kind::TornRead, || {
                    let (length, name) = (value.length(), &self.lane.name);
                    format!("{length} bytes of {name}, no beginning of what it holds now, by {read}")
                }),
            }
        }
        steps.extend(placed.iter().map(|(_, returned_ns, _, place)| (*returned_ns, *place)));
        let floor = Floor::new(steps);
        for (read, returned_ns, version, place) in placed {
            self.check_read(read, returned_ns, (version, place), floor.at(read.invoked_ns), findings);
        }
    }

    fn check_read(
        &self,
        read: &Operation,
        returned_ns: u64,
        (version, place): (u64, u64),
        least: u64,
        findings: &mut Findings,
    ) {
        let name = &self.lane.name;
        // What the last get misses has been counted as lost, token by token.
        if place < least && *read != *self.last {
            findings.note(Kind::StaleRead, || {
                format!("{place} tokens of {name}, {least} were known before, by {read}")
            });
        }
        if self.sent.get(place as usize).is_some_and(|sent| *sent > returned_ns) {
            findings.note(Kind::NeverSent, || {
                format!("{place} tokens of {name}, read before the last was sent, by {read}")
            });
        }
        // A log that was read up to an acknowledged token has the version that the acknowledgement named.
        let append = place.checked_sub(1).and_then(|before| self.order.get(before as usize));
        if let Some(Reply::Stored { version: named }) = append.and_then(|(append, _)| append.reply())
            && named != version
            && named != 0
            && version != 0
        {
            findings.note(Kind::TornRead, || {
                format!("{name} at version {version}, acknowledged as {named}, by {read}")
            });
        }
    }
}

/// Version and value of a get's answer, 0 and empty where the key was absent.
fn found(reply: Reply) -> Option<(u64, Content)> {
    match reply {
        Reply::Absent => Some((0, Content::EMPTY)),
        Reply::Found { version, value } => Some((version, value)),
        Reply::Stored { .. } | Reply::Mismatch { .. } | Reply::Deleted { .. } => None,
    }
}

/// The version that an answer bears witness to.
fn version_of(reply: Reply) -> Option<u64> {
    match reply {
        Reply::Stored { version } | Reply::Mismatch { current: version } | Reply::Found { version, .. } => {
            Some(version).filter(|version| *version != 0)
        }
        Reply::Deleted { .. } | Reply::Absent => None,
    }
}

fn check_register(lane: &Lane<'_>, tokens: &BTreeMap<Content, &Operation>, findings: &mut Findings) {
    let name = &lane.name;
    let mut versions = Versions::default();
    let mut steps = Vec::new();
    for operation in &lane.operations {
        let Outcome::Done { returned_ns, reply, .. } = operation.outcome else { continue };
        let Some(version) = version_of(reply) else { continue };
        steps.push((returned_ns, version));
        if let (Reply::Stored { .. }, Some(token)) = (reply, operation.written()) {
            versions.learn(name, token, operation, version, findings);
        }
    }
    let floor = Floor::new(steps);
    let removed = lane.operations.iter().any(|operation| operation.call == Call::Delete);
    for operation in &lane.operations {
        let Outcome::Done { returned_ns, reply, .. } = operation.outcome else { continue };
        let least = floor.at(operation.invoked_ns);
        let version = match reply {
            Reply::Stored { version: 0 } | Reply::Deleted { .. } => continue,
            Reply::Stored { version } => {
                if version <= least {
                    findings.note(Kind::Reordered, || format!("{operation} as version {version} of {name}"));
                }
                continue;
            }
            Reply::Found { version: 0, .. } => continue,
            Reply::Mismatch { current: 0 } | Reply::Absent if removed => continue,
            Reply::Mismatch { current } => current,
            Reply::Absent => 0,
            Reply::Found { version, value } => {
                let read = Seen { returned_ns, version, value };
                check_value(name, tokens, &read, &mut versions, findings);
                version
            }
        };
        if version < least {
            let is_last = lane.last.is_some_and(|(last, _)| last == *operation);
            let kind = if is_last { Kind::Lost } else { Kind::StaleRead };
            findings.note(kind, || {
                format!("{name} at version {version}, {least} was known before, by {operation}")
            });
        }
    }
}

struct Seen {
    returned_ns: u64,
    version: u64,
    value: Content,
}

fn check_value(
    name: &str,
    tokens: &BTreeMap<Content, &Operation>,
    read: &Seen,
    versions: &mut Versions,
    findings: &mut Findings,
) {
    match tokens.get(&read.value) {
        None => {
            findings.note(Kind::NeverSent, || format!("a value of {} bytes in {name}", read.value.length()))
        }
        Some(write)
            if matches!(write.outcome, Outcome::Refused { .. })
                || matches!(write.reply(), Some(Reply::Mismatch { .. }))
                || write.invoked_ns > read.returned_ns =>
        {
            findings.note(Kind::NeverSent, || format!("{write} in {name}, refused or not sent yet"));
        }
        Some(write) => versions.learn(name, read.value, write, read.version, findings),
    }
}

/// A token is put once, so it has one version, and a version has one token.
#[derive(Default)]
struct Versions {
    of: BTreeMap<Content, u64>,
    owner: BTreeMap<u64, Content>,
    told: BTreeSet<Content>,
}

impl Versions {
    fn learn(
        &mut self,
        name: &str,
        token: Content,
        write: &Operation,
        version: u64,
        findings: &mut Findings,
    ) {
        let known = *self.of.entry(token).or_insert(version);
        if known != version {
            // Many reads may see the same second version: it is one fault.
            if self.told.insert(token) {
                let words = || format!("{write} in {name} at version {version} and at version {known}");
                findings.note(Kind::Doubled, words);
            }
            return;
        }
        let owner = *self.owner.entry(version).or_insert(token);
        if owner != token {
            findings.note(Kind::TornRead, || format!("{name} at version {version} is {write} and another"));
        }
    }
}
