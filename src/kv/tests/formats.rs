//! The bytes of what travels and what the log keeps. They change with a new format only: a later version must still
//! read these.

use serde::{Deserialize, Serialize};

use super::*;
use crate::codec;

fn check<T>(value: T, expected: &str)
where
    T: Serialize + for<'de> Deserialize<'de> + PartialEq + std::fmt::Debug,
{
    let bytes = codec::encode(&value, 1_000).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected.replace([' ', '\n'], ""), "{value:?}");
    assert_eq!(codec::decode::<T>(&bytes, 1_000).unwrap(), value);
}

fn proposal(request: Request) -> Proposal {
    Proposal { at: LogTime(1_000), request }
}

fn request(command: Command) -> Proposal {
    let (owner, session) = (Owner([0xA1; 16]), SessionId(300));
    proposal(Request::Execute { owner, session, sequence: 7, acked_below: 5, command })
}

const OWNER: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";

#[test]
fn proposals_have_these_bytes() {
    let (owner, session) = (Owner([0xA1; 16]), SessionId(300));
    // Log time 1000, the request's number, its fields.
    check(proposal(Request::Open { owner }), &format!("fbe803 00 {OWNER}"));
    check(proposal(Request::Close { owner, session }), &format!("fbe803 01 {OWNER} fb2c01"));
    check(proposal(Request::Tick), "fbe803 03");
    // Owner, session 300, sequence 7, acknowledged below 5, the command's number, its fields.
    let execute = format!("fbe803 02 {OWNER} fb2c01 07 05");
    check(request(put("key", "v1")), &format!("{execute} 00 03 6b6579 02 7631"));
    check(request(append("key", "")), &format!("{execute} 01 03 6b6579 00"));
    check(request(delete("key")), &format!("{execute} 02 03 6b6579"));
    check(request(compare_and_put("key", 65_536, "v")), &format!("{execute} 03 03 6b6579 fc00000100 01 76"));
}

#[test]
fn limits_have_these_bytes() {
    let bytes = Limits::default().encode().unwrap();
    let expected = [251, 0, 16, 252, 0, 0, 16, 0, 252, 0, 0, 2, 0, 252, 0x80, 0xEE, 0x36, 0, 251, 0, 4];
    assert_eq!(bytes, expected);
    assert_eq!(Limits::decode(&bytes), Ok(Limits::default()));
    assert!(matches!(Limits::decode(&bytes[..20]), Err(CodecError::Malformed { .. })));
    let longest = Limits {
        key_bytes: u32::MAX,
        value_bytes: u32::MAX,
        sessions: u32::MAX,
        session_ttl_ms: u64::MAX,
        window: u32::MAX,
    };
    assert_eq!(Limits::decode(&longest.encode().unwrap()), Ok(longest));
}

#[test]
fn outcomes_have_these_bytes() {
    check(Outcome::Opened { session: SessionId(9) }, "00 09");
    check(Outcome::TableFull, "01");
    check(Outcome::Closed, "02");
    check(executed(9, Reply::Put { version: 9 }), "03 09 00 09");
    check(duplicate(9, Reply::Append { version: 9, length: 4 }), "04 09 01 09 04");
    check(Outcome::Ticked, "05");
    check(executed(9, Reply::Delete { existed: true }), "03 09 02 01");
    check(executed(9, Reply::Swapped { version: 9 }), "03 09 03 09");
    check(executed(9, Reply::Mismatch { current: 0 }), "03 09 04 00");
    check(executed(9, Reply::OutsideLimits(LimitError::KeyEmpty)), "03 09 05 00");
    let long = LimitError::KeyTooLong { length: 9, limit: 8 };
    check(executed(9, Reply::OutsideLimits(long)), "03 09 05 01 09 08");
    let long = LimitError::ValueTooLong { length: 9, limit: 8 };
    check(executed(9, Reply::OutsideLimits(long)), "03 09 05 02 09 08");
    check(refused(Refusal::BelowAcknowledged { acked_below: 3 }), "06 00 03");
    check(refused(Refusal::SessionExpired), "06 01");
    check(refused(Refusal::NotOwner), "06 02");
    check(refused(Refusal::WindowExceeded { below: 5 }), "06 03 05");
}

#[test]
fn scans_and_pages_have_these_bytes() {
    check(Scan { keys: Keys::Prefix(bytes("a")), after: None, limit: 9 }, "00 01 61 00 09");
    let keys = Keys::Range { start: bytes("a"), end: Some(bytes("b")) };
    check(Scan { keys, after: Some(bytes("aa")), limit: 9 }, "01 01 61 01 01 62 01 02 6161 09");
    let keys = Keys::Range { start: Bytes::new(), end: None };
    check(Scan { keys, after: None, limit: 9 }, "01 00 00 00 09");
    let pair = Pair { key: bytes("a"), value: bytes("xy"), version: 3 };
    check(Page { pairs: vec![pair], more: true }, "01 01 61 02 7879 03 01");
    check(Versioned { value: bytes("xy"), version: 3 }, "02 7879 03");
}

#[test]
fn the_longest_proposal_fits_its_limit_and_one_byte_more_does_not() {
    let encode = |value: usize| {
        let proposal = Proposal {
            at: LogTime(u64::MAX),
            request: Request::Execute {
                owner: ALICE,
                session: SessionId(u64::MAX),
                sequence: u64::MAX,
                acked_below: u64::MAX,
                command: Command::CompareAndPut {
                    key: Bytes::from(vec![1; SMALL.key_bytes as usize]),
                    version: u64::MAX,
                    value: Bytes::from(vec![2; value]),
                },
            },
        };
        let mut out = vec![0xEE];
        proposal.encode_into(&mut out, &SMALL).map(|()| (proposal, out))
    };
    let (proposal, out) = encode(SMALL.value_bytes as usize).unwrap();
    assert_eq!((out[0], Proposal::decode(&out[1..], &SMALL)), (0xEE, Ok(proposal)));
    let spare = SMALL.proposal_bytes() + 1 - out.len();
    let (_, out) = encode(SMALL.value_bytes as usize + spare).unwrap();
    assert_eq!(out.len(), SMALL.proposal_bytes() + 1);
    assert!(matches!(encode(SMALL.value_bytes as usize + spare + 1), Err(CodecError::TooLong { .. })));
    let longer = [&out[1..], &[0]].concat();
    assert!(matches!(Proposal::decode(&longer, &SMALL), Err(CodecError::TooLong { .. })));
}

#[test]
fn the_largest_pages_fit_their_limit() {
    let check = |limits: Limits, pairs: usize, key: usize, value: usize| {
        let pair =
            Pair { key: Bytes::from(vec![1; key]), value: Bytes::from(vec![2; value]), version: u64::MAX };
        let page = Page { pairs: vec![pair; pairs], more: true };
        let bytes = codec::encode(&page, limits.page_bytes()).unwrap();
        assert!(codec::decode::<Page>(&bytes, limits.page_bytes()).unwrap() == page);
    };
    let largest = Limits { key_bytes: 64 * 1024, value_bytes: 1024 * 1024, ..SMALL };
    check(largest, 1, 64 * 1024, 1024 * 1024);
    check(Limits::default(), 1, 4 * 1024, 1024 * 1024);
    check(SMALL, PAGE_PAIRS as usize, 52, 52);
    check(SMALL, 4, 0, 256 * 1024);
}

#[test]
fn damaged_proposals_are_refused_or_harmless() {
    let mut out = Vec::new();
    request(compare_and_put("key", 3, "value")).encode_into(&mut out, &SMALL).unwrap();
    for cut in 0..out.len() {
        assert!(Proposal::decode(&out[..cut], &SMALL).is_err(), "{cut}");
    }
    assert_eq!(Proposal::decode(&[&out[..], &[0]].concat(), &SMALL), Err(CodecError::Trailing { extra: 1 }));
    for bit in 0..out.len() * 8 {
        let mut flipped = out.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(proposal) = Proposal::decode(&flipped, &SMALL) {
            let mut log = Log::new(SMALL);
            log.open(0, ALICE);
            log.map.apply(log.next(), proposal);
        }
    }
}
