//! Golden scripts: commands, then the trace they give. `UPDATE=1 cargo test -p raftmap raft` rewrites the traces; read the
//! diff before you believe it.
//!
//! A script is blocks of commands, a line `----`, and the trace up to the next empty line. `#` begins a comment. A line of
//! trace is a message that arrived (`->`) or was lost (`-x`), or something a core asked of its host.
//!
//! | command                                   | does                                                          |
//! |-------------------------------------------|---------------------------------------------------------------|
//! | `cluster 3 [knob=value …] [n3.knob=value …]` | new members, each with the bootstrap entry                 |
//! | `restore n1 log=1,1,2 [term=3] [vote=n2] [snapshot=2]` | starts a member from this disk: one term an entry |
//! | `campaign n1`                             | ticks it until it asks for votes                              |
//! | `elect n1`                                | `campaign`, then `settle`                                     |
//! | `tick n1 [5]`, `tick all [5]`             | lets time pass                                                |
//! | `propose n1 x [size=100] [count=3]`       | a command                                                     |
//! | `read n1 [count]`                         | a linearizable read                                           |
//! | `settle`                                  | delivers until nothing is on its way                          |
//! | `deliver n1->n2 [count]`, `drop n1->n2 [count]` | the next (default: all) messages of a link              |
//! | `cut n1 n2`, `cut n1`, `heal`             | links down, both ways; all up again                           |
//! | `hold n1`, `sync n1 [count]`, `release n1`| its syncs end only on command; the next; all, by themselves   |
//! | `crash n1`, `restart n1`, `lose n1 3`     | all that is not durable goes; its disk loses what is above 3  |
//! | `snapshot n1`                             | publishes a snapshot of what is applied                       |
//! | `transfer n1->n3 [fail] [unheard] [early]`| its snapshot arrives; or does not; or no acknowledgement is made; or it is before the report |
//! | `inject n2->n1 t5 heartbeat …`            | a message nobody sent                                         |
//! | `status n1`, `log n1`, `queue`            | shows                                                         |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use raftmap_storage::types::{Entry, HardState, Index, Membership, NodeId, Position, SnapshotId, Term};

use super::cluster::{Cluster, Envelope, config};
use super::files::{Disk, Queue};
use crate::raft::entry::{self, Kind};
use crate::raft::message::AppendOutcome;
use crate::raft::{Body, Message, PeerState, Ready, RoleKind, SoftState};

/// Runs `src/raft/testscripts/{name}.txt`.
pub(super) fn run(name: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/raft/testscripts/{name}.txt"));
    let expected = std::fs::read_to_string(&path).unwrap();
    let mut cluster = Cluster::default();
    let mut actual = String::new();
    let mut in_trace = false;
    for line in expected.lines() {
        if in_trace {
            in_trace = !line.is_empty();
            if !line.is_empty() {
                continue;
            }
        }
        writeln!(actual, "{line}").unwrap();
        if line == "----" {
            in_trace = true;
            cluster.check_everything();
            for traced in cluster.trace.drain(..) {
                writeln!(actual, "{traced}").unwrap();
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            command(&mut cluster, line);
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &actual).unwrap();
    } else if actual != expected {
        let differs = actual.lines().zip(expected.lines()).position(|(a, e)| a != e).unwrap_or(0);
        let from = |text: &str| text.lines().skip(differs).take(8).collect::<Vec<_>>().join("\n");
        let (is, was) = (from(&actual), from(&expected));
        panic!("{}:{}: the trace differs. It is\n{is}\nand was\n{was}", path.display(), differs + 1);
    }
}

/// The words of a command: what stands alone, and `key=value`.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        let (named, plain): (Vec<&str>, Vec<&str>) =
            line.split_whitespace().partition(|word| word.contains('='));
        Self { plain, named: named.into_iter().filter_map(|word| word.split_once('=')).collect() }
    }

    fn get(&self, at: usize) -> &'a str {
        self.plain.get(at).unwrap_or_else(|| panic!("a word is missing: {:?}", self.plain))
    }

    fn count(&self, at: usize) -> usize {
        self.plain.get(at).map_or(1, |word| word.parse().unwrap())
    }

    fn number(&self, name: &str) -> u64 {
        self.named.get(name).map_or(0, |value| value.parse().unwrap())
    }

    fn has(&self, word: &str) -> bool {
        self.plain.contains(&word)
    }
}

fn node(word: &str) -> NodeId {
    NodeId(word.strip_prefix('n').and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("node: {word}")))
}

fn link(word: &str) -> (NodeId, NodeId) {
    let (from, to) = word.split_once("->").unwrap_or_else(|| panic!("link: {word}"));
    (node(from), node(to))
}

fn position(word: &str) -> Position {
    let (index, term) = word.split_once('@').unwrap_or_else(|| panic!("position: {word}"));
    Position::new(index.parse().unwrap(), term.parse().unwrap())
}

fn command(cluster: &mut Cluster, line: &str) {
    let words = Words::new(line);
    match words.get(0) {
        "cluster" => start_cluster(cluster, &words),
        "restore" => restore(cluster, &words),
        "campaign" => campaign(cluster, node(words.get(1))),
        "elect" => {
            campaign(cluster, node(words.get(1)));
            settle(cluster);
        }
        "tick" => tick(cluster, &words),
        "propose" => propose(cluster, &words),
        "read" => (0..words.count(2)).for_each(|_| read(cluster, node(words.get(1)))),
        "settle" => settle(cluster),
        "deliver" => pass(cluster, &words, true),
        "drop" => pass(cluster, &words, false),
        "cut" => cut(cluster, &words),
        "heal" => cluster.cut.clear(),
        "hold" => cluster.member(node(words.get(1))).held = true,
        "sync" => {
            let id = node(words.get(1));
            (0..words.count(2)).for_each(|_| cluster.sync(id));
            cluster.pump(id);
        }
        "release" => {
            cluster.member(node(words.get(1))).held = false;
            cluster.pump(node(words.get(1)));
        }
        "crash" => cluster.crash(node(words.get(1)), 0),
        "restart" => cluster.start(node(words.get(1))),
        "lose" => lose(cluster, &words),
        "snapshot" => {
            cluster.snapshot(node(words.get(1)));
        }
        "transfer" => transfer(cluster, &words),
        "inject" => inject(cluster, &words),
        "status" => status(cluster, node(words.get(1))),
        "log" => show_log(cluster, node(words.get(1))),
        "queue" => queue(cluster),
        unknown => panic!("command: {unknown}"),
    }
}

fn start_cluster(cluster: &mut Cluster, words: &Words<'_>) {
    *cluster = Cluster::new(words.get(1).parse().unwrap(), |id| {
        let mut config = config(id);
        let own = format!("n{id}.");
        for (knob, value) in &words.named {
            let value: usize = value.parse().unwrap();
            let knob = match knob.split_once('.') {
                Some(_) => knob.strip_prefix(&own).unwrap_or("another's"),
                None => knob,
            };
            match knob {
                "another's" => {}
                "entries" => config.append_entries_max = value,
                "bytes" => config.append_bytes_max = value,
                "window" => config.inflight_appends_max = value,
                "window_bytes" => config.inflight_bytes_max = value,
                "uncommitted" => config.uncommitted_bytes_max = value as u64,
                "log_bytes" => config.log_bytes_max = Some(value as u64),
                "tail" => config.tail_bytes = value,
                unknown => panic!("knob: {unknown}"),
            }
        }
        config
    });
}

fn restore(cluster: &mut Cluster, words: &Words<'_>) {
    let id = node(words.get(1));
    let terms = words.named.get("log").map_or(Vec::new(), |terms| terms.split(',').collect());
    let entry = |(at, term): (usize, &&str)| {
        let position = Position::new(at as u64 + 1, term.parse().unwrap());
        Entry::new(position, entry::command(position.to_string().as_bytes()))
    };
    let mut log: Vec<Entry> = terms.iter().enumerate().map(entry).collect();
    let snapshotted = words.number("snapshot") as usize;
    let snapshot = (snapshotted > 0).then(|| cluster.add_file(log[..snapshotted].to_vec()));
    let last_term = log.last().map_or(Term(1), |entry| entry.position.term);
    let log = log.split_off(snapshotted);
    let term = words.named.get("term").map_or(last_term, |term| Term(term.parse().unwrap()));
    let vote = words.named.get("vote").map(|vote| node(vote));
    let member = cluster.member(id);
    member.disk = Disk { hard_state: HardState { term, vote }, snapshot, log };
    member.queue = Queue::new();
    cluster.start(id);
}

fn campaign(cluster: &mut Cluster, id: NodeId) {
    for _ in 0..100 {
        let before = cluster.raft(id).unwrap().soft_state();
        cluster.tick(id);
        let after = cluster.raft(id).unwrap().soft_state();
        let asks = after.role != RoleKind::Follower && after.role != before.role;
        if asks || before.role == RoleKind::PreCandidate {
            return;
        }
    }
    cluster.say(format!("n{id} does not campaign"));
}

fn tick(cluster: &mut Cluster, words: &Words<'_>) {
    let who = match words.get(1) {
        "all" => cluster.ids(),
        one => vec![node(one)],
    };
    for _ in 0..words.count(2) {
        who.iter().for_each(|id| cluster.tick(*id));
    }
}

fn propose(cluster: &mut Cluster, words: &Words<'_>) {
    let id = node(words.get(1));
    let size = words.number("size") as usize;
    for _ in 0..words.number("count").max(1) {
        let payload = match words.get(2) {
            "no-op" => entry::no_op(),
            "kind3" => Bytes::from_static(&[3]),
            "empty" => Bytes::new(),
            text => {
                let mut body = text.as_bytes().to_vec();
                body.resize(body.len().max(size), b'.');
                entry::command(&body)
            }
        };
        let outcome = cluster.raft(id).unwrap().propose(payload);
        match outcome {
            Ok(position) => cluster.say(format!("n{id} takes {position}")),
            Err(error) => cluster.say(format!("n{id} refuses: {error}")),
        }
    }
    cluster.pump(id);
}

fn read(cluster: &mut Cluster, id: NodeId) {
    match cluster.read(id).unwrap() {
        Ok(read) => cluster.say(format!("n{id} takes read {}", read.0)),
        Err(error) => cluster.say(format!("n{id} refuses: {error}")),
    }
}

fn settle(cluster: &mut Cluster) {
    cluster.ids().into_iter().for_each(|id| cluster.pump(id));
    for _ in 0..10_000 {
        let Some(envelope) = cluster.network.pop_front() else { return };
        hand_over(cluster, envelope, true);
    }
    panic!("the cluster does not settle");
}

fn hand_over(cluster: &mut Cluster, envelope: Envelope, arrives: bool) {
    let arrives = arrives && !cluster.is_cut(envelope.from, envelope.to);
    let sign = if arrives { "->" } else { "-x" };
    cluster.say(format!("n{} {sign} n{} {}", envelope.from, envelope.to, describe(&envelope.message)));
    if arrives {
        cluster.deliver(envelope);
    }
}

/// Delivers or drops what is on a link.
fn pass(cluster: &mut Cluster, words: &Words<'_>, arrives: bool) {
    let (from, to) = link(words.get(1));
    cluster.pump(from);
    for _ in 0..words.plain.get(2).map_or(usize::MAX, |count| count.parse().unwrap()) {
        let on_link = |envelope: &Envelope| envelope.from == from && envelope.to == to;
        let Some(at) = cluster.network.iter().position(on_link) else { return };
        let envelope = cluster.network.remove(at).unwrap();
        hand_over(cluster, envelope, arrives);
    }
}

fn cut(cluster: &mut Cluster, words: &Words<'_>) {
    let one = node(words.get(1));
    let others = match words.plain.get(2) {
        Some(other) => vec![node(other)],
        None => cluster.ids(),
    };
    for other in others {
        cluster.cut.extend([(one, other), (other, one)]);
    }
}

/// Takes away what was durable: a disk that lies.
fn lose(cluster: &mut Cluster, words: &Words<'_>) {
    let member = cluster.member(node(words.get(1)));
    assert!(member.raft.is_none(), "crash it first");
    let keep = words.count(2) - member.disk.base().index.0 as usize;
    member.disk.log.truncate(keep);
    cluster.lied = true;
}

fn transfer(cluster: &mut Cluster, words: &Words<'_>) {
    let (from, to) = link(words.get(1));
    let snapshot = cluster.member(from).disk.snapshot.unwrap();
    let term = cluster.raft(from).unwrap().status().term;
    let result = if words.has("fail") { Err(()) } else { Ok(snapshot) };
    if words.has("early") {
        cluster.install(from, to, term, snapshot);
        settle(cluster);
    }
    if let Some(sender) = cluster.raft(from) {
        sender.snapshot_sent(to, result);
    }
    cluster.pump(from);
    if !words.has("fail") && !words.has("unheard") && !words.has("early") {
        cluster.install(from, to, term, snapshot);
    }
}

fn inject(cluster: &mut Cluster, words: &Words<'_>) {
    let (from, to) = link(words.get(1));
    let term = Term(words.get(2).strip_prefix('t').unwrap().parse().unwrap());
    let place = |name: &str| words.named.get(name).map_or(Position::ZERO, |word| position(word));
    let index = |name: &str| Index(words.number(name));
    let granted = words.has("granted");
    let body = match words.get(3) {
        "PreVote" => Body::PreVote { last: place("last") },
        "PreVoteReply" => Body::PreVoteReply { granted },
        "Vote" => Body::Vote { last: place("last"), transfer: words.has("transfer") },
        "VoteReply" => Body::VoteReply { granted },
        "Append" => {
            let (number, prev) = (words.number("number"), place("prev"));
            Body::Append { number, prev, commit: index("commit"), entries: injected_entries(words) }
        }
        "Accepted" => {
            Body::AppendReply(AppendOutcome::Accepted { matched: index("matched"), full: words.has("full") })
        }
        "Rejected" => Body::AppendReply(AppendOutcome::Rejected {
            number: words.number("number"),
            prev: index("prev"),
            last: index("last"),
            conflict: words.named.get("conflict").map(|word| position(word)),
        }),
        "Heartbeat" => Body::Heartbeat { commit: index("commit"), round: words.number("round") },
        "HeartbeatReply" => Body::HeartbeatReply { round: words.number("round"), stuck: words.has("stuck") },
        "InstallSnapshot" => {
            cluster.lied = true; // nobody has ever had what it stands for
            let position = place("snapshot");
            let content: Vec<Entry> = (1..=position.index.0)
                .map(|index| Position { index: Index(index), ..position })
                .map(|position| Entry::new(position, entry::command(position.to_string().as_bytes())))
                .collect();
            let snapshot = match content.is_empty() {
                true => SnapshotId { position, length: 0, digest: [0; 32] },
                false => cluster.add_file(content),
            };
            let membership = Membership { voters: cluster.ids().into_iter().collect() };
            Body::InstallSnapshot { snapshot, membership }
        }
        "TimeoutNow" => Body::TimeoutNow,
        unknown => panic!("message: {unknown}"),
    };
    hand_over(cluster, Envelope { from, to, message: Message { term, body } }, true);
}

fn injected_entries(words: &Words<'_>) -> Vec<Entry> {
    let positions = words.named.get("entries").map_or(Vec::new(), |list| list.split(',').collect());
    let mut entries: Vec<Entry> = positions
        .into_iter()
        .map(position)
        .map(|position| Entry::new(position, entry::command(position.to_string().as_bytes())))
        .collect();
    if words.has("damaged") {
        entries.iter_mut().for_each(|entry| entry.payload_crc ^= 1);
    }
    if words.has("reserved") {
        entries.iter_mut().for_each(|entry| *entry = Entry::new(entry.position, Bytes::from_static(&[9])));
    }
    entries
}

fn status(cluster: &mut Cluster, id: NodeId) {
    let status = cluster.raft(id).unwrap().status();
    let mut line = format!(
        "n{id} {} t{} last={} committed={} applied={} durable={}",
        role(status.role),
        status.term,
        status.last,
        status.committed,
        status.applied,
        status.durable
    );
    if status.snapshot > Index(0) {
        write!(line, " snapshot={}", status.snapshot).unwrap();
    }
    write!(line, " bytes={}", status.raft_state_bytes).unwrap();
    if status.dropped > 0 {
        write!(line, " dropped={}", status.dropped).unwrap();
    }
    for peer in &status.peers {
        let state = match peer.state {
            PeerState::Probe => "probe",
            PeerState::Replicate => "replicate",
            PeerState::Snapshot => "snapshot",
        };
        write!(line, " [n{} matched={} next={} {state}]", peer.id, peer.matched, peer.next).unwrap();
    }
    cluster.say(line);
}

fn show_log(cluster: &mut Cluster, id: NodeId) {
    let log = &cluster.raft(id).unwrap().core.log;
    let base = log.base();
    let mut line = format!("n{id} log:");
    if base.index > Index(0) {
        write!(line, " ({base})").unwrap();
    }
    for index in base.index.next().0..=log.last().index.0 {
        write!(line, " {}", log.position_at(Index(index)).unwrap()).unwrap();
    }
    cluster.say(line);
}

fn queue(cluster: &mut Cluster) {
    for envelope in cluster.network.clone() {
        cluster.say(format!("n{} .. n{} {}", envelope.from, envelope.to, describe(&envelope.message)));
    }
}

fn role(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Follower => "follower",
        RoleKind::PreCandidate => "pre-candidate",
        RoleKind::Candidate => "candidate",
        RoleKind::Leader => "leader",
    }
}

fn describe(message: &Message) -> String {
    let answer = |granted: &bool| if *granted { "granted" } else { "refused" };
    let body = match &message.body {
        Body::PreVote { last } => format!("PreVote last={last}"),
        Body::PreVoteReply { granted } => format!("PreVoteReply {}", answer(granted)),
        Body::Vote { last, transfer } => {
            format!("Vote last={last}{}", if *transfer { " transfer" } else { "" })
        }
        Body::VoteReply { granted } => format!("VoteReply {}", answer(granted)),
        Body::Append { number, prev, commit, entries } => {
            format!("Append number={number} prev={prev} commit={commit} [{}]", describe_entries(entries))
        }
        Body::AppendReply(AppendOutcome::Accepted { matched, full }) => {
            format!("Accepted matched={matched}{}", if *full { " full" } else { "" })
        }
        Body::AppendReply(AppendOutcome::Rejected { number, prev, last, conflict }) => {
            let conflict = conflict.map_or(String::new(), |conflict| format!(" conflict={conflict}"));
            format!("Rejected number={number} prev={prev} last={last}{conflict}")
        }
        Body::Heartbeat { commit, round } => format!("Heartbeat commit={commit} round={round}"),
        Body::HeartbeatReply { round, stuck } => {
            format!("HeartbeatReply round={round}{}", if *stuck { " stuck" } else { "" })
        }
        Body::InstallSnapshot { snapshot, membership: _ } => {
            format!("InstallSnapshot {}", snapshot.position)
        }
        Body::TimeoutNow => "TimeoutNow".into(),
    };
    format!("t{} {body}", message.term)
}

fn describe_entries(entries: &[Entry]) -> String {
    entries.iter().map(describe_entry).collect::<Vec<_>>().join(" ")
}

fn describe_entry(entry: &Entry) -> String {
    let what = match entry::kind(&entry.payload) {
        Ok(Kind::NoOp) => "no-op".into(),
        Ok(Kind::Bootstrap) => "bootstrap".into(),
        Ok(Kind::Command) => {
            let body = String::from_utf8_lossy(&entry.payload[1..]).into_owned();
            body.trim_end_matches('.').to_owned()
        }
        Err(error) => error.to_string(),
    };
    if what == entry.position.to_string() { what } else { format!("{}:{what}", entry.position) }
}

impl Cluster {
    /// What a `Ready` asks of its host, except for the messages: those are told when they arrive.
    pub(super) fn tell(&mut self, id: NodeId, ready: &Ready) {
        if let Some((_, batch)) = &ready.batch {
            let mut line = format!("n{id} writes");
            if let Some(HardState { term, vote }) = batch.hard_state {
                let vote = vote.map_or("none".into(), |vote| format!("n{vote}"));
                write!(line, " term={term} vote={vote}").unwrap();
            }
            if let Some(truncate) = batch.truncate {
                write!(line, " truncate={truncate}").unwrap();
            }
            if !batch.entries.is_empty() {
                write!(line, " [{}]", describe_entries(&batch.entries)).unwrap();
            }
            if let Some(mark) = batch.snapshot {
                let reset = if mark.reset { " reset" } else { "" };
                write!(line, " snapshot={}{reset}", mark.snapshot.position).unwrap();
            }
            self.say(line);
        }
        if let Some(snapshot) = ready.restore {
            self.say(format!("n{id} restores {}", snapshot.position));
        }
        if !ready.committed.is_empty() {
            self.say(format!("n{id} applies [{}]", describe_entries(&ready.committed)));
        }
        for (read, index) in &ready.reads {
            self.say(format!("n{id} answers read {} at {index}", read.0));
        }
        for read in &ready.reads_failed {
            self.say(format!("n{id} fails read {}", read.0));
        }
        for peer in &ready.snapshots_wanted {
            self.say(format!("n{id} wants a snapshot sent to n{peer}"));
        }
        if let Some(index) = ready.truncated_from {
            self.say(format!("n{id} may have replaced entries from {index}"));
        }
        for regression in &ready.regressions {
            let (acknowledged, shown) = (regression.acknowledged, regression.shown);
            self.say(format!("n{id} sees n{} show {shown} after {acknowledged}", regression.peer));
        }
        if let Some(SoftState { term, leader, role: kind }) = ready.status {
            let follows = match (kind, leader) {
                (RoleKind::Leader, _) => String::new(),
                (_, Some(leader)) => format!(" of n{leader}"),
                (_, None) => " of nobody".into(),
            };
            self.say(format!("n{id} is {}{follows} in t{term}", role(kind)));
        }
    }
}
