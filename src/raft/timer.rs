//! The election timer and the small generator that its timeouts are drawn from.

/// SplitMix64: enough to keep members from campaigning together; nothing secret hangs on it.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of `min..=max`.
    fn between(&mut self, (min, max): (u32, u32)) -> u32 {
        let choices = u64::from(max.saturating_sub(min)) + 1;
        min.saturating_add((self.next() % choices) as u32)
    }
}

/// Counts ticks up to a timeout that is drawn anew for every wait, so that split votes do not repeat (thesis 3.4).
#[derive(Clone, Debug)]
pub(super) struct Timer {
    elapsed: u32,
    timeout: u32,
}

impl Timer {
    pub(super) fn new(random: &mut Random, range: (u32, u32)) -> Self {
        Self { elapsed: 0, timeout: random.between(range) }
    }

    /// Fires at the next tick: a node that needs nobody's vote has nobody to wait for.
    pub(super) fn at_once() -> Self {
        Self { elapsed: 0, timeout: 1 }
    }

    /// Counts one tick; whether the time is up.
    pub(super) fn tick(&mut self) -> bool {
        self.elapsed = self.elapsed.saturating_add(1);
        self.elapsed >= self.timeout
    }

    /// Ticks since the wait began.
    pub(super) fn elapsed(&self) -> u32 {
        self.elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_fill_their_range_and_differ_by_seed() {
        let drawn = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(|_| random.between((10, 20))).collect::<Vec<_>>()
        };
        let first = drawn(1);
        assert_eq!(first, drawn(1), "equal seeds draw equally");
        assert_ne!(first, drawn(2));
        assert_eq!(first.iter().min(), Some(&10));
        assert_eq!(first.iter().max(), Some(&20));
    }

    #[test]
    fn a_timer_fires_at_its_timeout() {
        let mut timer = Timer::new(&mut Random::new(0), (3, 3));
        assert_eq!([timer.tick(), timer.tick(), timer.tick()], [false, false, true]);
    }
}
