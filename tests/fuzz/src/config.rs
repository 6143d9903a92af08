//! What people and members say about who they are: sizes, durations and lists of members on the command line, a node's
//! settings, names, certificates, and the first words between two members. Nothing panics; what is taken is written back
//! the same; a member of another cluster, or with other terms, is refused; and no certificate has two names.

use std::net::SocketAddr;
use std::time::Duration;

use raftmap::wire::hello::Hello;
use raftmap::{Limits, NodeConfig, Timing};
use raftmap_net::identity::read_certificate;
use raftmap_net::{Name, Role};
use raftmap_storage::types::{ClusterId, DiskId, NodeId};

use crate::input::Input;
use crate::memory;

#[path = "../../../src/cli/duration.rs"]
mod duration;
#[path = "../../../src/cli/members.rs"]
mod members;
#[path = "../../../src/cli/size.rs"]
mod size;

/// Input: what it is, then its bytes.
pub(crate) fn config(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    match kind % 8 {
        0 => text(bytes, one_size),
        1 => text(bytes, one_duration),
        2 => text(bytes, list_of_members),
        3 => settings(Input::new(bytes)),
        4 => text(bytes, name),
        5 | 6 => certificate(bytes),
        _ => hellos(Input::new(bytes)),
    }
}

fn text(bytes: &[u8], read: fn(&str)) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    memory::within(8 * text.len() + memory::SLACK, "a word of the command line", || read(text));
}

fn one_size(text: &str) {
    let Ok(bytes) = size::parse(text) else { return };
    let shown = size::show(bytes);
    if !shown.contains('.') {
        assert_eq!(size::parse(&shown), Ok(bytes), "{text} is shown as {shown}");
    }
    assert_eq!(size::parse_or_never(text), Ok(size::Bound(Some(bytes))));
}

fn one_duration(text: &str) {
    let Ok(time) = duration::parse(text) else { return };
    assert!(time <= Duration::from_secs(365 * 24 * 3600), "{text} is {time:?}");
    assert_eq!(duration::parse(&format!("{}ms", time.as_millis())), Ok(time), "{text}");
    assert_eq!(duration::parse_positive(text).is_ok(), !time.is_zero(), "{text}");
}

fn list_of_members(text: &str) {
    let listed: Result<Vec<_>, _> = text.split(',').map(members::parse).collect();
    let Ok(listed) = listed else { return };
    let Ok(members) = members::collect(listed.clone()) else { return };
    assert_eq!(members.len(), listed.len(), "{text}: a member got lost");
    let shown: Vec<_> = members.iter().map(|(id, address)| format!("{id}={address}")).collect();
    let again: Result<Vec<_>, _> = shown.iter().map(|member| members::parse(member)).collect();
    assert!(again.unwrap().into_iter().eq(members.clone()), "{text} is shown as {shown:?}");
    for id in members.keys().chain([&0, &1]) {
        let mut config = NodeConfig::new(*id, "d", SocketAddr::from(([127, 0, 0, 1], 1)));
        config.peers = members.clone();
        if config.validate().is_ok() {
            let mut addresses: Vec<_> = members.values().collect();
            addresses.sort();
            addresses.dedup();
            assert_eq!(addresses.len(), members.len(), "{text}: two members, one address");
            assert!(*id > 0 && members.contains_key(id) && !members.contains_key(&0), "{text}: node {id}");
        }
    }
}

fn settings(mut input: Input<'_>) {
    let mut config = NodeConfig::new(input.number(), "d", SocketAddr::from(([127, 0, 0, 1], 1)));
    let mut time = || Duration::from_millis(input.number());
    config.timing = Timing { heartbeat: time(), election_min: time(), election_max: time() };
    config.max_raft_state = input.yes().then(|| input.number());
    let mut word = || input.number() as u32;
    config.limits = Limits {
        key_bytes: word(),
        value_bytes: word(),
        sessions: word(),
        window: word(),
        ..Limits::default()
    };
    config.limits.session_ttl_ms = input.number();
    if config.validate().is_ok() {
        let Timing { heartbeat, election_min, election_max } = config.timing;
        assert!(
            !heartbeat.is_zero() && heartbeat * 4 <= election_min && election_min < election_max,
            "{config:?}"
        );
        let encoded = config.limits.encode().unwrap();
        assert_eq!(Limits::decode(&encoded), Ok(config.limits));
        assert!(config.limits.proposal_bytes() < 2 << 20, "{config:?}");
    }
}

fn name(text: &str) {
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.to_string(), text);
        assert_ne!(name.role, Role::Node(0));
    }
}

/// The parser of X.509 is not ours and copies names; it stays within some times the certificate.
fn certificate(der: &[u8]) {
    let read = memory::within(64 * der.len() + memory::SLACK, "a certificate", || read_certificate(der));
    let Ok(certified) = read else { return };
    // Not every spelling that the parser reads is found here; a verified certificate has one of those that are.
    let names = names_in(der);
    assert!(names.is_empty() || names == [certified.name.clone()], "{names:?} are not {certified:?}");
}

/// Every name of ours in the alternative names of a certificate, found without the parser: the extension's id, then
/// items of tag 6 in it.
fn names_in(der: &[u8]) -> Vec<Name> {
    const ALTERNATIVE_NAMES: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];
    let starts = (0..der.len()).filter(|at| der[*at..].starts_with(ALTERNATIVE_NAMES));
    let mut names = Vec::new();
    for start in starts {
        let rest = &der[start + ALTERNATIVE_NAMES.len()..];
        let rest = rest.strip_prefix(&[0x01, 0x01, 0xff]).unwrap_or(rest);
        let Some((0x04, octets, _)) = item(rest) else { continue };
        let Some((0x30, mut list, _)) = item(octets) else { continue };
        while let Some((tag, content, behind)) = item(list) {
            let name = std::str::from_utf8(content).ok().filter(|_| tag == 0x86);
            names.extend(name.and_then(|name| name.parse::<Name>().ok()));
            list = behind;
        }
    }
    names
}

/// Tag, content, and what follows.
fn item(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(*rest.first()?) << 8 | usize::from(*rest.get(1)?), &rest[2..]),
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

/// Two members meet. Input: the numbers of the first, and in what the second differs.
fn hellos(mut input: Input<'_>) {
    let ours = Hello {
        protocol_min: input.below(4) as u32,
        protocol_max: input.below(4) as u32,
        features: input.number(),
        cluster: ClusterId([input.byte(); 16]),
        node: NodeId(input.number()),
        disk: DiskId([input.byte(); 16]),
        boot: input.number(),
        group: input.number(),
        bootstrap: [input.byte(); 32],
        terms: String::from_utf8_lossy(input.take(20)).into_owned(),
    };
    let mut theirs = ours.clone();
    let authenticated = NodeId(input.number());
    theirs.node = if input.yes() { authenticated } else { NodeId(input.number()) };
    let differs = input.byte();
    let flip = 1 << (input.byte() % 8);
    if differs & 1 != 0 {
        theirs.cluster.0[input.below(16)] ^= flip;
    }
    if differs & 2 != 0 {
        theirs.bootstrap[input.below(32)] ^= flip;
    }
    if differs & 4 != 0 {
        theirs.group ^= u64::from(flip);
    }
    if differs & 8 != 0 {
        (theirs.protocol_min, theirs.protocol_max) = (input.number() as u32, input.number() as u32);
    }
    theirs.features = input.number();
    let bytes = theirs.encode().unwrap();
    assert_eq!(Hello::decode(&bytes).as_ref(), Ok(&theirs));
    let speak = theirs.protocol_min <= ours.protocol_max && ours.protocol_min <= theirs.protocol_max;
    let welcome = theirs.node == authenticated && differs & 7 == 0 && speak;
    let refused = ours.check(&theirs, authenticated);
    assert_eq!(refused.is_ok(), welcome, "{refused:?}: {ours:?} meets {theirs:?}");
}
