//! Being asked to stop.

use std::io::{self, Read};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Resolves at SIGTERM or SIGINT. From its creation on, neither ends the process any more.
pub(crate) fn asked_to_stop() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Resolves when standard input ends: a parent that holds the other end of the pipe is gone, however it went.
pub(crate) async fn stdin_ended() {
    let (ended, wait) = oneshot::channel::<()>();
    // A thread of its own, which nobody joins: a runtime would wait for a read that may never return.
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut stdin = io::stdin().lock();
        while matches!(stdin.read(&mut buffer), Ok(1..)) {}
        drop(ended);
    });
    let _dropped = wait.await;
}
