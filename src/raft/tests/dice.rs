//! The tests' own seeded dice, apart from the cores' timers.

/// A linear congruential generator; its low bits are poor and are not used.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// One of `0..bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    pub(super) fn per_mille(&mut self, chance: usize) -> bool {
        self.below(1000) < chance
    }
}
