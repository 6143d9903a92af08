//! The map against the naive model. Random logs, and at random points the map is replaced by one restored from its own
//! snapshot.

use super::naive::Model;
use super::*;

/// SplitMix64: the same numbers for the same seed, for ever.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Requests that are mostly sensible and sometimes not.
fn request(rng: &mut Rng, model: &Model) -> Request {
    let owner = if rng.below(8) == 0 { BOB } else { ALICE };
    let session = match rng.below(12) {
        0 => SessionId(rng.below(model.index + 2)),
        _ => {
            let nth = rng.below(model.sessions.len().max(1) as u64) as usize;
            SessionId(model.sessions.keys().nth(nth).copied().unwrap_or(1))
        }
    };
    match rng.below(100) {
        0..5 => Request::Open { owner },
        5..7 => Request::Close { owner, session },
        7..9 => Request::Tick,
        _ => {
            let acked = model.sessions.get(&session.0).map_or(1, |found| found.acked_below);
            let sequence = (acked + rng.below(8)).saturating_sub(1);
            let acked_below = match rng.below(4) {
                0 => sequence,
                1 => rng.below(acked + 3),
                _ => acked,
            };
            Request::Execute { owner, session, sequence, acked_below, command: command(rng, model) }
        }
    }
}

fn command(rng: &mut Rng, model: &Model) -> Command {
    let key = match rng.below(40) {
        0 => Bytes::new(),
        1 => bytes("ninebytes"),
        _ => Bytes::from(format!("k{}", rng.below(12))),
    };
    let longest = if rng.below(20) == 0 { 36 } else { 8 };
    let value = Bytes::from(vec![b'a' + rng.below(26) as u8; rng.below(longest) as usize]);
    match rng.below(4) {
        0 => Command::Put { key, value },
        1 => Command::Append { key, value },
        2 => Command::Delete { key },
        _ => {
            let current = model.pairs.get(&key[..]).map_or(0, |(_, version)| *version);
            let version = if rng.below(3) == 0 { rng.below(model.index + 1) } else { current };
            Command::CompareAndPut { key, version, value }
        }
    }
}

/// At most 64 sessions: then every due one is gone within one entry, and the model need not know the queue.
fn play(seed: u64, steps: u64) {
    let mut rng = Rng(seed);
    let limits = Limits { sessions: 1 + rng.below(8) as u32, window: 1 + rng.below(6) as u32, ..SMALL };
    let mut model = Model::default();
    let mut log = Log::new(limits);
    let mut untouched = Log::new(limits);
    let mut clock = 0;
    for step in 0..steps {
        clock += if rng.below(50) == 0 { rng.below(1_500) } else { rng.below(30) };
        let at = clock.saturating_sub(rng.below(60)); // leaders' clocks may be behind
        let proposal = Proposal { at: LogTime(at), request: request(&mut rng, &model) };
        let mut encoded = Vec::new();
        proposal.encode_into(&mut encoded, &limits).unwrap();
        assert_eq!(Proposal::decode(&encoded, &limits).as_ref(), Ok(&proposal));
        let expected = model.apply(&limits, &proposal);
        let outcome = log.map.apply(log.next(), proposal.clone());
        assert_eq!(outcome, expected, "step {step}: {proposal:?}");
        assert_eq!(untouched.map.apply(untouched.next(), proposal), expected);
        if rng.below(40) == 0 {
            let piece = 1 + rng.below(200) as usize;
            log.map = restore(&whole(&log.map.image()), piece).unwrap();
            model.check(&log.map);
            assert_eq!(log.map.digest(), untouched.map.digest(), "step {step}");
        }
    }
    model.check(&log.map);
    assert_eq!(log.map.digest(), untouched.map.digest());
}

/// `RAFTMAP_SEED=n` plays that seed alone.
#[test]
fn random_logs_agree_with_the_model() {
    let seeds = match std::env::var("RAFTMAP_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..60,
    };
    for seed in seeds {
        let played = std::panic::catch_unwind(|| play(seed, 2_000));
        assert!(
            played.is_ok(),
            "seed {seed}: RAFTMAP_SEED={seed} cargo test -p raftmap random_logs_agree_with_the_model"
        );
    }
}

/// Any request at all, with numbers from every corner: the outcome is of no interest, that there is one is.
#[test]
fn no_request_makes_it_panic() {
    let corners = [0, 1, 2, 3, 4, 5, 999, 1_000, 1_001, u64::MAX - 1_000, u64::MAX - 1, u64::MAX];
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let mut log = Log::new(Limits { session_ttl_ms: 1 + rng.below(2) * 999, ..SMALL });
        for _ in 0..200 {
            let mut corner = || corners[rng.below(corners.len() as u64) as usize];
            let (at, session) = (corner(), SessionId(corner()));
            let (sequence, acked_below, version) = (corner(), corner(), corner());
            let at = if rng.below(10) == 0 { at } else { rng.below(1_000) };
            let command = match rng.below(4) {
                0 => append("k", "0123456789"),
                1 => delete("k"),
                2 => compare_and_put("k", version, ""),
                _ => put("", ""),
            };
            let request = match rng.below(6) {
                0 | 1 => Request::Open { owner: ALICE },
                2 => Request::Close { owner: ALICE, session },
                _ => Request::Execute { owner: ALICE, session, sequence, acked_below, command },
            };
            log.apply(at, request);
        }
        assert_eq!(restore(&whole(&log.map.image()), 77).unwrap().digest(), log.map.digest(), "seed {seed}");
    }
}
