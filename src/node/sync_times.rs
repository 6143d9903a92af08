//! How long the latest syncs took: a fixed window of them, so that a status says how the disk is now.

use std::time::Duration;

/// How many of the latest syncs count.
const WINDOW: usize = 1024;

/// See the module's description.
#[derive(Debug, Default)]
pub struct SyncTimes {
    micros: Vec<u32>,
    count: u64,
}

impl SyncTimes {
    /// One more sync.
    pub fn record(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let at = usize::try_from(self.count % WINDOW as u64).unwrap_or(0);
        match self.micros.get_mut(at) {
            Some(slot) => *slot = micros,
            None => self.micros.push(micros),
        }
        self.count += 1;
    }

    /// Syncs so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Median and 99th percentile of the window, in microseconds; zeros before the first sync.
    pub fn percentiles(&self) -> (u64, u64) {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().map_or(0, u64::from)
        };
        (at(50), at(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_forgets_the_oldest() {
        let mut times = SyncTimes::default();
        assert_eq!(times.percentiles(), (0, 0));
        (0..WINDOW as u64).for_each(|_| times.record(Duration::from_secs(1)));
        (1..=WINDOW as u64).for_each(|micros| times.record(Duration::from_micros(micros)));
        assert_eq!((times.count(), times.percentiles()), (2 * WINDOW as u64, (512, 1013)));
    }
}
