//! Every number of the wire in one place: sizes in bytes, waits as durations, and what happens at each bound.

use std::time::Duration;

/// What the transport may use. [`Limits::default`] suits three to seven nodes in one building.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A TLS handshake together with the hello must end within this, or the connection is given up.
    pub handshake: Duration,
    /// A connection on which nothing was heard for this long is dead. Above `keep_alive`.
    pub idle: Duration,
    /// How often the dialling side shows a sign of life on a quiet connection. About a third of `idle`.
    pub keep_alive: Duration,
    /// First wait before dialling again; doubles, with jitter, up to `backoff_max`.
    pub backoff_min: Duration,
    /// Longest wait before dialling again.
    pub backoff_max: Duration,
    /// Bytes queued to one peer as [`Class::Urgent`](crate::Class); a frame above that is dropped and counted.
    pub urgent_queue: usize,
    /// Bytes queued to one peer as [`Class::Log`](crate::Class); a frame above that is dropped and counted.
    pub log_queue: usize,
    /// Largest payload of an urgent frame. At most `urgent_queue` with its header.
    pub urgent_frame: usize,
    /// Largest payload of a log frame. At most `log_queue` with its header.
    pub log_frame: usize,
    /// Largest payload of a client's request.
    pub request_frame: usize,
    /// Largest payload of a reply to a client.
    pub reply_frame: usize,
    /// Request bytes queued on one client connection (client side); above it `send` says so.
    pub request_queue: usize,
    /// Reply bytes queued for one client; above it the reader is too slow and the connection is closed.
    pub reply_queue: usize,
    /// Request bytes of one connection handed over and not yet released; above it reading pauses.
    pub request_credit: usize,
    /// Request bytes of all connections handed over and not yet released; above it reading pauses.
    pub all_requests_credit: usize,
    /// A client's request that has begun must go on within this, and end within this and the time that its length takes
    /// at `request_pace`; otherwise its connection is closed.
    pub request_patience: Duration,
    /// Least speed of a request that has begun, in bytes a second.
    pub request_pace: usize,
    /// Bytes of all clients' requests above 64 KiB that are on their way in; above it reading pauses.
    pub large_requests: usize,
    /// Client connections at a time; one more is refused.
    pub clients: usize,
    /// Handshakes at a time; from a quarter of it on addresses must prove themselves, above it they are refused.
    pub handshakes: usize,
    /// Wanted size of each socket buffer. Less is warned about, not refused.
    pub socket_buffer: usize,
    /// Hand the kernel several packets in one call. Off for network cards that mishandle it.
    pub segmentation_offload: bool,
    /// A snapshot transfer that moves nothing for this long has failed.
    pub snapshot_stall: Duration,
    /// How long the receiver of a whole snapshot may take for its verdict.
    pub snapshot_verdict: Duration,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            handshake: Duration::from_millis(500),
            idle: Duration::from_millis(1500),
            keep_alive: Duration::from_millis(500),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_millis(500),
            urgent_queue: MIB,
            log_queue: 16 * MIB,
            urgent_frame: 256 * KIB,
            log_frame: 8 * MIB,
            request_frame: 2 * MIB,
            reply_frame: 4 * MIB,
            request_queue: 8 * MIB,
            reply_queue: 8 * MIB,
            request_credit: 4 * MIB,
            all_requests_credit: 64 * MIB,
            request_patience: Duration::from_secs(2),
            request_pace: 256 * KIB,
            large_requests: 16 * MIB,
            clients: 1024,
            handshakes: 64,
            socket_buffer: 4 * MIB,
            segmentation_offload: true,
            snapshot_stall: Duration::from_secs(10),
            snapshot_verdict: Duration::from_secs(60),
        }
    }
}

/// Two limits that contradict each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("limit {low} = {low_value} must be {rule} {high} = {high_value}")]
pub struct LimitsError {
    low: &'static str,
    low_value: u128,
    rule: &'static str,
    high: &'static str,
    high_value: u128,
}

impl Limits {
    /// Checks each limit against its neighbours.
    ///
    /// # Errors
    /// The first pair that contradicts itself, with both numbers.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let below = |low, low_value: Duration, high, high_value: Duration| {
            check(
                "below",
                low_value < high_value,
                (low, low_value.as_millis()),
                (high, high_value.as_millis()),
            )
        };
        let fits = |low, low_value: usize, high, high_value: usize| {
            let room = high_value.saturating_sub(crate::frame::HEADER_LEN);
            check("within", low_value <= room, (low, low_value as u128), (high, high_value as u128))
        };
        below("keep_alive (ms)", self.keep_alive, "idle (ms)", self.idle)?;
        below("backoff_min (ms)", self.backoff_min, "backoff_max (ms)", self.backoff_max)?;
        fits("urgent_frame", self.urgent_frame, "urgent_queue", self.urgent_queue)?;
        fits("log_frame", self.log_frame, "log_queue", self.log_queue)?;
        fits("request_frame", self.request_frame, "request_queue", self.request_queue)?;
        fits("request_frame", self.request_frame, "request_credit", self.request_credit)?;
        fits("request_credit", self.request_credit, "all_requests_credit", self.all_requests_credit)?;
        fits("request_frame", self.request_frame, "large_requests", self.large_requests)?;
        below("nothing (ms)", Duration::ZERO, "request_patience (ms)", self.request_patience)?;
        below("request_patience (ms)", self.request_patience, "a day (ms)", Duration::from_secs(86_400))?;
        check("above", self.request_pace > 0, ("request_pace", self.request_pace as u128), ("nothing", 0))?;
        fits("large_requests", self.large_requests, "a u32", u32::MAX as usize)?;
        fits("reply_frame", self.reply_frame, "reply_queue", self.reply_queue)?;
        fits("all_requests_credit", self.all_requests_credit, "a u32", u32::MAX as usize)?;
        fits("log_queue", self.log_queue, "a u32", u32::MAX as usize)
    }
}

fn check(
    rule: &'static str,
    holds: bool,
    (low, low_value): (&'static str, u128),
    (high, high_value): (&'static str, u128),
) -> Result<(), LimitsError> {
    if holds { Ok(()) } else { Err(LimitsError { low, low_value, rule, high, high_value }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_each_other() {
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    #[test]
    fn a_contradiction_is_refused_with_both_numbers() {
        let limits = Limits { keep_alive: Duration::from_secs(2), ..Limits::default() };
        let refusal = limits.validate().unwrap_err().to_string();
        assert_eq!(refusal, "limit keep_alive (ms) = 2000 must be below idle (ms) = 1500");
        let limits = Limits { request_pace: 0, ..Limits::default() };
        let refusal = limits.validate().unwrap_err().to_string();
        assert_eq!(refusal, "limit request_pace = 0 must be above nothing = 0");
        for (patience, rule) in [(0, "nothing (ms) = 0 must be below"), (86_400, "must be below a day (ms)")]
        {
            let limits = Limits { request_patience: Duration::from_secs(patience), ..Limits::default() };
            let refusal = limits.validate().unwrap_err().to_string();
            assert!(refusal.contains(rule), "{refusal}");
        }
        let limits = Limits { log_frame: 16 * MIB, ..Limits::default() };
        assert!(limits.validate().is_err(), "a frame that never fits its queue would never leave");
    }
}
