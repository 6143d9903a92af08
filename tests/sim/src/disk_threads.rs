//! What a node's other threads do: the log writer's, and the jobs'. What they call done is held against the disk.

use std::time::Duration;

use raftmap::node::jobs;
use raftmap::node::replica::{Durable, Input, Job};
use raftmap::storage::Recovered;
use raftmap::storage::model::Cut;
use raftmap::storage::types::frame_len;
use raftmap::wire::client::{Answer, Response};

use crate::atlas::Harm;
use crate::damage::is_segment;
use crate::node::CLUSTER;
use crate::shadow::Log;
use crate::world::{Inner, World};

/// Every so many batches, or more, what is durable is compared with the disk. Recovery does so after each crash too, but
/// what a log calls durable too early is there by then.
const LOOK_EVERY: u64 = 128;
/// The same where the seed wants it often.
const LOOK_OFTEN: u64 = 32;
/// Bytes of a disk that may be read for this, for each batch.
const BYTES_A_BATCH: u64 = 512;

impl World {
    // ---- The log's threads ----

    pub fn writer_turn(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let clock = node.clock(self.now);
        let Some(life) = &mut node.life else { return };
        let done = match life.writer.turn(clock) {
            Ok(done) => done,
            Err(error) => return self.halt_log(at, &error),
        };
        self.tell(at, done.tell);
        if done.chore {
            let time = self.disk_time(at);
            self.inside(at, time, Inner::Chore);
            if self.nodes[at].doomed {
                return self.die(at);
            }
        }
        if done.syncs {
            let time = self.disk_time(at);
            self.inside(at, time, Inner::Sync);
        }
        if let Some(until) = done.until {
            self.set_alarm(at, until.saturating_sub(clock));
        }
    }

    /// Has the thread woken after `wait` by the node's clock, unless it wakes before that anyway. A little late, as
    /// timers are: never because of rounding too early.
    fn set_alarm(&mut self, at: usize, wait: Duration) {
        let time = self.nodes[at].truly(wait) + Duration::from_micros(1);
        let due = self.now + time;
        let Some(life) = &mut self.nodes[at].life else { return };
        if life.writer.alarm.is_none_or(|earlier| due < earlier) {
            life.writer.alarm = Some(due);
            self.inside(at, time, Inner::Alarm);
        }
    }

    pub fn alarm(&mut self, at: usize) {
        let now = self.now;
        let Some(life) = &mut self.nodes[at].life else { return };
        // Another one may have come first.
        if life.writer.alarm.take_if(|due| *due <= now).is_some() {
            self.writer_turn(at);
        }
    }

    fn disk_time(&mut self, at: usize) -> Duration {
        let node = &self.nodes[at];
        node.sync * node.slowness * self.latencies.between(500, 1_500) as u32 / 1_000
    }

    pub fn synced(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let clock = node.clock(self.now);
        let Some(life) = &mut node.life else { return };
        match life.writer.sync(clock) {
            Ok(tell) => {
                self.tell(at, tell);
                self.writer_turn(at);
            }
            Err(error) => self.halt_log(at, &error),
        }
    }

    fn tell(&mut self, at: usize, tell: Option<Input>) {
        if let Some(input) = tell {
            self.count_durable(at, &input);
            self.push(at, input);
        }
    }

    fn count_durable(&mut self, at: usize, input: &Input) {
        match input {
            Input::Durable(Durable { through, sealed, .. }) => {
                if sealed.is_some() {
                    self.trace.sometimes("a segment was sealed");
                }
                if let Some(through) = through {
                    self.trace.note(self.now, at, "synced", through.0, 0);
                    let checked = self.nodes[at].shadow.synced(through.0);
                    self.must(checked);
                    if self.setup.watched && self.looks_after(at, through.0) {
                        self.look_at_disk(at);
                    }
                }
            }
            Input::NoSpace(true) => self.trace.sometimes("a log ran out of space"),
            Input::NoSpace(false) => self.trace.sometimes("a log found space again without a restart"),
            _ => {}
        }
    }

    /// Whether the disk is to be looked at after this batch: that reads all of it, so more seldom where it holds much.
    fn looks_after(&mut self, at: usize, batch: u64) -> bool {
        let node = &mut self.nodes[at];
        let Some(life) = &mut node.life else { return false };
        let least = if self.setup.looks_often { LOOK_OFTEN } else { LOOK_EVERY };
        let due = |every: u64| batch / every > life.looked / every;
        // How much the disk holds is asked only where that may matter.
        if !due(least) || !self.setup.looks_often && !due(least.max(node.disk.used() / BYTES_A_BATCH)) {
            return false;
        }
        life.looked = batch;
        true
    }

    /// What the log has just called durable is on the disk itself, and within its bound there.
    fn look_at_disk(&mut self, at: usize) {
        let node = &self.nodes[at];
        if matches!(node.harm, Harm::Latent) {
            return;
        }
        self.trace.sometimes("a disk was looked at while its node ran");
        let kept = node.look(&node.disk.cut(Cut::LoseAll)).and_then(|recovered| {
            node.shadow.keeps(&Log::of(&recovered)?)?;
            self.watch.bytes(node, frames_of(&recovered))
        });
        self.must(kept.map_err(|error| format!("{} after a sync: {error}", node.id())));
    }

    pub fn chore(&mut self, at: usize) {
        let before = self.segments(at);
        if let Some(life) = &mut self.nodes[at].life {
            life.writer.run_chore();
            if self.segments(at) < before {
                self.purged(at);
            }
            self.writer_turn(at);
        }
    }

    fn segments(&self, at: usize) -> usize {
        self.nodes[at].disk.files().iter().filter(|path| is_segment(path)).count()
    }

    /// Segments went: the log must still begin somewhere if the power goes now.
    fn purged(&mut self, at: usize) {
        self.trace.sometimes("segments were purged");
        let node = &self.nodes[at];
        if !self.setup.watched || matches!(node.harm, Harm::Latent) || node.excuse.is_given() {
            return;
        }
        let left = node.look(&node.disk.cut(Cut::LoseAll)).and_then(|recovered| Log::of(&recovered));
        let kept = left.and_then(|left| node.shadow.keeps(&left));
        self.must(kept.map_err(|error| format!("{} after a purge: {error}", node.id())));
    }

    // ---- The jobs' thread ----

    pub fn start_job(&mut self, at: usize, job: Job) {
        let Some(life) = &mut self.nodes[at].life else { return };
        let writes = matches!(job, Job::WriteSnapshot { .. });
        life.jobs.push_back(job);
        if life.jobs.len() == 1 {
            let time = self.disk_time(at) * 4;
            self.inside(at, time, Inner::Job);
            if writes && self.nodes[at].doomed {
                self.die(at);
            }
        }
    }

    pub fn job(&mut self, at: usize) {
        let Some(life) = &mut self.nodes[at].life else { return };
        let Some(job) = life.jobs.pop_front() else { return };
        if !life.jobs.is_empty() {
            let time = self.disk_time(at) * 4;
            self.inside(at, time, Inner::Job);
        }
        let node = &self.nodes[at];
        match job {
            Job::WriteSnapshot { image, membership } => {
                let result = jobs::write(&node.disk, node.dir(), CLUSTER, &image, membership);
                match &result {
                    Ok(_) if !self.setup.watched => {}
                    Ok(snapshot) => {
                        let checked = self.watch.snapshot(node.id(), *snapshot);
                        self.must(checked);
                        let checked = self.watch.digest(node.id(), image.applied().index, image.digest());
                        self.must(checked);
                    }
                    Err(error) => {
                        assert!(node.excuse.is_given(), "{}: {error}", node.id());
                        self.trace.sometimes("a snapshot could not be written");
                    }
                }
                self.push(at, jobs::written(result));
            }
            Job::Discard { map } => drop(map),
            Job::SendSnapshot { peer, term, snapshot, membership } => {
                self.send_snapshot(at, peer, term, snapshot, membership);
            }
            Job::Digest { client, id, image } => {
                let answer = Answer::Digest { applied: image.applied().index, digest: image.digest() };
                self.reply(at, client, Response { id, body: Ok(answer) });
            }
        }
    }
}

/// Bytes of the frames above the snapshot, and of one hard state.
fn frames_of(recovered: &Recovered) -> u64 {
    let entries = recovered.log.iter().map(|meta| frame_len(u64::from(meta.payload_len)));
    entries.sum::<u64>() + frame_len(16)
}
