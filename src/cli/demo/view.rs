//! What a person sees while it runs, all on standard error: a line that keeps changing, and above it what was just done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::clients::Shared;
use crate::cli::output;

/// The line changes this often.
const REFRESH: Duration = Duration::from_millis(100);

/// The screen. Cheap to clone.
#[derive(Clone)]
pub(super) struct View {
    bar: ProgressBar,
    started: Instant,
}

impl View {
    /// A line for a run of this many seconds; none where standard error is no terminal.
    pub(super) fn new(seconds: u64) -> Self {
        let bar = ProgressBar::new(seconds * 1_000);
        // The template is a constant of ours; should it ever be wrong, the plain bar does.
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now() }
    }

    /// Tells what was just done, with the time since the beginning.
    pub(super) fn tell(&self, words: &str) {
        let at = self.started.elapsed().as_secs_f64();
        self.bar.suspend(|| output::note(&format!("{at:7.2} s  {words}")));
    }

    /// Says what goes on right now.
    pub(super) fn now(&self, words: &str) {
        self.bar.set_message(words.to_owned());
    }

    /// Keeps the line up to date for as long as it is polled.
    pub(super) async fn follow(&self, shared: Arc<Shared>) {
        let (begun, mut before, mut last) = (Instant::now(), 0, Instant::now());
        loop {
            tokio::time::sleep(REFRESH).await;
            let (acked, reads) = (shared.acked.load(Ordering::Relaxed), shared.reads.load(Ordering::Relaxed));
            let rate = (acked + reads - before) as f64 / last.elapsed().as_secs_f64().max(0.001);
            (before, last) = (acked + reads, Instant::now());
            self.bar.set_position(begun.elapsed().as_millis() as u64);
            self.now(&format!("{acked} writes acknowledged, {reads} reads, {rate:.0} operations/s"));
        }
    }

    /// Takes the line away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
