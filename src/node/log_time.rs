//! Log time: what the log itself knows of passing time. It is the last log time plus the leader's monotonic time since
//! its election, so it never goes back, no wall clock matters, and an outage ages nothing.

use std::time::Duration;

use crate::kv::LogTime;

/// The leader's stamp for the entries it makes.
#[derive(Debug)]
pub struct LogClock {
    base: LogTime,
    since: Duration,
    latest: LogTime,
}

impl LogClock {
    /// Goes on from `latest`.
    pub fn new(latest: LogTime) -> Self {
        Self { base: latest, since: Duration::ZERO, latest }
    }

    /// This node leads from `now` on, over a log that has come to `latest`.
    pub fn lead_from(&mut self, now: Duration, latest: LogTime) {
        self.base = latest.max(self.latest);
        self.since = now;
    }

    /// The time of an entry made `now`.
    pub fn stamp(&mut self, now: Duration) -> LogTime {
        let elapsed = u64::try_from(now.saturating_sub(self.since).as_millis()).unwrap_or(u64::MAX);
        self.latest = self.latest.max(LogTime(self.base.0.saturating_add(elapsed)));
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_with_the_leader_and_never_goes_back() {
        let mut clock = LogClock::new(LogTime(1_000));
        clock.lead_from(Duration::from_secs(50), LogTime(1_000));
        assert_eq!(clock.stamp(Duration::from_millis(50_250)), LogTime(1_250));
        // An earlier reading of the clock, or a new reign over a shorter past, changes nothing.
        assert_eq!(clock.stamp(Duration::from_millis(50_100)), LogTime(1_250));
        clock.lead_from(Duration::from_secs(90), LogTime(1_100));
        assert_eq!(clock.stamp(Duration::from_millis(90_001)), LogTime(1_251));
    }

    #[test]
    fn the_time_without_a_leader_does_not_count() {
        let mut clock = LogClock::new(LogTime(7));
        clock.lead_from(Duration::from_secs(86_400), LogTime(7));
        assert_eq!(clock.stamp(Duration::from_secs(86_400)), LogTime(7));
    }
}
