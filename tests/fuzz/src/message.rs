//! Everything that members and clients say to each other, and what the log keeps of it: whatever the bytes are, reading
//! them does not panic and takes no more memory than they justify; what is read is within its limits, and its encoder
//! makes the same bytes of it again. And the other way round: a message of any numbers comes back as it was.

use std::fmt::Debug;

use bytes::Bytes;
use raftmap::kv::{Limits, PAGE_PAIRS, Proposal};
use raftmap::raft::entry::{Bootstrap, LIMITS_BYTES_MAX, VOTERS_MAX};
use raftmap::raft::{Body, Message};
use raftmap::wire::client::{
    Answer, ClientHello, ServerHello, decode_request, decode_response, encode_request, encode_response,
};
use raftmap::wire::hello::Hello;
use raftmap::wire::peer::{self, Announcement, ENTRIES_MAX};
use raftmap_storage::types::Term;

use crate::input::Input;
use crate::{memory, messages};

/// Input: which kind of message, then its bytes; from 128 on the numbers of one that is made.
pub(crate) fn message(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    match kind {
        128.. => made(bytes),
        _ => read(kind % 10, bytes),
    }
}

fn read(kind: u8, bytes: &[u8]) {
    match kind {
        0 => of_a_member(bytes),
        1 => check(bytes, 2, Announcement::decode, Announcement::encode, announcement_limits),
        2 => check(bytes, 2, Hello::decode, Hello::encode, |hello| assert!(hello.terms.len() < bytes.len())),
        3 => check(bytes, 2, ClientHello::decode, ClientHello::encode, |_| ()),
        4 => check(bytes, 2, ServerHello::decode, ServerHello::encode, |_| ()),
        5 => check(bytes, 2, decode_request, encode_request, |request| {
            assert!(request.approximate_len() <= bytes.len() + 64);
        }),
        // A pair of 3 bytes takes 72 in memory, and half as much again while the list grows.
        6 => check(bytes, 80, decode_response, encode_response, |response| {
            if let Ok(Answer::Page { page, .. }) = &response.body {
                assert!(page.pairs.len() <= PAGE_PAIRS as usize, "{} pairs", page.pairs.len());
            }
        }),
        7 => check(bytes, 2, Limits::decode, Limits::encode, |_| ()),
        8 => check(bytes, 2, Bootstrap::decode, Bootstrap::encode, |bootstrap| {
            assert!((1..=VOTERS_MAX).contains(&bootstrap.voters.len()));
            assert!(bootstrap.limits.len() <= LIMITS_BYTES_MAX);
        }),
        _ => proposal(bytes),
    }
}

fn check<T, D, E, B>(
    bytes: &[u8],
    factor: usize,
    decode: impl FnOnce(&[u8]) -> Result<T, D>,
    encode: impl FnOnce(&T) -> Result<B, E>,
    limits: impl FnOnce(&T),
) where
    T: Debug,
    E: Debug,
    B: AsRef<[u8]>,
{
    let bound = factor * bytes.len() + memory::SLACK;
    let Ok(value) = memory::within(bound, "a message", || decode(bytes)) else { return };
    limits(&value);
    let again = encode(&value).expect("what was read can be written");
    assert!(again.as_ref() == bytes, "{value:?} is encoded otherwise");
}

/// An entry of 3 bytes takes 16 as a head and 56 as an entry, and the list of heads half as much again while it grows.
fn of_a_member(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let decode = |_: &[u8]| peer::decode(&bytes);
    let encode = |message: &Message| peer::encode(message).map(|sent| sent.expect("it was sent"));
    check(&bytes, 40, decode, encode, |message| {
        if let Body::Append { entries, .. } = &message.body {
            assert!(entries.len() <= ENTRIES_MAX, "{} entries", entries.len());
            assert!(entries.iter().all(|entry| entry.is_intact()));
        }
    });
}

fn announcement_limits(announcement: &Announcement) {
    let voters = announcement.membership.voters.len();
    assert!(voters <= 4096, "{voters} voters");
}

fn proposal(bytes: &[u8]) {
    let limits = Limits { key_bytes: 100, value_bytes: 1000, ..Limits::default() };
    let decode = |bytes: &[u8]| Proposal::decode(bytes, &limits);
    let encode = |proposal: &Proposal| {
        let mut out = Vec::new();
        proposal.encode_into(&mut out, &limits).map(|()| out)
    };
    check(bytes, 2, decode, encode, |_| assert!(bytes.len() <= limits.proposal_bytes()));
}

/// A message with any numbers in it. Its entries stand one behind the other: their places are not sent.
fn made(numbers: &[u8]) {
    let mut input = Input::new(numbers);
    let mut sent = messages::message(&mut input, Term(3));
    if let Body::Append { prev, entries, .. } = &mut sent.body {
        let mut index = prev.index;
        for entry in entries {
            index = index.next();
            entry.position.index = index;
            *entry = raftmap_storage::types::Entry::new(entry.position, entry.payload.clone());
        }
    }
    match peer::encode(&sent) {
        Ok(Some(bytes)) => assert_eq!(peer::decode(&bytes).as_ref(), Ok(&sent)),
        Ok(None) => assert!(matches!(sent.body, Body::InstallSnapshot { .. }), "{sent:?} is not sent"),
        Err(error) => panic!("{sent:?}: {error}"),
    }
}
