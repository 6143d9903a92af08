//! The dialling side of a link: again and again, with back-off, to the one node that should answer there.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::link::{self, Established, GreetError, Link};
use crate::identity::{OutOfReach, SERVER_NAME};
use crate::stream::{self, CloseCode};
use crate::tls::{self, Refusal};

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error(transparent)]
    OutOfReach(#[from] OutOfReach),
    #[error("cannot dial: {0}")]
    Connect(#[from] quinn::ConnectError),
    #[error("{}", stream::reason(.0))]
    Handshake(#[from] quinn::ConnectionError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("who answers is not who should: {0}")]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Greet(#[from] GreetError),
}

/// Dials and carries, until the transport stops.
pub(super) async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let mut backoff = Backoff::new(shared.limits.backoff_min, shared.limits.backoff_max);
    while !shared.tasks.is_stopping() {
        match dial(&shared, &link).await {
            Ok(established) => {
                backoff.reset();
                link::carry(&shared, &link, established, None).await;
            }
            Err(_) if shared.tasks.is_stopping() => return,
            Err(error) => {
                shared.counters.dials_failed.add_one();
                link.note_trouble(error.to_string());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = shared.tasks.stopping() => {}
        }
    }
}

async fn dial(shared: &Shared, link: &Link) -> Result<Established, DialError> {
    shared.identity.check_reach(link.addr)?;
    let limit = shared.limits.handshake;
    let connecting = shared.endpoint.connect_with(shared.dial_config.clone(), link.addr, SERVER_NAME)?;
    let connection =
        tokio::time::timeout(limit, connecting).await.map_err(|_| DialError::Timeout(limit))??;
    let who = tls::admit(&connection, &shared.identity)
        .and_then(|(_, certified)| tls::require_node(&certified, Some(link.peer)));
    if let Err(refusal) = who {
        shared.counters.refused.add_one();
        stream::close(&connection, CloseCode::Refused, &refusal.to_string());
        return Err(refusal.into());
    }
    tls::widen_for_peer(&connection);
    let greeting = link::greet_first(shared, link.peer, connection.clone());
    Ok(link::within(limit, connection, greeting).await?)
}

/// Waits that double up to a bound, each spread over its upper half, so that nodes do not dial in step.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Self {
        Backoff { min, max, next: min }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    fn next(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.max);
        // A fresh `RandomState` has fresh keys: chance enough for a wait.
        let spread = RandomState::new().hash_one(()) % 1000;
        full / 2 + full / 2 * u32::try_from(spread).unwrap_or(0) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_their_bounds_and_start_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50), ms(500));
        for full in [50, 100, 200, 400, 500, 500] {
            let wait = backoff.next();
            assert!(wait >= ms(full) / 2 && wait <= ms(full), "{wait:?} for {full}");
        }
        backoff.reset();
        assert!(backoff.next() <= ms(50));
    }
}
