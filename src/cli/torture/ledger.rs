//! The ledger of a run: every operation, as lines of JSON, on a disk outside of the nodes' directories.
//!
//! The rule: a write is sent only once its line, without an outcome, is synced. A second line with its outcome follows,
//! and is synced soon after. So whatever ends this process or its machine, every value that a node may hold is in the
//! ledger; what can be missing is the outcome of the last operations, and one that is missing counts as unknown, which
//! is weaker but never wrong. A read changes nothing, so its one line comes with its outcome.
//!
//! One thread writes. Lines that come while it syncs share the next sync.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

/// Lines that wait to be written; whoever brings one more waits.
const WAITING_MAX: usize = 4_096;

/// The ledger's file cannot be written to: its thread knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unwritable;

/// Writes lines. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Ledger(mpsc::Sender<Entry>);

#[derive(Debug)]
struct Entry {
    line: String,
    synced: Option<oneshot::Sender<()>>,
}

/// The thread that writes.
#[derive(Debug)]
pub(crate) struct LedgerThread(JoinHandle<io::Result<()>>);

impl Ledger {
    /// A new ledger at `path`, where there must be nothing yet.
    pub(crate) fn create(path: &Path) -> io::Result<(Self, LedgerThread)> {
        let file = OpenOptions::new().create_new(true).append(true).open(path)?;
        // Its name, too, is to be there after a power cut.
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            File::open(dir)?.sync_all()?;
        }
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("raftmap-ledger".into());
        let thread = thread.spawn(move || write(file, receiver))?;
        Ok((Self(sender), LedgerThread(thread)))
    }

    /// Returns once the line is on the disk.
    pub(crate) async fn synced(&self, line: String) -> Result<(), Unwritable> {
        let (sender, done) = oneshot::channel();
        self.0.send(Entry { line, synced: Some(sender) }).await.map_err(|_| Unwritable)?;
        done.await.map_err(|_| Unwritable)
    }

    /// Returns once the line is sure to be written next, and synced with it.
    pub(crate) async fn written(&self, line: String) -> Result<(), Unwritable> {
        self.0.send(Entry { line, synced: None }).await.map_err(|_| Unwritable)
    }
}

impl LedgerThread {
    /// Waits until everything is written and synced. Every [`Ledger`] must be gone by then.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.0.join().unwrap_or_else(|_| Err(io::Error::other("the ledger's thread panicked")))
    }
}

/// Writes until nobody can bring a line any more. After an error nothing more is taken: a later sync would vouch for
/// bytes that it does not know of. That is so before those who wait are told: none of them brings another line.
fn write(file: File, mut lines: mpsc::Receiver<Entry>) -> io::Result<()> {
    let mut waiting = Vec::new();
    let written = write_all(file, &mut lines, &mut waiting);
    lines.close();
    written
}

fn write_all(
    mut file: File,
    lines: &mut mpsc::Receiver<Entry>,
    waiting: &mut Vec<oneshot::Sender<()>>,
) -> io::Result<()> {
    let mut text = String::new();
    while let Some(first) = lines.blocking_recv() {
        let more = std::iter::from_fn(|| lines.try_recv().ok()).take(WAITING_MAX);
        for entry in std::iter::once(first).chain(more) {
            text.push_str(&entry.line);
            text.push('\n');
            waiting.extend(entry.synced);
        }
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        text.clear();
        for synced in waiting.drain(..) {
            // Whoever waited may have been told to stop meanwhile.
            let _gone = synced.send(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raftmap::{Clerk, ConnectOptions};

    use super::*;
    use crate::cli::random::Random;
    use crate::cli::torture::clients::{Client, Shared};

    #[tokio::test]
    async fn a_line_is_in_the_file_when_it_is_called_synced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("history.jsonl");
        let (ledger, thread) = Ledger::create(&path).expect("a ledger");
        ledger.synced("one".into()).await.expect("synced");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "one\n");
        ledger.written("two".into()).await.expect("written");
        drop(ledger);
        thread.finish().expect("no error");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "one\ntwo\n");
        assert!(Ledger::create(&path).is_err(), "an older run's ledger is not written over");
    }

    /// What its first two lines, and its thread, say of a device that takes no line, or takes it and cannot sync it.
    async fn failing(device: &str) {
        let file = OpenOptions::new().append(true).open(device).expect("a device");
        let (sender, receiver) = mpsc::channel(8);
        let (ledger, thread) =
            (Ledger(sender), LedgerThread(std::thread::spawn(move || write(file, receiver))));
        assert_eq!(ledger.synced("one".into()).await, Err(Unwritable), "{device}");
        assert_eq!(ledger.written("two".into()).await, Err(Unwritable), "{device}");
        assert!(thread.finish().is_err(), "{device}");
    }

    #[tokio::test]
    async fn a_ledger_that_cannot_be_written_says_so() {
        failing("/dev/full").await;
    }

    /// Linux refuses to sync this device, which takes every write.
    #[tokio::test]
    async fn a_line_that_cannot_be_synced_is_not_called_synced() {
        failing("/dev/null").await;
    }

    /// A server that listens and a disk that takes its time: nothing reaches the one before the other is done.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_write_is_sent_only_once_its_line_is_synced() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (sender, mut receiver) = mpsc::channel(8);
        let address = server.local_addr().expect("bound");
        let clerk = Clerk::connect(&[address], &ConnectOptions::default()).expect("a clerk");
        // A client of this seed begins with a write.
        let seed = (0..).find(|seed| Random::branch(*seed, 1).below(100) == 0).expect("a seed");
        let shared = Shared::new();
        shared.begin();
        let client = Client::new(1, seed, clerk, shared, Ledger(sender));
        let working = tokio::spawn(client.work(1, Duration::ZERO));

        let entry = receiver.recv().await.expect("a line");
        let mut datagram = [0; 2_048];
        server.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        assert!(server.recv(&mut datagram).is_err(), "sent before its line is synced: {}", entry.line);
        if let Some(synced) = entry.synced {
            synced.send(()).expect("somebody waits");
        }
        server.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        assert!(server.recv(&mut datagram).is_ok(), "and then it is");
        working.abort();
    }
}
