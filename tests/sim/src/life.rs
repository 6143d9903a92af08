//! How a node begins and ends: recovery, crashes in the midst of anything, faults that make it stop by itself.

use std::time::Duration;

use raftmap::node::jobs;
use raftmap::node::replica::Job;
use raftmap::storage::StoreError;
use raftmap::storage::model::{Cut, ModelFs};

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
        if self.nodes[at].life.is_some() {
            return;
        }
        if self.nodes[at].lives > 0
            && self.calm.is_none()
            && self.nemesis.permille(self.setup.faults.in_recovery)
        {
            return self.crash_in_recovery(at);
        }
        if let Err(error) = self.nodes[at].open(self.now) {
            assert!(self.nodes[at].excused, "node {} does not start: {error}", at + 1);
            self.trace.sometimes("a node could not start for its disk");
            let time = Duration::from_millis(self.nemesis.between(100, 500));
            return self.after(time, Event::Start(at));
        }
        let cut = Cut::Some(self.disks.number());
        let node = &self.nodes[at];
        self.trace.note(self.now, at, "starts", node.lives, 0);
        // What has been opened once stays, whatever happens before anything else is written.
        let recovered = self.must(node.look(&node.disk.cut(cut)));
        let last = node.life.as_ref().map(|life| life.replica.raft().status().last);
        assert_eq!(last, Some(recovered.last), "node {}: opened, and then found again", at + 1);
        let checked = self.nodes[at].shadow.reborn(&recovered);
        self.must(checked);
        self.tick(at);
        self.writer_turn(at);
    }

    /// Opens the directory and dies behind some call of that.
    fn crash_in_recovery(&mut self, at: usize) {
        self.trace.sometimes("a recovery was crashed");
        let node = &self.nodes[at];
        let disk = node.disk.clone();
        disk.keep_photos();
        // Only its traces matter.
        let _unused = node.open_on(&disk).map(|_| ());
        let crash = self.draw_crash();
        self.nodes[at].disk = self.leave(&disk, crash);
        let time = Duration::from_millis(self.nemesis.between(1, 100));
        self.after(time, Event::Start(at));
    }

    /// The disk as it was behind some call since photos were taken, after a crash.
    fn leave(&mut self, disk: &ModelFs, crash: Crash) -> ModelFs {
        let photos = disk.take_photos();
        let (_, photo) = &photos[self.disks.place(photos.len())];
        after(photo, crash)
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
        let disk = self.nodes[at].disk.clone();
        let mut midst: Vec<Midst> = Vec::new();
        midst.extend(life.writer.syncing.then_some(Midst::Sync));
        midst.extend(life.writer.chore.is_some().then_some(Midst::Chore));
        let job = life.jobs.pop_front();
        midst.extend(matches!(job, Some(Job::WriteSnapshot { .. })).then_some(Midst::Snapshot));
        if midst.is_empty() || self.disks.below(4) == 0 {
            self.nodes[at].disk = after(&disk, crash);
        } else {
            disk.keep_photos();
            match (self.disks.pick(&midst), job) {
                (Midst::Sync, _) => life.writer.die_syncing(),
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
            self.nodes[at].disk = self.leave(&disk, crash);
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
        assert!(self.nodes[at].excused, "node {} stops by itself: {why}", at + 1);
        self.trace.sometimes("a node stopped by itself");
        self.die(at);
    }

    pub fn die(&mut self, at: usize) {
        let crash = self.draw_crash();
        self.crash(at, crash);
        let time = Duration::from_millis(self.nemesis.between(10, 1_000));
        self.after(time, Event::Start(at));
    }
}

fn after(disk: &ModelFs, crash: Crash) -> ModelFs {
    match crash {
        Crash::Kill => disk.kill(),
        Crash::Evict => disk.kill_and_evict(),
        Crash::Power(cut) => disk.cut(cut),
    }
}
