//! Seeded chance. One generator a purpose, so that a fault which is switched off does not shift what the others draw.

use std::time::Duration;

use raftmap_storage::model::Random;

/// A generator for one purpose.
#[derive(Debug)]
pub struct Dice(Random);

impl Dice {
    /// The generator of `purpose` in the world of `seed`.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes());
        let digest: [u8; 32] = *hasher.finalize().as_bytes();
        Self(Random::new(digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))))
    }

    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// A place in something of this length.
    pub fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `parts` times in a thousand.
    pub fn permille(&mut self, parts: u64) -> bool {
        self.below(1_000) < parts
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.place(from.len())]
    }

    /// A time between two, in microseconds, small ones as likely as large ones by order of magnitude.
    pub fn time(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (low.as_micros().max(1) as u64, high.as_micros().max(1) as u64);
        let doublings = (high / low).max(1).ilog2();
        let top = (low << self.below(u64::from(doublings) + 1)).saturating_mul(2).min(high);
        Duration::from_micros(self.between(low.min(top), top))
    }

    /// Any order of the numbers below `count`.
    pub fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            order.swap(at, self.place(at + 1));
        }
        order
    }
}
