//! One direction of a relay: what becomes of a datagram on it, drawn from a seed, and counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A datagram that is to be overtaken stays behind for up to this long.
const HELD_MAX: Duration = Duration::from_millis(20);

/// How one direction treats datagrams. The default one passes each on at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing passes.
    pub cut: bool,
    /// Each takes at least this long,
    pub delay: Duration,
    /// ... and up to this much more, each for itself, so that they overtake each other.
    pub jitter: Duration,
    /// So many of a thousand are lost.
    pub lost_per_mille: u16,
    /// So many of a thousand arrive twice.
    pub doubled_per_mille: u16,
    /// So many of a thousand are held back for up to 20 ms, and are overtaken.
    pub held_per_mille: u16,
}

impl Weather {
    /// Nothing passes.
    pub const CUT: Self = Self {
        cut: true,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        lost_per_mille: 0,
        doubled_per_mille: 0,
        held_per_mille: 0,
    };
}

/// What one direction did so far, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Came in.
    pub came: u64,
    /// Went out, copies included.
    pub went: u64,
    /// Dropped by a cut.
    pub cut: u64,
    /// Dropped by loss.
    pub lost: u64,
    /// Sent twice.
    pub doubled: u64,
    /// Sent later than they came.
    pub delayed: u64,
    /// Held back so that others overtake them.
    pub held: u64,
    /// Dropped because too many waited, or because the system would not take them.
    pub overflowed: u64,
}

/// When a datagram and its copy are sent, counted from its arrival; `None`: not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) first: Option<Duration>,
    pub(super) copy: Option<Duration>,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Way {
    state: Mutex<(Weather, Dice)>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    came: AtomicU64,
    went: AtomicU64,
    cut: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    delayed: AtomicU64,
    held: AtomicU64,
    overflowed: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Way {
    /// A direction in good weather, with the dice of `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self { state: Mutex::new((Weather::default(), Dice(seed))), counters: Counters::default() }
    }

    fn state(&self) -> MutexGuard<'_, (Weather, Dice)> {
        // Plain numbers: they are whole also after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, weather: Weather) {
        self.state().0 = weather;
    }

    pub(super) fn weather(&self) -> Weather {
        self.state().0
    }

    /// Draws what becomes of a datagram that has just come.
    pub(super) fn fate(&self) -> Fate {
        let (fate, told) = {
            let (weather, dice) = &mut *self.state();
            draw(weather, dice)
        };
        count(&self.counters.came);
        match told {
            Told::Cut => count(&self.counters.cut),
            Told::Lost => count(&self.counters.lost),
            Told::Passed { held } if held => count(&self.counters.held),
            Told::Passed { .. } => {}
        }
        if fate.copy.is_some() {
            count(&self.counters.doubled);
        }
        if fate.first.is_some_and(|after| after > Duration::ZERO) {
            count(&self.counters.delayed);
        }
        fate
    }

    /// A datagram was handed to the system, or could not be.
    pub(super) fn sent(&self, sent: bool) {
        count(if sent { &self.counters.went } else { &self.counters.overflowed });
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { came, went, cut, lost, doubled, delayed, held, overflowed } = &self.counters;
        Counts {
            came: read(came),
            went: read(went),
            cut: read(cut),
            lost: read(lost),
            doubled: read(doubled),
            delayed: read(delayed),
            held: read(held),
            overflowed: read(overflowed),
        }
    }
}

enum Told {
    Cut,
    Lost,
    Passed { held: bool },
}

fn draw(weather: &Weather, dice: &mut Dice) -> (Fate, Told) {
    if weather.cut {
        return (Fate::default(), Told::Cut);
    }
    if dice.hits(weather.lost_per_mille) {
        return (Fate::default(), Told::Lost);
    }
    let held = dice.hits(weather.held_per_mille);
    let behind = if held { dice.up_to(HELD_MAX) } else { Duration::ZERO };
    let first = weather.delay + dice.up_to(weather.jitter) + behind;
    let doubled = dice.hits(weather.doubled_per_mille);
    let copy = doubled.then(|| weather.delay + dice.up_to(weather.jitter.max(HELD_MAX)));
    (Fate { first: Some(first), copy }, Told::Passed { held })
}

/// SplitMix64: the same seed, the same fates.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn hits(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.next() % 1_000 < per_mille.into()
    }

    /// More than nothing, where `most` is.
    fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        match micros {
            0 => Duration::ZERO,
            micros => Duration::from_micros(1 + self.next() % micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(weather: Weather, seed: u64) -> (Vec<Fate>, Counts) {
        let way = Way::new(seed);
        way.set(weather);
        ((0..10_000).map(|_| way.fate()).collect(), way.counts())
    }

    #[test]
    fn good_weather_passes_everything_on_at_once() {
        let (fates, counts) = fates(Weather::default(), 1);
        assert!(fates.iter().all(|fate| *fate == Fate { first: Some(Duration::ZERO), copy: None }));
        assert_eq!(counts, Counts { came: 10_000, ..Counts::default() });
    }

    #[test]
    fn a_cut_passes_nothing() {
        let (fates, counts) = fates(Weather::CUT, 1);
        assert!(fates.iter().all(|fate| *fate == Fate::default()));
        assert_eq!(counts.cut, 10_000);
    }

    #[test]
    fn rates_are_kept() {
        let weather =
            Weather { lost_per_mille: 100, doubled_per_mille: 50, held_per_mille: 200, ..Weather::default() };
        let (fates, counts) = fates(weather, 2);
        let near = |count: u64, wanted: u64| count.abs_diff(wanted) < wanted / 5;
        assert!(near(counts.lost, 1_000), "{counts:?}");
        assert!(near(counts.doubled, 450) && near(counts.held, 1_800), "{counts:?}");
        assert_eq!(counts.held, counts.delayed, "{counts:?}");
        assert_eq!(fates.iter().filter(|fate| fate.first.is_none()).count() as u64, counts.lost);
        assert_eq!(fates.iter().filter(|fate| fate.copy.is_some()).count() as u64, counts.doubled);
    }

    #[test]
    fn delays_stay_in_their_range_and_differ() {
        let (delay, jitter) = (Duration::from_millis(30), Duration::from_millis(10));
        let (fates, counts) = fates(Weather { delay, jitter, ..Weather::default() }, 3);
        let times: std::collections::BTreeSet<_> = fates.iter().filter_map(|fate| fate.first).collect();
        assert!(times.iter().all(|time| *time > delay && *time <= delay + jitter));
        assert!(times.len() > 1_000 && counts.delayed == 10_000);
    }

    #[test]
    fn a_seed_says_it_all() {
        let weather = Weather { lost_per_mille: 500, jitter: HELD_MAX, ..Weather::default() };
        assert_eq!(fates(weather, 4), fates(weather, 4));
        assert_ne!(fates(weather, 4), fates(weather, 5));
    }
}
