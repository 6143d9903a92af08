//! When a node may fail: from the moment a fault is ordered for its disk until the disk is well again and what was under
//! way then has ended; and where bits have rotted, as long as that directory is in use. At any other time a node that
//! stops, refuses to start or cannot write a snapshot is a failure.

use std::time::Duration;

use crate::world::{Event, World};

/// How often somebody looks whether it is over, at least.
const LOOK: Duration = Duration::from_millis(300);
/// Disk operations that may be under way one behind the other, in usual syncs.
const UNDER_WAY: u32 = 16;

/// See the module's description.
#[derive(Clone, Copy, Debug, Default)]
pub struct Excuse {
    /// A fault is or was on order, not long ago.
    holds: bool,
    /// What is on its disk was harmed. Where it opens all the same, a read may still come upon it.
    pub harmed: bool,
    /// The disk was well at the last look, and the process ran and knew of all that had failed.
    well: bool,
    /// The slowest that its disk was meanwhile.
    slowness: u32,
}

impl Excuse {
    /// It may fail.
    pub fn is_given(&self) -> bool {
        self.holds || self.harmed
    }
}

impl World {
    /// A fault is ordered for this node's disk.
    pub fn excuse(&mut self, at: usize) {
        let begun = std::mem::replace(&mut self.nodes[at].excuse.holds, true);
        self.nodes[at].excuse.well = false;
        if !begun {
            self.nodes[at].excuse.slowness = 1;
            self.look_at_excuse(at);
        }
    }

    /// It ends at the second look at which all is well.
    pub fn end_excuse(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let life = node.life.as_ref();
        let knows_all = life.is_none_or(|life| life.paused.is_none() && !life.writer.will_fail());
        let well = node.disk.is_well() && knows_all;
        let before = std::mem::replace(&mut node.excuse.well, well);
        if well && before {
            node.excuse.holds = false;
            return self.trace.sometimes("a disk's faults were over and nobody is excused by them");
        }
        self.look_at_excuse(at);
    }

    fn look_at_excuse(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.excuse.slowness = node.excuse.slowness.max(node.slowness);
        let under_way = node.sync * node.excuse.slowness * UNDER_WAY;
        self.after(under_way.max(LOOK), Event::EndExcuse(at));
    }
}
