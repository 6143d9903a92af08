//! What goes wrong, drawn from what the seed allows.

use std::time::Duration;

use raftmap::raft::RoleKind;
use raftmap::storage::model::{Cut, Effect, Fault, Op};

use crate::atlas::Harm;
use crate::dice::Dice;
use crate::life::Crash;
use crate::net::{Bad, End, SHAPES};
use crate::setup::Faults;
use crate::world::{Event, World};

/// A slow disk takes at most about as long for a sync: far less than the end of a world waits.
const SLOWEST: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crash,
    Pause,
    Partition,
    SlowDisk,
    BadCall,
    FullDisk,
    BadLink,
    CrashLoop,
    Leap,
    HarmRunning,
    HarmResting,
    Directory,
    Strangers,
    ClientCrash,
}

/// Those that the seed allows.
fn kinds(faults: &Faults, nodes: usize) -> Vec<Kind> {
    let kinds = [
        (Kind::Crash, faults.kill || faults.power),
        (Kind::Pause, faults.pause),
        (Kind::Partition, faults.partition && nodes > 1),
        (Kind::SlowDisk, faults.slow_disk),
        (Kind::BadCall, faults.bad_calls),
        (Kind::FullDisk, faults.full_disk),
        (Kind::BadLink, faults.bad_link && nodes > 1),
        (Kind::CrashLoop, faults.crash_loop),
        (Kind::Leap, faults.leap),
        (Kind::HarmRunning, faults.harm),
        // Two nodes or one cannot spare a disk.
        (Kind::HarmResting, faults.harm && nodes > 2),
        (Kind::Directory, faults.directory),
        (Kind::Strangers, faults.directory),
        (Kind::ClientCrash, faults.clients),
    ];
    kinds.into_iter().filter(|(_, on)| *on).map(|(kind, _)| kind).collect()
}

/// Their names.
pub fn names(faults: &Faults, nodes: usize) -> Vec<String> {
    kinds(faults, nodes).into_iter().map(|kind| format!("{kind:?}")).collect()
}

/// Faults that are ordered and strike later, if at all: by these marks one can tell.
pub const LATER: [(&str, &[&str]); 9] = [
    (
        "BadCall",
        &[
            "a directory sync failed",
            "a read failed",
            "a sync failed and dropped its pages",
            "a sync failed and everything was on the disk",
            "a write failed",
            "a write was short",
            "another disk call failed",
        ],
    ),
    (
        "HarmRunning",
        &["a map was misread", "a sync lied", "a write went astray", "bits rotted under a running node"],
    ),
    (
        "HarmResting",
        &[
            "a file vanished",
            "a file was cut short",
            "a sector became unreadable",
            "a sector was zeroed",
            "bits rotted in NODE",
            "bits rotted in a sealed segment",
            "bits rotted in a snapshot",
            "bits rotted in the last segment",
        ],
    ),
    (
        "Directory",
        &[
            "a directory was emptied",
            "a directory was rolled back",
            "a node went on from a copy of its directory",
        ],
    ),
    ("FullDisk", &["a write found the disk full"]),
    (TORN, &["the power was cut and sectors torn"]),
    (IN_RECOVERY, &["a recovery was crashed"]),
    (TOTAL, &["every copy of a record was damaged and every node halted"]),
    (
        CRIPPLED,
        &[
            "the end came with a damaged node",
            "the end came with a dead node",
            "the end came with a disk that hangs",
            "the end came with a node cut off",
            "the end came with a stopped process",
        ],
    ),
];

/// What may happen whenever a node ends, comes back, or everything ends.
pub const TORN: &str = "torn";
pub const IN_RECOVERY: &str = "in recovery";
pub const CRIPPLED: &str = "crippled";
pub const TOTAL: &str = "total damage";
/// There is no sense in waiting for these.
pub const AT_THE_END: [&str; 2] = [CRIPPLED, TOTAL];

/// Of these, what the seed allows.
pub fn manners(faults: &Faults, nodes: usize) -> impl Iterator<Item = &'static str> {
    let manners = [
        (TORN, faults.torn && faults.power),
        (IN_RECOVERY, faults.in_recovery > 0 && (faults.kill || faults.power || faults.crash_loop)),
        (CRIPPLED, faults.crippled && nodes > 2 && !faults.total),
        (TOTAL, faults.total),
    ];
    manners.into_iter().filter(|(_, on)| *on).map(|(name, _)| name)
}

impl World {
    pub fn fault(&mut self) {
        if self.calm.is_some() {
            return;
        }
        self.next_fault();
        let kinds = kinds(&self.setup.faults, self.setup.nodes);
        self.strike(&kinds, |world, kind| {
            world.keep_backup();
            world.upsets += 2;
            match kind {
                Kind::Crash => world.crash_some(),
                Kind::Pause => world.pause(),
                Kind::Partition => world.partition(),
                Kind::SlowDisk => world.slow_disk(),
                Kind::BadCall => world.bad_call(),
                Kind::FullDisk => world.full_disk(),
                Kind::BadLink => world.bad_link(),
                Kind::CrashLoop => world.crash_loop(),
                Kind::Leap => world.upset_clock(),
                Kind::HarmRunning => world.harm_running(),
                Kind::HarmResting => world.harm_resting(),
                Kind::Directory => world.swap_directory(),
                Kind::Strangers => world.strangers(),
                Kind::ClientCrash => world.restart_client(),
            }
        });
    }

    /// Somebody copies a directory, in case.
    fn keep_backup(&mut self) {
        if self.setup.faults.directory {
            let at = self.nemesis.place(self.nodes.len());
            let node = &mut self.nodes[at];
            if node.backups.len() < 2 && matches!(node.harm, Harm::None) && !node.locked_out {
                node.backups.push(node.disk.kill());
            }
        }
    }

    fn bad_link(&mut self) {
        let nodes = self.nodes.len();
        let from = self.nemesis.place(nodes);
        let to = (from + self.nemesis.between(1, nodes as u64 - 1) as usize) % nodes;
        let by = self.nemesis.time(Duration::from_millis(20), Duration::from_secs(2));
        let loss = self.nemesis.pick(&[0, 0, 300, 700]);
        let doubled = self.nemesis.pick(&[0, 0, 500]);
        self.links.worsen(End::Node(from), End::Node(to), Bad { slower: by, loss, doubled });
        self.trace.sometimes("one direction of a link was slow");
        let time = self.nemesis.time(Duration::from_millis(100), Duration::from_secs(4));
        self.after(time, Event::MendLink(from, to));
    }

    fn crash_loop(&mut self) {
        let at = self.nemesis.place(self.nodes.len());
        self.nodes[at].relapses = self.nemesis.between(3, 12);
        let crash = self.draw_crash();
        self.crash(at, crash);
        self.trace.sometimes("a node was in a crash loop");
        self.after(Duration::from_millis(20), Event::Start(at));
    }

    /// One, often the leader; or several; or all at once.
    fn victims(&mut self) -> Vec<usize> {
        let count = self.nodes.len();
        match self.nemesis.below(8) {
            0 => (0..count).collect(),
            1 => {
                let some = self.nemesis.between(1, count as u64) as usize;
                self.nemesis.shuffled(count).into_iter().take(some).collect()
            }
            2..=4 => self.leader().into_iter().collect(),
            _ => vec![self.nemesis.place(count)],
        }
    }

    /// Somebody who takes itself for the leader.
    pub fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| {
            let life = self.nodes[*at].life.as_ref();
            life.is_some_and(|life| life.replica.soft_state().role == RoleKind::Leader)
        };
        (0..self.nodes.len()).find(leads)
    }

    fn crash_some(&mut self) {
        for at in self.victims() {
            if self.nemesis.below(3) == 0 && self.nodes[at].life.is_some() {
                self.nodes[at].doomed = true;
                self.trace.sometimes("a node will die in the midst of writing");
                continue;
            }
            let crash = self.draw_crash();
            self.crash(at, crash);
            let time = self.nemesis.time(Duration::from_millis(5), Duration::from_secs(2));
            self.after(time, Event::Start(at));
        }
    }

    pub fn draw_crash(&mut self) -> Crash {
        draw_crash(&self.setup.faults, &mut self.nemesis)
    }

    /// Of a process that ends when no fault strikes, but after one.
    pub fn draw_later_crash(&mut self) -> Crash {
        draw_crash(&self.setup.faults, &mut self.aftermath)
    }

    fn pause(&mut self) {
        for at in self.victims() {
            let number = self.nodes[at].lives;
            let Some(life) = &mut self.nodes[at].life else { continue };
            if life.paused.is_none() {
                life.paused = Some(Vec::new());
                self.trace.sometimes("a node was paused");
                let time = self.nemesis.time(Duration::from_millis(20), Duration::from_secs(3));
                self.after(time, Event::Resume(at, number));
            }
        }
    }

    fn partition(&mut self) {
        let shape = self.nemesis.pick(&SHAPES);
        self.links.heal();
        let leader = self.leader().unwrap_or(0);
        self.links.cut(shape, self.nodes.len(), self.clients.len(), leader, &mut self.nemesis);
        if self.links.parts_nodes() {
            self.trace.sometimes("the network was cut");
            self.trace.sometimes(shape.name());
        }
        let time = self.nemesis.time(Duration::from_millis(50), Duration::from_secs(4));
        self.after(time, Event::HealLinks);
    }

    fn slow_disk(&mut self) {
        let at = self.nemesis.place(self.nodes.len());
        // What was begun is not hurried when the disk is healed.
        let most = SLOWEST.as_micros() / self.nodes[at].sync.as_micros().max(1);
        self.nodes[at].slowness = self.nemesis.pick(&[5, 50, 500]).min(most as u32).max(1);
        if self.nodes[at].life.is_some() {
            self.trace.sometimes("a disk was slow");
        }
        let time = self.nemesis.time(Duration::from_millis(50), Duration::from_secs(3));
        self.after(time, Event::HealDisk(at));
    }

    fn bad_call(&mut self) {
        let at = self.nemesis.place(self.nodes.len());
        // Each effect where it makes a difference.
        let seed = self.nemesis.number();
        let (on, effect) = match self.nemesis.below(8) {
            0 => (None, Effect::Eio),
            1 => (None, Effect::Enospc),
            2 => (Some(Op::WriteAt), Effect::Short),
            3 => (Some(self.nemesis.pick(&[Op::SyncData, Op::SyncDir])), Effect::SyncDropped),
            4 => (Some(self.nemesis.pick(&[Op::SyncData, Op::SyncDir])), Effect::SyncDroppedSome(seed)),
            5 => (Some(self.nemesis.pick(&[Op::SyncData, Op::SyncDir])), Effect::SyncKept),
            6 => (Some(Op::WriteAt), self.nemesis.pick(&[Effect::Eio, Effect::Enospc])),
            _ => (Some(Op::ReadAt), Effect::Eio),
        };
        let after = self.nemesis.below(12);
        let lasting = self.nemesis.below(4) == 0;
        self.excuse(at);
        self.nodes[at].disk.fail(Fault { on, after, effect, lasting });
        self.trace.sometimes("a disk call was made to fail");
        if lasting {
            self.nodes[at].failing = Some(0);
            let time = self.nemesis.time(Duration::from_millis(100), Duration::from_secs(3));
            self.after(time, Event::HealDisk(at));
        }
    }

    fn full_disk(&mut self) {
        let at = self.nemesis.place(self.nodes.len());
        self.excuse(at);
        let node = &mut self.nodes[at];
        let left = self.nemesis.pick(&[0, 500, 4_000, 20_000]);
        node.disk.set_quota(Some(node.disk.used() + left));
        self.trace.sometimes("a disk was full");
        let time = self.nemesis.time(Duration::from_millis(300), Duration::from_secs(4));
        self.after(time, Event::HealDisk(at));
    }

    pub fn heal_disk(&mut self, at: usize) {
        if self.broken.contains(&at) {
            return;
        }
        self.note_struck(at);
        let node = &mut self.nodes[at];
        (node.slowness, node.doomed, node.failing) = (1, false, None);
        node.disk.set_quota(None);
        node.disk.heal();
    }
}

fn draw_crash(faults: &Faults, dice: &mut Dice) -> Crash {
    let power = faults.power && (!faults.kill || dice.below(2) == 0);
    match dice.below(5) {
        0 | 1 if !power => Crash::Kill,
        _ if !power => Crash::Evict,
        0 => Crash::Power(Cut::LoseAll),
        1 => Crash::Power(Cut::KeepAll),
        2 | 3 if faults.torn => Crash::Power(Cut::Torn(dice.number())),
        _ => Crash::Power(Cut::Some(dice.number())),
    }
}
