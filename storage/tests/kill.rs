//! SIGKILL on a real process that writes to a real disk: whatever it was told is durable is there afterwards.

#![expect(clippy::unwrap_used, reason = "a test's helper fails like the test")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use raftmap_storage::os::OsFs;
use raftmap_storage::types::{Batch, ClusterId, Entry, HardState, NodeId, Position, Term};
use raftmap_storage::{Identity, Options, Recovered, Wal, find, open};

const DIR: &str = "RAFTMAP_TEST_KILL_DIR";
const ROUNDS: u64 = 12;

fn open_dir(dir: &Path) -> (Wal<OsFs>, Recovered) {
    let identity = Identity { cluster: ClusterId([1; 16]), node: NodeId(1) };
    let options = Options { segment_bytes: 16384, payload_max: 1024, spares: 1, batch_bytes: 1 << 20 };
    open(OsFs, dir, identity, options).unwrap()
}

/// The process that is killed: it writes until then, one entry a batch, each with a new vote now and then. Without
/// the variable it is not one, and does nothing.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (mut wal, recovered) = open_dir(Path::new(&dir));
    let term = recovered.hard_state.term.next();
    for number in 1.. {
        let hard_state = (number == 1).then_some(HardState { term, vote: Some(NodeId(term.0)) });
        let position = Position::new(recovered.last.index.0 + number, term.0);
        let entries = vec![Entry::new(position, Bytes::from(format!("entry {position}")))];
        wal.push(number, Batch { hard_state, entries, ..Batch::default() }).unwrap();
        while wal.queued() {
            let _ = wal.sync().unwrap();
            while let Some(chore) = wal.next_chore() {
                wal.chore_done(chore.run().unwrap()).unwrap();
            }
        }
        writeln!(std::io::stdout(), "durable {} {}", position.index, position.term).unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_was_told() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    for round in 1..=ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(DIR, &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = Position::ZERO;
        let mut count = 0;
        for line in lines.map_while(Result::ok) {
            let Some(numbers) = line.strip_prefix("durable ") else { continue };
            let (index, term) = numbers.split_once(' ').unwrap();
            told = Position::new(index.parse().unwrap(), term.parse().unwrap());
            count += 1;
            if count == round * 5 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(count >= round * 5, "round {round}: {count} entries");

        let (_, recovered) = open_dir(&dir);
        let (last, vote) = (recovered.last, recovered.hard_state);
        assert!(last.index >= told.index && last.term == told.term, "round {round}: {last}, told {told}");
        assert_eq!(vote, HardState { term: Term(round), vote: Some(NodeId(round)) });
        check_entries(&recovered);
    }
}

/// Every entry, from the heap or from a sealed segment, is the one that was written there.
fn check_entries(recovered: &Recovered) {
    let tail_from = recovered.tail.first().map_or(recovered.last.index.next(), |entry| entry.position.index);
    for index in (1..=recovered.last.index.0).map(raftmap_storage::types::Index) {
        let entry = match index < tail_from {
            true => find(&recovered.sealed, index).unwrap().entry(index).unwrap(),
            false => recovered.tail[(index.0 - tail_from.0) as usize].clone(),
        };
        assert!(entry.is_intact());
        assert_eq!(entry.position.index, index);
        assert_eq!(entry.payload, format!("entry {}", entry.position).as_bytes());
    }
}
