//! How a node begins and ends: recovery, crashes in the midst of anything, faults that make it stop by itself.

use std::time::Duration;

use raftmap::node::jobs;
use raftmap::node::replica::Job;
use raftmap::storage::StoreError;
use raftmap::storage::model::{Cut, Effect, ModelFs, Op, Step};

use crate::atlas::Harm;
use crate::damage::files;
use crate::node::CLUSTER;
use crate::world::{Event, World};

/// What a dying node was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Midst {
    Sync,
    Chore,
    Snapshot,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    Kill,
    /// Killed, and clean pages left the cache.
    Evict,
    Power(Cut),
}

impl World {
    pub fn start(&mut self, at: usize) {
        if self.nodes[at].life.is_some() || self.nodes[at].locked_out || self.broken.contains(&at) {
            return;
        }
        if matches!(self.nodes[at].harm, Harm::Spoiled(_)) {
            let before = files(&self.nodes[at].disk);
            let Err(error) = self.nodes[at].open(self.now) else {
                panic!("node {} starts, and is damaged", at + 1);
            };
            // Where calls were made to fail, one may come before the damage is seen.
            let unseen = self.nodes[at].excuse.is_given() && !error.contains("/disk/");
            return if unseen { self.start_later(at) } else { self.refused(at, &before, &error) };
        }
        if self.nodes[at].lives > 0
            && self.calm.is_none()
            && self.aftermath.permille(self.setup.faults.in_recovery)
        {
            return self.crash_in_recovery(at);
        }
        if let Err(error) = self.nodes[at].open(self.now) {
            assert!(self.nodes[at].excuse.is_given(), "node {} does not start: {error}", at + 1);
            return self.start_later(at);
        }
        let cut = Cut::Some(self.disks.number());
        let node = &self.nodes[at];
        self.trace.note(self.now, at, "starts", node.lives, 0);
        // What has been opened once stays, whatever happens before anything else is written.
        let latent = matches!(node.harm, Harm::Latent);
        let left = if latent { node.disk.kill() } else { node.disk.cut(cut) };
        let recovered = self.must(node.look(&left));
        let last = node.life.as_ref().map(|life| life.replica.raft().status().last);
        assert_eq!(last, Some(recovered.last), "node {}: opened, and then found again", at + 1);
        let checked = self.nodes[at].shadow.reborn(&recovered);
        self.must(checked);
        if self.nodes.len() == 1 {
            self.watch.reborn_alone(recovered.hard_state.term);
        }
        self.restored(at);
        self.relapse(at);
        self.tick(at);
        self.writer_turn(at);
    }

    fn start_later(&mut self, at: usize) {
        self.trace.sometimes("a node could not start for its disk");
        let time = Duration::from_millis(self.aftermath.between(100, 500));
        self.after(time, Event::Start(at));
    }

    /// A map that came from a snapshot is the one that anybody had there.
    fn restored(&mut self, at: usize) {
        let Some(life) = &self.nodes[at].life else { return };
        let (applied, digest) = (life.replica.map().applied_index(), life.replica.map().digest());
        if applied.0 > 0 {
            let checked = self.watch.digest(self.nodes[at].id(), applied, digest);
            self.must(checked);
        }
    }

    /// In a crash loop it soon dies again.
    fn relapse(&mut self, at: usize) {
        let Some(left) = self.nodes[at].relapses.checked_sub(1) else { return };
        self.nodes[at].relapses = left;
        if left == 0 {
            self.trace.sometimes("a crash loop came to its end");
        }
        let time = self.aftermath.time(Duration::from_millis(1), Duration::from_millis(300));
        let life = self.nodes[at].lives;
        self.after(time, Event::Relapse(at, life));
    }

    pub fn relapsed(&mut self, at: usize, life: u64) {
        if self.nodes[at].lives == life && self.calm.is_none() {
            let crash = self.draw_later_crash();
            self.crash(at, crash);
            let time = Duration::from_millis(self.aftermath.between(1, 50));
            self.after(time, Event::Start(at));
        }
    }

    /// Opens the directory and dies behind some call of that.
    fn crash_in_recovery(&mut self, at: usize) {
        self.trace.sometimes("a recovery was crashed");
        let node = &self.nodes[at];
        let disk = node.disk.clone();
        disk.keep_photos();
        // Only its traces matter.
        let _unused = node.open_on(&disk).map(|_| ());
        let crash = self.draw_later_crash();
        self.leave(at, &disk, crash);
        let time = Duration::from_millis(self.aftermath.between(1, 100));
        self.after(time, Event::Start(at));
    }

    /// The disk as it was behind some call since photos were taken, after a crash.
    fn leave(&mut self, at: usize, disk: &ModelFs, crash: Crash) {
        let photos = disk.take_photos();
        let (call, photo) = &photos[self.disks.place(photos.len())];
        let opens = |step: &Step| {
            step.number == *call
                && step.op == Op::WriteAt
                && step.range.is_some_and(|(offset, _)| offset == 4_096)
        };
        if disk.trace().iter().any(opens) {
            self.trace.sometimes("a node died behind the OPEN of a segment");
        }
        self.fall(at, after(photo, crash), photo.kill(), crash);
    }

    /// Which faults on order really struck.
    pub fn note_struck(&mut self, at: usize) {
        for (op, effect) in self.nodes[at].disk.take_struck() {
            let Some(name) = struck(op, effect) else { continue };
            self.trace.sometimes(name);
            if let Some(failing) = &mut self.nodes[at].failing {
                *failing += 1;
                if *failing == 2 {
                    self.trace.sometimes("a disk failed until it was healed");
                }
            }
        }
        if self.nodes[at].disk.take_met_quota() {
            self.trace.sometimes("a write found the disk full");
        }
    }

    pub fn crash(&mut self, at: usize, crash: Crash) {
        self.nodes[at].doomed = false;
        let Some(mut life) = self.nodes[at].life.take() else { return };
        self.trace.note(self.now, at, "crashes", self.nodes[at].lives, 0);
        self.trace.sometimes(match crash {
            Crash::Kill => "a node was killed",
            Crash::Evict => "a node was killed and its cache dropped",
            Crash::Power(Cut::Torn(_)) => "the power was cut and sectors torn",
            Crash::Power(_) => "the power was cut",
        });
        self.note_struck(at);
        self.upsets += 1;
        let disk = self.nodes[at].disk.clone();
        let mut midst: Vec<Midst> = Vec::new();
        midst.extend(life.writer.is_syncing().then_some(Midst::Sync));
        midst.extend(life.writer.chore.is_some().then_some(Midst::Chore));
        let job = life.jobs.pop_front();
        midst.extend(matches!(job, Some(Job::WriteSnapshot { .. })).then_some(Midst::Snapshot));
        if midst.is_empty() || self.disks.below(4) == 0 {
            self.fall(at, after(&disk, crash), disk.kill(), crash);
        } else {
            disk.keep_photos();
            disk.keep_trace();
            match (self.disks.pick(&midst), job) {
                (Midst::Sync, _) => {
                    let _unheard = life.writer.sync(Duration::ZERO);
                }
                (Midst::Snapshot, Some(Job::WriteSnapshot { image, membership })) => {
                    let dir = self.nodes[at].dir().to_path_buf();
                    let _unheard = jobs::write(&disk, &dir, CLUSTER, &image, membership);
                    self.trace.sometimes("a node died writing a snapshot");
                }
                (Midst::Chore | Midst::Snapshot, _) => {
                    life.writer.run_chore();
                    self.trace.sometimes("a node died in a chore");
                }
            }
            self.trace.sometimes("a node died in the midst of writing");
            self.leave(at, &disk, crash);
        }
        drop(life);
        self.lose_clients(at);
    }

    fn lose_clients(&mut self, at: usize) {
        let lost: Vec<u64> = self
            .connections
            .open
            .iter()
            .filter(|(_, connection)| connection.node == at)
            .map(|(number, _)| *number)
            .collect();
        for connection in lost {
            let time = Duration::from_millis(self.schedule.pick(&[1, 1, 20, 300, 1_500]));
            self.after(time, Event::Disconnect { connection });
        }
    }

    pub fn halt_log(&mut self, at: usize, error: &StoreError) {
        self.halt(at, &error.to_string());
    }

    /// The node stops by itself, and is started again.
    pub fn halt(&mut self, at: usize, why: &str) {
        assert!(self.nodes[at].excuse.is_given(), "node {} stops by itself: {why}", at + 1);
        self.trace.sometimes("a node stopped by itself");
        self.die(at);
    }

    pub fn die(&mut self, at: usize) {
        let crash = self.draw_later_crash();
        self.crash(at, crash);
        let time = Duration::from_millis(self.aftermath.between(10, 1_000));
        self.after(time, Event::Start(at));
    }
}

/// A fault that struck, by name; `None` where it makes no difference to such a call.
fn struck(op: Op, effect: Effect) -> Option<&'static str> {
    Some(match (op, effect) {
        (Op::SyncData, Effect::SyncDropped | Effect::SyncDroppedSome(_) | Effect::Eio | Effect::Enospc) => {
            "a sync failed and dropped its pages"
        }
        (Op::SyncData, Effect::SyncKept) => "a sync failed and everything was on the disk",
        (Op::SyncData, Effect::SyncLied(_)) => "a sync lied",
        (Op::SyncData, Effect::SyncStrayed(_)) => "a write went astray",
        (Op::SyncDir, Effect::Short | Effect::SyncLied(_) | Effect::SyncStrayed(_) | Effect::Misread(_)) => {
            return None;
        }
        (Op::SyncDir, _) => "a directory sync failed",
        (Op::WriteAt, Effect::Eio | Effect::Enospc) => "a write failed",
        (Op::WriteAt, Effect::Short) => "a write was short",
        (Op::ReadAt, Effect::Eio) => "a read failed",
        (Op::Map, Effect::Misread(_)) => "a map was misread",
        (_, Effect::Eio | Effect::Enospc) => "another disk call failed",
        (_, _) => return None,
    })
}

fn after(disk: &ModelFs, crash: Crash) -> ModelFs {
    match crash {
        Crash::Kill => disk.kill(),
        Crash::Evict => disk.kill_and_evict(),
        Crash::Power(cut) => disk.cut(cut),
    }
}
