//! Tasks that nobody can lose: a panic in any of them is reported, so that a node never lives on without its ears.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Called once, with the reason in words, when the transport can no longer be trusted to work.
pub type OnDead = Box<dyn FnOnce(String) + Send>;

/// Locks, also after a panic elsewhere: what our mutexes guard is whole at every step, and the panic is reported.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spawns tasks, hears of their panics, and tells them when to stop. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tasks(Arc<Inner>);

struct Inner {
    handle: Handle,
    on_dead: Mutex<Option<OnDead>>,
    stopping: watch::Sender<bool>,
    running: AtomicUsize,
    changed: watch::Sender<()>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.0.running).finish_non_exhaustive()
    }
}

impl Tasks {
    pub(crate) fn new(handle: Handle, on_dead: OnDead) -> Self {
        Tasks(Arc::new(Inner {
            handle,
            on_dead: Mutex::new(Some(on_dead)),
            stopping: watch::Sender::new(false),
            running: AtomicUsize::new(0),
            changed: watch::Sender::new(()),
        }))
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// Runs `future` on the runtime; [`stopped`](Self::stopped) waits for its end.
    pub(crate) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(self.0.clone());
        let guarded = self.guard(name, future);
        self.0.handle.spawn(async move {
            let _counted = counted;
            guarded.await;
        });
    }

    /// `future`, whose panic is reported.
    pub(crate) fn guard<F: Future>(
        &self,
        name: &'static str,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let alarm = self.alarm(name);
        async move {
            let _alarm = alarm;
            future.await
        }
    }

    /// Reports the panic that drops it.
    pub(crate) fn alarm(&self, name: &'static str) -> Alarm {
        Alarm { name, inner: self.0.clone() }
    }

    /// The transport is no longer to be trusted.
    pub(crate) fn report(&self, reason: String) {
        self.0.report(reason);
    }

    pub(crate) fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }

    /// Returns when [`stop`](Self::stop) was called.
    pub(crate) async fn stopping(&self) {
        // An error means that the sender is gone, and it lives in `self`.
        let _ = self.0.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Returns when every spawned task has ended.
    pub(crate) async fn stopped(&self) {
        let mut changed = self.0.changed.subscribe();
        while self.0.running.load(Ordering::SeqCst) > 0 {
            let _ = changed.changed().await;
        }
    }
}

impl Inner {
    fn report(&self, reason: String) {
        let on_dead = lock(&self.on_dead).take();
        if let Some(on_dead) = on_dead {
            tracing::error!(reason, "the transport is dead");
            on_dead(reason);
        }
    }
}

struct Counted(Arc<Inner>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.send_replace(());
    }
}

/// Lives inside a task; when a panic unwinds through it, it says so.
pub(crate) struct Alarm {
    name: &'static str,
    inner: Arc<Inner>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.inner.report(format!("the transport's {} task panicked", self.name));
        }
    }
}

/// Tokio for quinn, with an ear on quinn's own tasks: one hostile packet may panic them.
#[derive(Debug)]
pub(crate) struct Supervised(pub(crate) Tasks);

impl Runtime for Supervised {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.handle().spawn(self.0.guard("QUIC", future));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn tasks() -> (Tasks, mpsc::Receiver<String>) {
        let (dead, reports) = mpsc::channel();
        (Tasks::new(Handle::current(), Box::new(move |reason| dead.send(reason).unwrap())), reports)
    }

    #[tokio::test]
    async fn a_panic_is_reported_once() {
        let (tasks, reports) = tasks();
        for _ in 0..2 {
            tasks.spawn("test", async {
                tokio::task::yield_now().await;
                panic!("on purpose");
            });
        }
        Supervised(tasks.clone()).spawn(Box::pin(async { panic!("on purpose") }));
        tasks.stopped().await;
        let reason = reports.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(reason.contains("panicked"), "{reason}");
        assert!(reports.try_recv().is_err(), "said once is enough");
    }

    #[tokio::test]
    async fn an_ended_or_aborted_task_is_no_panic() {
        let (tasks, reports) = tasks();
        tasks.spawn("ends", async {});
        let mut set = tokio::task::JoinSet::new();
        set.spawn(tasks.guard("aborted", std::future::pending::<()>()));
        tokio::task::yield_now().await;
        set.shutdown().await;
        tasks.stopped().await;
        assert!(reports.try_recv().is_err());
    }
}
