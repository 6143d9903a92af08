//! Writers that append unique tokens to one key, until they are stopped, and know which of them were acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use raftmap::{Clerk, Error};
use tokio::task::JoinHandle;

const KEY: &str = "tokens";
/// A call may take this long.
const DEADLINE: Duration = Duration::from_secs(5);

pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Done>>,
}

/// What the writers did.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) acked: BTreeSet<String>,
    pub(crate) doubtful: BTreeSet<String>,
    /// The longest call.
    pub(crate) longest: Duration,
}

impl Load {
    /// `writers` at once, named by `name`.
    pub(crate) fn start(name: &str, clerk: &Clerk, writers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..writers)
            .map(|writer| {
                let (clerk, stop) = (clerk.with_deadline(DEADLINE), stop.clone());
                let name = format!("{name}.{writer}");
                tokio::spawn(async move { write(clerk, &name, &stop).await })
            })
            .collect();
        Self { stop, writers }
    }

    /// Stops it and puts together what it did.
    pub(crate) async fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        let mut done = Done::default();
        for writer in self.writers {
            let other = writer.await.unwrap();
            done.acked.extend(other.acked);
            done.doubtful.extend(other.doubtful);
            done.longest = done.longest.max(other.longest);
        }
        done
    }
}

async fn write(clerk: Clerk, name: &str, stop: &AtomicBool) -> Done {
    let mut done = Done::default();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let token = format!("{name}.{number};");
        let begun = Instant::now();
        match clerk.append(KEY, &token).await {
            Ok(_) => drop(done.acked.insert(token)),
            Err(Error::Unknown(_) | Error::SessionExpired) => drop(done.doubtful.insert(token)),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        done.longest = done.longest.max(begun.elapsed());
    }
    done
}

impl Done {
    /// Every acknowledged token is there once, and nothing but what was sent.
    pub(crate) async fn check(&self, clerk: &Clerk) {
        assert!(!self.acked.is_empty(), "nothing was acknowledged");
        let found = clerk.get(KEY).await.unwrap().unwrap();
        let text = String::from_utf8(found.value.to_vec()).unwrap();
        let mut seen = BTreeSet::new();
        for token in text.split_inclusive(';') {
            assert!(seen.insert(token.to_owned()), "{token} is there twice");
            assert!(
                self.acked.contains(token) || self.doubtful.contains(token),
                "{token} was refused or never sent"
            );
        }
        let lost: Vec<_> = self.acked.difference(&seen).collect();
        assert!(lost.is_empty(), "lost {lost:?}");
    }

    /// As if one load had done both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.acked.extend(other.acked);
        self.doubtful.extend(other.doubtful);
        self
    }
}
