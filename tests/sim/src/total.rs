//! Every copy of an acknowledged record is damaged. Then there is one right answer: every node halts, says which record
//! it is, and nobody serves anything any more.

use std::path::PathBuf;
use std::time::Duration;

use raftmap::storage::model::ModelFs;
use raftmap::storage::types::{Index, Position};

use crate::atlas::{Harm, Verdict, verdict};
use crate::damage::{files, is_segment};
use crate::life::Crash;
use crate::world::{Event, World};

/// Records that are tried: one of the last sync is the end of what was being written, for all that a log can know.
const TRIES: u64 = 8;
/// Within that time all nodes have the same log.
const REST: Duration = Duration::from_secs(3);
/// By then whatever was on its way has arrived.
const SILENT_FROM: Duration = Duration::from_secs(4);
/// How long the silence is listened to.
const SILENT_FOR: Duration = Duration::from_secs(2);

impl World {
    /// All nodes stop, and each copy of one acknowledged record is damaged, with others behind it. From here on nobody
    /// mends anything. The record's place; `None` where no record is in every log, with another sync behind it.
    pub fn damage_everywhere(&mut self) -> Option<Position> {
        if self.nodes.iter().any(|node| !matches!(node.harm, Harm::None) || node.locked_out) {
            return None;
        }
        for at in 0..self.nodes.len() {
            self.heal_disk(at);
            self.crash(at, Crash::Kill);
        }
        let (index, disks) = (0..TRIES).find_map(|_| self.damaged())?;
        self.calm = Some(self.now);
        let record = Position { index, term: self.watch.committed()[index.0 as usize - 1].0 };
        for (at, disk) in disks.into_iter().enumerate() {
            let node = &mut self.nodes[at];
            (node.harm, node.disk) = (Harm::Spoiled(node.disk.kill()), disk);
            self.at(self.now, Event::Start(at));
        }
        Some(record)
    }

    /// A record, and each node's disk with that one damaged.
    fn damaged(&mut self) -> Option<(Index, Vec<ModelFs>)> {
        let base = self.nodes.iter().map(|node| node.shadow.durable.base.index.0).max()?;
        let behind = self.nodes.iter().map(|node| node.shadow.durable.last().0).min()?;
        let end = behind.min(self.watch.committed().len() as u64);
        if end < base + 6 {
            return None;
        }
        let index = Index(self.nemesis.between(base + 1, end - 4));
        let (term, crc) = self.watch.committed()[index.0 as usize - 1];
        let mut disks = Vec::new();
        for node in &self.nodes {
            let disk = node.disk.kill();
            for (path, offset) in frames_of(&disk, index, crc) {
                assert!(disk.flip(&path, offset + 41, 3));
            }
            let words = match verdict(node, &disk) {
                Verdict::Refused(words) => words,
                Verdict::Less(found) => {
                    node.could_not_know(&found);
                    return None;
                }
                Verdict::Whole => panic!("entry {index} is damaged, and {} finds everything", node.id()),
            };
            let named = format!("entry {}", Position { index, term });
            assert!(words.contains(&named), "{named} is damaged, not named in: {words}");
            disks.push(disk);
        }
        Some((index, disks))
    }

    /// Everybody is to have the record first: all come to rest, once.
    pub fn rests_before_total_damage(&mut self) -> bool {
        let rests = self.setup.faults.total && !std::mem::replace(&mut self.rested, true);
        if rests {
            (0..self.nodes.len()).for_each(|at| self.mend(at));
            self.after(REST, Event::Calm);
        }
        rests
    }

    /// The end of a world that drew it. `false`: it cannot be done here.
    pub fn ends_in_total_damage(&mut self) -> bool {
        if !self.setup.faults.total || self.damage_everywhere().is_none() {
            return false;
        }
        self.after(SILENT_FROM, Event::Silent(None));
        true
    }

    /// Nobody runs; and after a while, nobody has answered.
    pub fn silent(&mut self, before: Option<u64>) {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].life.is_some()).collect();
        assert!(running.is_empty(), "nodes {running:?} run, and a record of theirs is damaged everywhere");
        match before {
            None => self.after(SILENT_FOR, Event::Silent(Some(self.done))),
            Some(done) => {
                assert_eq!(done, self.done, "somebody answers, and no node runs");
                self.trace.sometimes("every copy of a record was damaged and every node halted");
                (self.halted, self.over) = (true, true);
            }
        }
    }
}

/// Where the frames of this entry stand.
fn frames_of(disk: &ModelFs, index: Index, crc: u32) -> Vec<(PathBuf, usize)> {
    let mut found = Vec::new();
    for (path, bytes) in files(disk).into_iter().filter(|(path, _)| is_segment(path)) {
        for offset in (4_096..bytes.len().saturating_sub(40)).step_by(8) {
            let header = &bytes[offset..offset + 40];
            if header[0] == 4 && header[8..16] == index.0.to_le_bytes() && header[32..36] == crc.to_le_bytes()
            {
                found.push((path.clone(), offset));
            }
        }
    }
    found
}
